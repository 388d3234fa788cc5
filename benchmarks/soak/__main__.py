"""A long run of mixed connections: ``make soak MINUTES=60``.

A server and a load of ten thousand connections (HTTP, WebSocket, TLS, TCP, UDP),
each a process on the loop under test, beside which timers, tasks, threads and
children come and go. Every connection checks each byte; memory, descriptors and
latency are sampled, and at the end there is a verdict: exit status 1 if memory
grew, a descriptor or a byte is missing, or anything was reported.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from ..certificates import certificate
from ..child import Child, module_command
from .load import EXCHANGES
from .sampling import Probe, dropped_datagrams, look_at
from .server import FAULTS, LEAK_BYTES
from .verdict import MIB, Limits, Sample, judge

WARM_UP_LEAST = 5.0
SAMPLES_LEAST = 20
GROWTH = 0.01
COMMAND_SECONDS = 600.0


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    result = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description=__doc__
    )
    add = result.add_argument
    add("--minutes", type=float, default=5.0, help="after warm-up (default: 5)")
    add("--loop", default="hotloop", help="asyncio, uvloop or hotloop")
    add("--connections", type=int, default=10_000, help="default: 10000")
    add("--rate", type=float, default=500.0, help="exchanges a second (default: 500)")
    add("--warm-up", type=float, default=5.0, help="lives of connections (default: 5)")
    add("--every", type=float, default=None, help="seconds between samples")
    add(
        "--growth",
        type=float,
        default=GROWTH,
        help="allowed, of memory (default: 0.01)",
    )
    add("--resident", type=float, help="of resident memory (default: the same)")
    add("--patience", type=float, default=120.0, help="seconds for an answer")
    add("--json", type=Path, help="write the samples to this file, one a line")
    add("--plot", type=Path, help="draw the samples into this file")
    add("--fault", choices=FAULTS, default="none", help="make a defect, to find it")
    add("--leak", type=int, default=LEAK_BYTES, help="bytes for each request")
    return result


class Soak:
    """One run: both processes, the probe, and the samples."""

    def __init__(self, args: argparse.Namespace, server: Child, load: Child) -> None:
        self.args = args
        self.children = {"server": server, "load": load}
        self.began = time.monotonic()
        self.samples: list[Sample] = []
        self.marked: dict[str, Sample] = {}
        self.probe: Probe | None = None

    def ask(self, name: str, command: str) -> dict[str, Any]:
        return self.children[name].ask({"do": command}, COMMAND_SECONDS)

    def look(self) -> Sample:
        """Return all that can be seen from outside."""
        seen = {name: look_at(child.pid) for name, child in self.children.items()}
        return {"seconds": time.monotonic() - self.began, "seen": seen}

    def sample(self) -> None:
        """Take one sample under load."""
        found = self.look()
        found["inside"] = {name: self.ask(name, "sample") for name in self.children}
        assert self.probe is not None
        found["probe"] = self.probe.percentiles()
        self.samples.append(found)
        self.show(found)

    def show(self, found: Sample) -> None:
        """Print one line of a sample."""
        server, load = found["seen"]["server"], found["inside"]["load"]
        print(
            f"{found['seconds']:7.0f} s  {server['private'] / MIB:7.1f} MiB  "
            f"{server['descriptors']:6} descriptors  {load['open']:6} open  "
            f"{load['counts'].get('exchanges', 0):9} exchanges  "
            f"probe {found['probe']['p50']:6.2f} {found['probe']['p99']:7.2f} ms  "
            f"all {load['p50']:6.2f} {load['p99']:7.2f} ms",
            flush=True,
        )

    def mark(self, name: str) -> None:
        """Note how it looks with every connection open and idle."""
        inside = {child: self.ask(child, "quiet") for child in ("load", "server")}
        self.marked[name] = {**self.look(), "inside": inside}

    def spend(self, seconds: float) -> None:
        """Let the load run, and take samples meanwhile."""
        every = self.args.every or max(1.0, min(60.0, seconds / SAMPLES_LEAST))
        for name in self.children:
            self.ask(name, "go")
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(every, left))
            self.sample()

    def end(self) -> None:
        """Close every connection; wait until the server has seen it."""
        inside = {"load": self.ask("load", "stop")}
        deadline = time.monotonic() + self.args.patience
        while True:
            inside["server"] = self.ask("server", "quiet")
            found = self.look()
            wanted = self.marked["begun"]["seen"]["server"]["descriptors"]
            settled = found["seen"]["server"]["descriptors"] == wanted
            if settled or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        self.marked["ended"] = {**found, "inside": inside}

    def run(self, port: int) -> None:
        """The whole run."""
        seconds = self.args.minutes * 60
        # Until connections of every age are there: the buffers of old ones are large.
        life = EXCHANGES * self.args.connections / self.args.rate
        self.probe = Probe(port)
        try:
            self.mark("quiet start")
            self.spend(max(WARM_UP_LEAST, self.args.warm_up * life))
            self.samples.clear()
            self.mark("quiet first")
            self.spend(seconds)
            self.mark("quiet last")
        finally:
            self.probe.close()
        self.end()


def save(path: Path, soak: Soak) -> None:
    """Write all samples, one a line."""
    with path.open("w") as file:
        for name, sample in soak.marked.items():
            file.write(json.dumps({"mark": name, **sample}) + "\n")
        for sample in soak.samples:
            file.write(json.dumps(sample) + "\n")


def main() -> int:
    """Run, print the verdict, save and draw what was asked for."""
    args = parser().parse_args()
    files = certificate("ecdsa")
    command = module_command(
        "soak.server", args.loop, files.chain, files.key, args.fault, args.leak
    )
    with Child(command) as server:
        ports = server.read(COMMAND_SECONDS)
        command = module_command(
            *("soak.load", args.loop, files.chain),
            *(args.connections, args.rate, args.patience, json.dumps(ports)),
        )
        with Child(command) as load:
            load.read(COMMAND_SECONDS)
            soak = Soak(args, server, load)
            soak.marked["begun"] = soak.look()
            soak.run(ports["protocol"])
            dropped = dropped_datagrams(ports["datagram"])
    resident = args.growth if args.resident is None else args.resident
    limits = Limits(args.growth, resident)
    verdict = judge(soak.marked, soak.samples, dropped, limits)
    if args.json:
        save(args.json, soak)
    if args.plot:
        from .plot import draw

        draw(soak.samples, args.plot, args.loop)
    print(*verdict.lines, sep="\n")
    print(f"soak: {'FAILED' if verdict.failures else 'passed'}")
    if soak.probe is not None and soak.probe.error:
        print(f"soak: FAILED, the probe: {soak.probe.error}")
        return 1
    return 1 if verdict.failures else 0


if __name__ == "__main__":
    sys.exit(main())

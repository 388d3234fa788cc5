"""The demo: one unchanged aiohttp server under asyncio, uvloop and hotloop.

Starts examples/aiohttp_hello.py once under each loop, loads each in turn with
wrk, several rounds, and prints one table. The servers share one core and wrk has
another, where there are two. Whatever was started is ended when this ends.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import platform
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.table import Table

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
LOOPS = ("asyncio", "uvloop", "hotloop")
START_SECONDS = 20.0
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


@dataclass(frozen=True)
class Load:
    """What one run of wrk measured."""

    requests_per_second: float
    p99_milliseconds: float


def separate_cores() -> tuple[set[int], set[int]] | None:
    """A core for the servers and another for wrk; None where there is only one.

    Two hardware threads of one core are no two cores: they are taken only where
    the machine has nothing better.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        return None
    first = allowed[0]
    others = [cpu for cpu in allowed if core_of(cpu) != core_of(first)]
    return {first}, {(others or allowed[1:])[0]}


def core_of(cpu: int) -> tuple[str, ...]:
    topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
    try:
        names = ("physical_package_id", "core_id")
        return tuple((topology / name).read_text().strip() for name in names)
    except OSError:
        return (str(cpu),)


@contextlib.contextmanager
def pinned(cores: set[int] | None) -> Iterator[None]:
    """Children started in the block inherit these cores."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def running(command: list[str], cores: set[int] | None) -> Iterator[IO[str]]:
    """The output of a child process that is ended with the block.

    The child gets a session of its own, so that Ctrl-C reaches only this program,
    which then ends its children in order.
    """
    with pinned(cores):
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@contextlib.contextmanager
def serving(loop: str, cores: set[int] | None) -> Iterator[str]:
    """The address of the example server, run on this loop."""
    program = [str(EXAMPLES / "run_with.py"), loop, str(EXAMPLES / "aiohttp_hello.py")]
    with running([sys.executable, *program], cores) as output:
        ready, _, _ = select.select([output], [], [], START_SECONDS)
        url = output.readline().strip() if ready else ""
        if not url.startswith("http://"):
            raise SystemExit(f"demo: the server did not start under {loop}")
        yield url


def run_wrk(url: str, options: argparse.Namespace, seconds: int) -> Load:
    connections = f"-c{options.connections}"
    command = ["wrk", "-t1", connections, f"-d{seconds}s", "--latency", url]
    with running(command, options.client_cores) as output:
        return parse_wrk(output.read())


def parse_wrk(report: str) -> Load:
    rate = re.search(r"Requests/sec:\s+([\d.]+)", report)
    p99 = re.search(r"\n\s+99%\s+([\d.]+)(us|ms|s|m)\n", report)
    broken = re.search(r"Socket errors:.*|Non-2xx.*", report)
    if rate is None or p99 is None or broken is not None:
        raise SystemExit(f"demo: wrk could not load the server:\n{report}")
    return Load(float(rate[1]), float(p99[1]) * UNITS[p99[2]])


def measure(
    urls: dict[str, str], options: argparse.Namespace, console: Console
) -> dict[str, Load]:
    """The best round of each loop; the rounds of the loops take turns."""
    best: dict[str, Load] = {}
    with console.status("warming up") as status:
        for url in urls.values():
            run_wrk(url, options, 1)
        for number in range(1, options.rounds + 1):
            for loop, url in urls.items():
                status.update(f"round {number} of {options.rounds}: {loop}")
                load = run_wrk(url, options, options.seconds)
                known = best.get(loop, load)
                best[loop] = max(known, load, key=lambda one: one.requests_per_second)
    return best


def ratio(load: Load, other: Load | None) -> str:
    if other is None:
        return "-"
    return f"{load.requests_per_second / other.requests_per_second:.2f}"


def table_of(results: dict[str, Load]) -> Table:
    table = Table(title="aiohttp, one small answer per request")
    table.add_column("loop")
    for heading in ("requests/s", "to asyncio", "to uvloop", "p99 ms"):
        table.add_column(heading, justify="right")
    for loop, load in results.items():
        table.add_row(
            loop,
            f"{load.requests_per_second:,.0f}",
            ratio(load, results.get("asyncio")),
            ratio(load, results.get("uvloop")),
            f"{load.p99_milliseconds:.2f}",
            style="bold" if loop == "hotloop" else None,
        )
    return table


def conditions(options: argparse.Namespace) -> str:
    packages = ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("aiohttp", *(loop for loop in options.loops if loop != "asyncio"))
    )
    if options.server_cores is None:
        where = "server and client share the cores"
    else:
        (server,), (client,) = options.server_cores, options.client_cores
        where = f"server on CPU {server}, wrk on CPU {client}"
    return (
        f"CPython {platform.python_version()}, {packages}; {where}; "
        f"{options.connections} connections; best of {options.rounds} rounds "
        f"of {options.seconds} s"
    )


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loops", default=",".join(LOOPS), help="with commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of one round")
    parser.add_argument("--connections", type=int, default=50)
    options = parser.parse_args()
    options.loops = options.loops.split(",")
    options.server_cores, options.client_cores = separate_cores() or (None, None)
    return options


def main() -> None:
    options = parse_options()
    if shutil.which("wrk") is None:
        raise SystemExit("demo: wrk, the load generator, is not installed")
    # Ending by a signal must run the blocks that end the children.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    console = Console()
    console.print(conditions(options), highlight=False)
    with contextlib.ExitStack() as stack:
        urls = {
            loop: stack.enter_context(serving(loop, options.server_cores))
            for loop in options.loops
        }
        results = measure(urls, options, console)
    console.print(table_of(results))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("demo: interrupted; the servers are ended")

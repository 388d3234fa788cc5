"""``python -m hotloop record``: a loop's metrics at intervals, kept in a file.

Each line of the file is a JSON object: first what the loop is, then a snapshot of the
metrics each, with the time of the wall clock. Counters are totals, so that a reader may
leave lines out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from .._metrics import Metrics
from .targets import HOW, Client, ControlError, NoTarget, connect, end, seconds

FORMAT = 1


class Recording(NamedTuple):
    """What a file of record tells: the snapshots, and what the wall clock said."""

    about: dict[str, Any]
    times: list[float]
    snapshots: list[Metrics]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m hotloop record",
        description="Write the metrics of a running loop to a file until it ends.",
        epilog=HOW,
    )
    made.add_argument("target", help="a process, PID or PID-NUMBER, or a socket's path")
    made.add_argument("--out", type=Path, required=True, metavar="FILE")
    made.add_argument("--interval", type=seconds, default=1.0, help="seconds (1)")
    made.add_argument("--seconds", type=seconds, help="how long; else until the end")
    return made


def _snapshots(client: Client, interval: float, limit: float) -> Iterator[Any]:
    """Snapshots at a steady pace, and one more at the limit."""
    started = due = time.monotonic()
    while True:
        yield client.ask("metrics")
        due += interval
        if due - started > limit:
            return
        time.sleep(max(0.0, due - time.monotonic()))


def record(client: Client, out: IO[str], interval: float, limit: float) -> int:
    """Write a recording until the limit, or until the loop ends; return its length."""
    about = client.ask("about")
    head = {"hotloop_recording": FORMAT, "about": about, "interval": interval}
    out.write(json.dumps(head) + "\n")
    count = 0
    ends = (ConnectionResetError, TimeoutError, ControlError, KeyboardInterrupt)
    with contextlib.suppress(*ends):
        for snapshot in _snapshots(client, interval, limit):
            line = {"time": time.time(), "metrics": snapshot}
            out.write(json.dumps(line, separators=(",", ":")) + "\n")
            out.flush()  # what is there is of use, whatever happens to us
            count += 1
    return count


def read(path: Path) -> Recording:
    """Read a recording; a last line that was cut off is left out.

    Raise ValueError for a file of something else.
    """
    with path.open(encoding="utf-8") as file:
        lines = file.read().split("\n")
    try:
        head = json.loads(lines[0])
        about = head["about"]
        if head["hotloop_recording"] != FORMAT:
            raise ValueError
        rows = [json.loads(line) for line in lines[1:-1]]
        snapshots = [Metrics.from_dict(row["metrics"]) for row in rows]
        return Recording(about, [row["time"] for row in rows], snapshots)
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{path} is no recording of python -m hotloop record"
        ) from None


def main(words: list[str]) -> None:
    """Run the command."""
    options = parser().parse_args(words)
    limit = float("inf") if options.seconds is None else options.seconds
    try:
        with connect(options.target) as client, options.out.open("w") as out:
            count = record(client, out, options.interval, limit)
    except (NoTarget, OSError) as error:
        end("record", error)
    print(f"{count} snapshots in {options.out}", file=sys.stderr)

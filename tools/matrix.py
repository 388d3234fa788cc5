"""The version matrix: every check on every CPython that hotloop supports.

Runs the unit tests (`make test`) on as many versions at a time as there are
processors, then CPython's own tests (`make conformance`, which fill the machine by
themselves) on one after the other, and prints one table. The unit tests are run on
asyncio too, which they must pass as well, on some of the versions. A version comes from
this machine, and where it is not here from the Debian root folder that
tools/debian_root.sh makes. One that is not to be had is named with the reason; it
fails nothing, unless there is none at all.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("3.11", "3.12", "3.13", "3.14", "3.15")
# What a released Debian does not have, its unstable does; and of 3.13 a later
# release than this machine, whose own all other checks are run on.
IN_DEBIAN_ROOT = ("3.13", "3.14", "3.15")
FROM_DEBIAN_FIRST = ("3.13",)
# Where asyncio is tested as well: its turns of behaviour lie between these.
WITH_ASYNCIO = ("3.11", "3.13", "3.15")
CHECKS = ("test", "conformance")
# The others fill all processors by themselves.
AT_A_TIME = ("test",)
TITLES = {"test": "unit tests", "conformance": "conformance"}
ARGUMENTS = {"test": "-q -p no:cacheprovider", "conformance": ""}
# What `make` says of the runner's "there are no tests to be had".
NO_TESTS = re.compile(r"^make: \*\*\* .*conformance\] Error 3$")
COUNT = re.compile(r"(\d+) (passed|failed|skipped|errors?)\b")
LIMIT_SECONDS = 1500.0


class Absent(Exception):
    """An interpreter is not to be had; the argument says why."""


@dataclass
class Outcome:
    """What one check on one interpreter came to."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    absent: bool = False

    def __str__(self) -> str:
        if self.absent:
            return "[yellow]absent[/yellow]"
        failed = f"[red]{self.failed} failed[/red]" if self.failed else "0 failed"
        return f"{self.passed} passed, {failed}, {self.skipped} skipped"


@dataclass
class Row:
    """One version: its interpreter, how to get at it, what the checks said."""

    version: str
    python: str = ""
    prefix: list[str] = field(default_factory=list)
    reason: str = ""
    outcomes: dict[str, Outcome] = field(default_factory=dict)


def environment(python: str, version: str) -> dict[str, str]:
    """The environment of a `make` of ours, whatever make started this."""
    env = dict(os.environ, PYTHON=python)
    if version not in WITH_ASYNCIO:
        env.setdefault("HOTLOOP_TEST_LOOPS", "hotloop")
    for name in ("ARGS", "MAKEFLAGS", "MFLAGS", "MAKELEVEL"):
        env.pop(name, None)
    return env


def find(command: list[str]) -> str:
    """The interpreter's path that find_python.sh prints.

    Raises Absent with the last thing the command said.
    """
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise Absent((done.stderr.strip().splitlines() or [""])[-1])
    return done.stdout.strip()


def locate(version: str) -> Row:
    """The row of a version, its interpreter found or the reason noted."""
    finder = ["tools/find_python.sh", version]
    places = [[], ["tools/debian_root.sh"]]
    if version not in IN_DEBIAN_ROOT:
        places.pop()
    elif version in FROM_DEBIAN_FIRST:
        places.reverse()
    reason = ""
    for prefix in places:
        try:
            return Row(version, find([*prefix, *finder]), prefix)
        except Absent as absent:
            if prefix:
                reason = str(absent).removeprefix("hotloop: ")
                reason = reason or "Debian unstable does not have it"
    return Row(version, reason=reason or "not installed on this machine")


def closing_counts(lines: list[str]) -> dict[str, int]:
    """The numbers of the last line that has some: "12 passed, 1 skipped"."""
    for line in reversed(lines):
        counts = {word: int(number) for number, word in COUNT.findall(line)}
        if "passed" in counts or "failed" in counts or "skipped" in counts:
            return counts
    return {}


def terminate(group: int) -> None:
    """End what a check left running, with all it started."""
    for number, pause in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 0.0)):
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            return
        time.sleep(pause)


class Commands:
    """The commands that run, so that none outlives this program."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.groups: set[int] = set()

    def run(
        self, command: list[str], env: dict[str, str], label: str
    ) -> tuple[int, list[str]]:
        """Run a command, its output shown as it comes; returns (status, lines)."""
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        with self.lock:
            self.groups.add(process.pid)
        limit = threading.Timer(LIMIT_SECONDS, self.give_up, [process.pid, label])
        limit.start()
        lines = []
        try:
            assert process.stdout is not None
            for line in process.stdout:
                print(f"{label}| {line}", end="", flush=True)
                lines.append(line)
            return process.wait(), lines
        finally:
            limit.cancel()
            with self.lock:
                self.groups.discard(process.pid)

    def give_up(self, group: int, label: str) -> None:
        print(f"{label}| stopped after {LIMIT_SECONDS:.0f} seconds", flush=True)
        terminate(group)

    def end_all(self) -> None:
        """End what runs."""
        with self.lock:
            groups = list(self.groups)
        for group in groups:
            terminate(group)


def run_check(commands: Commands, row: Row, check: str) -> None:
    """One check on one interpreter; a check that breaks down counts as failed."""
    print(f"==== {TITLES[check]}, CPython {row.version} ====", flush=True)
    # In the root folder the version names the interpreter, here its path does.
    python = row.version if row.prefix else row.python
    command = [*row.prefix, "make", check]
    if ARGUMENTS[check]:
        command.append(f"ARGS={ARGUMENTS[check]}")
    started = time.monotonic()
    status, lines = commands.run(command, environment(python, row.version), row.version)
    counts = closing_counts(lines)
    errors = counts.get("error", 0) + counts.get("errors", 0)
    outcome = Outcome(
        counts.get("passed", 0),
        counts.get("failed", 0) + errors,
        counts.get("skipped", 0),
        time.monotonic() - started,
    )
    outcome.absent = any(NO_TESTS.match(line) for line in lines)
    if status != 0 and outcome.failed == 0 and not outcome.absent:
        print(f"{shlex.join(command)}: exit status {status}", flush=True)
        outcome.failed = 1
    row.outcomes[check] = outcome


def run_checks(commands: Commands, rows: list[Row], check: str, jobs: int) -> None:
    """One check on all interpreters, so many at a time."""
    with ThreadPoolExecutor(jobs) as pool:
        done = [pool.submit(run_check, commands, row, check) for row in rows]
        try:
            for each in done:
                each.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            commands.end_all()
            raise


def table_of(rows: list[Row], checks: list[str]) -> Table:
    table = Table(title="hotloop on every supported CPython")
    table.add_column("CPython")
    table.add_column("from")
    for check in checks:
        table.add_column(TITLES[check])
        table.add_column("s", justify="right")
    for row in rows:
        if row.reason:
            table.add_row(row.version, f"[yellow]absent[/yellow]: {row.reason}")
            continue
        cells = [row.version, "Debian unstable" if row.prefix else "this machine"]
        for check in checks:
            outcome = row.outcomes[check]
            cells += [str(outcome), f"{outcome.seconds:.0f}"]
        table.add_row(*cells)
    return table


def summary(rows: list[Row], seconds: float) -> tuple[str, bool]:
    """The closing line, and whether all is well."""
    outcomes = [outcome for row in rows for outcome in row.outcomes.values()]
    failed = sum(outcome.failed for outcome in outcomes)
    present = [row for row in rows if not row.reason]
    line = (
        f"matrix: {sum(outcome.passed for outcome in outcomes)} passed, "
        f"{failed} failed, {sum(outcome.skipped for outcome in outcomes)} skipped "
        f"in {seconds:.1f}s on {len(present)} of {len(rows)} interpreters"
    )
    absent = [row.version for row in rows if row.reason]
    absent += [
        f"{TITLES[check]} of {row.version}"
        for row in rows
        for check, outcome in row.outcomes.items()
        if outcome.absent
    ]
    if absent:
        line += f"; not to be had: {', '.join(absent)}"
    return line, failed == 0 and bool(present)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make matrix", description="Every check on every supported CPython."
    )
    parser.add_argument(
        "--python",
        nargs="+",
        choices=VERSIONS,
        default=VERSIONS,
        metavar="VERSION",
        help="only these versions (3.11 ... 3.15)",
    )
    parser.add_argument(
        "--check",
        nargs="+",
        choices=CHECKS,
        default=CHECKS,
        help="only these checks",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="unit tests of so many versions at a time (default: the processors)",
    )
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    rows = []
    for version in options.python:
        row = locate(version)
        rows.append(row)
        print(f"CPython {version}: {row.reason or row.python}", flush=True)
    commands, present = Commands(), [row for row in rows if not row.reason]
    for check in options.check:
        jobs = max(1, options.jobs) if check in AT_A_TIME else 1
        run_checks(commands, present, check, jobs)
    print()
    # A log has no width of its own.
    Console(width=None if sys.stdout.isatty() else 120).print(
        table_of(rows, list(options.check))
    )
    line, good = summary(rows, time.monotonic() - started)
    print(line)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

"""The runner: each suite in a process of its own, then one line for all.

    python -m tools.conformance [--jobs N] [--timeout SECONDS] [-k PATTERN] [SUITE...]

Exit status: 0 all is well, 1 a test failed, 2 bad usage, 3 no tests to be had.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from . import listed

PACKAGE = "test.test_asyncio"
VERSION = "{}.{}".format(*sys.version_info[:2])

# They are about asyncio's loops on Windows.
ELSEWHERE = {"test_proactor_events", "test_windows_events", "test_windows_utils"}

# What an event of a test leads to; of several the first of these counts.
OUTCOMES = {
    "failed": {"failed", "crashed", "unexpected"},
    "skipped": {"skipped", "expected", "listed", "outside"},
    "passed": {"passed"},
}
EXPLAINED = {"unexpected": "is listed, but passes"}


@dataclass
class Run:
    """What one process reported, and how it ended."""

    events: dict[str, dict[str, str]] = field(default_factory=dict)
    stale: list[str] = field(default_factory=list)
    ended: bool = False
    current: str = ""

    def read(self, report: Path) -> None:
        for line in report.read_text(encoding="utf-8").splitlines():
            event, test, text = json.loads(line)
            if event == "end":
                self.ended = True
            elif event == "stale":
                self.stale.append(test)
            elif event == "start":
                self.current = test
            else:
                self.events.setdefault(test, {})[event] = text

    def outcome(self, test: str) -> str:
        seen = self.events[test].keys()
        return next(key for key, events in OUTCOMES.items() if events & seen)

    def failures(self) -> dict[str, str]:
        """The tests that failed, and what they said."""
        return {
            test: next(
                text or EXPLAINED.get(event, event)
                for event, text in events.items()
                if event in OUTCOMES["failed"]
            )
            for test, events in self.events.items()
            if self.outcome(test) == "failed"
        }


@dataclass
class Suite:
    """One module of tests and what became of it."""

    name: str
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    equal: set[str] = field(default_factory=set)  # fail on asyncio's loop as well

    @property
    def line(self) -> str:
        notes = [
            f"{self.counts[key]} {key}"
            for key in ("listed", "outside")
            if self.counts[key]
        ]
        if self.equal:
            notes.append(f"{len(self.equal)} fail on asyncio's loop, too")
        text = f"{self.name:26}{self.seconds:6.1f} s  {closing(self.counts)}"
        return text + (f" ({', '.join(notes)})" if notes else "")

    def fail(self, text: str) -> None:
        self.counts["failed"] += 1
        self.problems.append(text)


def closing(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[key]} {key}" for key in ("passed", "failed", "skipped"))


def suites_present() -> list[str]:
    """The modules of tests that this interpreter has."""
    spec = importlib.util.find_spec("test")
    if spec is None or not spec.submodule_search_locations:
        return []
    found = {
        path.stem
        for folder in spec.submodule_search_locations
        for path in Path(folder, "test_asyncio").glob("test_*.py")
    }
    return sorted(found - ELSEWHERE)


def run_child(name: str, arguments: list[str], timeout: float) -> Run:
    """Run one suite in a process; one that hangs shows where, and is ended."""
    run = Run()
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    env.pop("PYTHONASYNCIODEBUG", None)
    with tempfile.TemporaryDirectory() as folder:
        report, log = Path(folder, "report"), Path(folder, "log")
        report.touch()
        # -bb as for CPython's own runs: mixing str and bytes is an error.
        command = [sys.executable, "-bb", "-X", "faulthandler", "-m"]
        command += [f"{__package__}.child", name, str(report), *arguments]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=listed.ROOT,
                env=env,
                start_new_session=True,
            )
            status = wait(process, timeout)
        run.read(report)
        if not run.ended:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            where = run.current or f"{name} before its first test"
            text = "\n".join([status, *lines[-60:]])
            run.events.setdefault(where, {})["crashed"] = text
    return run


def wait(process: subprocess.Popen[bytes], timeout: float) -> str:
    """Wait for the end of a process and of its children; how it ended."""
    try:
        process.wait(timeout)
        status = f"ended with status {process.returncode}"
    except subprocess.TimeoutExpired:
        # faulthandler shows the stacks at this signal.
        process.send_signal(signal.SIGABRT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        status = f"still ran after {timeout:g} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return status


def run_suite(name: str, options: argparse.Namespace) -> Suite:
    """Run one suite and sum up; what fails is tried on asyncio's loop, too."""
    suite = Suite(name)
    started = time.monotonic()
    arguments = ["--list", str(options.list)]
    if options.reference:
        arguments = ["--reference"]
    arguments += [f"-k{pattern}" for pattern in options.patterns]
    run = run_child(name, arguments, options.timeout)
    failed = run.failures()
    # Only tests: a module or a fixture that fails says nothing about loops.
    retried = [test for test in failed if test.startswith(f"{name}.")]
    if retried and not options.reference:
        arguments = ["--reference", *(f"-k{test}" for test in retried)]
        again = run_child(name, arguments, options.timeout)
        suite.equal = set(retried) & again.failures().keys()
    suite.seconds = time.monotonic() - started
    for test, events in run.events.items():
        outcome = "skipped" if test in suite.equal else run.outcome(test)
        suite.counts[outcome] += 1
        suite.counts["listed"] += not events.keys().isdisjoint(("expected", "listed"))
        suite.counts["outside"] += "outside" in events
        if outcome == "failed":
            suite.problems.append(f"{test}: {failed[test]}")
    if not options.patterns:
        check_list(suite, run)
    return suite


def check_list(suite: Suite, run: Run) -> None:
    """The list must not outlive its reasons, nor grow without bound."""
    for pattern in run.stale:
        suite.fail(f"{pattern}: is listed, but there is no such test")
    if suite.counts["listed"] > listed.LIMIT * len(run.events):
        suite.fail(f"{suite.name}: more than {listed.LIMIT:.0%} are listed")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.conformance",
        description="CPython's own tests of asyncio, run against hotloop.",
    )
    parser.add_argument("suites", nargs="*", help="e.g. test_tasks; all by default")
    parser.add_argument(
        "-k",
        dest="patterns",
        action="append",
        default=[],
        metavar="PATTERN",
        help="only tests of this name, as test_tasks.*sleep*",
    )
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument(
        "--timeout", type=float, default=300, help="seconds for a suite (300)"
    )
    parser.add_argument(
        "--list",
        type=Path,
        default=listed.FILE,
        help="the tests that need not pass (listed.toml)",
    )
    parser.add_argument(
        "--reference", action="store_true", help="asyncio's loop instead of hotloop's"
    )
    return parser.parse_intermixed_args()


def main() -> int:
    options = parse_arguments()
    present = suites_present()
    if not present:
        print(
            f"conformance: {sys.executable} has no {PACKAGE}, CPython's own tests.\n"
            f"Debian, Ubuntu: apt-get install libpython{VERSION}-testsuite",
            file=sys.stderr,
        )
        return 3
    unknown = set(options.suites) - set(present)
    if unknown:
        print(f"conformance: no suite {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    options.list = options.list.resolve()
    listed.read(options.list)
    totals: Counter[str] = Counter()
    problems: list[str] = []
    equal: set[str] = set()
    with ThreadPoolExecutor(options.jobs) as pool:
        jobs = [
            pool.submit(run_suite, name, options) for name in options.suites or present
        ]
        for job in jobs:
            suite = job.result()
            print(suite.line, flush=True)
            totals += suite.counts
            problems += suite.problems
            equal |= suite.equal
    for test in sorted(equal):
        print(f"{test} fails on asyncio's loop as well")
    for problem in problems:
        print(f"\n---- {problem}")
    print(f"conformance-{VERSION}: {closing(totals)}")
    return 1 if totals["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())

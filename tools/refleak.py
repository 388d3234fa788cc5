"""Run test files again and again in one process and look for leaked references.

    python tools/refleak.py [--runs N] [--warmups N] [--jobs N] [PATH...]

Needs an interpreter built with Py_DEBUG (Debian: python3.11-dbg), the only kind
that counts all references. Each test file gets a process of its own, runs a few
times to fill the caches, and then some measured times. After each pass three
totals are read: references, memory blocks, and open descriptors. A leak makes a
total grow on and on, noise does not: a file that looks guilty is run more often
before it is condemned. Then its tests are run one by one, to name those that leak.

Tests marked "slow" are left out. Exit status 1 where something leaks or fails.
"""

from __future__ import annotations

import argparse
import asyncio
import collections.abc
import gc
import json
import os
import re
import subprocess
import sys
import time
from array import array
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

import hotloop

ROOT = Path(__file__).resolve().parent.parent
TOTALS = ("references", "blocks", "descriptors")
RESULT = "refleak-result: "
CONFIRMING_RUNS = 6
FILE_SECONDS = 1800


@dataclass
class Result:
    """What became of one test file."""

    path: str
    tests: int = 0
    failed: list[str] = field(default_factory=list)
    growth: dict[str, list[int]] = field(default_factory=dict)
    leaks: list[str] = field(default_factory=list)
    culprits: list[str] = field(default_factory=list)
    seconds: float = 0.0
    error: str = ""

    @property
    def verdict(self) -> str:
        if self.error:
            return "ERROR"
        if self.failed:
            return "FAILED"
        if self.leaks:
            return "LEAKS " + ", ".join(self.leaks)
        return "ok" if self.tests else "no tests"

    @property
    def good(self) -> bool:
        return not (self.error or self.failed or self.leaks)


class Repeater:
    """A pytest plugin that runs what was collected over and over."""

    def __init__(self, result: Result, warmups: int, runs: int) -> None:
        self.result = result
        self.warmups = warmups
        self.runs = runs

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = session.items
        self.result.tests = len(items)
        if session.testsfailed:
            self.result.error = "the file cannot be collected"
        if not items or self.result.error:
            return True
        growth = self.measure(items, self.warmups, self.runs)
        if not self.result.failed and any(map(is_suspicious, growth.values())):
            growth = self.confirm(items)
            self.result.leaks = leaks_of(growth)
        self.result.growth = growth
        if self.result.leaks:
            self.result.culprits = [
                f"{item.nodeid}: {describe(found)}"
                for item in items
                if leaks_of(found := self.measure([item], 2, CONFIRMING_RUNS))
            ]
        return True

    def confirm(self, items: Sequence[pytest.Item]) -> dict[str, list[int]]:
        """Grow twice, or once if that shows that nothing grows: a pass takes long."""
        half = CONFIRMING_RUNS // 2
        first = self.measure(items, 0, half)
        if not any(map(is_suspicious, first.values())):
            return first
        second = self.measure(items, 0, half)
        return {name: first[name] + deltas for name, deltas in second.items()}

    def measure(
        self, items: Sequence[pytest.Item], warmups: int, runs: int
    ) -> dict[str, list[int]]:
        """How much each total grew in each of the runs."""
        for _ in range(warmups):
            self.run_pass(items)
            if self.result.failed:
                return {}
        # Laid out beforehand: a list that grows would count as a leak itself.
        width = len(TOTALS)
        seen = array("q", bytes(8 * width * (runs + 1)))
        for number in range(runs + 1):
            if number > 0:
                self.run_pass(items)
            read_totals(seen, number * width)
        return {
            name: [
                seen[place + width] - seen[place]
                for place in range(column, width * runs, width)
            ]
            for column, name in enumerate(TOTALS)
        }

    def run_pass(self, items: Sequence[pytest.Item]) -> None:
        for item, following in zip(items, [*items[1:], None], strict=True):
            # What a rerun appends to: output that the test before it captured.
            item._report_sections.clear()
            item.user_properties.clear()
            item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
        reporter = items[0].config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and not self.result.failed:
            reporter.stats.clear()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and report.nodeid not in self.result.failed:
            self.result.failed.append(report.nodeid)


class Immediate(collections.abc.Coroutine[None, None, None]):
    """A coroutine that is done at once, and no native one."""

    def send(self, value: None) -> None:
        raise StopIteration

    def throw(self, *args: Any) -> None:
        raise StopIteration

    def __await__(self) -> Any:
        return iter(())


def fill_coroutine_caches() -> None:
    """Leave no room where the loops remember types of coroutines.

    asyncio, in Python and again in C, and hotloop keep the first hundred alive:
    a class made by a test would look like a leak of the test.
    """

    async def main() -> None:
        for number in range(100):
            one = type(f"Immediate{number}", (Immediate,), {})()
            asyncio.iscoroutine(one)
            await asyncio.create_task(one)

    for factory in (asyncio.new_event_loop, hotloop.new_event_loop):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())


def clear_caches() -> None:
    """Empty the standard library's caches that would keep a test's classes."""
    re.purge()
    for name in collections.abc.__all__:
        getattr(collections.abc, name)._abc_caches_clear()
    clear = getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache
    clear()


def read_totals(into: array[int], place: int) -> None:
    """Read the totals, once what only waits to be collected is gone."""
    clear_caches()
    gc.unfreeze()  # the tests freeze what they need not look at
    for _ in range(4):
        gc.collect()
    if sys.platform == "linux":
        into[place + 2] = len(os.listdir("/proc/self/fd"))
    into[place + 1] = sys.getallocatedblocks()
    into[place] = sys.gettotalrefcount()


def is_suspicious(growth: Sequence[int]) -> bool:
    """Did it grow by one a pass and more, and not in a single jump, as caches do?"""
    grew = sum(delta > 0 for delta in growth)
    return sum(growth) >= len(growth) and 3 * grew >= 2 * len(growth)


def leaks_of(growth: dict[str, list[int]]) -> list[str]:
    """The totals that grew, by one a pass and more, in both halves of the passes."""
    middle = CONFIRMING_RUNS // 2
    return [
        name
        for name, deltas in growth.items()
        if len(deltas) == CONFIRMING_RUNS
        and is_suspicious(deltas[:middle])
        and is_suspicious(deltas[middle:])
    ]


def describe(growth: dict[str, list[int]]) -> str:
    return "; ".join(
        f"{name} " + " ".join(f"{delta:+d}" for delta in deltas)
        for name, deltas in growth.items()
    )


def run_child(path: str, options: argparse.Namespace) -> None:
    """Measure one file in this process; the last line printed is the result."""
    result = Result(path)
    fill_coroutine_caches()
    arguments = [path, "-q", "-p", "no:cacheprovider", "-m", "not slow"]
    # What a crash says goes past pytest to this process's output.
    arguments += ["-o", "timeout=600", "--capture=sys"]
    status = pytest.main(
        arguments, plugins=[Repeater(result, options.warmups, options.runs)]
    )
    if status in (pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR):
        result.error = f"pytest ended with {status!r}"
    print("\n" + RESULT + json.dumps(asdict(result)))


def run_file(path: Path, options: argparse.Namespace) -> Result:
    """Measure one file in a process of its own."""
    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)
    numbers = [f"--warmups={options.warmups}", f"--runs={options.runs}"]
    command = [sys.executable, __file__, "--child", *numbers, name]
    environment = {"HOTLOOP_TEST_LOOPS": "hotloop"} | os.environ
    started = time.monotonic()
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=FILE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        result = Result(name, error=f"not done after {FILE_SECONDS} s")
    else:
        output, _, record = done.stdout.rpartition("\n" + RESULT)
        if record and done.returncode == 0:
            # Behind it is what is said while the interpreter ends.
            result = Result(**json.loads(record.partition("\n")[0]))
        else:
            result = Result(name, error=f"the process ended with {done.returncode}")
        if not result.good:
            print((output or done.stdout).strip(), flush=True)
    result.seconds = time.monotonic() - started
    print_row(result)
    return result


def print_row(result: Result) -> None:
    columns = [
        " ".join(f"{delta:+d}" for delta in result.growth.get(name, []))
        for name in TOTALS
    ]
    print(
        f"{result.path:<40}{result.tests:>6}  {columns[0]:<20} {columns[1]:<18} "
        f"{columns[2]:<18}{result.seconds:>6.1f}  {result.verdict}",
        flush=True,
    )
    for line in [result.error, *result.failed, *result.culprits]:
        if line:
            print(f"    {line}", flush=True)


def test_files(paths: Sequence[str]) -> list[Path]:
    found: list[Path] = []
    for path in map(Path, paths):
        found += sorted(path.rglob("test_*.py")) if path.is_dir() else [path]
    # CPython's own tests leak where the interpreter they test does; the wheels
    # that the ecosystem needs are built for release interpreters, and some crash
    # a debug one under any loop (aiohttp's reader of WebSockets on 3.11). The SDK of
    # OpenTelemetry keeps something of each provider, and what the fuzzers make is for
    # their own processes. What others do in processes of their own is not seen here,
    # and a comparison by random is long and goes where the plain tests go.
    left_out = {"conformance", "integration", "test_ecosystem.py"}
    left_out |= {"test_exporters.py", "test_fuzz_parts.py"}
    left_out |= {"test_conformance_tool.py", "test_examples.py", "test_hardening.py"}
    left_out |= {"test_faults.py", "test_faults_process.py", "test_netem.py"}
    left_out |= {"test_cstreams_random.py", "test_debuggers.py"}
    return [path.resolve() for path in found if not left_out & {*path.parts}]


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("paths", nargs="*", default=[str(ROOT / "tests")])
    parser.add_argument("--runs", type=int, default=2, help="measured passes")
    parser.add_argument("--warmups", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    options = parse_options()
    if not hasattr(sys, "gettotalrefcount"):
        print("refleak: this interpreter does not count references", file=sys.stderr)
        return 2
    if options.child:
        run_child(options.paths[0], options)
        return 0
    started = time.monotonic()
    print(f"{'file':<40}{'tests':>6}  {'references':<20} {'blocks':<18} ", end="")
    print(f"{'descriptors':<18}{'s':>6}  verdict")
    with ThreadPoolExecutor(options.jobs) as pool:
        files = test_files(options.paths)
        results = list(pool.map(lambda path: run_file(path, options), files))
    passed = sum(result.good for result in results)
    failed = len(results) - passed
    outcome = (f"{failed} failed, " if failed else "") + f"{passed} passed"
    seconds = time.monotonic() - started
    print(f"== test files without leaks: {outcome} in {seconds:.2f}s ==")
    return 1 if failed or not results else 0


if __name__ == "__main__":
    sys.exit(main())

"""One suite in a process of its own: what the runner starts.

    python -m tools.conformance.child SUITE REPORT [--list FILE] [--reference]
        [-k PATTERN...]

Every test that begins and every outcome is a line of JSON in the file REPORT at
once, so that a crash or a hang still shows what went before, and where.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import unittest
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TextIO

from . import listed

PACKAGE = "test.test_asyncio"
LISTED, OUTSIDE = "listed: ", "outside: "


class Report:
    """The file that the runner reads."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def note(self, event: str, test: str = "", text: str = "") -> None:
        self.file.write(json.dumps([event, test, text]) + "\n")
        self.file.flush()


def own_id(test: Any) -> str:
    """The name of a test (or of its fixtures) without that of the package."""
    whole = getattr(test, "test_case", test)  # of a subtest
    name: str = whole.id()
    return name.replace(f"{PACKAGE}.", "")


class Result(unittest.TextTestResult):
    """As unittest's own, and tells the report."""

    report: Report

    def startTest(self, test: unittest.TestCase) -> None:
        self.report.note("start", own_id(test))
        super().startTest(test)

    def addSuccess(self, test: unittest.TestCase) -> None:
        self.report.note("passed", own_id(test))
        super().addSuccess(test)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        event, colon, _ = reason.partition(": ")
        known = event + colon in (LISTED, OUTSIDE)
        self.report.note(event if known else "skipped", own_id(test), reason)
        super().addSkip(test, reason)

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addFailure(test, err)
        self.report.note("failed", own_id(test), self.failures[-1][1])

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        super().addError(test, err)
        self.report.note("failed", own_id(test), self.errors[-1][1])

    def addSubTest(
        self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any
    ) -> None:
        known = len(self.failures), len(self.errors)
        super().addSubTest(test, subtest, err)
        for _, text in self.failures[known[0] :] + self.errors[known[1] :]:
            self.report.note("failed", own_id(test), text)

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addExpectedFailure(test, err)
        self.report.note("expected", own_id(test))

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        super().addUnexpectedSuccess(test)
        self.report.note("unexpected", own_id(test))


def tests_of(suite: Iterable[Any]) -> Iterator[unittest.TestCase]:
    """Every single test of a suite of suites."""
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from tests_of(item)
        else:
            yield item


def pick(suite: unittest.TestSuite, patterns: list[str]) -> unittest.TestSuite:
    """The tests that match a pattern, all if there is none."""
    if not patterns:
        return suite
    return unittest.TestSuite(
        test
        for test in tests_of(suite)
        if any(fnmatchcase(own_id(test), pattern) for pattern in patterns)
    )


def mark(test: unittest.TestCase, entry: listed.Entry) -> None:
    """Let this one test fail, or not run; not its siblings of the same mixin."""
    if entry.run:
        # What unittest.expectedFailure() sets; on the instance it is this test's.
        vars(test)["__unittest_expecting_failure__"] = True
        return
    skip = unittest.skip((OUTSIDE if entry.outside else LISTED) + entry.why)
    setattr(test, test._testMethodName, skip(lambda: None))


def apply_list(
    file: Path, name: str, suite: unittest.TestSuite, report: Report
) -> None:
    """Mark the tests of this suite that are on the list."""
    tests = {own_id(test): test for test in tests_of(suite)}
    for entry in listed.read(file):
        if not entry.applies():
            continue
        for pattern in entry.stale(name, tests):
            report.note("stale", pattern)
        for test_id, test in tests.items():
            if entry.matches(test_id):
                mark(test, entry)


def run(options: argparse.Namespace, report: Report) -> None:
    name = options.suite
    if not options.reference:
        from . import standin

        standin.install(name)
    suite = unittest.defaultTestLoader.loadTestsFromName(f"{PACKAGE}.{name}")
    if not options.reference:
        apply_list(options.list, name, suite, report)
    Result.report = report
    result: Any = Result
    runner = unittest.TextTestRunner(
        verbosity=2, resultclass=result, warnings="default"
    )
    runner.run(pick(suite, options.patterns))
    report.note("end")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("suite")
    parser.add_argument("report")
    parser.add_argument("--list", type=Path, default=listed.FILE)
    parser.add_argument("--reference", action="store_true")
    parser.add_argument("-k", dest="patterns", action="append", default=[])
    options = parser.parse_args()
    # Ctrl-C does nothing in a process that a shell put into the background; some
    # tests send it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Tests leave their files where they are.
    with (
        open(options.report, "w", encoding="utf-8") as file,
        tempfile.TemporaryDirectory() as folder,
    ):
        os.chdir(folder)
        try:
            run(options, Report(file))
        finally:
            os.chdir(listed.ROOT)


if __name__ == "__main__":
    main()

"""The doctor in a run of pytest: one report for each test that has findings."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from ._doctor import Doctor
from ._findings import Report
from ._text import write_findings


class Examination:
    """The plugin at work: it is there only if the doctor was asked for."""

    def __init__(self, check: bool) -> None:
        self.check = check
        self.doctor: Doctor | None = None
        self.reports: list[tuple[str, Report]] = []

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self) -> Generator[None, Any, Any]:
        """Watch from before the fixtures are made."""
        self.doctor = Doctor()
        self.doctor.__enter__()
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Watch until the fixtures have ended."""
        try:
            return (yield)
        finally:
            self._finish(item)

    def _finish(self, item: pytest.Item) -> None:
        doctor, self.doctor = self.doctor, None
        if doctor is None:
            return
        doctor.__exit__()
        report = doctor.report
        if report.findings or report.failures:
            self.reports.append((item.nodeid, report))
        if self.check and report.problems:
            text = write_findings(report)
            pytest.fail(f"the doctor found mistakes:\n\n{text}", pytrace=False)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Show the findings of all tests."""
        terminalreporter.section("hotloop doctor")
        for name, report in self.reports:
            terminalreporter.line(f"{name}\n")
            terminalreporter.line(write_findings(report))
        count = sum(len(report.findings) for _, report in self.reports)
        terminalreporter.line(f"{count} findings in {len(self.reports)} tests")

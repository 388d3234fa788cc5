"""The report as text, and as JSON."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import textwrap

from .._version import __version__
from ._findings import SEVERITIES, Finding, Report

_WIDTH = 88


def relative(file: str) -> str:
    """The path as one would type it here, if that is shorter."""
    try:
        short = os.path.relpath(file)
    except ValueError:
        return file
    return file if short.startswith("..") else short


def _indented(text: str) -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent="    ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _printable(text: str) -> str:
    """Without what a terminal would obey."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _write_finding(finding: Finding) -> str:
    place = f"{relative(finding.file)}:{finding.line}"
    where = f" in {finding.function}()" if finding.function else ""
    lines = [f"{finding.severity}: {finding.kind}", f"  {place}{where}"]
    if finding.source:
        lines.append(f"    > {finding.source}")
    times = f" ({finding.count} times)" if finding.count > 1 else ""
    lines.append(_indented(f"{finding.seen}{times}."))
    lines.append(_indented(finding.change))
    if finding.task:
        lines.append(f"    task: {finding.task}")
    return "\n".join(_printable(line) for text in lines for line in text.split("\n"))


def summary(report: Report) -> str:
    """Return what was found in one line."""
    counts = collections.Counter(finding.severity for finding in report.findings)
    parts = [
        f"{counts[each]} {each}{'s' if counts[each] != 1 else ''}"
        for each in SEVERITIES
        if counts[each]
    ]
    tasks = f"{report.tasks} task{'s' if report.tasks != 1 else ''}"
    found = ", ".join(parts) or "nothing found"
    return f"doctor: {found} in {report.seconds:.1f} s, {tasks}"


def write_findings(report: Report) -> str:
    """Return the findings for a terminal."""
    parts = [_write_finding(finding) for finding in report.findings]
    if parts:
        parts.append(f"Explained in {report.findings[0].docs.partition('#')[0]}")
    parts += [f"The doctor itself failed: {each}" for each in report.failures]
    return "\n\n".join(parts)


def write_text(report: Report) -> str:
    """Return the report for a terminal."""
    found = write_findings(report)
    return f"{found}\n\n{summary(report)}\n" if found else f"{summary(report)}\n"


def as_dict(report: Report) -> dict[str, object]:
    """Return the report as what JSON has."""
    return {
        "version": 1,
        "hotloop": __version__,
        "seconds": round(report.seconds, 3),
        "tasks": report.tasks,
        "most_tasks": report.most_tasks,
        "findings": [dataclasses.asdict(finding) for finding in report.findings],
        "failures": report.failures,
    }


def write_json(report: Report) -> str:
    """Return the report as JSON."""
    return json.dumps(as_dict(report), indent=2) + "\n"

"""What the doctor reports: kinds of mistakes, findings, and the report of a run."""

from __future__ import annotations

import collections
import dataclasses
import functools
import linecache
import time
from collections.abc import Callable
from typing import Any, NamedTuple

DOCS = "https://github.com/hotloop/hotloop/blob/main/docs/doctor.md"
SEVERITIES = ("error", "warning", "hint")

# The kinds, each with its usual severity. The names are stable.
KINDS = {
    "blocking-call": "warning",
    "never-awaited": "error",
    "task-lost": "error",
    "exception-unread": "error",
    "await-without-timeout": "warning",
    "cancellation-swallowed": "warning",
    "never-closed": "warning",
    "task-growth": "warning",
    "sequential-awaits": "hint",
    "left-behind": "warning",
}


class Place(NamedTuple):
    """A line of a program, and the function that it is in."""

    file: str
    line: int
    function: str


class Sighting(NamedTuple):
    """One mistake as it was seen; those of a kind and place make one finding."""

    kind: str
    place: Place
    seen: str
    change: str
    task: str
    # Of the record of the task, 0 for none; when; and how bad it was.
    number: int
    at: float
    weight: float
    severity: str


@dataclasses.dataclass(frozen=True)
class Finding:
    """One mistake at one place of the program."""

    #: What it is, one of the kinds that docs/doctor.md explains.
    kind: str
    #: "error", "warning" or "hint".
    severity: str
    #: Where: file, line and function.
    file: str
    line: int
    function: str
    #: The text of the line.
    source: str
    #: Name of the task that it was seen in, or that it is about; "" for none.
    task: str
    #: What was seen, the worst of them if it was seen more often.
    seen: str
    #: What to change.
    change: str
    #: How often it was seen.
    count: int
    #: When it was seen first, in seconds from the beginning of the run.
    at: float
    #: The page that explains it.
    docs: str
    #: The numbers of the tasks in the timeline, of the first hundred.
    tasks: tuple[int, ...] = ()


@dataclasses.dataclass
class Report:
    """What was found in one run of a program."""

    findings: list[Finding]
    #: How long the run was, in seconds.
    seconds: float = 0.0
    #: How many tasks were made, and how many there were at once.
    tasks: int = 0
    most_tasks: int = 0
    #: Failures of the doctor itself, which say that findings may be missing.
    failures: list[str] = dataclasses.field(default_factory=list)
    #: Makes the timeline, which takes a while if there are many tasks.
    make_timeline: Callable[[], list[dict[str, Any]]] = list

    @functools.cached_property
    def timeline(self) -> list[dict[str, Any]]:
        """The tasks of the timeline, as the HTML page has them."""
        return self.make_timeline()

    @property
    def problems(self) -> list[Finding]:
        """The findings that are no mere hints."""
        return [finding for finding in self.findings if finding.severity != "hint"]

    def text(self) -> str:
        """Return the report for a terminal."""
        from ._text import write_text

        return write_text(self)

    def json(self) -> str:
        """Return the report as JSON."""
        from ._text import write_json

        return write_json(self)

    def html(self) -> str:
        """Return a page with the findings and a timeline of the tasks."""
        from ._html import write_html

        return write_html(self)


class Notes:
    """Collects sightings, from any thread and from finalizers at any moment."""

    def __init__(self, ignore: frozenset[str], begun: float) -> None:
        self._ignore = ignore
        self._begun = begun
        self._new: collections.deque[Sighting] = collections.deque()
        self._merged: dict[tuple[str, Place], Finding] = {}
        self._weights: dict[tuple[str, Place], float] = {}
        self.failures: list[str] = []

    def add(
        self,
        kind: str,
        place: Place | None,
        seen: str,
        change: str,
        *,
        task: str = "",
        number: int = 0,
        weight: float = 0.0,
        severity: str = "",
    ) -> None:
        """Keep a sighting; one without a place in the program is left out."""
        if place is None or kind in self._ignore:
            return
        severity = severity or KINDS[kind]
        at = time.monotonic() - self._begun
        self._new.append(
            Sighting(kind, place, seen, change, task, number, at, weight, severity)
        )

    def has(self, kind: str, place: Place | None) -> bool:
        """Whether a finding of the kind is known at the place."""
        self.merge()
        return place is not None and (kind, place) in self._merged

    def fail(self, error: BaseException) -> None:
        """Keep a failure of the doctor's own."""
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where = "" if trace is None else f" (line {trace.tb_lineno})"
        text = f"{type(error).__name__}: {error}{where}"
        if text not in self.failures and len(self.failures) < 10:
            self.failures.append(text)

    def merge(self) -> None:
        """Make findings of what is new. A finalizer may add meanwhile."""
        while self._new:
            self._merge_one(self._new.popleft())

    def _merge_one(self, new: Sighting) -> None:
        key = new.kind, new.place
        known = self._merged.get(key)
        if known is None:
            self._weights[key] = new.weight
            self._merged[key] = Finding(
                kind=new.kind,
                severity=new.severity,
                file=new.place.file,
                line=new.place.line,
                function=new.place.function,
                source=linecache.getline(new.place.file, new.place.line).strip(),
                task=new.task,
                seen=new.seen,
                change=new.change,
                count=1,
                at=new.at,
                docs=f"{DOCS}#{new.kind}",
                tasks=(new.number,) if new.number else (),
            )
            return
        changes: dict[str, Any] = {"count": known.count + 1}
        if new.weight > self._weights[key]:
            self._weights[key] = new.weight
            changes |= {"seen": new.seen, "change": new.change, "task": new.task}
        if SEVERITIES.index(new.severity) < SEVERITIES.index(known.severity):
            changes["severity"] = new.severity
        if new.number and len(known.tasks) < 100:
            changes["tasks"] = (*known.tasks, new.number)
        self._merged[key] = dataclasses.replace(known, **changes)

    def findings(self) -> list[Finding]:
        """Return all findings, the worst first."""
        self.merge()
        return sorted(
            self._merged.values(),
            key=lambda each: (SEVERITIES.index(each.severity), each.at),
        )

"""What is shown of a loop: an interval as figures and tables, for any screen."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from typing import Any, NamedTuple

from .samples import Cost, Interval

_LONGEST = 60

SORTS: dict[str, Callable[[Cost], Any]] = {
    "time": lambda cost: -cost.seconds,
    "calls": lambda cost: -cost.calls,
    "mean": lambda cost: -cost.mean,
    "max": lambda cost: -cost.max_seconds,
    "name": lambda cost: cost.name,
}


class Figures(NamedTuple):
    """A line of figures: what they are of, and (label, value) of each."""

    name: str
    values: list[tuple[str, str]]


class Table(NamedTuple):
    """A table; a heading that begins with ">" is of a column of numbers."""

    title: str
    headings: list[str]
    rows: list[list[str]]


class Page(NamedTuple):
    """All that is shown at one moment."""

    title: str
    busy: float
    figures: list[Figures]
    blocked: list[str]
    tables: list[Table]


# ---- values as text ----


def count(value: float) -> str:
    """A number that is easy to read: 12, 12,345, 1.23 M."""
    if value >= 1e9:
        return f"{value / 1e9:.2f} G"
    if value >= 1e6:
        return f"{value / 1e6:.2f} M"
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}"


def size(value: float) -> str:
    """A number of bytes with its unit."""
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def duration(seconds: float) -> str:
    """A time with its unit."""
    if seconds < 1e-6:
        return f"{seconds * 1e9:.0f} ns"
    if seconds < 1e-3:
        return f"{seconds * 1e6:.1f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.2f} ms"
    return f"{seconds:.2f} s"


def percent(fraction: float) -> str:
    """A fraction as a percentage."""
    return f"{fraction * 100:.1f} %"


def place(file: str, line: int) -> str:
    """A place in a file that fits into a column: the last two parts of its path."""
    if not file:
        return "-"
    parts = file.split(os.sep)
    return f"{os.sep.join(parts[-2:])}:{line}"


def command(about: dict[str, Any]) -> str:
    """The command line of a program, in one line that is not too long."""
    program, *arguments = about["command"]
    text = shlex.join([os.path.basename(program), *arguments])
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _where(task: dict[str, Any]) -> str:
    """The place where a task, or many, stand, and the function that they are in."""
    return f"{place(task['file'], task['line'])} {task['function']}".rstrip()


# ---- parts of the page ----


def _title(interval: Interval) -> str:
    about = interval.about
    state = "" if interval.metrics.running else "(not running) "
    versions = f"hotloop {about['hotloop']}, Python {about['python']}"
    return f"{about['pid']} {state}{command(about)}  [{versions}]"


def _figures(interval: Interval) -> list[Figures]:
    m, rate = interval.metrics, interval.rate
    running = m.run_seconds or 1.0
    return [
        Figures(
            "time",
            [
                ("busy", percent(m.busy_seconds / running)),
                ("waiting", percent(m.poll_seconds / running)),
                ("for the GIL", percent(m.gil_seconds / running)),
                ("of", duration(m.seconds)),
            ],
        ),
        Figures(
            "rates",
            [
                ("turns/s", count(rate("turns"))),
                ("callbacks/s", count(rate("callbacks"))),
                ("steps/s", count(rate("task_steps"))),
                ("tasks/s", count(rate("tasks_created"))),
                ("timers/s", count(rate("timers_scheduled"))),
                ("from threads/s", count(rate("threadsafe_calls"))),
            ],
        ),
        Figures(
            "lag",
            [
                ("p50", duration(m.lag.p50)),
                ("p99", duration(m.lag.p99)),
                ("max", duration(m.lag.max)),
                ("timers late p99", duration(m.timer_lag.p99)),
                ("slow callbacks", count(m.slow_callbacks)),
            ],
        ),
        Figures(
            "queues",
            [
                ("ready", count(m.ready)),
                ("most", count(m.ready_max)),
                ("timers", count(m.timers)),
                ("cancelled", count(m.timers_cancelled)),
                ("tasks", count(m.tasks)),
            ],
        ),
        Figures(
            "network",
            [
                ("connections", count(m.connections_open)),
                ("new/s", count(rate("connections_made"))),
                ("lost/s", count(rate("connections_lost"))),
                ("in/s", size(rate("bytes_received"))),
                ("out/s", size(rate("bytes_sent"))),
                ("datagrams in/s", count(rate("datagrams_received"))),
                ("out/s", count(rate("datagrams_sent"))),
            ],
        ),
    ]


def _blocked(interval: Interval) -> list[str]:
    if not interval.blocked:
        return []
    head = f"one callback has blocked the loop for {interval.blocked_seconds:.1f} s:"
    return [head] + [
        f"  {frame['file']}:{frame['line']} in {frame['function']}"
        for frame in interval.blocked
    ]


def _costs(interval: Interval, sort: str, rows: int) -> Table:
    costs = sorted(interval.costs, key=SORTS[sort])
    title = f"callbacks and steps of tasks, by {sort}"
    if not interval.metrics.profiling:
        title += " (not profiled)"
    shown = [
        [
            percent(cost.share),
            count(cost.calls / interval.metrics.seconds),
            duration(cost.mean),
            duration(cost.max_seconds),
            cost.kind,
            cost.name,
            place(cost.file, cost.line),
        ]
        for cost in costs[:rows]
    ]
    headings = [">share", ">calls/s", ">mean", ">max ever", "kind", "function", "at"]
    return Table(title, headings, shown)


def _groups(interval: Interval, rows: int) -> Table:
    groups = interval.tasks["groups"]
    shown = [
        [count(group["count"]), group["coroutine"], _where(group)]
        for group in groups[:rows]
    ]
    return Table("tasks, by where they stand", [">count", "coroutine", "at"], shown)


def _tasks(interval: Interval, rows: int) -> Table:
    shown = [
        [
            task["name"],
            task["coroutine"],
            task["state"],
            task["waits_for"] or "-",
            duration(task["unchanged"]) if task["unchanged"] else "-",
            _where(task),
        ]
        for task in interval.tasks["tasks"][:rows]
    ]
    headings = ["task", "coroutine", "state", "waits for", ">for", "at"]
    return Table("tasks", headings, shown)


def page(interval: Interval, sort: str = "time", rows: int = 10) -> Page:
    """Lay an interval out; each table has at most so many rows."""
    m = interval.metrics
    return Page(
        _title(interval),
        m.busy_seconds / m.run_seconds if m.run_seconds > 0 else 0.0,
        _figures(interval),
        _blocked(interval),
        [
            _costs(interval, sort, rows),
            _groups(interval, rows),
            _tasks(interval, rows),
        ],
    )

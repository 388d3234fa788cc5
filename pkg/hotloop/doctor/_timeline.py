"""The tasks of a run as rows of the timeline."""

from __future__ import annotations

from typing import Any

from ._tasks import Record, Tasks


def _row(record: Record, begun: float, now: float) -> dict[str, Any]:
    task = record.ref()
    if task is not None and task.done():
        record.finish(task)
    elif task is not None:
        record.name = task.get_name()
    place = record.place
    return {
        "number": record.number,
        "name": record.name,
        "coroutine": record.coroutine,
        "file": "" if place is None else place.file,
        "line": 0 if place is None else place.line,
        "outcome": record.outcome or "pending",
        "begin": round(record.made - begun, 6),
        "end": round((record.ended or now) - begun, 6),
        "running": [round(each - begun, 6) for each in record.stretches],
    }


def timeline(tasks: Tasks, begun: float, now: float) -> list[dict[str, Any]]:
    """Make a row of each task, in the order in which they were made."""
    return [_row(record, begun, now) for record in tasks.shown]

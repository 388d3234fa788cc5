"""What is asked of a loop again and again, and what happened between two answers."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from .._metrics import Metrics
from ..control import Client

Frame = dict[str, Any]


class Sample(NamedTuple):
    """All that a loop said of itself at about one moment."""

    metrics: Metrics
    profile: dict[str, Any]
    tasks: dict[str, Any]
    stacks: list[dict[str, Any]]


def take(client: Client, limit: int = 100) -> Sample:
    """Ask for everything once."""
    return Sample(
        Metrics.from_dict(client.ask("metrics")),
        client.ask("profile", limit=1000),
        client.ask("tasks", limit=limit),
        client.ask("stacks"),
    )


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a function or coroutine cost in an interval; times are in seconds."""

    name: str
    kind: str
    file: str
    line: int
    calls: int
    seconds: float
    max_seconds: float
    share: float

    @property
    def mean(self) -> float:
        """The mean time of a call."""
        return self.seconds / self.calls if self.calls else 0.0


@dataclasses.dataclass(frozen=True)
class Interval:
    """What happened between two samples; what is of a moment is of the later one."""

    about: dict[str, Any]
    metrics: Metrics
    costs: list[Cost]
    tasks: dict[str, Any]
    blocked: list[Frame]
    blocked_seconds: float

    def rate(self, name: str) -> float:
        """How often a second a counter of the metrics went up."""
        seconds = self.metrics.seconds
        return float(getattr(self.metrics, name) / seconds) if seconds > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """The interval as what JSON knows."""
        fields = dataclasses.fields(self.metrics)
        counters = [f.name for f in fields if f.metadata["kind"] == "counter"]
        return {
            "about": self.about,
            "seconds": self.metrics.seconds,
            "utilization": self.metrics.utilization,
            "rates": {name: self.rate(name) for name in counters},
            "metrics": self.metrics.as_dict(),
            "costs": [dataclasses.asdict(cost) for cost in self.costs],
            "tasks": self.tasks,
            "blocked": self.blocked,
            "blocked_seconds": self.blocked_seconds,
        }


def _costs(earlier: Sample, later: Sample) -> list[Cost]:
    seconds = later.metrics.time - earlier.metrics.time
    before = {
        (entry["name"], entry["kind"], entry["file"], entry["line"]): entry
        for entry in earlier.profile["entries"]
    }
    found = []
    for entry in later.profile["entries"]:
        key = (entry["name"], entry["kind"], entry["file"], entry["line"])
        old = before.get(key, {"calls": 0, "seconds": 0.0})
        calls = entry["calls"] - old["calls"]
        took = entry["seconds"] - old["seconds"]
        if calls > 0:
            share = took / seconds if seconds > 0 else 0.0
            found.append(Cost(*key, calls, took, entry["max_seconds"], share))
    return found


class Watch:
    """Takes samples of a loop and makes an interval of each two."""

    def __init__(self, client: Client, limit: int = 100) -> None:
        self._client = client
        self._limit = limit
        self.about: dict[str, Any] = client.ask("about")
        self._last = take(client, limit)
        self._stuck_since: float | None = None
        self._standing: dict[tuple[Any, ...], float] = {}
        self._note_standing(self._last)

    def next(self) -> Interval:
        """Take a sample; return what happened since the one before."""
        earlier, later = self._last, take(self._client, self._limit)
        self._last = later
        blocked, seconds = self._blocked(earlier, later)
        self._note_standing(later)
        return Interval(
            self.about,
            later.metrics.since(earlier.metrics),
            _costs(earlier, later),
            later.tasks,
            blocked,
            seconds,
        )

    def _note_standing(self, sample: Sample) -> None:
        """Tell of each task how long it has been seen at the same place."""
        now, before, self._standing = sample.metrics.time, self._standing, {}
        for task in sample.tasks["tasks"]:
            key = (task["id"], task["waits_for"], task["file"], task["line"])
            self._standing[key] = before.get(key, now)
            task["unchanged"] = now - self._standing[key]

    def _blocked(self, earlier: Sample, later: Sample) -> tuple[list[Frame], float]:
        """The stack of a callback that has run since before the earlier sample."""
        inside = [thread["stack"] for thread in later.stacks if thread["loop"]]
        was = [thread["stack"] for thread in earlier.stacks if thread["loop"]]
        stuck = later.metrics.turns == earlier.metrics.turns
        if not stuck or not any(inside) or not any(was):
            self._stuck_since = None
            return [], 0.0
        if self._stuck_since is None:
            self._stuck_since = earlier.metrics.time
        return inside[0], later.metrics.time - self._stuck_since

"""What a loop tells of itself: snapshots, histograms and profiles."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple


class Bucket(NamedTuple):
    """The samples of a histogram above ``low`` seconds and up to ``high``."""

    low: float
    high: float
    count: int  # type: ignore[assignment]  # in the place of tuple.count()


@dataclasses.dataclass(frozen=True, slots=True)
class Histogram:
    """How long something took, many times: seconds, in buckets.

    The buckets are 64 ns wide below 1.024 µs and a sixteenth of a power of two above,
    up to 137 s: what is read from them is exact to 6.25 %. Empty ones are left out.
    """

    count: int = 0
    total: float = 0.0
    max: float = 0.0
    buckets: tuple[Bucket, ...] = ()

    @property
    def mean(self) -> float:
        """The mean in seconds; 0.0 without samples."""
        return self.total / self.count if self.count else 0.0

    @property
    def p50(self) -> float:
        """The median in seconds."""
        return self.quantile(0.5)

    @property
    def p99(self) -> float:
        """What 99 of 100 samples do not exceed, in seconds."""
        return self.quantile(0.99)

    def quantile(self, q: float) -> float:
        """Return what the fraction q of the samples does not exceed, in seconds.

        It is the upper bound of a bucket, or the largest sample if that is less; 0.0
        without samples. Raise ValueError unless q is from 0 to 1.
        """
        if not 0.0 <= q <= 1.0:
            raise ValueError(f"a quantile is from 0 to 1, not {q!r}")
        rank = max(1, math.ceil(q * self.count))
        for bucket in self.buckets:
            rank -= bucket.count
            if rank <= 0:
                return min(bucket.high, self.max)
        return self.max

    def since(self, earlier: Histogram) -> Histogram:
        """Return the samples that came after an earlier state of this histogram.

        Their largest is known to within a bucket only.
        """
        counts = {bucket[:2]: bucket.count for bucket in earlier.buckets}
        fresh = (
            Bucket(low, high, count - counts.get((low, high), 0))
            for low, high, count in self.buckets
        )
        buckets = tuple(bucket for bucket in fresh if bucket.count > 0)
        return Histogram(
            max(0, self.count - earlier.count),
            max(0.0, self.total - earlier.total),
            min(buckets[-1].high, self.max) if buckets else 0.0,
            buckets,
        )

    def __add__(self, other: Histogram) -> Histogram:
        """Return the samples of both, of two loops for example."""
        counts: dict[tuple[float, float], int] = {}
        for low, high, count in (*self.buckets, *other.buckets):
            counts[low, high] = counts.get((low, high), 0) + count
        return Histogram(
            self.count + other.count,
            self.total + other.total,
            max(self.max, other.max),
            tuple(Bucket(*bounds, counts[bounds]) for bounds in sorted(counts)),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the histogram as what JSON knows, with p50 and p99."""
        return {
            "count": self.count,
            "total": self.total,
            "max": self.max,
            "p50": self.p50,
            "p99": self.p99,
            "buckets": [list(bucket) for bucket in self.buckets],
        }

    @classmethod
    def from_core(
        cls,
        count: int,
        total: float,
        maximum: float,
        buckets: Iterable[tuple[float, float, int]],
    ) -> Histogram:
        """Return the histogram that the core tells of."""
        return cls(count, total, maximum, tuple(map(Bucket._make, buckets)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Histogram:
        """Return the histogram that as_dict() told of."""
        buckets = tuple(Bucket(*bucket) for bucket in values["buckets"])
        return cls(values["count"], values["total"], values["max"], buckets)


def _field(kind: str, unit: str, text: str, timed: bool = False) -> Any:
    metadata = {"kind": kind, "unit": unit, "help": text, "timed": timed}
    zero: Any = 0.0 if unit == "seconds" else 0
    if kind == "histogram":
        zero = Histogram()
    return dataclasses.field(default=zero, metadata=metadata)


def _total(text: str, unit: str = "") -> Any:
    return _field("counter", unit, text)


def _level(text: str, unit: str = "") -> Any:
    return _field("gauge", unit, text)


def _timed(text: str, unit: str = "seconds", kind: str = "counter") -> Any:
    return _field(kind, unit, text, timed=True)


def _spread(text: str) -> Any:
    return _field("histogram", "seconds", text, timed=True)


@dataclasses.dataclass(frozen=True, slots=True)
class Metrics:
    """A loop's counts and times at one moment: what ``loop.metrics()`` returns.

    Each field's ``metadata`` has its ``kind`` ("counter", "gauge" or "histogram"), its
    ``unit`` ("seconds", "bytes" or ""), its meaning in a line as ``help``, and as
    ``timed`` whether it stands still unless ``enable_metrics()`` was called.
    """

    time: float = _level("time.monotonic() of the snapshot", "seconds")
    started: float = _level("time.monotonic() when the counting began", "seconds")
    enabled: bool = _level("whether times are taken")
    profiling: bool = _level("whether callbacks are timed one by one")
    running: bool = _level("whether the loop runs")
    closed: bool = _level("whether the loop is closed")

    turns: int = _total("turns of the loop")
    polls: int = _total("turns that asked the system for events")
    callbacks: int = _total("callbacks, steps of tasks and events run")
    task_steps: int = _total("steps of tasks run")
    run_seconds: float = _timed("time running, the three below together")
    poll_seconds: float = _timed("time in the system's poll, mostly waiting")
    gil_seconds: float = _timed("time waiting for the GIL after a poll")
    busy_seconds: float = _timed("time doing something: all the rest")
    lag: Histogram = _spread("from the end of a poll to the next")  # noqa: RUF009
    timer_lag: Histogram = _spread("timers past their deadlines")  # noqa: RUF009
    callback_seconds: Histogram = _spread(  # noqa: RUF009
        "callbacks, each by itself; while profiling"
    )
    slow_callbacks: int = _timed(
        "callbacks of slow_callback_duration or longer; while profiling", ""
    )
    blocked: int = _total("callbacks that the watchdog found blocking the loop")

    ready: int = _level("callbacks queued to run")
    ready_max: int = _timed("most callbacks queued as a turn began", "", "gauge")
    timers: int = _level("timers pending, cancelled ones that are kept included")
    timers_cancelled: int = _level("cancelled timers among them")
    timers_scheduled: int = _total("timers made")
    threadsafe_calls: int = _total("call_soon_threadsafe() calls")
    tasks: int = _level("tasks not done")
    tasks_created: int = _total("tasks made")
    executor_jobs: int = _total("run_in_executor() calls")

    reads: int = _total("system calls that received from a stream")
    writes: int = _total("system calls that sent to a stream")
    bytes_received: int = _total("bytes received from streams", "bytes")
    bytes_sent: int = _total("bytes sent to streams", "bytes")
    datagrams_received: int = _total("datagrams received")
    datagrams_sent: int = _total("datagrams sent")
    datagram_bytes_received: int = _total("bytes received in datagrams", "bytes")
    datagram_bytes_sent: int = _total("bytes sent in datagrams", "bytes")

    connections_open: int = _level("connections open: made and not lost")
    connections_accepted: int = _total("connections accepted by listeners")
    connections_made: int = _total("connections begun, of servers and clients")
    connections_lost: int = _total("connections ended, in whatever way")
    connects_failed: int = _total("attempts to connect that failed")
    datagram_endpoints: int = _level("datagram transports open")
    pipes: int = _level("pipe transports open, one for each end")
    listeners: int = _level("sockets listened on")
    watching: int = _level("descriptors watched for events")

    @classmethod
    def from_core(cls, values: dict[str, Any]) -> Metrics:
        """Return the snapshot that the core tells of."""
        for name in ("lag", "timer_lag", "callback_seconds"):
            if name in values:
                values[name] = Histogram.from_core(*values[name])
        return cls(**values)

    @property
    def seconds(self) -> float:
        """How long the counting took: what rates are to be divided by."""
        return self.time - self.started

    @property
    def utilization(self) -> float:
        """The fraction of the time running that was not spent in the poll."""
        if self.run_seconds <= 0.0:
            return 0.0
        return 1.0 - self.poll_seconds / self.run_seconds

    def since(self, earlier: Metrics) -> Metrics:
        """Return what happened after an earlier snapshot of the same loop.

        Counters and histograms are differences; gauges are those of this snapshot.
        """
        values: dict[str, Any] = {"started": earlier.time}
        for field in dataclasses.fields(self):
            mine, its = getattr(self, field.name), getattr(earlier, field.name)
            if field.metadata["kind"] == "counter":
                values[field.name] = mine - its
            elif field.metadata["kind"] == "histogram":
                values[field.name] = mine.since(its)
        return dataclasses.replace(self, **values)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name as what JSON knows."""
        values = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            values[field.name] = (
                value.as_dict() if isinstance(value, Histogram) else value
            )
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Metrics:
        """Return the snapshot that as_dict() told of; unknown names are left out."""
        known: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            if field.name in values:
                value = values[field.name]
                histogram = field.metadata["kind"] == "histogram"
                known[field.name] = Histogram.from_dict(value) if histogram else value
        return cls(**known)


@dataclasses.dataclass(frozen=True, slots=True)
class ProfileEntry:
    """What one function or coroutine cost the loop: a row of ``loop.profile()``.

    ``kind`` is "task" for the steps of a coroutine, "callback" for what call_soon(),
    timers, readers and writers call, "event" for what the loop does by itself, with the
    protocol methods called meanwhile. ``file`` is "" and ``line`` 0 where there is no
    Python code. Times are in seconds.
    """

    name: str
    kind: Literal["task", "callback", "event"]
    file: str
    line: int
    calls: int
    seconds: float
    max_seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return dataclasses.asdict(self)


def sorted_profile(rows: Iterable[tuple[Any, ...]]) -> list[ProfileEntry]:
    """Return the entries of the core's rows, those with most time first."""
    entries = [ProfileEntry(*row) for row in rows]
    entries.sort(key=lambda entry: entry.seconds, reverse=True)
    return entries

"""The metrics of a loop as exporters tell them: what, of which kind, in which unit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

from .._metrics import Histogram, Metrics

# Moments of a clock that means nothing elsewhere.
_LEFT_OUT = {"time", "started"}

# Bounds in seconds. Powers of two of nanoseconds are bounds of the loop's own buckets,
# so that the counts are exact: from 4 µs to 17 s.
BOUNDS = tuple(2**power / 1e9 for power in range(12, 35))


class Family(NamedTuple):
    """A field of the metrics and its value."""

    field: str
    kind: str
    unit: str
    help: str
    value: float | Histogram


def families(metrics: Metrics) -> Iterator[Family]:
    """Everything in a snapshot that another system can use."""
    for field in dataclasses.fields(metrics):
        if field.name in _LEFT_OUT:
            continue
        value = getattr(metrics, field.name)
        if not isinstance(value, Histogram):
            value = float(value) if field.metadata["unit"] == "seconds" else int(value)
        known = field.metadata
        yield Family(field.name, known["kind"], known["unit"], known["help"], value)


def cumulative(histogram: Histogram) -> list[tuple[float, int]]:
    """How many samples do not exceed each of the bounds."""
    found = []
    buckets = iter(histogram.buckets)
    bucket = next(buckets, None)
    seen = 0
    for bound in BOUNDS:
        # Half a bucket of tolerance: the same bound may be a float next to it.
        while bucket is not None and bucket.high <= bound * 1.01:
            seen += bucket.count
            bucket = next(buckets, None)
        found.append((bound, seen))
    return found

"""Histogram and Metrics as values: quantiles, differences, sums, JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import random

import pytest

import hotloop
from hotloop import Histogram, Metrics
from hotloop._metrics import Bucket


def of(*counts: tuple[float, float, int], largest: float | None = None) -> Histogram:
    """A histogram of buckets, the samples in the middle of each."""
    buckets = tuple(Bucket(*bucket) for bucket in counts)
    return Histogram(
        count=sum(bucket[2] for bucket in buckets),
        total=sum((low + high) / 2 * n for low, high, n in buckets),
        max=largest or buckets[-1].high,
        buckets=buckets,
    )


def test_quantiles() -> None:
    histogram = of((0, 1, 50), (1, 2, 49), (8, 16, 1), largest=9.0)
    assert histogram.quantile(0) == histogram.p50 == 1
    assert histogram.quantile(0.51) == histogram.p99 == 2
    assert histogram.quantile(0.991) == histogram.quantile(1) == 9.0
    assert histogram.mean == pytest.approx((25 + 73.5 + 12) / 100)
    for q in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="a quantile is from 0 to 1"):
            histogram.quantile(q)


def test_nothing() -> None:
    nothing = Histogram()
    assert nothing.p50 == nothing.p99 == nothing.mean == nothing.max == 0
    assert nothing.since(nothing) == nothing + nothing == nothing


def test_since_and_sum_are_inverse() -> None:
    first = of((0, 1, 3), (2, 3, 1))
    more = of((0, 1, 1), (1, 2, 4))
    both = first + more
    assert both.count == 9
    assert both.buckets == ((0, 1, 4), (1, 2, 4), (2, 3, 1))
    assert both.since(first).buckets == more.buckets
    assert both.since(first).count == more.count
    assert both.since(first).total == pytest.approx(more.total)
    assert both.since(first).max == 2
    assert both.since(both).max == both.since(both).count == 0


def test_json() -> None:
    histogram = of((0, 1, 3), (2, 3, 1))
    told = json.loads(json.dumps(histogram.as_dict()))
    assert told["p50"] == 1 and told["p99"] == 3
    assert Histogram.from_dict(told) == histogram
    metrics = Metrics(turns=3, lag=histogram, running=True)
    told = json.loads(json.dumps(metrics.as_dict()))
    assert Metrics.from_dict(told | {"of a later version": 1}) == metrics
    assert Metrics.from_dict({}) == Metrics()


def test_differences_of_metrics() -> None:
    earlier = Metrics(time=10, started=1, turns=5, ready=7, lag=of((0, 1, 3)))
    later = Metrics(time=12, started=1, turns=9, ready=2, lag=of((0, 1, 5)))
    delta = later.since(earlier)
    assert (delta.seconds, delta.turns, delta.ready) == (2, 4, 2)
    assert delta.lag.count == 2
    assert later.utilization == 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        delta.turns = 1  # type: ignore[misc]


def test_every_field_says_what_it_is() -> None:
    for field in dataclasses.fields(Metrics):
        kinds = {"counter", "gauge", "histogram"}
        assert set(field.metadata) == {"kind", "unit", "help", "timed"}
        assert field.metadata["kind"] in kinds
        assert field.metadata["unit"] in ("", "seconds", "bytes")
        assert field.metadata["help"]


def test_quantiles_of_the_core() -> None:
    """What a loop tells is what a sorted list tells, to 6.25 % and 64 ns."""
    loop = hotloop.new_event_loop()
    late = sorted(10 ** random.Random(5).uniform(-7, 3) for _ in range(500))
    try:
        loop.enable_metrics()
        loop.time = lambda: 1e4  # type: ignore[method-assign]
        for seconds in late:
            loop.call_at(1e4 - seconds, int)
        loop.call_soon(loop.stop)
        loop.run_forever()
        lag = loop.metrics().timer_lag
    finally:
        loop.close()
    assert lag.count == 500
    assert lag.total == pytest.approx(sum(late), rel=1e-6)
    for q in (0.01, 0.1, 0.5, 0.9, 0.99, 1):
        exact = late[max(0, math.ceil(q * 500) - 1)]
        if exact < 137:  # above, the last bucket takes all
            assert exact * 0.999 <= lag.quantile(q) <= exact * 1.0626 + 1.3e-7
    for bucket in lag.buckets[:-1]:
        inside = sum(bucket.low <= seconds < bucket.high for seconds in late)
        assert abs(inside - bucket.count) <= 1  # 1e4 - x rounds

"""Metrics of a loop for OpenTelemetry (``pip install hotloop[opentelemetry]``).

Names begin with ``hotloop.loop.``; times are in "s", sizes in "By", as OpenTelemetry's
conventions have it. Histograms are told as quantiles: there are no observable ones.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .._loop import Loop
from .._metrics import Histogram, Metrics
from .._version import __version__
from ._families import Family, families

__all__ = ["QUANTILES", "instrument"]

QUANTILES = (0.5, 0.9, 0.99, 1.0)

_PREFIX = "hotloop.loop."
_UNITS = {"seconds": "s", "bytes": "By", "": "1"}


class _Source:
    """Where the callbacks of the instruments have their values from.

    The loop is not kept alive: one that has gone is not observed any more.
    """

    def __init__(self, loop: Loop, attributes: Mapping[str, Any]) -> None:
        self._loop = weakref.ref(loop)
        self.attributes = dict(attributes)

    def metrics(self) -> Metrics | None:
        loop = self._loop()
        return None if loop is None else loop.metrics()


def _name(family: Family) -> str:
    return _PREFIX + family.field.replace("_seconds", "_time")


def _of_value(source: _Source, field: str) -> Callable[[Any], Iterable[Any]]:
    from opentelemetry.metrics import Observation

    def observe(_: Any) -> Iterable[Any]:
        metrics = source.metrics()
        if metrics is not None:
            yield Observation(getattr(metrics, field), source.attributes)

    return observe


def _of_quantiles(source: _Source, field: str) -> Callable[[Any], Iterable[Any]]:
    from opentelemetry.metrics import Observation

    last = Histogram()

    def observe(_: Any) -> Iterable[Any]:
        nonlocal last
        metrics = source.metrics()
        if metrics is None:
            return
        now = getattr(metrics, field)
        fresh, last = now.since(last), now
        if fresh.count:
            for quantile in QUANTILES:
                attributes = {**source.attributes, "quantile": quantile}
                yield Observation(fresh.quantile(quantile), attributes)

    return observe


def _of_utilization(source: _Source) -> Callable[[Any], Iterable[Any]]:
    from opentelemetry.metrics import Observation

    last: Metrics | None = None

    def observe(_: Any) -> Iterable[Any]:
        nonlocal last
        now = source.metrics()
        if now is None:
            return
        before, last = last, now
        interval = now if before is None else now.since(before)
        yield Observation(interval.utilization, source.attributes)

    return observe


def instrument(
    loop: Loop,
    *,
    meter_provider: Any = None,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Have a MeterProvider, by default the global one, observe a loop.

    The attributes go with every observation: of several loops each needs its own.
    ``hotloop.loop.utilization`` and the quantiles (attribute "quantile") are of the
    time since they were observed last; everything else is as in ``loop.metrics()``.
    The loop's metrics are switched on.
    """
    from opentelemetry.metrics import get_meter

    if not loop.metrics().enabled:
        loop.enable_metrics()
    meter = get_meter("hotloop", __version__, meter_provider=meter_provider)
    source = _Source(loop, attributes or {})
    makers: dict[str, Callable[..., Any]] = {
        "counter": meter.create_observable_counter,
        "gauge": meter.create_observable_gauge,
        "histogram": meter.create_observable_gauge,
    }
    for family in families(loop.metrics()):
        of = _of_quantiles if family.kind == "histogram" else _of_value
        makers[family.kind](
            _name(family),
            [of(source, family.field)],
            unit=_UNITS[family.unit],
            description=family.help,
        )
    meter.create_observable_gauge(
        _PREFIX + "utilization",
        [_of_utilization(source)],
        unit="1",
        description="the fraction of the time running that was not spent in the poll",
    )

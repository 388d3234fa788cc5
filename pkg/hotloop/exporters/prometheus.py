"""Metrics of loops for Prometheus.

``text()`` gives what Prometheus scrapes, ``serve()`` a small server for it, and
``Collector`` is for the registry of the package prometheus_client, with whatever else a
program has there (``pip install hotloop[prometheus]``).
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .._loop import Loop
from .._metrics import Histogram
from ._families import Family, cumulative, families

__all__ = ["CONTENT_TYPE", "OPENMETRICS_TYPE", "Collector", "serve", "text"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

Loops = Loop | Mapping[str, Loop]

_LONGEST_REQUEST = 8192
_PATIENCE = 10.0


def _name(family: Family) -> str:
    """The name by Prometheus' rules: the unit is its last word."""
    name, unit = family.field, family.unit
    if unit and not name.endswith(unit):
        parts = [part for part in name.split("_") if part != unit]
        name = "_".join([*parts, unit])
    return f"hotloop_{name}"


def _by_name(loops: Loops | None) -> Mapping[str, Loop]:
    if loops is None:
        running = asyncio.get_running_loop()
        if not isinstance(running, Loop):
            raise TypeError(f"a hotloop.Loop was expected, got {running!r}")
        return {"": running}
    return loops if isinstance(loops, Mapping) else {"": loops}


# ---- the text ----


def _labels(labels: Iterable[tuple[str, str]]) -> str:
    parts = []
    for key, value in labels:
        if value:
            quoted = value.replace("\\", "\\\\").replace("\n", "\\n")
            parts.append('{}="{}"'.format(key, quoted.replace('"', '\\"')))
    return f"{{{','.join(parts)}}}" if parts else ""


def _samples(name: str, loop: str, family: Family) -> Iterator[str]:
    value = family.value
    if not isinstance(value, Histogram):
        suffix = "_total" if family.kind == "counter" else ""
        yield f"{name}{suffix}{_labels([('loop', loop)])} {value!r}"
        return
    for bound, count in [*cumulative(value), ("+Inf", value.count)]:
        labels = _labels([("loop", loop), ("le", str(bound))])
        yield f"{name}_bucket{labels} {count}"
    yield f"{name}_sum{_labels([('loop', loop)])} {value.total!r}"
    yield f"{name}_count{_labels([('loop', loop)])} {value.count}"


def text(loops: Loops | None = None, *, openmetrics: bool = False) -> str:
    """Return the metrics in Prometheus' text format, or in that of OpenMetrics.

    Of the running loop, of another one, or of several by the names that their samples
    get as the label "loop".
    """
    found: dict[str, list[tuple[str, Family]]] = {}
    for loop_name, loop in _by_name(loops).items():
        for family in families(loop.metrics()):
            found.setdefault(_name(family), []).append((loop_name, family))
    lines = []
    for name, members in found.items():
        first = members[0][1]
        total = first.kind == "counter" and not openmetrics
        shown = f"{name}_total" if total else name
        lines.append(f"# HELP {shown} {first.help}")
        lines.append(f"# TYPE {shown} {first.kind}")
        if openmetrics and first.unit:
            lines.append(f"# UNIT {shown} {first.unit}")
        for loop_name, family in members:
            lines += _samples(name, loop_name, family)
    if openmetrics:
        lines.append("# EOF")
    return "\n".join(lines) + "\n"


# ---- prometheus_client ----


class Collector:
    """Gives a loop's metrics to a registry of prometheus_client.

    ``prometheus_client.REGISTRY.register(Collector(loop))``. The loop is not kept
    alive: one that has gone has no metrics.
    """

    def __init__(self, loops: Loops) -> None:
        """Collect from a loop, or from several by name."""
        self._loops = weakref.WeakValueDictionary(_by_name(loops))

    def describe(self) -> list[Any]:
        """Nothing: the registry need not collect to know our names."""
        return []

    def collect(self) -> Iterator[Any]:
        """The families, as prometheus_client wants them."""
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        kinds: dict[str, Any] = {
            "counter": CounterMetricFamily,
            "gauge": GaugeMetricFamily,
            "histogram": HistogramMetricFamily,
        }
        loops = dict(self._loops)
        labels = ["loop"] if any(loops) else []
        made: dict[str, Any] = {}
        for loop_name, loop in loops.items():
            values = [loop_name] if labels else []
            for family in families(loop.metrics()):
                name = _name(family)
                if name not in made:
                    kind = kinds[family.kind]
                    made[name] = kind(name, family.help, labels=labels)
                _add(made[name], values, family.value)
        yield from made.values()


def _add(made: Any, labels: list[str], value: float | Histogram) -> None:
    if isinstance(value, Histogram):
        buckets = [(str(bound), count) for bound, count in cumulative(value)]
        made.add_metric(labels, [*buckets, ("+Inf", value.count)], value.total)
    else:
        made.add_metric(labels, value)


# ---- serving it ----


def _response(status: str, kind: str, body: bytes, head_only: bool) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if head_only else body)


def _answer(head: bytes, loops: Loops) -> bytes:
    line, _, headers = head.partition(b"\r\n")
    words = line.split()
    plain = "text/plain; charset=utf-8"
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        return _response("400 Bad Request", plain, b"not HTTP/1.1\n", False)
    method, target = words[:2]
    if method not in (b"GET", b"HEAD"):
        return _response("405 Method Not Allowed", plain, b"GET only\n", False)
    head_only = method == b"HEAD"
    if target.partition(b"?")[0] != b"/metrics":
        return _response("404 Not Found", plain, b"/metrics only\n", head_only)
    openmetrics = b"application/openmetrics-text" in headers.lower()
    kind = OPENMETRICS_TYPE if openmetrics else CONTENT_TYPE
    body = text(loops, openmetrics=openmetrics).encode()
    return _response("200 OK", kind, body, head_only)


async def serve(
    host: str = "127.0.0.1", port: int = 9464, *, loops: Loops | None = None
) -> asyncio.Server:
    """Serve ``/metrics`` over HTTP; return the server.

    The metrics are of the running loop, or of others by name as for ``text()``.
    It is for a network that is trusted: it has no TLS and asks nobody who they are.
    """
    wanted = _by_name(loops)

    async def handle(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_answer(head, wanted))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            pass  # of a client that is not interesting any more
        finally:
            writer.transport.abort()

    return await asyncio.start_server(handle, host, port, limit=_LONGEST_REQUEST)

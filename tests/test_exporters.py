"""Metrics for Prometheus and OpenTelemetry, read by their own packages."""

# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib
import math
from collections.abc import Iterator
from typing import Any

import pytest

from support import collect, run_script, turns, wanted_kinds

if "hotloop" not in wanted_kinds():
    pytest.skip("hotloop is not wanted", allow_module_level=True)

import hotloop
from hotloop.exporters import _families, prometheus

CLIENT = "prometheus_client"
SDK = "opentelemetry.sdk.metrics"

# Here, for what a first import opens and keeps is charged to no test.
for package in (CLIENT, SDK):
    with contextlib.suppress(ImportError):
        importlib.import_module(package)


@pytest.fixture
def counted() -> Iterator[Any]:
    """A loop that has done something, with times taken."""
    loop = hotloop.new_event_loop()
    loop.enable_metrics(profile=True)

    async def main() -> None:
        await turns(50)
        for _ in range(5):
            await asyncio.sleep(0.001)

    loop.run_until_complete(main())
    yield loop
    loop.close()


def fields(kind: str) -> list[str]:
    every = dataclasses.fields(hotloop.Metrics)
    return [
        field.name
        for field in every
        if field.metadata["kind"] == kind and field.name not in ("time", "started")
    ]


def samples(families: Any) -> dict[tuple[str, str, str], float]:
    """Samples by name, loop and "le"."""
    return {
        (each.name, each.labels.get("loop", ""), each.labels.get("le", "")): each.value
        for family in families
        for each in family.samples
    }


def check(found: dict[tuple[str, str, str], float], loop: Any, name: str = "") -> None:
    """Hold samples against the metrics of a loop that stands still."""
    metrics = loop.metrics()
    assert found["hotloop_turns_total", name, ""] == metrics.turns > 50
    assert found["hotloop_busy_seconds_total", name, ""] == metrics.busy_seconds > 0
    assert found["hotloop_received_bytes_total", name, ""] == metrics.bytes_received
    assert found["hotloop_tasks", name, ""] == metrics.tasks
    assert found["hotloop_running", name, ""] == 0
    lag = metrics.lag
    assert found["hotloop_lag_seconds_count", name, ""] == lag.count > 0
    assert found["hotloop_lag_seconds_sum", name, ""] == pytest.approx(lag.total)
    assert found["hotloop_lag_seconds_bucket", name, "+Inf"] == lag.count


# ---- what both tell ----


def test_cumulative_counts_are_exact(counted: Any) -> None:
    histogram = counted.metrics().lag
    told = _families.cumulative(histogram)
    assert [bound for bound, _ in told] == list(_families.BOUNDS)
    for bound, count in told:
        below = sum(b.count for b in histogram.buckets if b.high <= bound * 1.001)
        across = [
            b for b in histogram.buckets if b.low * 1.001 < bound < b.high * 0.999
        ]
        assert count == below and not across
    assert told[-1][1] == histogram.count


def test_every_field_is_told(counted: Any) -> None:
    told = {family.field for family in _families.families(counted.metrics())}
    wanted = {field.name for field in dataclasses.fields(hotloop.Metrics)}
    assert told == wanted - {"time", "started"}


# ---- Prometheus ----


def test_prometheus_text(counted: Any) -> None:
    pytest.importorskip(CLIENT)
    from prometheus_client.parser import text_string_to_metric_families

    families = list(text_string_to_metric_families(prometheus.text(counted)))
    check(samples(families), counted)
    kinds = {family.name: family.type for family in families}
    assert kinds["hotloop_turns"] == "counter" and kinds["hotloop_tasks"] == "gauge"
    assert kinds["hotloop_lag_seconds"] == "histogram"
    assert all(family.documentation for family in families)
    every = len(dataclasses.fields(hotloop.Metrics)) - 2
    assert len(families) == every


def test_openmetrics_text(counted: Any) -> None:
    pytest.importorskip(CLIENT)
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    text = prometheus.text(counted, openmetrics=True)
    families = list(text_string_to_metric_families(text))
    check(samples(families), counted)
    units = {family.name: family.unit for family in families}
    assert units["hotloop_lag_seconds"] == units["hotloop_busy_seconds"] == "seconds"
    assert units["hotloop_received_bytes"] == "bytes"


def test_several_loops_have_labels(counted: Any) -> None:
    pytest.importorskip(CLIENT)
    from prometheus_client.parser import text_string_to_metric_families

    odd = 'a "b" \\n c\nd'  # a backslash, and a line that ends
    other = hotloop.new_event_loop()
    families = list(
        text_string_to_metric_families(prometheus.text({odd: counted, "two": other}))
    )
    found = samples(families)
    check(found, counted, odd)
    assert found["hotloop_turns_total", "two", ""] == 0
    assert len({family.name for family in families}) == len(families)
    other.close()


def test_collector(counted: Any) -> None:
    client = pytest.importorskip(CLIENT)
    from prometheus_client.parser import text_string_to_metric_families

    registry = client.CollectorRegistry()
    registry.register(prometheus.Collector(counted))
    check(samples(registry.collect()), counted)
    text = client.generate_latest(registry).decode()
    check(samples(text_string_to_metric_families(text)), counted)
    assert registry.get_sample_value("hotloop_turns_total") == counted.metrics().turns
    named = client.CollectorRegistry()
    named.register(prometheus.Collector({"one": counted}))
    check(samples(named.collect()), counted, "one")


def test_a_collector_does_not_keep_the_loop() -> None:
    client = pytest.importorskip(CLIENT)
    registry = client.CollectorRegistry()
    loop = hotloop.new_event_loop()
    registry.register(prometheus.Collector(loop))
    loop.close()
    assert len(list(registry.collect())) > 20
    del loop
    collect()
    assert list(registry.collect()) == []


def test_it_needs_a_loop_of_ours() -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match=r"a hotloop\.Loop was expected"):
            prometheus.text()

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())


async def fetch(address: Any, request: bytes) -> tuple[bytes, bytes, bytes]:
    """(status line, headers, body)"""
    reader, writer = await asyncio.open_connection(*address[:2])
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    status, _, headers = head.partition(b"\r\n")
    return status, headers, body


async def refused(address: Any, request: bytes) -> tuple[bytes | None, bytes]:
    """(status code, body) of an answer; what is hung up on has none."""
    try:
        status, _, body = await fetch(address, request)
    except ConnectionResetError:
        return None, b""
    return (status.split()[1] if status else None), body


def test_serving(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(CLIENT)
    from prometheus_client.parser import text_string_to_metric_families

    monkeypatch.setattr(prometheus, "_PATIENCE", 1000.0)

    async def main() -> None:
        server = await prometheus.serve(port=0)
        address = server.sockets[0].getsockname()
        assert address[0] == "127.0.0.1"
        get = b"GET /metrics?x HTTP/1.1\r\nHost: a\r\n\r\n"
        status, headers, body = await fetch(address, get)
        assert status == b"HTTP/1.1 200 OK"
        assert prometheus.CONTENT_TYPE.encode() in headers
        found = samples(text_string_to_metric_families(body.decode()))
        assert found["hotloop_running", "", ""] == 1
        assert found["hotloop_connections_accepted_total", "", ""] >= 1
        accept = b"Accept: application/openmetrics-text; version=1.0.0\r\n\r\n"
        _, headers, body = await fetch(address, get[:-2] + accept)
        assert b"openmetrics-text" in headers and body.endswith(b"# EOF\n")
        assert await refused(address, b"x" * 20000) == (None, b"")
        monkeypatch.setattr(prometheus, "_PATIENCE", 0.1)
        wrong = {
            b"HEAD /metrics HTTP/1.1\r\n\r\n": (b"200", b""),
            b"GET / HTTP/1.1\r\n\r\n": (b"404", b"/metrics only\n"),
            b"POST /metrics HTTP/1.1\r\n\r\n": (b"405", b"GET only\n"),
            b"nonsense\r\n\r\n": (b"400", b"not HTTP/1.1\n"),
            b"GET /met": (None, b""),  # and no more: it is hung up on
        }
        for request, answer in wrong.items():
            assert await refused(address, request) == answer
        server.close()
        await server.wait_closed()

    hotloop.run(main())


# ---- OpenTelemetry ----


def observed(reader: Any) -> dict[str, list[Any]]:
    """The points by the name of their metric."""
    data = reader.get_metrics_data()
    if data is None:
        return {}
    return {
        metric.name: list(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


@pytest.fixture
def reader_and_provider() -> Iterator[tuple[Any, Any]]:
    sdk = pytest.importorskip(SDK)
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    provider = sdk.MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    yield reader, provider
    provider.shutdown()


def test_opentelemetry(counted: Any, reader_and_provider: Any) -> None:
    from hotloop.exporters import opentelemetry

    reader, provider = reader_and_provider
    attributes = {"service": "tests"}
    opentelemetry.instrument(counted, meter_provider=provider, attributes=attributes)
    points, metrics = observed(reader), counted.metrics()
    turn = points["hotloop.loop.turns"]
    assert [point.value for point in turn] == [metrics.turns]
    assert turn[0].attributes == attributes
    busy = points["hotloop.loop.busy_time"]
    assert [point.value for point in busy] == [metrics.busy_seconds]
    lag = {p.attributes["quantile"]: p.value for p in points["hotloop.loop.lag"]}
    assert lag == {q: metrics.lag.quantile(q) for q in opentelemetry.QUANTILES}
    utilization = points["hotloop.loop.utilization"][0].value
    assert 0 < utilization <= 1
    for name in fields("counter") + fields("gauge"):
        assert "hotloop.loop." + name.replace("_seconds", "_time") in points, name


def test_opentelemetry_kinds_and_units(counted: Any, reader_and_provider: Any) -> None:
    from hotloop.exporters import opentelemetry

    reader, provider = reader_and_provider
    opentelemetry.instrument(counted, meter_provider=provider)
    data = reader.get_metrics_data().resource_metrics[0].scope_metrics[0]
    assert data.scope.name == "hotloop" and data.scope.version == hotloop.__version__
    found = {metric.name: metric for metric in data.metrics}
    assert found["hotloop.loop.turns"].data.is_monotonic
    assert not hasattr(found["hotloop.loop.tasks"].data, "is_monotonic")
    units = {"busy_time": "s", "lag": "s", "bytes_received": "By", "tasks": "1"}
    for name, unit in units.items():
        assert found[f"hotloop.loop.{name}"].unit == unit
    assert all(metric.description for metric in data.metrics)


def test_quantiles_are_of_the_interval(counted: Any, reader_and_provider: Any) -> None:
    from hotloop.exporters import opentelemetry

    reader, provider = reader_and_provider
    opentelemetry.instrument(counted, meter_provider=provider)
    assert observed(reader)["hotloop.loop.lag"]
    assert not observed(reader).get("hotloop.loop.lag")  # nothing happened since
    before = counted.metrics()
    counted.run_until_complete(turns(3))
    fresh = counted.metrics().since(before)
    points = observed(reader)
    lag = {p.attributes["quantile"]: p.value for p in points["hotloop.loop.lag"]}
    assert lag[1.0] == fresh.lag.max
    value = points["hotloop.loop.utilization"][0].value
    assert math.isclose(value, fresh.utilization, abs_tol=1e-6)


def test_opentelemetry_does_not_keep_the_loop(reader_and_provider: Any) -> None:
    from hotloop.exporters import opentelemetry

    reader, provider = reader_and_provider
    loop = hotloop.new_event_loop()
    opentelemetry.instrument(loop, meter_provider=provider)
    assert loop.metrics().enabled
    loop.close()
    assert observed(reader)["hotloop.loop.closed"][0].value == 1
    del loop
    collect()
    assert not any(observed(reader).values())


# ---- without the packages ----


def test_nothing_is_imported() -> None:
    out, _ = run_script(
        "hotloop",
        """
        import hotloop.control, hotloop.exporters
        from hotloop.exporters import prometheus, opentelemetry
        from hotloop._watch import plain, plot, record, screen, top
        loop = new_loop()
        prometheus.text(loop)
        loop.close()
        others = ("prometheus_client", "opentelemetry", "rich", "matplotlib")
        print([name for name in others if name in sys.modules])
        """,
    )
    assert out == "[]\n"


def test_a_plain_import_stays_small() -> None:
    out, _ = run_script(
        "hotloop",
        """
        names = ("hotloop.control", "hotloop.exporters", "hotloop._watch", "json")
        print([name for name in names if name in sys.modules])
        """,
    )
    assert out == "[]\n"

"""Names and addresses: getaddrinfo, getnameinfo, resolvers of one's own."""

# mypy: disable-error-code="attr-defined,arg-type"

from __future__ import annotations

import asyncio
import logging
import pathlib
import runpy
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dnsserver import serve_names
from servers import Echo, serve, stop
from support import ROOT, Recorder, loop_factory, run_script, turns, until

HOSTS: list[Any] = [
    "127.0.0.1",
    b"127.0.0.1",
    "127.1",
    "0x7f.1",
    "2130706433",
    "0",
    "255.255.255.255",
    "::1",
    b"::1",
    "::",
    "::ffff:192.0.2.1",
    "2001:DB8::A",
    "fe80::1%lo",
    "fe80::1%1",
    "fe80::1%nowhere",
    "::1%lo",
    "",
    b"",
    None,
    "127.0.0.1\0",
    "..",
    "1..2",
    "a" * 64,
    "1" * 80,
    5,
    bytearray(b"127.0.0.1"),
]

# No addresses, so a server would be asked for them; tried where none may be.
NAMES = ["256.1.1.1", "127.0.0.1.", " 127.0.0.1", "127.0.0.1 ", "1.2.3.4.5", "[::1]"]

PORTS: list[Any] = [
    80,
    0,
    65535,
    65536,
    -1,
    True,
    1 << 70,
    "80",
    b"80",
    "080",
    "",
    b"",
    "http",
    b"http",
    "nonsense-service",
    "80 ",
    "-1",
    "8\0",
    None,
    8.0,
]

HINTS: list[dict[str, Any]] = [
    {},
    {"type": socket.SOCK_STREAM},
    {"type": socket.SOCK_DGRAM, "proto": socket.IPPROTO_UDP},
    {"proto": socket.IPPROTO_TCP},
    {"type": socket.SOCK_RAW},
    {"type": socket.SOCK_STREAM, "proto": socket.IPPROTO_UDP},
    {"type": 77},
    {"proto": 255},
    {"family": socket.AF_INET},
    {"family": socket.AF_INET6},
    {"family": socket.AF_UNIX},
    {"family": 77},
    {"flags": socket.AI_PASSIVE, "type": socket.SOCK_STREAM},
    {"flags": socket.AI_CANONNAME},
    {"flags": socket.AI_NUMERICHOST},
    {"flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV},
    {"flags": socket.AI_ADDRCONFIG},
    {"flags": socket.AI_V4MAPPED | socket.AI_ALL, "family": socket.AF_INET6},
    {"flags": 1 << 30},
    {"flags": -1},
    {"type": "stream"},
    {"family": None},
]


def outcome(result: Any) -> Any:
    """A result, or what can be compared of an exception."""
    if isinstance(result, BaseException):
        return type(result), str(result), getattr(result, "errno", None)
    return result, [tuple(map(type, info)) for info in result]


def stdlib(host: Any, port: Any, hints: dict[str, Any]) -> Any:
    args = [hints.get(name, 0) for name in ("family", "type", "proto", "flags")]
    try:
        return outcome(socket.getaddrinfo(host, port, *args))
    except Exception as exc:
        return outcome(exc)


async def ours(host: Any, port: Any, hints: dict[str, Any]) -> Any:
    loop = asyncio.get_running_loop()
    try:
        return outcome(await loop.getaddrinfo(host, port, **hints))
    except Exception as exc:
        return outcome(exc)


@pytest.mark.parametrize("hints", HINTS, ids=str)
async def test_same_as_the_socket_module(loop: Any, hints: Any) -> None:
    """Every host with an ordinary port, every port with an ordinary host."""
    asks_nobody = hints.get("flags", 0) & socket.AI_NUMERICHOST
    hosts = HOSTS + NAMES if asks_nobody else HOSTS
    cases = [(host, 80) for host in hosts]
    cases += [(host, None) for host in hosts]
    cases += [("127.0.0.1", port) for port in PORTS]
    cases += [(None, port) for port in PORTS]
    for host, port in cases:
        assert await ours(host, port, hints) == stdlib(host, port, hints), (host, port)


@pytest.fixture
def threads(loop: Any) -> Iterator[list[str]]:
    """The functions that the default executor was given."""
    seen: list[str] = []

    class Counting(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            seen.append(getattr(fn, "__name__", "?"))
            return super().submit(fn, *args, **kwargs)

    executor = Counting(1)
    loop.set_default_executor(executor)
    yield seen
    executor.shutdown()


NUMERIC = [
    ("127.0.0.1", 80),
    (b"::1", "80"),
    ("fe80::1%1", b"80"),
    ("127.0.0.1", None),
    (None, 80),
]


@pytest.mark.parametrize("host,port", NUMERIC)
async def test_numeric_takes_no_thread(
    loop: Any, loop_kind: str, threads: list[str], host: Any, port: Any
) -> None:
    infos = await loop.getaddrinfo(host, port, flags=socket.AI_PASSIVE)
    assert infos == socket.getaddrinfo(host, port, flags=socket.AI_PASSIVE)
    assert threads == ([] if loop_kind == "hotloop" else ["getaddrinfo"])


@pytest.mark.parametrize(
    "host,port", [("localhost", 80), ("127.0.0.1", "http"), ("127.0.0.1", "80 ")]
)
async def test_names_take_the_default_executor(
    loop: Any, threads: list[str], host: Any, port: Any
) -> None:
    assert await ours(host, port, {}) == stdlib(host, port, {})
    assert threads == ["getaddrinfo"]


async def test_name_not_found(loop: Any) -> None:
    with pytest.raises(socket.gaierror) as caught:
        await loop.getaddrinfo("no-such-host.invalid", 80)
    assert caught.value.errno in (
        socket.EAI_NONAME,
        socket.EAI_AGAIN,
        socket.EAI_NODATA,
    )
    with pytest.raises(socket.gaierror):
        await loop.create_connection(Recorder, "no-such-host.invalid", 80)


@pytest.mark.parametrize("flags", range(32))
async def test_getnameinfo(loop: Any, flags: int) -> None:
    addresses: list[Any] = [("127.0.0.1", 80)]
    if flags & socket.NI_NUMERICHOST:  # else a server might be asked
        addresses += [("::1", 80, 0, 0), ("::1", 80, 5), ("::1", 80)]
    for address in addresses:
        try:
            wanted: Any = socket.getnameinfo(address, flags)
        except OSError as exc:
            wanted = type(exc), exc.args
        try:
            got: Any = await loop.getnameinfo(address, flags)
        except OSError as exc:
            got = type(exc), exc.args
        assert got == wanted, address


async def test_numeric_getnameinfo_takes_no_thread(
    loop: Any, loop_kind: str, threads: list[str]
) -> None:
    flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    assert await loop.getnameinfo(("127.0.0.1", 80), flags) == ("127.0.0.1", "80")
    assert threads == ([] if loop_kind == "hotloop" else ["getnameinfo"])
    assert (await loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST))[0]
    assert threads[-1] == "getnameinfo"


@pytest.mark.parametrize("address", [5, (), ("127.0.0.1",), ("localhost", 80), None])
@pytest.mark.parametrize("flags", [0, 3])
async def test_wrong_getnameinfo(loop: Any, address: Any, flags: int) -> None:
    with pytest.raises(Exception) as wanted:
        socket.getnameinfo(address, flags)
    with pytest.raises(type(wanted.value)) as got:
        await loop.getnameinfo(address, flags)
    assert str(got.value) == str(wanted.value)


async def test_a_replaced_function_is_called(
    loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests and tools steer resolution by replacing the functions of socket."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: ["infos", *args])
    monkeypatch.setattr(socket, "getnameinfo", lambda *args: ["name", *args])
    assert await loop.getaddrinfo("127.0.0.1", 80) == [
        *("infos", "127.0.0.1", 80),
        *(0, 0, 0, 0),
    ]
    assert await loop.getnameinfo(("127.0.0.1", 80), 3) == [
        *("name", ("127.0.0.1", 80), 3)
    ]


async def test_debug_logs(
    loop: Any, log: Any, caplog: pytest.LogCaptureFixture
) -> None:
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    with caplog.at_level(logging.INFO, "asyncio"):
        await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
    [text] = [r.getMessage() for r in caplog.records if "address info" in r.message]
    assert text.startswith("Getting address info 127.0.0.1:80, type=")
    assert " took " in text and "('127.0.0.1', 80)" in text
    loop.slow_callback_duration = 10.0
    log.take()  # callbacks that took more than no time


def test_audit(loop_kind: str) -> None:
    out, _ = run_script(
        loop_kind,
        """
        def hook(event, args):
            if event.startswith("socket.get") or event == "socket.connect":
                print(event, *args[-5:] if event != "socket.connect" else args[1:])
                if args[0] == "127.0.0.9":
                    raise PermissionError("not this one")

        async def main():
            loop = asyncio.get_running_loop()
            sys.addaudithook(hook)
            await loop.getaddrinfo("127.0.0.1", 80)
            await loop.getaddrinfo("::1", "80", type=1, proto=6, family=10)
            await loop.getaddrinfo("localhost", 80, family=2)
            await loop.getnameinfo(("127.0.0.1", 80), 3)
            try:
                await loop.getaddrinfo("127.0.0.9", 80)
            except PermissionError as exc:
                print(exc)
            try:
                await loop.create_connection(asyncio.Protocol, "127.0.0.1", 1)
            except ConnectionRefusedError:
                pass

        run(main())
        """,
    )
    assert out.splitlines() == [
        "socket.getaddrinfo 127.0.0.1 80 0 0 0",
        "socket.getaddrinfo ::1 80 10 1 6",
        "socket.getaddrinfo localhost 80 2 0 0",
        "socket.getnameinfo ('127.0.0.1', 80)",
        "socket.getaddrinfo 127.0.0.9 80 0 0 0",
        "not this one",
        "socket.connect ('127.0.0.1', 1)",
    ]


async def test_an_overridden_getaddrinfo_is_asked(loop: Any, loop_kind: str) -> None:
    server, (_, port) = await serve(Echo)
    calls: list[Any] = []

    async def getaddrinfo(host: Any, number: Any, **hints: Any) -> Any:
        calls.append((threading.current_thread(), host, number))
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    loop.getaddrinfo = getaddrinfo
    transport, protocol = await loop.create_connection(Recorder, "name.test", 7)
    assert transport.get_extra_info("peername") == ("127.0.0.1", port)
    assert calls == [(threading.main_thread(), "name.test", 7)]
    transport.close()
    await protocol.closed
    await stop(server)


# What follows is ours alone.


@pytest.fixture
def ours_only(loop_kind: str) -> None:
    if loop_kind == "asyncio":
        pytest.skip("asyncio has no set_resolver()")


async def test_resolver(loop: Any, ours_only: None, threads: list[str]) -> None:
    asked: list[Any] = []

    async def resolve(host: Any, port: Any, **hints: Any) -> Any:
        asked.append((host, port, hints))
        await asyncio.sleep(0)
        return iter([(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))])

    async def name(address: Any, flags: int) -> tuple[str, str]:
        return f"host of {address[0]}", str(flags)

    loop.set_resolver(resolve, name)
    server, (_, port) = await serve(Echo)
    assert asked == []
    transport, protocol = await loop.create_connection(Recorder, "some.test", port)
    hints = {"family": 0, "type": socket.SOCK_STREAM, "proto": 0, "flags": 0}
    assert asked == [("some.test", port, hints)]
    transport.close()
    await protocol.closed
    assert await loop.getnameinfo(("192.0.2.1", 1), 8) == ("host of 192.0.2.1", "8")
    assert (await loop.getaddrinfo("x.test", 5))[0][4] == ("127.0.0.1", 5)
    # Numeric ones are not asked of anybody, whoever asks.
    assert (await loop.getaddrinfo("192.0.2.1", 5))[0][4] == ("192.0.2.1", 5)
    assert await loop.getnameinfo(("192.0.2.1", 1), 3) == ("192.0.2.1", "1")
    loop.set_debug(True)
    assert (await loop.getaddrinfo("192.0.2.1", 5))[0][4] == ("192.0.2.1", 5)
    loop.set_debug(False)
    assert len(asked) == 2 and threads == []
    loop.set_resolver()
    assert (await loop.getaddrinfo("localhost", 5, family=socket.AF_INET))[0]
    assert threads == ["getaddrinfo"]
    await stop(server)


async def test_resolver_errors_and_cancelling(loop: Any, ours_only: None) -> None:
    cancelled = loop.create_future()

    async def resolve(host: Any, port: Any, **hints: Any) -> Any:
        if host == "none.test":
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        if host == "empty.test":
            return []
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set_result(host)

    loop.set_resolver(resolve)
    with pytest.raises(socket.gaierror, match="no such name"):
        await loop.create_connection(Recorder, "none.test", 1)
    with pytest.raises(OSError, match=r"getaddrinfo\(\) returned empty list"):
        await loop.create_connection(Recorder, "empty.test", 1)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(loop.create_connection(Recorder, "slow.test", 1), 0.01)
    assert cancelled.result() == "slow.test"
    for wrong in (5, "resolver"):
        with pytest.raises(TypeError, match="a resolver must be callable"):
            loop.set_resolver(wrong)
        with pytest.raises(TypeError, match="a resolver must be callable"):
            loop.set_resolver(resolve, wrong)


async def test_resolver_is_logged_in_debug_mode(
    loop: Any, ours_only: None, log: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def resolve(host: Any, port: Any, **hints: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))]

    loop.set_resolver(resolve)
    loop.set_debug(True)
    for limit, level in ((0.0, logging.INFO), (10.0, logging.DEBUG)):
        loop.slow_callback_duration = limit
        caplog.clear()
        with caplog.at_level(logging.DEBUG, "asyncio"):
            await loop.getaddrinfo("slow.test", 80)
        [record] = [r for r in caplog.records if "address info" in r.message]
        assert record.levelno == level
        assert "Getting address info slow.test:80 took" in record.message
    log.take()


async def test_aiodns_example(
    loop: Any, ours_only: None, threads: list[str], tmp_path: pathlib.Path
) -> None:
    """The example, against a DNS server of our own."""
    pytest.importorskip("aiodns")
    example = runpy.run_path(str(ROOT / "examples" / "resolver_aiodns.py"))
    server, (_, port) = await serve(Echo)
    names = await serve_names(
        {
            "both.test": ["127.0.0.1", "2001:db8::7"],
            "four.test": ["192.0.2.4", "192.0.2.5"],
        }
    )
    dns_port = names.transport.get_extra_info("sockname")[1]
    resolver = example["AresResolver"](
        nameservers=[f"127.0.0.1:{dns_port}"], timeout=5, tries=1
    )
    loop.set_resolver(resolver.getaddrinfo, resolver.getnameinfo)
    infos = await loop.getaddrinfo("both.test", 80, family=socket.AF_INET6)
    kinds = [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW]
    assert [info[1] for info in infos] == kinds
    assert {info[4] for info in infos} == {("2001:db8::7", 80, 0, 0)}
    hosts = await loop.getaddrinfo("four.test", "80", type=socket.SOCK_STREAM)
    assert {info[4] for info in hosts} == {("192.0.2.4", 80), ("192.0.2.5", 80)}
    with pytest.raises(socket.gaierror) as caught:
        await loop.getaddrinfo("none.test", 80)
    assert caught.value.errno == socket.EAI_NONAME
    transport, protocol = await loop.create_connection(
        Recorder, "both.test", port, family=socket.AF_INET
    )
    transport.write(b"by name")
    await until(lambda: protocol.data == b"by name")
    assert set(names.asked) == {"both.test", "four.test", "none.test"}
    assert (await loop.getnameinfo(("127.0.0.1", 1), socket.NI_NUMERICHOST))[0]
    assert threads == []
    transport.close()
    await protocol.closed
    await resolver.close()
    names.transport.close()
    await turns(2)
    await stop(server)


def test_numeric_names_of_a_closed_loop(loop_kind: str) -> None:
    loop = loop_factory(loop_kind)()
    loop.close()
    for coro in (
        loop.getaddrinfo("127.0.0.1", 80),
        loop.getnameinfo(("127.0.0.1", 80), 3),
    ):
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            coro.send(None)

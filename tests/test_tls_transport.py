"""The transport of a TLS connection: what it tells, takes, and refuses."""

from __future__ import annotations

import array
import asyncio
import hashlib
from typing import Any

import pytest

from support import BufferedRecorder, Recorder, tcp_pair, turns, until
from tlspeers import (
    WAYS,
    Peer,
    both_ends,
    echo,
    open_tls,
    recv_exactly,
    with_peer,
)

KINDS = ["client", "server"]


async def over(transport: Any, protocol: Any, peer: Any = None) -> Any:
    transport.close()
    assert await protocol.closed is None
    return await peer.result() if peer is not None else None


def take_all(tls: Any) -> bytes:
    """The work of a peer that only reads."""
    got = bytearray()
    while data := tls.recv(1 << 20):
        got += data
    return bytes(got)


@pytest.mark.parametrize("way", WAYS)
async def test_extra_info(loop: Any, tls: Any, way: str) -> None:
    near, far = tcp_pair()
    names = near.getsockname(), near.getpeername()
    contexts = tls
    protocol = Recorder()
    sockname, peername = names

    def work(sock: Any) -> Any:
        context = contexts[1] if way.endswith("server") else contexts[0]
        side = {"server_side": True}
        if way.endswith("server"):
            side = {"server_hostname": "localhost"}  # type: ignore[dict-item]
        with context.wrap_socket(sock, **side) as secure:
            return echo(secure)

    peer = Peer(far, work)
    transport = await open_tls(near, tls, way, protocol)
    info = transport.get_extra_info
    assert info("sockname") == sockname and info("peername") == peername
    assert info("socket").fileno() == near.fileno()
    assert info("sslcontext") is (tls[0] if way.endswith("server") else tls[1])
    ssl_object = info("ssl_object")
    assert info("cipher") == ssl_object.cipher()
    assert info("compression") is None and info("compression", 5) is None
    assert info("peercert") == ssl_object.getpeercert()
    for name in ("pipe", "subprocess", "no such name", ""):
        assert info(name) is None and info(name, default="given") == "given"
    with pytest.raises(TypeError):
        info()
    # It stays the program's to ask when all is over, for what TLS found out.
    await over(transport, protocol)
    await peer.result()
    assert info("ssl_object") is ssl_object
    assert info("cipher") and info("sslcontext").check_hostname is (
        not way.endswith("server")
    )
    assert info("peername") is None and info("socket", 7) == 7


async def test_what_it_is(loop: Any, tls: Any) -> None:
    transport, protocol, peer = await with_peer(tls, echo)
    assert isinstance(transport, asyncio.Transport)
    assert protocol.events == ["made"] and protocol.transport is transport
    assert transport.can_write_eof() is False
    with pytest.raises(NotImplementedError):
        transport.write_eof()
    assert transport.is_closing() is False and transport.is_reading() is True
    assert transport.get_protocol() is protocol
    assert transport._start_tls_compatible is True
    assert transport.get_write_buffer_size() == 0
    assert transport.get_read_buffer_size() == 0
    await over(transport, protocol, peer)
    assert transport.is_closing() is True


@pytest.mark.parametrize("kind", ["write", "read"])
async def test_limits(loop: Any, tls: Any, kind: str) -> None:
    transport, protocol, peer = await with_peer(tls, echo)
    get = getattr(transport, f"get_{kind}_buffer_limits")
    change = getattr(transport, f"set_{kind}_buffer_limits")
    default = (512 if kind == "write" else 256) * 1024
    assert get() == (default // 4, default)
    for arguments, expected in (
        ({"high": 1000}, (250, 1000)),
        ({"low": 1000}, (1000, 4000)),
        ({"high": 5, "low": 5}, (5, 5)),
        ({"high": 0}, (0, 0)),
        ({"low": 0}, (0, 0)),
        ({}, (default // 4, default)),
    ):
        change(**arguments)
        assert get() == expected
    for high, low in ((1, 2), (-1, None), (None, -1), (5, -1)):
        with pytest.raises(ValueError) as caught:
            change(high, low)
        shown = {
            (1, 2): "high (1) must be >= low (2) must be >= 0",
            (-1, None): "high (-1) must be >= low (-1) must be >= 0",
            (None, -1): "high (-4) must be >= low (-1) must be >= 0",
            (5, -1): "high (5) must be >= low (-1) must be >= 0",
        }
        assert str(caught.value) == shown[high, low]
        assert get() == (default // 4, default)
    with pytest.raises(TypeError):
        change("1")
    await over(transport, protocol, peer)


@pytest.mark.parametrize("way", KINDS)
async def test_reading_is_paused(loop: Any, tls: Any, way: str) -> None:
    """No byte comes while it is paused; all come, in order, afterwards."""
    data = bytes(range(256)) * 8192  # more than its buffers and the system's

    def work(sock: Any) -> None:
        assert sock.recv(2) == b"go"
        sock.sendall(data)
        assert sock.recv(4) == b"done"

    transport, protocol, peer = await with_peer(tls, work, way)
    transport.pause_reading()
    transport.pause_reading()
    assert transport.is_reading() is False
    transport.write(b"go")
    # What it has read of the encrypted bytes is bounded, and the rest waits.
    await until(lambda: transport.get_read_buffer_size() >= 256 * 1024)
    await turns(20)
    assert transport.get_read_buffer_size() < 1024 * 1024
    assert protocol.data == b"" and protocol.events == ["made"]
    transport.resume_reading()
    assert transport.is_reading() is True
    assert protocol.data == b""  # not from within
    transport.resume_reading()
    await until(lambda: len(protocol.data) == len(data))
    assert protocol.data == data
    assert transport.get_read_buffer_size() == 0
    transport.write(b"done")
    await peer.result()
    assert await protocol.closed is None
    assert protocol.events == ["made", "data", "eof", "lost"]


@pytest.mark.parametrize("way", KINDS)
async def test_protocols_change(loop: Any, tls: Any, way: str) -> None:
    """Plain to buffered and back, in the middle of a stream."""
    transport, first, peer = await with_peer(tls, echo, way)
    transport.write(b"one")
    await until(lambda: first.data == b"one")
    second = BufferedRecorder(4)
    transport.set_protocol(second)
    assert transport.get_protocol() is second
    transport.write(b"two, longer than the buffer")
    await until(lambda: second.data == b"two, longer than the buffer")
    third = Recorder()
    third.events.append("set")
    transport.set_protocol(third)
    transport.write(b"three")
    await until(lambda: third.data == b"three")
    await over(transport, third, peer)
    assert first.data == b"one" and first.events == ["made", "data"]
    assert second.events == [] and second.hints and min(second.hints) >= 0
    assert third.events[0] == "set" and third.events[-1] == "lost"


async def test_protocol_changes_within_a_callback(loop: Any, tls: Any) -> None:
    """What was read already goes to the old protocol, the rest to the new."""

    class Changing(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            transport.set_protocol(second)
            transport.write(b"next")

    second = BufferedRecorder()
    transport, first, peer = await with_peer(tls, echo, protocol=Changing())
    transport.write(b"first")
    await until(lambda: second.data == b"next")
    assert first.data == b"first"
    await over(transport, second, peer)


class Text(bytes):
    """A subclass is as good."""


@pytest.mark.parametrize("way", KINDS)
async def test_what_is_written(loop: Any, tls: Any, way: str) -> None:
    block = bytes(range(256)) * 40
    pieces: list[Any] = [
        b"bytes",
        bytearray(b"bytearray"),
        Text(b"text"),
        memoryview(b"memoryview"),
        memoryview(bytearray(b"of a bytearray"))[3:],
        memoryview(block)[1:],
        b"",
        bytearray(),
        memoryview(b""),
        block * 30,
    ]
    expected = b"".join(bytes(piece) for piece in pieces)
    transport, protocol, peer = await with_peer(tls, take_all, way)
    for piece in pieces:
        assert transport.write(piece) is None
    for lines in (pieces, tuple(pieces), (piece for piece in pieces), [], [b""]):
        assert transport.writelines(lines) is None
        expected += b"".join(pieces) if lines and lines != [b""] else b""
    assert await over(transport, protocol, peer) == expected


async def test_views_of_other_shapes(loop: Any, tls: Any, reports: Any) -> None:
    """len() of a view with wide items is not its bytes: asyncio sends them all.

    A view that is not contiguous ends the connection with BufferError.
    """
    wide = memoryview(array.array("I", range(100)))
    transport, protocol, peer = await with_peer(tls, take_all)
    transport.write(wide)
    transport.write(memoryview(b"a" * 12).cast("B", (3, 4)))
    transport.writelines([wide, b"end"])
    expected = wide.tobytes() + b"a" * 12 + wide.tobytes() + b"end"
    assert await over(transport, protocol, peer) == expected
    transport, protocol, peer = await with_peer(tls, take_all)
    transport.write(memoryview(b"abcdef")[::2])
    error = await protocol.closed
    assert type(error) is BufferError
    report = reports.one()
    assert report["message"] == "Fatal error on SSL protocol"
    assert report["exception"] is error
    assert set(report) == {"message", "exception", "transport", "protocol"}
    assert await peer.ended() != b"ace"


@pytest.mark.parametrize(
    "data", ["text", 5, None, [b"a"], array.array("B", b"a"), object()]
)
async def test_what_is_not_written(loop: Any, tls: Any, data: Any) -> None:
    transport, protocol, peer = await with_peer(tls, take_all)
    with pytest.raises(TypeError) as caught:
        transport.write(data)
    expected = f"data: expecting a bytes-like instance, got {type(data).__name__}"
    assert str(caught.value) == expected
    transport.write(b"unharmed")
    assert await over(transport, protocol, peer) == b"unharmed"
    with pytest.raises(TypeError):
        transport.write(data)


async def test_lines_of_other_things(loop: Any, tls: Any, reports: Any) -> None:
    transport, protocol, peer = await with_peer(tls, take_all)
    with pytest.raises(TypeError):
        transport.writelines(5)
    with pytest.raises(TypeError):
        transport.writelines([b"sent before", 5])
    transport.abort()
    await protocol.closed
    await peer.ended()


async def test_bytearray_is_the_callers_again(loop: Any, tls: Any) -> None:
    """What the engine took may be changed; nothing else of it is looked at."""
    transport, protocol, peer = await with_peer(tls, take_all)
    data = bytearray(b"before" * 1000)
    transport.write(data)
    assert transport.get_write_buffer_size() == 0
    data[:] = b"after"
    assert await over(transport, protocol, peer) == b"before" * 1000


class Writer(Recorder):
    """Writes its name in every callback."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.write(b"<made>")

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.transport.write(b"<data>")

    def eof_received(self) -> bool:
        self.transport.write(b"<eof>")
        return super().eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.transport.write(b"<lost>")
        super().connection_lost(exc)


@pytest.mark.parametrize("way", KINDS)
async def test_writes_in_callbacks(loop: Any, tls: Any, way: str) -> None:
    """Those before the end arrive; in eof_received() it depends on who ended."""

    def work(sock: Any) -> bytes:
        got = recv_exactly(sock, 6)
        sock.sendall(b"x")
        return got + recv_exactly(sock, 6)

    _, protocol, peer = await with_peer(tls, work, way, Writer())
    assert await peer.result() == b"<made><data>"
    assert await protocol.closed is None
    assert protocol.events == ["made", "data", "eof", "lost"]


@pytest.mark.parametrize("way", ["start_tls client", "start_tls server"])
async def test_writes_before_the_handshake_is_over(
    loop: Any, tls: Any, way: str
) -> None:
    """A protocol may find its TLS transport before start_tls() returns it.

    sni_callback and msg_callback run in the middle of the handshake.
    """
    protocol = Recorder()
    near, far = tcp_pair()
    context = tls[0] if way.endswith("server") else tls[1]
    plain, _ = await loop.connect_accepted_socket(lambda: protocol, near)
    data = bytes(100_000)
    written: list[int] = []

    def note(*args: Any) -> None:
        secure = found()
        if secure is not None and not written:
            secure.write(data)
            written.append(secure.get_write_buffer_size())

    def found() -> Any:
        below = plain.get_protocol()
        return getattr(below, "_app_transport", None)

    context._msg_callback = note

    def work(sock: Any) -> Any:
        if way.endswith("server"):
            with tls[1].wrap_socket(sock, server_hostname="localhost") as secure:
                return take_all(secure)
        with tls[0].wrap_socket(sock, server_side=True) as secure:
            return take_all(secure)

    peer = Peer(far, work)
    kwargs: dict[str, Any] = {"server_side": True}
    if not way.endswith("server"):
        kwargs = {"server_hostname": "localhost"}
    transport = await loop.start_tls(plain, protocol, context, **kwargs)
    if not written:  # the transport is not to be found: nothing to write early
        transport.write(data)
        written.append(len(data))
    assert written == [len(data)]
    assert await over(transport, protocol, peer) == data


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_writes_after_the_end(loop: Any, tls: Any, how: str, log: Any) -> None:
    """Nothing happens, but a warning from the sixth on, once it is over."""
    transport, protocol, peer = await with_peer(tls, take_all)
    getattr(transport, how)()
    transport.write(b"never arrives")
    transport.writelines([b"never"])
    transport.write(b"")
    assert transport.get_write_buffer_size() == 0
    assert log == []
    assert await protocol.closed is None
    for _ in range(2):
        transport.write(b"late")
    assert log == []
    for _ in range(3):
        transport.write(b"late")
    assert log.take() == ["SSL connection is closed"] * 3
    transport.write(b"")  # is nothing to write
    assert log == []
    with pytest.raises(TypeError):
        transport.write("late")
    if how == "close":
        assert await peer.result() == b""
    else:
        await peer.ended()


@pytest.mark.parametrize("way", KINDS)
async def test_writing_is_paused(loop: Any, tls: Any, way: str) -> None:
    """pause_writing() at 512 KiB, resume_writing() at a quarter of it."""
    start = asyncio.Event()
    total = 16 << 20

    def work(sock: Any) -> str:
        assert sock.recv(1) == b"?"
        asyncio.run_coroutine_threadsafe(start.wait(), loop).result(20)
        return hashlib.sha256(recv_exactly(sock, total)).hexdigest()

    transport, protocol, peer = await with_peer(tls, work, way)
    transport.write(b"?")
    data = memoryview(bytes(range(256)) * (total >> 8))
    sent = 0
    while "pause" not in protocol.events:
        before = transport.get_write_buffer_size()
        assert before < 512 * 1024
        transport.write(data[sent : sent + 65536])
        sent += 65536
        assert sent < total, "never paused"
    assert transport.get_write_buffer_size() >= 512 * 1024
    assert transport.get_write_buffer_size() < 1 << 20
    assert protocol.events == ["made", "pause"]
    start.set()
    await until(lambda: protocol.events[-1] == "resume")
    assert transport.get_write_buffer_size() <= 128 * 1024
    while sent < total:
        transport.write(data[sent : sent + 65536])
        sent += 65536
        await until(lambda: protocol.events[-1] != "pause")
    digest = await peer.result()
    assert digest == hashlib.sha256(data).hexdigest()
    transport.close()
    await protocol.closed


async def test_limit_of_zero(loop: Any, tls: Any) -> None:
    """asyncio pauses at once, for what is in the buffer is not less than it."""
    transport, protocol, peer = await with_peer(tls, echo)
    transport.set_write_buffer_limits(high=0)
    assert protocol.events == ["made", "pause"]
    transport.write(b"a")
    await until(lambda: protocol.data == b"a")
    transport.set_write_buffer_limits()
    assert protocol.events.count("pause") == protocol.events.count("resume")
    await over(transport, protocol, peer)


@pytest.mark.parametrize("way", WAYS)
async def test_sendfile(loop: Any, tls: Any, way: str, tmp_path: Any) -> None:
    data = bytes(range(256)) * 3000
    (tmp_path / "file").write_bytes(data)
    transport, protocol, peer = await with_peer(tls, take_all, way)
    transport.write(b"<")
    with open(tmp_path / "file", "rb") as file:
        assert await loop.sendfile(transport, file, 10, 500_000) == 500_000
        assert file.tell() == 500_010
        transport.write(b"><")
        assert await loop.sendfile(transport, file, 500_010) == len(data) - 500_010
        assert transport.get_protocol() is protocol and transport.is_reading()
        if not transport.get_extra_info("ktls_send"):
            with pytest.raises(RuntimeError, match="fallback is disabled"):
                await loop.sendfile(transport, file, fallback=False)
        transport.write(b">")
        got = await over(transport, protocol, peer)
        assert got == b"<" + data[10:500_010] + b"><" + data[500_010:] + b">"
        with pytest.raises(RuntimeError, match="Transport is closing"):
            await loop.sendfile(transport, file)


async def test_both_ends_of_one_loop(loop: Any, tls: Any) -> None:
    client, server = await both_ends(tls)
    near, far = client.get_protocol(), server.get_protocol()
    data = bytes(range(256)) * 4096
    client.write(data)
    server.write(data[::-1])
    await until(lambda: len(far.data) == len(near.data) == len(data))
    assert far.data == data and near.data == data[::-1]
    client.close()
    assert await near.closed is None and await far.closed is None
    assert far.events[-2:] == ["eof", "lost"]

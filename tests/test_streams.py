"""asyncio streams, unchanged: readers, writers, servers, limits, errors."""

# mypy: disable-error-code="assignment,override"

from __future__ import annotations

import asyncio
import gc
import hashlib
import inspect
import random
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from servers import stop
from support import (
    PY,
    connected,
    reset,
    settle,
    tcp_pair,
    turns,
    until,
    wanted_kinds,
)


@pytest.fixture(
    autouse=True,
    params=["stock", "switch"] if "hotloop" in wanted_kinds() else ["stock"],
)
def classes(request: pytest.FixtureRequest) -> Iterator[str]:
    """Everything once with asyncio's classes and once with hotloop's."""
    kind: str = request.param
    if kind == "stock":
        yield kind
        return
    import hotloop

    hotloop.install_streams()
    yield kind
    hotloop.uninstall_streams()


async def echo(reader: Any, writer: Any) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def stream_pair(limit: int = 65536) -> tuple[Any, Any, socket.socket]:
    """(reader, writer, plain socket at the far end)."""
    near, far = tcp_pair()
    reader, writer = await asyncio.open_connection(sock=near, limit=limit)
    return reader, writer, far


async def end(writer: Any, peer: socket.socket | None = None) -> None:
    writer.close()
    try:
        await writer.wait_closed()
    except ConnectionError:
        assert peer is None
    if peer is not None:
        peer.close()


async def test_echo_server(loop: Any) -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection(*address)
        for turn in range(20):
            message = b"%d %d" % (number, turn)
            writer.write(message)
            await writer.drain()
            assert await reader.readexactly(len(message)) == message
        writer.write_eof()
        assert await reader.read() == b""
        await end(writer)

    await asyncio.gather(*(client(n) for n in range(30)))
    await settle()
    await stop(server)


async def test_large_both_ways_with_drain(loop: Any) -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    generator = random.Random(1)
    sent, got = hashlib.sha256(), hashlib.sha256()
    total = 16 << 20

    async def pour() -> None:
        left = total
        while left:
            piece = generator.randbytes(min(left, 100_000))
            sent.update(piece)
            left -= len(piece)
            writer.write(piece)
            await writer.drain()
        writer.write_eof()

    async def read() -> None:
        while data := await reader.read(generator.randrange(1, 200_000)):
            got.update(data)
            await asyncio.sleep(0)

    await asyncio.gather(pour(), read())
    assert got.digest() == sent.digest()
    await end(writer)
    await settle()
    await stop(server)


async def test_read(loop: Any) -> None:
    reader, writer, peer = await stream_pair()
    assert await reader.read(0) == b""
    peer.send(b"abcdef")
    assert await reader.read(2) == b"ab"
    assert await reader.read(100) == b"cdef"
    task = asyncio.create_task(reader.read(10))
    await turns(2)
    assert not task.done()
    peer.send(b"later")
    assert await task == b"later"
    peer.send(b"tail")
    peer.shutdown(socket.SHUT_WR)
    assert await reader.read(-1) == b"tail"
    assert await reader.read() == b"" and reader.at_eof()
    await end(writer, peer)


async def test_readline(loop: Any) -> None:
    reader, writer, peer = await stream_pair()
    peer.send(b"one\ntwo\n\nthr")
    assert await reader.readline() == b"one\n"
    assert await reader.readline() == b"two\n"
    assert await reader.readline() == b"\n"
    task = asyncio.create_task(reader.readline())
    await turns(2)
    peer.send(b"ee\nrest")
    assert await task == b"three\n"
    peer.shutdown(socket.SHUT_WR)
    assert await reader.readline() == b"rest"
    assert await reader.readline() == b""
    await end(writer, peer)


async def test_lines_byte_by_byte(loop: Any) -> None:
    reader, writer, peer = await stream_pair()
    lines = [b"x" * n + b"\n" for n in range(20)]

    async def feed() -> None:
        for byte in b"".join(lines):
            await loop.sock_sendall(peer, bytes([byte]))
            await turns(1)

    task = asyncio.create_task(feed())
    assert [await reader.readline() for _ in lines] == lines
    await task
    await end(writer, peer)


async def test_async_iteration(loop: Any) -> None:
    reader, writer, peer = await stream_pair()
    peer.send(b"a\nb\nc")
    peer.shutdown(socket.SHUT_WR)
    assert [line async for line in reader] == [b"a\n", b"b\n", b"c"]
    await end(writer, peer)


async def test_readexactly(loop: Any) -> None:
    reader, writer, peer = await stream_pair()
    assert await reader.readexactly(0) == b""
    task = asyncio.create_task(reader.readexactly(6))
    for piece in (b"ab", b"cd", b"efgh"):
        await turns(2)
        assert not task.done()
        await loop.sock_sendall(peer, piece)
        await asyncio.sleep(0.002)
    assert await task == b"abcdef"
    with pytest.raises(ValueError, match="can not be less than zero"):
        await reader.readexactly(-1)
    peer.shutdown(socket.SHUT_WR)
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        await reader.readexactly(10)
    assert caught.value.partial == b"gh" and caught.value.expected == 10
    await end(writer, peer)


async def test_readuntil(loop: Any) -> None:
    reader, writer, peer = await stream_pair()
    peer.send(b"headENDbo")
    assert await reader.readuntil(b"END") == b"headEND"
    task = asyncio.create_task(reader.readuntil(b"dyE"))
    await turns(2)
    peer.send(b"dy")
    await asyncio.sleep(0.002)
    peer.send(b"E")
    assert await task == b"bodyE"
    with pytest.raises(ValueError, match="at least one-byte"):
        await reader.readuntil(b"")
    if PY >= (3, 13):
        peer.send(b"one;two,")
        assert await reader.readuntil((b",", b";")) == b"one;"
        assert await reader.readuntil((b",", b";")) == b"two,"
    peer.send(b"no more")
    peer.shutdown(socket.SHUT_WR)
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        await reader.readuntil(b"!")
    assert caught.value.partial == b"no more"
    await end(writer, peer)


async def test_limit_overrun(loop: Any) -> None:
    reader, writer, peer = await stream_pair(limit=100)
    peer.send(b"x" * 150 + b"\n")
    with pytest.raises(ValueError, match="Separator is"):
        await reader.readline()
    await end(writer, peer)
    reader, writer, peer = await stream_pair(limit=100)
    peer.send(b"y" * 150)
    with pytest.raises(asyncio.LimitOverrunError):
        await reader.readuntil(b"\n")
    assert await reader.readexactly(150) == b"y" * 150
    await end(writer, peer)


async def test_limit_pauses_the_transport(loop: Any) -> None:
    reader, writer, peer = await stream_pair(limit=1000)
    await loop.sock_sendall(peer, b"z" * 50_000)
    await until(lambda: not writer.transport.is_reading())
    assert reader._paused is True
    assert len(reader._buffer) > 2000
    assert await reader.readexactly(50_000) == b"z" * 50_000
    await until(writer.transport.is_reading)
    await end(writer, peer)


async def test_slow_reader_loses_nothing(loop: Any) -> None:
    reader, writer, peer = await stream_pair(limit=4096)
    data = random.Random(2).randbytes(2_000_000)
    task = asyncio.create_task(loop.sock_sendall(peer, data))
    got = bytearray()
    while len(got) < len(data):
        got += await reader.read(30_000)
        if len(got) % 7 == 0:
            await asyncio.sleep(0.001)
    await task
    assert got == data
    await end(writer, peer)


async def test_two_readers_are_refused(loop: Any) -> None:
    reader, writer, peer = await stream_pair()
    task = asyncio.create_task(reader.read(1))
    await turns(2)
    with pytest.raises(RuntimeError, match="another coroutine is already waiting"):
        await reader.read(1)
    peer.send(b"x")
    assert await task == b"x"
    await end(writer, peer)


async def test_cancelled_read_keeps_the_data(loop: Any) -> None:
    reader, writer, peer = await stream_pair()
    task = asyncio.create_task(reader.readexactly(4))
    await turns(2)
    peer.send(b"ab")
    await until(lambda: len(reader._buffer) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    peer.send(b"cd")
    assert await reader.readexactly(4) == b"abcd"
    await end(writer, peer)


async def test_timeouts_around_reads(loop: Any) -> None:
    reader, writer, peer = await stream_pair()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.003):
                await reader.readline()
    peer.send(b"line\n")
    assert await reader.readline() == b"line\n"
    await end(writer, peer)


async def test_reset_reaches_the_reader(loop: Any) -> None:
    reader, writer, peer = await stream_pair()
    task = asyncio.create_task(reader.read(10))
    await turns(2)
    reset(peer)
    with pytest.raises(ConnectionResetError):
        await task
    assert isinstance(reader.exception(), ConnectionResetError)
    with pytest.raises(ConnectionResetError):
        await reader.read(1)
    with pytest.raises(ConnectionResetError):
        await writer.drain()
    await end(writer)


async def test_data_before_a_reset_is_lost_as_in_asyncio(loop: Any) -> None:
    reader, writer, peer = await stream_pair()
    peer.send(b"data")
    await until(lambda: reader._buffer)
    reset(peer)
    await until(lambda: reader.exception() is not None)
    with pytest.raises(ConnectionResetError):
        await reader.read(10)
    await end(writer)


async def test_drain_with_a_slow_peer(loop: Any) -> None:
    _, writer, peer = await stream_pair()
    writer.write(b"x" * 20_000_000)
    task = asyncio.create_task(writer.drain())
    await turns(5)
    assert not task.done()
    got = 0
    while got < 20_000_000:
        got += len(await loop.sock_recv(peer, 1 << 20))
    await task
    await end(writer, peer)


async def test_several_drains(loop: Any) -> None:
    _, writer, peer = await stream_pair()
    writer.write(b"x" * 20_000_000)
    tasks = [asyncio.create_task(writer.drain()) for _ in range(5)]
    await turns(3)
    got = 0
    while got < 20_000_000:
        got += len(await loop.sock_recv(peer, 1 << 20))
    await asyncio.gather(*tasks)
    await end(writer, peer)


async def test_drain_when_the_connection_breaks(loop: Any) -> None:
    _, writer, peer = await stream_pair()
    writer.write(b"x" * 20_000_000)
    task = asyncio.create_task(writer.drain())
    await turns(3)
    reset(peer)
    with pytest.raises(ConnectionError):
        await task
    await end(writer)


async def test_writer_facts(loop: Any) -> None:
    reader, writer, peer = await stream_pair()
    assert isinstance(reader, asyncio.StreamReader)
    assert writer.can_write_eof() is True and writer.is_closing() is False
    assert writer.get_extra_info("peername") == peer.getsockname()
    assert isinstance(writer.transport, asyncio.Transport)
    protocol = writer.transport.get_protocol()
    assert isinstance(protocol, asyncio.StreamReaderProtocol)
    writer.writelines([b"a", b"b"])
    writer.write_eof()
    assert await loop.sock_recv(peer, 10) == b"ab"
    await end(writer, peer)
    assert writer.is_closing()


async def test_wait_closed_after_the_peer_left(loop: Any) -> None:
    reader, writer, peer = await stream_pair()
    peer.close()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_half_close_keeps_writing(loop: Any) -> None:
    reader, writer, peer = await stream_pair()
    peer.shutdown(socket.SHUT_WR)
    assert await reader.read() == b""
    writer.write(b"still writing")
    await writer.drain()
    assert await loop.sock_recv(peer, 100) == b"still writing"
    await end(writer, peer)


@pytest.mark.skipif(
    "Unhandled exception in" not in inspect.getsource(asyncio.streams),
    reason="early patch releases of 3.11 lose the exception",
)
async def test_handler_that_fails(loop: Any, reports: Any) -> None:
    async def bad(reader: Any, writer: Any) -> None:
        raise LookupError("handler")

    server = await asyncio.start_server(bad, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    reader, writer = await asyncio.open_connection(*address)
    if PY >= (3, 12):
        assert await asyncio.wait_for(reader.read(), 5) == b""
    await until(lambda: reports)
    report = reports.one()
    assert report["message"] == "Unhandled exception in client_connected_cb"
    await end(writer)
    await turns(3)
    await settle()
    await stop(server)


async def test_plain_function_as_handler(loop: Any) -> None:
    made: list[Any] = []
    server = await asyncio.start_server(
        lambda reader, writer: made.append((reader, writer)), "127.0.0.1", 0
    )
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"hello")
    await until(lambda: made)
    assert await made[0][0].readexactly(5) == b"hello"
    await end(made[0][1])
    await end(writer)
    await settle()
    await stop(server)


class Counting(asyncio.StreamReaderProtocol):
    """A subclass whose overrides must be called."""

    calls = 0

    def data_received(self, data: bytes) -> None:
        self.calls += 1
        super().data_received(data.upper())


async def test_subclass_of_the_protocol(loop: Any) -> None:
    reader = asyncio.StreamReader()
    transport, protocol, peer = await connected(Counting(reader))
    peer.send(b"shout")
    assert await reader.readexactly(5) == b"SHOUT"
    assert protocol.calls == 1
    transport.close()
    await turns(3)
    peer.close()


async def test_subclass_of_the_reader(loop: Any) -> None:
    class Loud(asyncio.StreamReader):
        def feed_data(self, data: bytes) -> None:
            super().feed_data(data.upper())

    reader = Loud()
    transport, _, peer = await connected(asyncio.StreamReaderProtocol(reader))
    peer.send(b"shout")
    assert await reader.readexactly(5) == b"SHOUT"
    transport.close()
    await turns(3)
    peer.close()


@pytest.mark.parametrize("target", ["protocol", "reader"])
async def test_method_replaced_on_the_object(loop: Any, target: str) -> None:
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _, peer = await connected(protocol)
    seen: list[bytes] = []
    if target == "protocol":
        protocol.data_received = seen.append
    else:
        reader.feed_data = seen.append
    peer.send(b"seen")
    await until(lambda: seen)
    assert seen == [b"seen"] and not reader._buffer  # type: ignore[attr-defined]
    transport.close()
    await turns(3)
    peer.close()


async def test_method_replaced_on_the_class(loop: Any, monkeypatch: Any) -> None:
    reader, writer, peer = await stream_pair()
    peer.send(b"before")
    assert await reader.readexactly(6) == b"before"
    seen: list[bytes] = []
    monkeypatch.setattr(
        asyncio.StreamReader, "feed_data", lambda self, data: seen.append(data)
    )
    peer.send(b"after")
    await until(lambda: seen)
    assert seen == [b"after"]
    await end(writer, peer)


async def test_feeding_a_reader_by_hand(loop: Any) -> None:
    reader = asyncio.StreamReader(limit=10)
    task = asyncio.create_task(reader.readline())
    await turns(1)
    reader.feed_data(b"by ")
    reader.feed_data(b"hand\n")
    reader.feed_eof()
    assert await task == b"by hand\n"
    broken = asyncio.StreamReader()
    broken.set_exception(LookupError("set"))
    with pytest.raises(LookupError):
        await broken.read()


async def test_data_after_eof_was_fed(loop: Any) -> None:
    reader, writer, peer = await stream_pair()
    peer.send(b"last words")
    peer.shutdown(socket.SHUT_WR)
    await until(lambda: reader._eof)
    assert not reader.at_eof()
    assert await reader.read() == b"last words"
    assert reader.at_eof()
    await end(writer, peer)


async def test_buffer_taken_by_the_program(loop: Any) -> None:
    # Programs (and start_tls) read and clear the buffer themselves.
    reader, writer, peer = await stream_pair()
    peer.send(b"taken")
    await until(lambda: len(reader._buffer) == 5)
    assert type(reader._buffer) is bytearray
    view = memoryview(reader._buffer)
    assert bytes(view) == b"taken"
    view.release()
    reader._buffer.clear()
    peer.send(b"next")
    assert await reader.readexactly(4) == b"next"
    reader._buffer = bytearray(b"put back ")
    peer.send(b"more")
    assert await reader.readexactly(13) == b"put back more"
    await end(writer, peer)


async def test_ping_pong_of_lines(loop: Any) -> None:
    async def serve(reader: Any, writer: Any) -> None:
        async for line in reader:
            writer.write(b"got ")
            writer.write(line)
        await end(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    for number in range(300):
        writer.write(b"%d\n" % number)
        assert await reader.readline() == b"got %d\n" % number
    await end(writer)
    await settle()
    await stop(server)


def test_reader_unused_after_the_loop(loop: Any) -> None:
    async def main() -> bytes:
        reader, writer, peer = await stream_pair()
        await loop.sock_sendall(peer, b"some")
        data = await reader.readexactly(4)
        await end(writer, peer)
        return bytes(data)

    assert loop.run_until_complete(main()) == b"some"


async def test_unclosed_writer_warns(loop: Any, no_warnings: Any) -> None:
    reader, writer, peer = await stream_pair()
    writer.transport.pause_reading()
    await turns(2)
    del reader, writer
    gc.collect()
    await turns(2)
    assert any("unclosed" in text for text in no_warnings())
    assert await asyncio.wait_for(loop.sock_recv(peer, 1), 5) == b""
    peer.close()
    no_warnings()

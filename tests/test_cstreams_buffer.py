"""hotloop's streams: large bodies, flow control, and what _buffer is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support import tcp_pair, turns, until, wanted_kinds

if "hotloop" not in wanted_kinds():
    pytest.skip("hotloop is not wanted", allow_module_level=True)

import hotloop


class Pausable:
    """A transport as far as a reader knows one."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")


async def pair(limit: int = 65536) -> tuple[Any, Any, Any]:
    """(reader, writer, plain socket at the far end)."""
    near, far = tcp_pair()
    reader, writer = await hotloop.open_connection(sock=near, limit=limit)
    return reader, writer, far


async def end(writer: Any, peer: Any) -> None:
    writer.close()
    await writer.wait_closed()
    peer.close()


# ---- large bodies, flow control ----


async def test_exactly_fills_its_result(loop: Any) -> None:
    reader = hotloop.StreamReader(limit=1000, loop=loop)
    transport: Any = Pausable()
    reader.set_transport(transport)
    reader.feed_data(b"a" * 500)
    task = loop.create_task(reader.readexactly(1 << 20))
    await turns(1)
    waiter = reader._waiter  # type: ignore[attr-defined]
    for _ in range(16):
        reader.feed_data(b"b" * 60_000)
        await turns(1)
        # It is not woken for every piece, nor reading paused for nothing.
        assert reader._waiter is waiter  # type: ignore[attr-defined]
    assert transport.calls == []
    reader.feed_data(b"c" * 200_000)
    assert transport.calls == ["pause"]
    body = await task
    rest = 500 + 960_000 + 200_000 - (1 << 20)
    assert body == (b"a" * 500 + b"b" * 960_000 + b"c" * 200_000)[: 1 << 20]
    assert transport.calls == ["pause"] and not reader.at_eof()
    assert await reader.readexactly(rest) == b"c" * rest
    assert transport.calls == ["pause", "resume"]


@pytest.mark.parametrize("pieces", [1, 3])
async def test_cancelled_exactly_loses_nothing(pieces: int, loop: Any) -> None:
    reader = hotloop.StreamReader(loop=loop)
    task = loop.create_task(reader.readexactly(9000))
    await turns(1)
    for number in range(pieces):
        reader.feed_data(bytes([number]) * 4000)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    reader.feed_data(b"more")
    reader.feed_eof()
    expected = b"".join(bytes([number]) * 4000 for number in range(pieces)) + b"more"
    assert await reader.read() == expected


@pytest.mark.parametrize("pieces", [1, 3])
async def test_looking_while_exactly_waits(pieces: int, loop: Any) -> None:
    reader: Any = hotloop.StreamReader(loop=loop)
    task = loop.create_task(reader.readexactly(9000))
    await turns(1)
    for number in range(pieces):
        reader.feed_data(bytes([number]) * 4000)
    expected = b"".join(bytes([number]) * 4000 for number in range(pieces))
    assert reader._buffer == expected and not reader.at_eof()
    reader.feed_data(b"x" * 9000)
    assert await task == (expected + b"x" * 9000)[:9000]
    assert reader._buffer == (expected + b"x" * 9000)[9000:]


async def test_enormous_exactly_takes_no_memory(loop: Any) -> None:
    reader: Any = hotloop.StreamReader(loop=loop)
    task = loop.create_task(reader.readexactly(1 << 60))
    await turns(1)
    reader.feed_data(b"little")
    reader.feed_eof()
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        await task
    assert caught.value.partial == b"little" and caught.value.expected == 1 << 60


async def test_beyond_what_is_reserved(loop: Any) -> None:
    size = 40 << 20
    reader, writer, peer = await pair()
    task = loop.create_task(reader.readexactly(size))
    body = bytes(range(256)) * (size // 256)
    await loop.sock_sendall(peer, body + b"tail")
    assert await task == body
    assert await reader.readexactly(4) == b"tail"
    await end(writer, peer)


async def test_received_into_the_result(loop: Any) -> None:
    reader, writer, peer = await pair()
    for size in (100_000, 1 << 20, 300_001):
        bodies = [bytes([number]) * size for number in range(4)]
        sending = loop.create_task(loop.sock_sendall(peer, b"".join(bodies)))
        for body in bodies:
            assert await reader.readexactly(size) == body
        await sending
    peer.send(b"x" * 70_000)
    task = loop.create_task(reader.readexactly(100_000))
    await asyncio.sleep(0.05)
    peer.close()
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        await task
    assert caught.value.partial == b"x" * 70_000
    await end(writer, peer)


async def test_a_transport_that_cannot_pause(loop: Any) -> None:
    class Stubborn(Pausable):
        def pause_reading(self) -> None:
            raise NotImplementedError

    reader: Any = hotloop.StreamReader(limit=5, loop=loop)
    reader.set_transport(Stubborn())
    reader.feed_data(b"x" * 11)
    assert reader._transport is None and not reader._paused
    with pytest.raises(AssertionError):
        other: Any = hotloop.StreamReader(loop=loop)
        other.set_transport(Pausable())
        other.set_transport(Pausable())


async def test_reading_stops_at_twice_the_limit(loop: Any) -> None:
    reader, writer, peer = await pair(limit=1000)
    sending = loop.create_task(loop.sock_sendall(peer, b"x" * 20_000_000))
    await until(lambda: reader._paused)
    assert not writer.transport.is_reading()
    got = 0
    while got < 20_000_000:
        got += len(await reader.read(1 << 20))
    await sending
    await end(writer, peer)


async def test_lines_do_not_cost_what_waits_behind_them(loop: Any) -> None:
    count = 200_000
    reader = hotloop.StreamReader(limit=1 << 24, loop=loop)
    reader.feed_data(b"short\n" * count)
    reader.feed_eof()
    assert sum([1 async for _ in reader]) == count


# ---- _buffer ----


async def test_the_buffer_is_a_bytearray(loop: Any) -> None:
    reader: Any = hotloop.StreamReader(loop=loop)
    reader.feed_data(b"abc")
    buffer = reader._buffer
    assert type(buffer) is bytearray and reader._buffer is buffer
    reader.feed_data(b"def\n")
    assert buffer == b"abcdef\n"
    del buffer[:2]
    assert await reader.readline() == b"cdef\n" and buffer == b""
    reader.feed_data(b"kept")
    assert buffer == b"kept"
    reader._buffer.clear()
    assert buffer == b"" and not reader.at_eof()
    reader._buffer = buffer = bytearray(b"other")
    reader.feed_data(b"\n")
    assert await reader.readline() == b"other\n"
    with pytest.raises(TypeError, match="must be a bytearray"):
        reader._buffer = b"bytes"
    with pytest.raises(AttributeError):
        del reader._buffer


async def test_the_buffer_is_in_use(loop: Any) -> None:
    reader: Any = hotloop.StreamReader(loop=loop)
    reader.feed_data(b"abc\n")
    with memoryview(reader._buffer):
        with pytest.raises(BufferError):
            reader.feed_data(b"more")
        with pytest.raises(BufferError):
            await reader.readline()
    assert await reader.readline() == b"abc\n"

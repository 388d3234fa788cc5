"""Writing: order, kinds of data, limits, pausing, half-close, closing."""

from __future__ import annotations

import array
import asyncio
import random
import socket
from typing import Any

import pytest

from hotloop._release import NAMES_TYPES
from support import (
    PY,
    BufferedRecorder,
    Recorder,
    connected,
    finish,
    read_all,
    tcp_pair,
    turns,
    unix_pair,
    until,
)


@pytest.fixture(params=[tcp_pair, unix_pair], ids=["tcp", "unix"])
def pair(request: Any) -> Any:
    return request.param


async def fill(transport: Any) -> int:
    """Write until the kernel takes no more; returns what was written."""
    total = 0
    block = b"f" * 65536
    while transport.get_write_buffer_size() == 0:
        transport.write(block)
        total += len(block)
        await turns(1)
    return total


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_kinds_of_data(loop: Any, kind: Any, pair: Any) -> None:
    transport, _, peer = await connected(pair=pair)
    assert transport.write(kind(b"hello")) is None
    transport.write(kind(b""))
    transport.write(kind(b" world"))
    assert await read_all(peer, 11) == b"hello world"
    await finish(transport, peer)


async def test_memoryviews_of_other_items(loop: Any) -> None:
    transport, _, peer = await connected()
    numbers = array.array("I", range(1000))
    transport.write(memoryview(numbers))
    assert await read_all(peer, 4000) == numbers.tobytes()
    await finish(transport, peer)


@pytest.mark.parametrize("wrong", ["text", None, 5, [b"x"], array.array("B", b"x")])
async def test_wrong_data(loop: Any, wrong: Any) -> None:
    transport, _, peer = await connected()
    with pytest.raises(TypeError) as caught:
        transport.write(wrong)
    name = type(wrong).__name__
    kinds = "bytes, bytearray, or memoryview" if NAMES_TYPES else "bytes-like"
    wanted = f"data argument must be a {kinds} object, not {name!r}"
    assert str(caught.value) == wanted
    transport.write(b"fine")
    assert await read_all(peer, 4) == b"fine"
    await finish(transport, peer)


@pytest.mark.parametrize("count", [10, 3000])
async def test_tiny_writes_keep_their_order(loop: Any, count: int, pair: Any) -> None:
    transport, _, peer = await connected(pair=pair)
    wanted = b""
    for number in range(count):
        piece = b"%d," % number
        transport.write(piece)
        wanted += piece
    assert await read_all(peer, len(wanted)) == wanted
    await finish(transport, peer)


async def test_sizes_mixed_over_turns(loop: Any, pair: Any) -> None:
    transport, _, peer = await connected(pair=pair)
    generator = random.Random(9)
    sent = bytearray()

    async def write() -> None:
        for _ in range(300):
            piece = generator.randbytes(generator.choice([1, 10, 3000, 70_000]))
            sent.extend(piece)
            transport.write(bytearray(piece))
            if generator.random() < 0.3:
                await turns(1)
        transport.write_eof()

    task = asyncio.create_task(write())
    got = await read_all(peer, 1 << 30)
    await task
    assert got == sent
    await finish(transport, peer)


@pytest.mark.parametrize("size", [10, 5000, 3_000_000])
async def test_buffer_changed_after_write(
    loop: Any, size: int, pair: Any, loop_kind: str
) -> None:
    if loop_kind == "asyncio" and PY >= (3, 12) and size > 10_000:
        pytest.skip("asyncio keeps the caller's own buffer from 3.12 on")
    transport, _, peer = await connected(pair=pair)
    first = bytearray(b"a" * size)
    second = memoryview(bytearray(b"b" * size))
    transport.write(first)
    transport.write(second)
    transport.writelines([first, second])
    first[:] = b"X" * size
    second[:] = b"Y" * size
    first.clear()
    second.release()
    wanted = (b"a" * size + b"b" * size) * 2
    assert await read_all(peer, 4 * size) == wanted
    await finish(transport, peer)


async def test_writelines(loop: Any, pair: Any) -> None:
    transport, _, peer = await connected(pair=pair)
    pieces: list[Any] = [b"one", bytearray(b"two"), memoryview(b"three"), b"", b"four"]
    assert transport.writelines(pieces) is None
    transport.writelines([])
    transport.writelines(b"%d" % n for n in range(3))
    transport.writelines((b"tuple",))
    transport.writelines([b""])
    transport.write(b"end")
    wanted = b"onetwothreefour012tupleend"
    assert await read_all(peer, len(wanted)) == wanted
    await finish(transport, peer)


@pytest.mark.parametrize("count,size", [(5000, 3), (1500, 4000), (40, 200_000)])
async def test_writelines_of_many(loop: Any, count: int, size: int, pair: Any) -> None:
    transport, _, peer = await connected(pair=pair)
    generator = random.Random(count)
    pieces = [generator.randbytes(size) for _ in range(count)]
    transport.writelines(pieces)
    assert await read_all(peer, count * size) == b"".join(pieces)
    await finish(transport, peer)


@pytest.mark.parametrize("wrong", [[b"x", 5], [True], ["text"], 5])
async def test_writelines_of_wrong_things(loop: Any, wrong: Any) -> None:
    transport, _, peer = await connected()
    with pytest.raises(TypeError):
        transport.writelines(wrong)
    transport.abort()
    await finish(transport, peer)


@pytest.mark.skipif(PY < (3, 14), reason="asks for the truth from 3.14 on")
async def test_writelines_leaves_out_what_is_false(loop: Any) -> None:
    transport, _, peer = await connected()
    transport.writelines([None, b"a", "", 0, memoryview(b""), b"b"])
    assert await read_all(peer, 2) == b"ab"
    await finish(transport, peer)


async def test_writelines_whose_iterator_fails(loop: Any) -> None:
    def pieces() -> Any:
        yield b"x"
        raise LookupError("pieces")

    transport, _, peer = await connected()
    with pytest.raises(LookupError, match="pieces"):
        transport.writelines(pieces())
    await finish(transport, peer)


async def test_writelines_whose_iterator_closes(loop: Any) -> None:
    transport, protocol, peer = await connected()

    def pieces() -> Any:
        yield b"x"
        transport.abort()
        yield b"y"

    transport.writelines(pieces())
    await protocol.closed
    peer.close()


async def test_default_limits(loop: Any) -> None:
    transport, _, peer = await connected()
    assert transport.get_write_buffer_limits() == (16384, 65536)
    assert transport.get_write_buffer_size() == 0
    await finish(transport, peer)


@pytest.mark.parametrize(
    "kwargs,limits",
    [
        ({}, (16384, 65536)),
        ({"high": 1000}, (250, 1000)),
        ({"low": 1000}, (1000, 4000)),
        ({"high": 1000, "low": 10}, (10, 1000)),
        ({"high": 0}, (0, 0)),
        ({"high": 10, "low": 10}, (10, 10)),
    ],
)
async def test_limits(loop: Any, kwargs: Any, limits: tuple[int, int]) -> None:
    transport, _, peer = await connected()
    assert transport.set_write_buffer_limits(**kwargs) is None
    assert transport.get_write_buffer_limits() == limits
    await finish(transport, peer)


async def test_wrong_limits(loop: Any) -> None:
    transport, _, peer = await connected()
    for high, low in ((1, 2), (-1, None), (10, -1)):
        with pytest.raises(ValueError, match="must be >= low"):
            transport.set_write_buffer_limits(high=high, low=low)
    assert transport.get_write_buffer_limits() == (16384, 65536)
    await finish(transport, peer)


async def test_pause_and_resume(loop: Any, pair: Any) -> None:
    transport, protocol, peer = await connected(pair=pair)
    total = await fill(transport)
    while "pause" not in protocol.events:
        transport.write(b"p" * 10_000)
        total += 10_000
    size = transport.get_write_buffer_size()
    assert size > 65536
    transport.write(b"q" * 1000)
    total += 1000
    assert transport.get_write_buffer_size() == size + 1000
    assert protocol.events == ["made", "pause"]
    got = 0
    while "resume" not in protocol.events:
        assert transport.get_write_buffer_size() > 16384
        got += len(await loop.sock_recv(peer, 4096))
        await turns(1)
    assert transport.get_write_buffer_size() <= 16384
    assert len(await read_all(peer, total - got)) == total - got
    assert protocol.events == ["made", "pause", "resume"]
    assert transport.get_write_buffer_size() == 0
    await finish(transport, peer)


async def test_pause_at_high_zero(loop: Any) -> None:
    transport, protocol, peer = await connected()
    transport.set_write_buffer_limits(high=0)
    total = await fill(transport)
    assert protocol.events == ["made", "pause"]
    await read_all(peer, total)
    await until(lambda: protocol.events[-1] == "resume")
    assert transport.get_write_buffer_size() == 0
    await finish(transport, peer)


async def test_limit_lowered_under_the_buffer(loop: Any) -> None:
    transport, protocol, peer = await connected()
    await fill(transport)
    transport.write(b"x" * 20_000)
    transport.set_write_buffer_limits(high=100)
    assert protocol.events == ["made", "pause"]
    transport.abort()
    await finish(transport, peer)


async def test_pause_writing_that_fails(loop: Any, reports: Any) -> None:
    class Bad(Recorder):
        def pause_writing(self) -> None:
            raise LookupError("pause")

        def resume_writing(self) -> None:
            raise LookupError("resume")

    transport, protocol, peer = await connected(Bad())
    total = await fill(transport)
    transport.write(b"x" * 100_000)
    report = reports.one()
    assert report["message"] == "protocol.pause_writing() failed"
    assert str(report["exception"]) == "pause"
    assert report["transport"] is transport and report["protocol"] is protocol
    assert len(await read_all(peer, total + 100_000)) == total + 100_000
    await until(lambda: reports)
    assert reports.one()["message"] == "protocol.resume_writing() failed"
    await finish(transport, peer)


@pytest.mark.parametrize("kind", [Recorder, BufferedRecorder])
async def test_pause_reading(loop: Any, kind: Any, pair: Any) -> None:
    transport, protocol, peer = await connected(kind(), pair=pair)
    assert transport.is_reading() is True
    assert transport.pause_reading() is None
    transport.pause_reading()
    assert transport.is_reading() is False
    peer.send(b"waiting")
    await asyncio.sleep(0.01)
    assert protocol.data == b""
    assert transport.resume_reading() is None
    transport.resume_reading()
    assert transport.is_reading() is True
    await until(lambda: protocol.data == b"waiting")
    await finish(transport, peer)
    assert transport.is_reading() is False
    transport.pause_reading()
    transport.resume_reading()
    assert transport.is_reading() is False


async def test_pause_inside_data_received(loop: Any) -> None:
    class Once(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.pause_reading()

    transport, protocol, peer = await connected(Once())
    peer.send(b"first")
    await until(lambda: protocol.data)
    peer.send(b"second")
    await asyncio.sleep(0.01)
    assert protocol.data == b"first"
    transport.resume_reading()
    await until(lambda: protocol.data == b"firstsecond")
    await finish(transport, peer)


async def test_pause_in_connection_made(loop: Any) -> None:
    class Paused(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.pause_reading()

    transport, protocol, peer = await connected(Paused())
    peer.send(b"data")
    await asyncio.sleep(0.01)
    assert protocol.data == b"" and not transport.is_reading()
    transport.resume_reading()
    await until(lambda: protocol.data == b"data")
    await finish(transport, peer)


async def test_peer_closing_while_paused(loop: Any) -> None:
    transport, protocol, peer = await connected()
    transport.pause_reading()
    peer.send(b"last")
    peer.close()
    await asyncio.sleep(0.01)
    assert protocol.events == ["made"]
    transport.resume_reading()
    await protocol.closed
    assert protocol.data == b"last"


async def test_write_eof(loop: Any, pair: Any) -> None:
    transport, protocol, peer = await connected(pair=pair)
    assert transport.can_write_eof() is True
    transport.write(b"before")
    assert transport.write_eof() is None
    transport.write_eof()
    with pytest.raises(RuntimeError, match=r"Cannot call write\(\) after write_eof"):
        transport.write(b"x")
    assert await read_all(peer, 100) == b"before"
    peer.send(b"answer")
    await until(lambda: protocol.data == b"answer")
    assert not transport.is_closing()
    peer.close()
    await protocol.closed
    assert protocol.error is None


async def test_write_eof_after_much_data(loop: Any) -> None:
    transport, _, peer = await connected()
    data = random.Random(4).randbytes(5_000_000)
    transport.write(data)
    transport.write_eof()
    assert await read_all(peer, 6_000_000) == data
    await finish(transport, peer)


@pytest.mark.skipif(PY < (3, 12), reason="3.11 has the mixin's writelines")
async def test_writelines_after_eof(loop: Any) -> None:
    transport, _, peer = await connected()
    transport.write_eof()
    with pytest.raises(RuntimeError, match="after write_eof"):
        transport.writelines([b"x"])
    await finish(transport, peer)


async def test_eof_received_keeps_it_open(loop: Any, pair: Any) -> None:
    transport, protocol, peer = await connected(pair=pair)
    protocol.keep_open = True
    peer.send(b"question")
    peer.shutdown(socket.SHUT_WR)
    await protocol.eof
    await turns(3)
    assert not transport.is_closing() and protocol.events[-1] == "eof"
    assert transport.is_reading() is True
    transport.write(b"late answer")
    transport.close()
    assert await read_all(peer, 100) == b"late answer"
    await protocol.closed
    assert protocol.error is None
    peer.close()


async def test_eof_received_closes(loop: Any) -> None:
    transport, protocol, peer = await connected()
    transport.write(b"sent before")
    peer.shutdown(socket.SHUT_WR)
    await protocol.closed
    assert transport.is_closing()
    assert await read_all(peer, 100) == b"sent before"
    peer.close()


async def test_eof_callback_without_a_method(loop: Any) -> None:
    class Bare(asyncio.Protocol):
        def __init__(self) -> None:
            self.lost = asyncio.Event()

        def connection_lost(self, exc: Any) -> None:
            self.lost.set()

    transport, protocol, peer = await connected(Bare())
    peer.close()
    await protocol.lost.wait()
    assert transport.is_closing()


async def test_close_flushes(loop: Any, pair: Any) -> None:
    transport, protocol, peer = await connected(pair=pair)
    data = random.Random(6).randbytes(3_000_000)
    transport.write(data)
    transport.close()
    transport.close()
    assert transport.is_closing()
    assert await read_all(peer, 4_000_000) == data
    await protocol.closed
    assert [e for e in protocol.events if e in ("made", "lost")] == ["made", "lost"]
    peer.close()


async def test_close_stops_reading(loop: Any) -> None:
    transport, protocol, peer = await connected()
    await fill(transport)
    transport.close()
    peer.send(b"ignored")
    await asyncio.sleep(0.01)
    assert protocol.data == b""
    transport.abort()
    await protocol.closed
    peer.close()


async def test_abort_drops(loop: Any, pair: Any) -> None:
    transport, protocol, peer = await connected(pair=pair)
    await fill(transport)
    transport.write(b"x" * 500_000)
    transport.abort()
    transport.abort()
    transport.close()
    assert transport.get_write_buffer_size() == 0
    await protocol.closed
    assert protocol.error is None
    peer.close()


async def test_write_after_close(loop: Any, log: Any, loop_kind: str) -> None:
    transport, protocol, peer = await connected()
    transport.abort()
    for _ in range(4):
        transport.write(b"ignored")
    assert log.take() == []
    transport.write(b"ignored")
    await protocol.closed
    transport.write(b"ignored")
    found = log.take()
    assert found and set(found) == {"socket.send() raised exception."}
    if loop_kind == "hotloop" or PY >= (3, 14):
        transport.writelines([b"ignored"])
    transport.write_eof()
    transport.close()
    log.take()
    peer.close()


async def test_write_while_closing_with_data(loop: Any) -> None:
    transport, protocol, peer = await connected()
    total = await fill(transport)
    transport.close()
    # asyncio: with data still waiting, the connection is not lost yet.
    transport.write(b"late")
    assert len(await read_all(peer, 1 << 30)) == total + 4
    await protocol.closed
    peer.close()


def test_write_outside_a_running_loop_leaves_at_once(loop: Any) -> None:
    transport, _, peer = loop.run_until_complete(connected())
    peer.setblocking(True)
    peer.settimeout(5)
    transport.write(b"while idle")
    assert peer.recv(100) == b"while idle"
    loop.run_until_complete(finish(transport, peer))


def test_write_leaves_when_the_loop_stops(loop: Any) -> None:
    transport, _, peer = loop.run_until_complete(connected())

    async def write() -> None:
        transport.write(b"one ")
        transport.write(b"two")

    loop.run_until_complete(write())
    peer.settimeout(5)
    got = b""
    while len(got) < 7:
        got += peer.recv(100)
    assert got == b"one two"
    loop.call_soon(transport.write, b"three")
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert peer.recv(100) == b"three"
    peer.setblocking(False)
    loop.run_until_complete(finish(transport, peer))


def test_write_leaves_when_a_callback_exits(loop: Any) -> None:
    transport, _, peer = loop.run_until_complete(connected())

    def leave() -> None:
        transport.write(b"last words")
        raise SystemExit

    loop.call_soon(leave)
    with pytest.raises(SystemExit):
        loop.run_forever()
    peer.settimeout(5)
    assert peer.recv(100) == b"last words"
    loop.run_until_complete(finish(transport, peer))


async def test_write_is_seen_within_the_turn_after(loop: Any) -> None:
    transport, _, peer = await connected()
    for _ in range(20):
        loop.call_soon(transport.write, b"a")
        loop.call_soon(transport.write, b"b")
        await turns(2)
        assert await asyncio.wait_for(read_all(peer, 2), 5) == b"ab"
    await finish(transport, peer)


async def test_write_in_a_busy_loop_leaves(loop: Any) -> None:
    transport, _, peer = await connected()
    peer.setblocking(True)
    got = asyncio.create_task(asyncio.to_thread(peer.recv, 100))
    transport.write(b"not starved")
    count = 0
    while not got.done():
        await asyncio.sleep(0)
        count += 1
        assert count < 5_000_000
    assert await got == b"not starved"
    await finish(transport, peer)

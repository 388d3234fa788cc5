"""sendfile() and sock_sendfile() with real files and sockets, on both loops."""

from __future__ import annotations

import asyncio
import io
import os
import pathlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from hotloop._release import MOVES_FILE
from support import PY, connected, finish, reset, tcp_pair, turns, unix_pair, until

SIZE = 3_000_000


@pytest.fixture(scope="module")
def content() -> bytes:
    return os.urandom(SIZE)


@pytest.fixture
def path(tmp_path: pathlib.Path, content: bytes) -> pathlib.Path:
    path = tmp_path / "file"
    path.write_bytes(content)
    return path


def small(left: socket.socket, right: socket.socket) -> Any:
    """Sockets that hold little, so that sending takes several turns."""
    for sock in (left, right):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    return left, right


def small_tcp_pair() -> Any:
    return small(*tcp_pair())


def small_unix_pair() -> Any:
    return small(*unix_pair())


@pytest.fixture(params=["tcp", "unix"])
def pair(request: Any) -> Iterator[Any]:
    left, right = {"tcp": small_tcp_pair, "unix": small_unix_pair}[request.param]()
    yield left, right
    left.close()
    right.close()


async def read_to_end(loop: Any, sock: socket.socket) -> bytes:
    got = bytearray()
    while data := await loop.sock_recv(sock, 1 << 20):
        got += data
    return bytes(got)


async def send(loop: Any, pair: Any, file: Any, *args: Any) -> tuple[int, bytes]:
    """sock_sendfile(), and what arrived."""
    left, right = pair
    reading = asyncio.create_task(read_to_end(loop, right))
    try:
        sent = await loop.sock_sendfile(left, file, *args, fallback=False)
    finally:
        left.close()
        got = await reading
    return sent, got


@pytest.mark.parametrize(
    ("offset", "count"),
    [
        (0, None),
        (0, SIZE),
        (0, SIZE - 1),
        (0, SIZE + 1),
        (0, 10),
        (1, None),
        (1000, 100_000),
        (SIZE - 1, None),
        (SIZE, None),
        (SIZE + 5, 5),
    ],
)
async def test_parts(
    loop: Any, pair: Any, path: Any, content: bytes, offset: int, count: Any
) -> None:
    wanted = content[offset:] if count is None else content[offset : offset + count]
    with open(path, "rb") as file:
        sent, got = await send(loop, pair, file, offset, count)
        assert got == wanted
        assert sent == len(wanted)
        moved = sent > 0 or MOVES_FILE
        assert file.tell() == (offset + sent if moved else 0)


@pytest.mark.skipif(PY < (3, 13), reason="asyncio refuses it")
async def test_a_count_beyond_any_file(
    loop: Any, pair: Any, path: Any, content: bytes
) -> None:
    with open(path, "rb") as file:
        assert await send(loop, pair, file, 0, 2**70) == (SIZE, content)


async def test_an_empty_file(loop: Any, pair: Any, tmp_path: Any) -> None:
    (tmp_path / "empty").touch()
    with open(tmp_path / "empty", "rb") as file:
        assert await send(loop, pair, file) == (0, b"")
        assert file.tell() == 0


async def test_a_small_file_needs_no_turn(
    loop: Any, loop_kind: str, pair: Any, tmp_path: Any
) -> None:
    (tmp_path / "small").write_bytes(b"small")
    with open(tmp_path / "small", "rb") as file:
        for count, wanted in ((None, b"small"), (3, b"sma"), (5, b"small")):
            coro = loop.sock_sendfile(pair[0], file, 0, count)
            if loop_kind == "hotloop":
                with pytest.raises(StopIteration) as caught:
                    coro.send(None)
                assert caught.value.value == len(wanted)
            else:
                assert await coro == len(wanted)
            assert pair[1].recv(99) == wanted


async def test_the_file_is_truncated_meanwhile(
    loop: Any, pair: Any, path: Any, content: bytes
) -> None:
    left, right = pair
    with open(path, "r+b") as file:
        sending = asyncio.create_task(loop.sock_sendfile(left, file, fallback=False))
        await turns(3)
        assert not sending.done()
        os.truncate(path, 10_000)
        got = bytearray()
        while not sending.done():
            try:
                got += right.recv(1 << 20)
            except BlockingIOError:
                await turns()
        sent = await sending
        left.close()
        got += await read_to_end(loop, right)
        assert sent == len(got)
        assert 0 < sent < SIZE
        assert got[:10_000] == content[:10_000]  # what was cut off reads as zeros
        assert file.tell() == sent


async def test_a_slow_reader(loop: Any, path: Any, content: bytes) -> None:
    left, right = small_unix_pair()
    with open(path, "rb") as file:
        sending = asyncio.create_task(loop.sock_sendfile(left, file, 0, 200_000))
        got = bytearray()
        while len(got) < 200_000:
            got += await loop.sock_recv(right, 5000)
            await turns(2)
        assert await sending == 200_000
    assert got == content[:200_000]
    left.close()
    right.close()


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_the_reader_goes(loop: Any, path: Any, how: str) -> None:
    left, right = small_tcp_pair()
    with open(path, "rb") as file:
        sending = asyncio.create_task(loop.sock_sendfile(left, file, fallback=False))
        await turns(3)
        if how == "reset":
            reset(right)
        else:
            right.close()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            await sending
        assert 0 < file.tell() < SIZE
    assert loop._selector.get_map().get(left.fileno()) is None
    left.close()


async def test_nobody_is_connected(loop: Any, path: Any) -> None:
    with socket.socket() as sock, open(path, "rb") as file:
        sock.setblocking(False)
        with pytest.raises(asyncio.SendfileNotAvailableError):
            await loop.sock_sendfile(sock, file, fallback=False)


async def test_cancelled(loop: Any, pair: Any, path: Any) -> None:
    left, _ = pair
    with open(path, "rb") as file:
        task = asyncio.create_task(loop.sock_sendfile(left, file))
        await turns(3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert loop._selector.get_map().get(left.fileno()) is None
        assert loop.remove_writer(left) is False


@pytest.mark.parametrize("then", ["nothing", "close", "reuse"])
async def test_a_cancelled_call_moves_no_file(
    loop: Any, pair: Any, path: Any, then: str
) -> None:
    """Least of all another one under the number of its own."""
    left, right = pair
    file = open(path, "rb")  # noqa: SIM115
    task = asyncio.create_task(loop.sock_sendfile(left, file))
    await turns(3)
    task.cancel()
    other = file
    if then != "nothing":
        number = file.fileno()
        file.close()
    if then == "reuse":
        other = open(path, "rb", buffering=0)  # noqa: SIM115
        assert other.fileno() == number
    await asyncio.gather(task, return_exceptions=True)
    await turns(3)
    assert task.cancelled()
    if then != "close":
        assert other.tell() == 0
    other.close()
    left.close()
    assert len(await read_to_end(loop, right)) > 0


async def test_the_socket_is_closed_meanwhile(loop: Any, pair: Any, path: Any) -> None:
    left, _ = pair
    with open(path, "rb") as file:
        task = asyncio.create_task(loop.sock_sendfile(left, file))
        await turns(3)
        left.close()
        await turns(3)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_other_sources(loop: Any, pair: Any, content: bytes) -> None:
    left, right = pair
    source = io.BytesIO(content)
    with pytest.raises(asyncio.SendfileNotAvailableError):
        await loop.sock_sendfile(left, source, fallback=False)
    reading = asyncio.create_task(read_to_end(loop, right))
    assert await loop.sock_sendfile(left, source, 7, 500_000) == 500_000
    assert source.tell() == 500_007
    left.close()
    assert await reading == content[7:500_007]


async def test_pipes(loop: Any, pair: Any) -> None:
    left, right = pair
    reading, writing = os.pipe()
    os.write(writing, b"through a pipe")
    os.close(writing)
    with open(reading, "rb", buffering=0) as file:
        assert await loop.sock_sendfile(left, file, fallback=False) == 0
        error: Any = OSError if MOVES_FILE else asyncio.SendfileNotAvailableError
        with pytest.raises(error):
            await loop.sock_sendfile(left, file, 0, 5, fallback=False)
    assert loop._selector.get_map().get(left.fileno()) is None
    with pytest.raises(BlockingIOError):
        right.recv(1)


async def test_wrong_arguments(loop: Any, pair: Any, path: Any) -> None:
    left, _ = pair
    with open(path, "rb") as file, open(path) as text:
        for args, error in (
            ((text,), ValueError),
            ((file, -1), ValueError),
            ((file, "0"), TypeError),
            ((file, 0, 0), ValueError),
            ((file, 0, -1), ValueError),
            ((file, 0, 1.5), TypeError),
        ):
            with pytest.raises(error):
                await loop.sock_sendfile(left, *args)
    with (
        socket.socket(type=socket.SOCK_DGRAM) as datagrams,
        open(path, "rb") as file,
        pytest.raises(ValueError, match="SOCK_STREAM"),
    ):
        await loop.sock_sendfile(datagrams, file)


async def test_a_transport_has_the_socket(loop: Any, path: Any) -> None:
    transport, _, peer = await connected()
    sock = transport.get_extra_info("socket")._sock
    with open(path, "rb") as file, pytest.raises(RuntimeError, match="is used by"):
        await loop.sock_sendfile(sock, file, fallback=False)
    await finish(transport, peer)


@pytest.mark.parametrize("pair", [small_tcp_pair, small_unix_pair])
async def test_through_a_transport(
    loop: Any, path: Any, content: bytes, pair: Any
) -> None:
    transport, protocol, peer = await connected(pair=pair)
    reading = asyncio.create_task(read_to_end(loop, peer))
    transport.write(b"head ")
    with open(path, "rb") as file:
        assert await loop.sendfile(transport, file) == SIZE
        assert file.tell() == SIZE
        transport.write(b" between ")
        assert await loop.sendfile(transport, file, 5, 10) == 10
        assert file.tell() == 15
        assert await loop.sendfile(transport, file, SIZE) == 0
    transport.write(b" tail")
    assert transport.is_reading()
    transport.close()
    await protocol.closed
    assert await reading == (
        b"head " + content + b" between " + content[5:15] + b" tail"
    )
    peer.close()


async def test_reading_rests_while_a_transport_sends(loop: Any, path: Any) -> None:
    transport, protocol, peer = await connected(pair=small_tcp_pair)
    with open(path, "rb") as file:
        sending = asyncio.create_task(loop.sendfile(transport, file))
        await turns(3)
        assert not sending.done()
        assert not transport.is_reading()
        with pytest.raises(RuntimeError):
            transport.write(b"x")
        peer.send(b"question")
        await turns(3)
        assert protocol.data == b""
        got = 0
        while got < SIZE:
            got += len(await loop.sock_recv(peer, 1 << 20))
        await sending
    await until(lambda: protocol.data == b"question")
    await finish(transport, peer)


async def test_the_peer_of_a_transport_goes(loop: Any, path: Any) -> None:
    transport, _, peer = await connected(pair=small_tcp_pair)
    with open(path, "rb") as file:
        sending = asyncio.create_task(loop.sendfile(transport, file))
        await turns(3)
        reset(peer)
        with pytest.raises(ConnectionError):
            await sending
    await finish(transport)


async def test_cancelled_on_a_transport(loop: Any, path: Any, content: bytes) -> None:
    transport, protocol, peer = await connected(pair=small_tcp_pair)
    with open(path, "rb") as file:
        sending = asyncio.create_task(loop.sendfile(transport, file))
        await turns(3)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        assert sending.cancelled()
    assert transport.is_reading()
    transport.write(b"go on")
    transport.close()
    got = await read_to_end(loop, peer)
    assert got.endswith(b"go on")
    assert content.startswith(got[:-5])
    await protocol.closed
    peer.close()


async def test_a_transport_that_closes(loop: Any, path: Any) -> None:
    transport, _, peer = await connected()
    transport.close()
    with open(path, "rb") as file, pytest.raises(RuntimeError, match="is closing"):
        await loop.sendfile(transport, file)
    await finish(transport, peer)


async def test_the_fallback_of_a_transport(loop: Any, content: bytes) -> None:
    transport, protocol, peer = await connected()
    reading = asyncio.create_task(read_to_end(loop, peer))
    with pytest.raises(asyncio.SendfileNotAvailableError):
        await loop.sendfile(transport, io.BytesIO(content), fallback=False)
    assert await loop.sendfile(transport, io.BytesIO(content), 3, 700_000) == 700_000
    transport.close()
    assert await reading == content[3:700_003]
    await protocol.closed
    peer.close()


async def test_in_debug_mode(loop: Any, pair: Any, path: Any, content: bytes) -> None:
    loop.set_debug(True)
    loop.slow_callback_duration = 100.0
    with open(path, "rb") as file:
        assert await send(loop, pair, file) == (SIZE, content)


async def test_many_at_a_time(loop: Any, path: Any, content: bytes) -> None:
    pairs = [unix_pair() for _ in range(10)]
    with open(path, "rb") as file:
        results = await asyncio.gather(
            *(send(loop, pair, file, 0, 300_000) for pair in pairs)
        )
    assert results == [(300_000, content[:300_000])] * 10
    for left, right in pairs:
        left.close()
        right.close()

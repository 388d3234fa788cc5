"""Cancelling sock_*() calls: no byte and no connection is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from typing import Any

import pytest

from support import tcp_pair, turns, unix_pair, until


async def ended(task: Any) -> None:
    """Wait until a cancelled task has ended."""
    await asyncio.gather(task, return_exceptions=True)


async def test_cancelled_before_its_first_step(loop: Any) -> None:
    left, right = unix_pair()
    right.send(b"x")
    task = asyncio.create_task(loop.sock_recv(left, 9))
    task.cancel()
    await ended(task)
    assert await loop.sock_recv(left, 9) == b"x"
    left.close()
    right.close()


async def test_cancelled_while_it_waits(loop: Any) -> None:
    left, right = unix_pair()
    for call in (
        lambda: loop.sock_recv(left, 9),
        lambda: loop.sock_recv_into(left, bytearray(9)),
        lambda: loop.sock_recvfrom(left, 9),
        lambda: loop.sock_recvfrom_into(left, bytearray(9)),
    ):
        task = asyncio.create_task(call())
        await turns(2)
        task.cancel("why")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert loop._selector.get_map().get(left.fileno()) is None
        right.send(b"x")
        await turns(2)
        assert await loop.sock_recv(left, 9) == b"x"
    left.close()
    right.close()


async def test_cancelled_in_the_turn_of_the_event(loop: Any) -> None:
    left, right = unix_pair()
    task = asyncio.create_task(loop.sock_recv(left, 9))
    await turns(2)
    # The poll that finds left readable finds this as well, and runs it first.
    first, signal = unix_pair()
    seen: list[int] = []

    def cancel() -> None:
        first.recv(9)
        task.cancel()
        seen.append(1)

    loop.add_reader(first, cancel)
    signal.send(b"x")
    right.send(b"kept")
    await until(lambda: seen)
    with contextlib.suppress(asyncio.CancelledError):
        assert await task == b"kept"
        right.send(b"kept")
    assert await asyncio.wait_for(loop.sock_recv(left, 9), 10) == b"kept"
    loop.remove_reader(first)
    for sock in (left, right, first, signal):
        sock.close()


async def test_cancelled_between_the_event_and_the_next_step(
    loop: Any, loop_kind: str
) -> None:
    """The moment at which asyncio loses what it has read already."""
    if loop_kind == "asyncio":
        pytest.skip("asyncio has read it, and drops it")
    left, right = unix_pair()
    for number in range(50):
        task = asyncio.create_task(loop.sock_recv(left, 9))
        await turns(2)
        right.send(b"kept")
        for _ in range(number % 5):
            await turns()
        if task.done():
            assert await task == b"kept"
            continue
        task.cancel()
        await ended(task)
        assert task.cancelled()
        assert await asyncio.wait_for(loop.sock_recv(left, 9), 10) == b"kept"
    left.close()
    right.close()


async def test_closing_the_coroutine_ends_the_wait(loop: Any, loop_kind: str) -> None:
    left, right = unix_pair()
    coro = loop.sock_recv(left, 9)
    coro.send(None)
    coro.close()
    if loop_kind == "hotloop":  # asyncio's reader stays until there is an event
        assert loop._selector.get_map().get(left.fileno()) is None
    loop.remove_reader(left)
    right.send(b"x")
    assert await loop.sock_recv(left, 9) == b"x"
    left.close()
    right.close()


async def test_an_exception_thrown_in_ends_the_wait(loop: Any) -> None:
    left, right = unix_pair()
    coro = loop.sock_recv(left, 9)
    coro.send(None)
    with pytest.raises(KeyError):
        coro.throw(KeyError("thrown"))
    loop.remove_reader(left)
    right.send(b"x")
    assert await loop.sock_recv(left, 9) == b"x"
    left.close()
    right.close()


async def test_resumed_by_nobody_in_particular(loop: Any) -> None:
    left, right = unix_pair()
    coro = loop.sock_recv(left, 9)
    future = coro.send(None)
    assert isinstance(future, asyncio.Future)
    with pytest.raises(RuntimeError, match="await wasn't used with future"):
        coro.send(None)
    loop.remove_reader(left)
    left.close()
    right.close()


async def test_a_timeout_around_a_call(loop: Any) -> None:
    left, right = unix_pair()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loop.sock_recv(left, 9), 0.002)
    right.send(b"x")
    assert await asyncio.wait_for(loop.sock_recv(left, 9), 10) == b"x"
    left.close()
    right.close()


async def test_a_cancelled_sendall_stops(loop: Any) -> None:
    left, right = unix_pair()
    task = asyncio.create_task(loop.sock_sendall(left, bytes(5_000_000)))
    await turns(3)
    task.cancel()
    await ended(task)
    assert loop._selector.get_map().get(left.fileno()) is None
    left.close()
    got = 0
    while data := await loop.sock_recv(right, 1 << 20):
        got += len(data)
    assert 0 < got < 5_000_000
    right.close()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("pair", [tcp_pair, unix_pair])
async def test_no_byte_is_lost(loop: Any, loop_kind: str, seed: int, pair: Any) -> None:
    """Reads that are cancelled at random moments, of a stream that goes on."""
    if loop_kind == "asyncio":
        pytest.skip("asyncio loses what a cancelled call has read")
    rng = random.Random(seed)
    left, right = pair()
    data = os.urandom(60_000)
    got = bytearray()

    async def write() -> None:
        at = 0
        while at < len(data):
            size = rng.randint(1, 300)
            await loop.sock_sendall(right, data[at : at + size])
            at += size
            await turns(rng.randint(0, 4))
        right.close()

    async def read() -> bool:
        if rng.random() < 0.5:
            chunk: Any = await loop.sock_recv(left, rng.randint(1, 400))
            got.extend(chunk)
            return bool(chunk)
        buffer = bytearray(rng.randint(1, 400))
        size = await loop.sock_recv_into(left, buffer)
        got.extend(buffer[:size])
        return bool(size)

    writing = asyncio.create_task(write())
    cancelled = 0
    more = True
    while more:
        task = asyncio.create_task(read())
        for _ in range(rng.randint(0, 6)):
            await turns()
            if task.done():
                break
        else:
            task.cancel()
        try:
            more = await task
        except asyncio.CancelledError:
            cancelled += 1
    await writing
    assert got == data
    assert cancelled > 20
    left.close()


async def test_no_connection_is_lost(loop: Any, loop_kind: str) -> None:
    """The same for accepting."""
    if loop_kind == "asyncio":
        pytest.skip("asyncio drops what a cancelled call has accepted")
    rng = random.Random(5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        clients = []
        served: set[Any] = set()
        for _ in range(40):
            sock = socket.socket()
            sock.setblocking(False)
            clients.append(sock)
            accepting = asyncio.create_task(loop.sock_accept(listener))
            await turns(rng.randint(0, 3))
            await loop.sock_connect(sock, listener.getsockname())
            await turns(rng.randint(0, 3))
            accepting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                conn, address = await accepting
                served.add(address)
                conn.close()
        while len(served) < len(clients):
            conn, address = await asyncio.wait_for(loop.sock_accept(listener), 10)
            served.add(address)
            conn.close()
        assert served == {sock.getsockname() for sock in clients}
        for sock in clients:
            sock.close()


async def test_the_future_of_a_wait_is_cancelled_by_hand(loop: Any) -> None:
    """A driver that resumes the coroutine itself, which no task would do."""
    left, right = unix_pair()
    coro = loop.sock_recv(left, 10)
    coro.send(None).cancel()
    await turns(2)
    with pytest.raises(asyncio.CancelledError):
        coro.send(None)
    assert loop.remove_reader(left) is False
    left.close()
    right.close()


async def test_a_view_is_released_while_it_is_sent(loop: Any) -> None:
    left, right = unix_pair()
    with contextlib.suppress(BlockingIOError):
        while True:
            left.send(bytes(65536))
    view = memoryview(bytearray(b"x" * 100))
    task = asyncio.create_task(loop.sock_sendall(left, view))
    await turns(2)
    view.release()
    task.cancel()
    await ended(task)
    left.close()
    right.close()

"""hotloop.testing: what stays real, and which of it the clock waits for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from typing import Any

import pytest

import support

if "hotloop" not in support.wanted_kinds():
    pytest.skip("hotloop is not wanted", allow_module_level=True)

from hotloop import testing
from hotloop.testing import Clock, TestLoop
from testclocks import Times, clock, loop

__all__ = ["clock", "loop"]  # the fixtures


@pytest.mark.parametrize("autojump", [False, True])
async def test_real_sockets(
    loop: TestLoop, clock: Clock, autojump: bool, tls: Any
) -> None:
    """A server with a timeout, and its client, over TLS on a TCP connection."""
    clock.autojump = autojump

    async def serve(reader: Any, writer: Any) -> None:
        try:
            while line := await asyncio.wait_for(reader.readline(), 60):
                writer.write(line.upper())
        except TimeoutError:
            writer.write(b"timeout\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls[0])
    reader, writer = await asyncio.open_connection(
        *server.sockets[0].getsockname(), ssl=tls[1], server_hostname="localhost"
    )
    for number in range(20):
        writer.write(f"line {number}\n".encode())
        assert await reader.readline() == f"LINE {number}\n".encode()
        await (asyncio.sleep(59) if autojump else clock.advance(59))
    assert clock.now() == 20 * 59
    if not autojump:
        await clock.advance(1)
    assert await reader.readline() == b"timeout\n"
    assert clock.now() == 20 * 59 + 1
    assert await reader.read() == b""
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    server.close()
    await server.wait_closed()


async def test_data_under_way_is_waited_for(loop: TestLoop, clock: Clock) -> None:
    """A round trip ends before a deadline that would cut it."""
    clock.autojump = True
    clock.grace = 5.0  # real ones, which nobody waits for
    left, right = support.tcp_pair()

    async def echo() -> None:
        while data := await loop.sock_recv(right, 1 << 16):
            await loop.sock_sendall(right, data)

    task = asyncio.create_task(echo())
    for number in range(200):
        async with asyncio.timeout(0.001):
            await loop.sock_sendall(left, b"%d" % number)
            assert await loop.sock_recv(left, 100) == b"%d" % number
    assert clock.now() == 0
    left.close()
    await task
    right.close()


async def test_executors(loop: TestLoop, clock: Clock) -> None:
    """Their work takes no time: the clock waits for it."""
    clock.autojump = True
    go = threading.Event()

    def work() -> str:
        go.wait()
        return "done"

    threading.Timer(0.05, go.set).start()
    assert await asyncio.wait_for(asyncio.to_thread(work), 0.001) == "done"
    assert clock.now() == 0

    go.clear()
    times = Times(loop)
    task = asyncio.ensure_future(loop.run_in_executor(None, work))
    task.add_done_callback(lambda _: times.note("work"))
    threading.Timer(0.05, go.set).start()
    await clock.advance(10)
    assert times == [("work", 0)] and clock.now() == 10


async def test_executors_that_do_not_count(loop: TestLoop, clock: Clock) -> None:
    clock.executors = False
    go = threading.Event()
    future = loop.run_in_executor(None, go.wait)
    await clock.advance(10)
    assert not future.done() and clock.now() == 10
    go.set()
    assert await future is True


async def test_cancelled_work_counts_no_more(loop: TestLoop, clock: Clock) -> None:
    go = threading.Event()
    future = loop.run_in_executor(None, go.wait)
    future.cancel()
    await clock.advance(10)
    assert clock.now() == 10
    go.set()


async def test_work_that_fails(loop: TestLoop, clock: Clock) -> None:
    with pytest.raises(ZeroDivisionError):
        await asyncio.to_thread(lambda: 1 / 0)
    with pytest.raises(RuntimeError, match="no work"):
        pool: Any = type("Pool", (), {"submit": staticmethod(refuse)})()
        loop.run_in_executor(pool, print)
    await clock.advance(1)


def refuse(*_: Any) -> None:
    raise RuntimeError("no work today")


async def test_hold(loop: TestLoop, clock: Clock) -> None:
    """For what the loop cannot know of."""
    clock.autojump = True
    answer = loop.create_future()

    def work() -> None:
        loop.call_soon_threadsafe(answer.set_result, "answer")

    with clock.hold(), clock.hold():
        threading.Timer(0.05, work).start()
        assert await asyncio.wait_for(answer, 1) == "answer"
    assert clock.now() == 0
    with contextlib.suppress(ZeroDivisionError), clock.hold():
        raise ZeroDivisionError
    await asyncio.sleep(1)
    assert clock.now() == 1


def test_names_are_resolved(loop: TestLoop, clock: Clock) -> None:
    clock.autojump = True

    async def main() -> Any:
        return await asyncio.wait_for(loop.getaddrinfo("localhost", "http"), 1e-6)

    assert loop.run_until_complete(main()) and clock.now() == 0


def test_the_end_of_run_waits_for_threads() -> None:
    """shutdown_default_executor() has a timeout, which is not to come."""

    async def main() -> None:
        testing.get_clock().autojump = True
        loop = asyncio.get_running_loop()
        loop.run_in_executor(None, go.wait)
        threading.Timer(0.05, go.set).start()

    go = threading.Event()
    mine = Clock()
    testing.run(main(), clock=mine)
    assert go.is_set() and mine.now() == 0


async def test_children(loop: TestLoop, clock: Clock) -> None:
    with clock.hold():
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "print(input())", stdin=-1, stdout=-1
        )
        out, _ = await asyncio.wait_for(child.communicate(b"hello\n"), 1)
    assert out == b"hello\n" and child.returncode == 0 and clock.now() == 0
    await clock.advance(1)


async def test_signals(loop: TestLoop, clock: Clock) -> None:
    """One that has come runs its handler before time goes on."""
    times = Times(loop)
    loop.add_signal_handler(signal.SIGUSR1, times.note, "signal")
    loop.call_later(1, os.kill, os.getpid(), signal.SIGUSR1)
    loop.call_later(2, times.note, "timer")
    await clock.advance(3)
    assert times == [("signal", 1), ("timer", 2)]
    loop.remove_signal_handler(signal.SIGUSR1)


async def test_threads_wake_the_loop(loop: TestLoop, clock: Clock) -> None:
    """Also one that waits with nothing but timers, which do not come."""
    timer = loop.call_later(1e-6, pytest.fail, "early")
    future = loop.create_future()
    thread = threading.Timer(
        0.02, loop.call_soon_threadsafe, (future.set_result, "woken")
    )
    thread.start()
    assert await future == "woken"
    timer.cancel()
    thread.join()


async def test_a_waiting_loop_costs_nothing(loop: TestLoop, clock: Clock) -> None:
    """Deadlines do not wake it, near as they may be."""
    turns = 0
    run_turn = clock._run_turn

    def counting(loop: TestLoop) -> None:
        nonlocal turns
        turns += 1
        run_turn(loop)

    clock._run_turn = counting  # type: ignore[method-assign]
    timer = loop.call_later(1e-6, pytest.fail, "early")
    future = loop.create_future()
    thread = threading.Timer(0.2, loop.call_soon_threadsafe, (future.set_result, 1))
    thread.start()
    await future
    assert turns < 10
    timer.cancel()
    thread.join()


async def test_datagrams(loop: TestLoop, clock: Clock) -> None:
    times = Times(loop)

    class Peer(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            times.note(data)

    transport, _ = await loop.create_datagram_endpoint(Peer, ("127.0.0.1", 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        address = transport.get_extra_info("sockname")
        for at in (1, 2, 3):
            loop.call_later(at, sender.sendto, b"%d" % at, address)
        await clock.advance(10)
    assert times == [(b"1", 1), (b"2", 2), (b"3", 3)]
    transport.close()
    await support.turns(2)


def test_debug_mode(loop: TestLoop, clock: Clock, log: Any) -> None:
    """A slow callback is one that time passes in: here it does not."""
    loop.set_debug(True)
    loop.slow_callback_duration = 0.001

    async def main() -> None:
        loop.call_later(1, time.sleep, 0.01)
        await clock.advance(2)

    loop.run_until_complete(main())
    assert log.take() == []

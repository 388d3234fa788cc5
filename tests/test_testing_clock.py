"""hotloop.testing: time that the test moves, with real sockets and threads."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import support

if "hotloop" not in support.wanted_kinds():
    pytest.skip("hotloop is not wanted", allow_module_level=True)

from hotloop import testing
from hotloop.testing import Clock, TestLoop


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loop(clock: Clock, reports: list[Any]) -> Iterator[TestLoop]:
    """A loop that runs by the clock."""
    made = testing.new_event_loop(clock)
    made.set_exception_handler(lambda _, context: reports.append(context))
    yield made
    made.run_until_complete(made.shutdown_asyncgens())
    made.run_until_complete(made.shutdown_default_executor())
    made.close()


class Times(list):  # type: ignore[type-arg]
    """What was called, and when."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def note(self, what: Any) -> None:
        self.append((what, self.loop.time()))

    def noting(self, what: Any) -> Callable[[], None]:
        return lambda: self.note(what)


# ---- time ----


async def test_time_stands_still(loop: TestLoop, clock: Clock) -> None:
    assert loop.time() == clock.now() == 0.0
    late = loop.call_later(0.001, pytest.fail, "early")
    began = time.monotonic()
    while time.monotonic() < began + 0.01:
        await asyncio.sleep(0)
    assert loop.time() == 0.0
    late.cancel()


async def test_all_waits_are_of_the_clock(loop: TestLoop, clock: Clock) -> None:
    times = Times(loop)

    async def waits() -> None:
        await asyncio.sleep(10)
        times.note("sleep")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                await loop.create_future()
        times.note("timeout")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(loop.create_future(), 10)
        times.note("wait_for")
        await asyncio.wait([loop.create_future()], timeout=10)
        times.note("wait")
        loop.call_later(10, times.note, "call_later")
        loop.call_at(loop.time() + 20, times.note, "call_at")

    task = asyncio.create_task(waits())
    await clock.advance(39)
    assert [what for what, _ in times] == ["sleep", "timeout", "wait_for"]
    await clock.advance(61)
    assert task.done() and clock.now() == 100
    assert times == [
        ("sleep", 10),
        ("timeout", 20),
        ("wait_for", 30),
        ("wait", 40),
        ("call_later", 50),
        ("call_at", 60),
    ]


async def test_each_timer_at_its_own_time(loop: TestLoop, clock: Clock) -> None:
    """What one sets off has run before the next is due."""
    times = Times(loop)
    for delay in (3, 1, 2):
        loop.call_later(delay, times.note, delay)
    loop.call_later(1, lambda: loop.call_soon(loop.call_soon, times.note, "chain"))
    loop.call_later(1, lambda: loop.call_later(0.5, times.note, "new"))
    loop.call_later(1, times.note, "same time")
    await clock.advance(2.5)
    assert times == [
        (1, 1),
        ("same time", 1),
        ("chain", 1),
        ("new", 1.5),
        (2, 2),
    ]
    assert clock.now() == 2.5
    await clock.advance(0.5)
    assert times[-1] == (3, 3) and clock.now() == 3


async def test_what_is_due_at_the_end_has_run(loop: TestLoop, clock: Clock) -> None:
    times = Times(loop)

    async def again() -> None:
        for _ in range(3):
            await asyncio.sleep(5)
            await asyncio.sleep(0)
            times.note("again")

    task = asyncio.create_task(again())
    await clock.advance(15)
    assert times == [("again", 5), ("again", 10), ("again", 15)] and task.done()


async def test_past_and_present_deadlines_need_no_clock(
    loop: TestLoop, clock: Clock
) -> None:
    await clock.advance(100)
    times = Times(loop)
    loop.call_at(1, times.note, "past")
    loop.call_at(100, times.note, "present")
    loop.call_later(-5, times.note, "before")
    loop.call_later(0, times.note, "now")
    await support.turns(2)
    assert [what for what, _ in times] == ["past", "before", "present", "now"]
    assert clock.now() == 100


async def test_cancelled_timers(loop: TestLoop, clock: Clock) -> None:
    """They are no deadlines, wherever among the others they are."""
    clock.autojump = True
    timers = [loop.call_later(delay, pytest.fail, "cancelled") for delay in range(9)]
    for timer in timers[::-1]:
        timer.cancel()
    await asyncio.sleep(100)
    assert clock.now() == 100
    first = loop.call_later(1, lambda: second.cancel())
    second = loop.call_later(2, pytest.fail, "cancelled")
    await clock.advance(3)
    assert first.when() == 101 and second.cancelled()


@pytest.mark.parametrize("step,count", [(0.1, 10), (0.7, 10), (1 / 3, 3), (1e-3, 1000)])
async def test_sums_of_floats(
    loop: TestLoop, clock: Clock, step: float, count: int
) -> None:
    """Ten times a tenth is one, for the clock and for what waits."""
    times = Times(loop)
    whole = round(step * count, 9)
    loop.call_at(whole, times.note, "whole")

    async def chain() -> None:
        for _ in range(count):
            await asyncio.sleep(step)
        times.note("chain")

    task = asyncio.create_task(chain())
    for _ in range(count):
        await clock.advance(step)
    assert clock.now() == pytest.approx(whole, abs=1e-9)
    assert {what for what, _ in times} == {"whole", "chain"} and task.done()
    for _, at in times:
        assert at == pytest.approx(whole, abs=1e-9)


async def test_the_clock_does_not_drift(loop: TestLoop, clock: Clock) -> None:
    for _ in range(10_000):
        await clock.advance(0.1)
    assert clock.now() == 1000


async def test_waiting_for_a_time_ends(loop: TestLoop, clock: Clock) -> None:
    """A deadline is reached to the last bit."""
    deadline = 0.1 + 0.2  # not 0.3
    rounds = 0

    async def waits() -> None:
        nonlocal rounds
        while loop.time() < deadline:
            rounds += 1
            await asyncio.sleep(deadline - loop.time())

    task = asyncio.create_task(waits())
    await clock.advance(0.3)
    assert task.done() and rounds == 1 and loop.time() >= deadline


async def test_time_far_away(loop: TestLoop) -> None:
    """Where floats are coarser than the clock."""
    with contextlib.closing(TestLoop(Clock(1e12))) as far:
        far.call_later(30, far.stop)
        far.clock.autojump = True
        await loop.run_in_executor(None, far.run_forever)
        assert far.time() == 1e12 + 30


# ---- advance() ----


@pytest.mark.parametrize("seconds", [-1, -1e-9, math.inf, -math.inf, math.nan])
async def test_no_number_of_seconds(
    loop: TestLoop, clock: Clock, seconds: float
) -> None:
    with pytest.raises(ValueError, match="time cannot advance by"):
        await clock.advance(seconds)
    assert clock.now() == 0
    with pytest.raises(ValueError, match="cannot start"):
        Clock(math.inf)


async def test_no_number(loop: TestLoop, clock: Clock) -> None:
    wrong: Any
    for wrong in ("1", None, [1]):
        with pytest.raises(TypeError):
            await clock.advance(wrong)


async def test_advance_zero_and_settle(loop: TestLoop, clock: Clock) -> None:
    times = Times(loop)
    for wait in (lambda: clock.advance(0), clock.settle):
        loop.call_soon(loop.call_soon, loop.call_soon, times.note, "soon")
        loop.call_later(0, times.note, "due")
        loop.call_later(1e-6, times.note, "not due")
        await wait()
    assert [what for what, _ in times] == ["due", "soon", "due", "soon"]
    assert clock.now() == 0


async def test_several_tasks_advance(loop: TestLoop, clock: Clock) -> None:
    """Each returns at its own time; the clock goes as far as the farthest."""
    times = Times(loop)

    async def advance(seconds: float) -> None:
        await clock.advance(seconds)
        times.note(seconds)

    loop.call_later(25, times.note, "timer")
    await asyncio.gather(*map(advance, (30, 10, 20, 10)))
    assert times == [(10, 10), (10, 10), (20, 20), ("timer", 25), (30, 30)]


async def test_advance_inside_of_advance(loop: TestLoop, clock: Clock) -> None:
    times = Times(loop)

    async def inner() -> None:
        await asyncio.sleep(5)
        await clock.advance(10)
        times.note("inner")

    task = asyncio.create_task(inner())
    await clock.advance(8)
    assert clock.now() == 8 and not task.done()
    await task
    assert times == [("inner", 15)]


async def test_cancelled_advance(loop: TestLoop, clock: Clock) -> None:
    """Time stays where it is, and nothing more happens."""
    times = Times(loop)
    task = asyncio.create_task(clock.advance(30))
    loop.call_later(10, task.cancel)
    loop.call_later(20, times.note, "late")
    with pytest.raises(asyncio.CancelledError):
        await task
    await support.turns(5)
    assert clock.now() == 10 and times == []
    await clock.advance(10)
    assert times == [("late", 20)]


async def test_advance_under_a_timeout(loop: TestLoop, clock: Clock) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(7):
            await clock.advance(30)
    assert clock.now() == 7


async def test_callback_that_raises(loop: TestLoop, clock: Clock, reports: Any) -> None:
    times = Times(loop)
    loop.call_later(1, lambda: 1 / 0)
    loop.call_later(2, times.note, "after")
    await clock.advance(3)
    assert times == [("after", 2)] and clock.now() == 3
    assert isinstance(reports.one()["exception"], ZeroDivisionError)


def test_exit_in_a_callback(loop: TestLoop, clock: Clock) -> None:
    """It ends the run; the next one goes on from there."""

    def leave() -> None:
        raise KeyboardInterrupt

    async def main() -> None:
        await clock.advance(5)

    task = loop.create_task(main())
    loop.call_later(2, leave)
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    assert clock.now() == 2 and not task.done()
    loop.run_until_complete(task)
    assert clock.now() == 5


@pytest.mark.parametrize("what", ["timer", "callback"])
async def test_no_quiet_moment(loop: TestLoop, clock: Clock, what: str) -> None:
    """What comes again and again at one instant is an error, not a hang."""
    clock.limit = 500
    rounds = 0
    going = True

    def again() -> None:
        nonlocal rounds
        rounds += 1
        if going and what == "timer":
            loop.call_later(0, again)
        elif going:
            loop.call_soon(again)

    again()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="not quiet for 500 turns at 0"):
            await clock.advance(1)
    assert 1000 <= rounds <= 1020 and clock.now() == 0
    going = False
    await clock.advance(1)


async def test_busy_is_not_endless(loop: TestLoop, clock: Clock) -> None:
    """The turns count from one instant to the next."""
    clock.limit = 50

    async def busy() -> None:
        for _ in range(20):
            await support.turns(30)
            await asyncio.sleep(1)

    task = asyncio.create_task(busy())
    await clock.advance(20)
    assert task.done()


def test_another_loop_s_clock(loop: TestLoop, clock: Clock) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="does not run by this clock"):
            await clock.advance(1)

    testing.run(main())
    asyncio.run(main())


def test_get_clock() -> None:
    async def real() -> None:
        with pytest.raises(RuntimeError, match="no loop for tests"):
            testing.get_clock()

    async def virtual() -> Clock:
        await testing.get_clock().advance(60)
        return testing.get_clock()

    asyncio.run(real())
    with pytest.raises(RuntimeError, match="no running event loop"):
        testing.get_clock()
    assert testing.run(virtual()).now() == 60
    mine = Clock(100)
    assert testing.run(virtual(), clock=mine, debug=True) is mine
    assert repr(mine) == "<Clock now=160.0 autojump=False>"


# ---- autojump ----


async def test_autojump(loop: TestLoop, clock: Clock) -> None:
    clock.autojump = True
    began = time.monotonic()
    await asyncio.sleep(1e6)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(loop.create_future(), 1e6)
    assert clock.now() == 2e6 and time.monotonic() - began < 1e5
    loop.call_later(math.inf, pytest.fail, "the end of time").cancel()
    clock.autojump = False
    never = asyncio.create_task(asyncio.sleep(1))
    await support.turns(20)
    assert clock.now() == 2e6
    never.cancel()


async def test_autojump_and_advance(loop: TestLoop, clock: Clock) -> None:
    times = Times(loop)
    clock.autojump = True
    task = asyncio.create_task(asyncio.sleep(100))
    await clock.advance(30)
    times.note("advanced")
    await task
    times.note("slept")
    assert times == [("advanced", 30), ("slept", 100)]


# ---- what is real ----


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

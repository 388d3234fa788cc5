"""hotloop.testing: time that the test moves."""

from __future__ import annotations

import asyncio
import contextlib
import math
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


async def test_what_is_urgent_runs_before_time_goes_on(
    loop: TestLoop, clock: Clock
) -> None:
    times = Times(loop)

    def again(left: int) -> None:
        if left:
            loop.call_soon_priority(again, left - 1)
        else:
            times.note("last")

    loop.call_later(1, again, 20)
    loop.call_later(1.5, times.note, "timer")
    await clock.advance(2)
    assert times == [("last", 1), ("timer", 1.5)]


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
    alone = loop.create_future()
    loop.call_at(1, alone.set_result, None)
    await alone
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
    await clock.advance(30)  # past where it would have ended
    assert clock.now() == 50


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

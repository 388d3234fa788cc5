"""call_later and call_at: handles, order, precision, cancelling."""

from __future__ import annotations

import asyncio
import contextvars
import random
import time
import weakref
from typing import Any

import pytest

from support import PY, turns

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("VAR", default="-")


def nothing(*args: Any) -> None:
    """A callback that must never run."""
    raise AssertionError(args)


@pytest.mark.parametrize("delay", [0, 0.0, 1, 0.0001, 1e6, -1, -0.5, True])
def test_call_later_gives_a_timer_handle(loop: Any, delay: float) -> None:
    before = loop.time()
    handle = loop.call_later(delay, nothing)
    after = loop.time()
    assert isinstance(handle, asyncio.TimerHandle)
    assert isinstance(handle, asyncio.Handle)
    assert isinstance(handle.when(), float)
    assert before + delay <= handle.when() <= after + delay
    assert not handle.cancelled()
    handle.cancel()
    assert handle.cancelled()


def test_call_at_keeps_the_deadline(loop: Any) -> None:
    when = loop.time() + 1234.5678901
    handle = loop.call_at(when, nothing)
    assert isinstance(handle, asyncio.TimerHandle)
    assert handle.when() == when
    handle.cancel()
    handle = loop.call_at(5, nothing)
    assert handle.when() == 5
    handle.cancel()


def test_time_is_the_monotonic_clock(loop: Any) -> None:
    before = time.monotonic()
    now = loop.time()
    after = time.monotonic()
    assert isinstance(now, float)
    assert before <= now <= after


def test_time_moves_within_a_turn(loop: Any) -> None:
    seen: list[float] = []

    def callback() -> None:
        first = loop.time()
        time.sleep(0.01)
        seen.append(loop.time() - first)
        loop.stop()

    loop.call_soon(callback)
    loop.run_forever()
    assert seen[0] >= 0.009


@pytest.mark.parametrize("method", ["call_later", "call_at"])
def test_none_is_refused(loop: Any, method: str) -> None:
    with pytest.raises(TypeError) as caught:
        getattr(loop, method)(None, nothing)
    wanted = {
        "call_later": "delay must not be None",
        "call_at": "when cannot be None",
    }
    assert str(caught.value) == wanted[method]


def test_text_is_refused(loop: Any) -> None:
    with pytest.raises(TypeError):
        loop.call_later("1", nothing)


@pytest.mark.parametrize("method", ["call_later", "call_at"])
def test_arguments_are_required(loop: Any, method: str) -> None:
    with pytest.raises(TypeError):
        getattr(loop, method)()
    with pytest.raises(TypeError):
        getattr(loop, method)(1)
    with pytest.raises(TypeError):
        getattr(loop, method)(1, nothing, key=2)


@pytest.mark.parametrize("delay", [float("inf"), 1e300, 1e18, 1e10])
def test_huge_delays_never_fire_and_never_block(loop: Any, delay: float) -> None:
    handle = loop.call_later(delay, nothing)
    assert handle.when() >= delay
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.call_soon_threadsafe(loop.stop)
    loop.run_forever()
    handle.cancel()


@pytest.mark.parametrize("delay", [float("-inf"), -1e300, -5])
def test_far_past_fires_next_turn(loop: Any, delay: float) -> None:
    seen: list[int] = []
    loop.call_later(delay, seen.append, 1)
    loop.run_until_complete(turns(2))
    assert seen == [1]


def test_nan_does_not_hurt_the_loop(loop: Any) -> None:
    try:
        handle = loop.call_later(float("nan"), int)
    except ValueError:
        handle = None
    loop.run_until_complete(asyncio.sleep(0.01))
    if handle is not None:
        handle.cancel()
    loop.run_until_complete(asyncio.sleep(0.01))


def test_zero_delay_runs_after_what_was_queued(loop: Any) -> None:
    seen: list[str] = []
    loop.call_later(0, seen.append, "timer")
    loop.call_soon(seen.append, "soon 1")
    loop.call_soon(seen.append, "soon 2")
    loop.run_until_complete(turns(3))
    assert seen == ["soon 1", "soon 2", "timer"]


def test_deadline_order_not_creation_order(loop: Any) -> None:
    seen: list[int] = []
    base = loop.time() + 0.01
    numbers = list(range(200))
    random.Random(7).shuffle(numbers)
    for number in numbers:
        # 10 microseconds apart: inside one millisecond there are many.
        loop.call_at(base + number * 1e-5, seen.append, number)
    loop.call_at(base + 0.02, loop.stop)
    loop.run_forever()
    assert seen == list(range(200))


def test_never_early(loop: Any) -> None:
    early: list[float] = []
    count = 0
    generator = random.Random(11)
    total = 300

    def fire(handle_box: list[Any]) -> None:
        nonlocal count
        count += 1
        now, when = loop.time(), handle_box[0].when()
        if now < when:
            early.append(when - now)
        if count == total:
            loop.stop()

    for _ in range(total):
        box: list[Any] = []
        box.append(loop.call_later(generator.uniform(0, 0.05), fire, box))
    loop.run_forever()
    assert early == []


async def test_sleep_is_never_short(loop: Any) -> None:
    generator = random.Random(3)
    for _ in range(60):
        delay = generator.uniform(0.0001, 0.004)
        before = time.monotonic()
        await asyncio.sleep(delay)
        assert time.monotonic() - before >= delay - 1e-7


def test_due_timer_with_a_busy_queue(loop: Any) -> None:
    seen: list[str] = []

    def again() -> None:
        if not seen:
            loop.call_soon(again)
        else:
            loop.stop()

    loop.call_later(0.02, seen.append, "timer")
    loop.call_soon(again)
    loop.run_forever()
    assert seen == ["timer"]


def test_timer_made_by_a_timer_waits_a_turn(loop: Any) -> None:
    seen: list[str] = []

    def first() -> None:
        seen.append("first")
        loop.call_at(0, seen.append, "child")
        loop.call_soon(seen.append, "soon")

    loop.call_at(0, first)
    loop.call_at(1, seen.append, "second")
    loop.run_until_complete(turns(5))
    assert seen == ["first", "second", "soon", "child"]


def test_cancelled_timers_do_not_fire(loop: Any) -> None:
    seen: list[int] = []
    handles = [loop.call_later(0.001 * n, seen.append, n) for n in range(20)]
    for handle in handles[::2]:
        handle.cancel()
        handle.cancel()
    loop.run_until_complete(asyncio.sleep(0.04))
    assert seen == list(range(1, 20, 2))


def test_cancel_from_a_callback_of_the_same_turn(loop: Any) -> None:
    seen: list[str] = []
    second: Any = None
    loop.call_at(1, lambda: second.cancel())
    second = loop.call_at(2, seen.append, "cancelled")
    loop.call_at(3, seen.append, "kept")
    loop.run_until_complete(turns(3))
    assert seen == ["kept"]


def test_cancel_after_it_fired(loop: Any) -> None:
    handle = loop.call_later(0, int)
    loop.run_until_complete(turns(3))
    assert not handle.cancelled()
    handle.cancel()
    assert handle.cancelled()
    for _ in range(200):
        loop.call_later(1000, nothing).cancel()
    loop.run_until_complete(turns(3))


def test_cancel_after_the_loop_closed(loop: Any) -> None:
    handle = loop.call_later(100, nothing)
    loop.close()
    handle.cancel()
    assert handle.cancelled()


def test_thousands_cancelled_are_forgotten(loop: Any) -> None:
    class Thing:
        def __call__(self) -> None:
            raise AssertionError("ran")

    live = loop.call_later(1000, nothing)
    handles = [weakref.ref(loop.call_later(500 + n, Thing())) for n in range(5000)]
    for ref in handles:
        handle = ref()
        assert handle is not None
        handle.cancel()
    del handle
    loop.run_until_complete(turns(3))
    # The heap gives up cancelled handles once they are most of it.
    assert sum(ref() is not None for ref in handles) < 200
    live.cancel()


def test_cancelled_callback_is_released_at_once(loop: Any) -> None:
    class Thing:
        def __call__(self) -> None:
            raise AssertionError("ran")

    thing = Thing()
    ref = weakref.ref(thing)
    handle = loop.call_later(100, thing)
    del thing
    handle.cancel()
    assert ref() is None


def test_many_timers_with_random_cancels(loop: Any) -> None:
    generator = random.Random(5)
    fired: set[int] = set()
    cancelled: set[int] = set()
    handles: list[Any] = []
    base = loop.time()
    for number in range(5000):
        when = base + generator.uniform(0, 0.1)
        handles.append(loop.call_at(when, fired.add, number))

    def drop() -> None:
        for number in generator.sample(range(5000), 60):
            if number not in fired:
                handles[number].cancel()
                cancelled.add(number)

    for step in range(40):
        loop.call_at(base + step * 0.002, drop)
    loop.call_at(base + 0.15, loop.stop)
    loop.run_forever()
    assert not fired & cancelled
    assert fired | cancelled == set(range(5000))
    assert cancelled


def test_exception_in_a_timer(loop: Any, reports: Any) -> None:
    def fail() -> None:
        raise OSError("timer")

    handle = loop.call_later(0, fail)
    loop.run_until_complete(turns(3))
    report = reports.one()
    assert report["message"].startswith("Exception in callback ")
    assert report["handle"] is handle
    assert str(report["exception"]) == "timer"


def test_exit_out_of_a_timer_keeps_the_others(loop: Any) -> None:
    seen: list[str] = []

    def leave() -> None:
        raise SystemExit("leave")

    loop.call_at(1, leave)
    loop.call_at(2, seen.append, "due too")
    with pytest.raises(SystemExit):
        loop.run_forever()
    loop.run_until_complete(turns(2))
    assert seen == ["due too"]


def test_context_of_a_timer(loop: Any) -> None:
    context = contextvars.copy_context()
    context.run(VAR.set, "given")
    seen: list[str] = []
    token = VAR.set("copied")
    first = loop.call_later(0, lambda: seen.append(VAR.get()))
    second = loop.call_later(0, lambda: seen.append(VAR.get()), context=context)
    third = loop.call_at(0, lambda: seen.append(VAR.get()), context=context)
    VAR.reset(token)
    if PY >= (3, 12):
        assert first.get_context()[VAR] == "copied"
        assert second.get_context() is context
        assert third.get_context() is context
    loop.run_until_complete(turns(3))
    assert sorted(seen) == ["copied", "given", "given"]


def test_comparing_handles(loop: Any) -> None:
    first = loop.call_at(1e10, nothing, 1)
    second = loop.call_at(2e10, nothing, 1)
    twin = loop.call_at(1e10, nothing, 1)
    assert first < second and first <= second and first <= twin
    assert second > first and second >= first and first >= twin
    assert not first < twin
    assert first == twin and first != second
    assert hash(first) == hash(1e10)
    assert first != loop.call_at(1e10, nothing, 2)
    assert first != 1e10
    with pytest.raises(TypeError):
        assert first < 5


def test_equality_ends_with_cancel(loop: Any) -> None:
    first = loop.call_at(1e10, nothing)
    twin = loop.call_at(1e10, nothing)
    twin.cancel()
    assert first != twin


def test_repr_of_a_timer(loop: Any) -> None:
    handle = loop.call_at(12.5, nothing)
    text = repr(handle)
    assert text.startswith("<TimerHandle when=12.5 nothing(")
    handle.cancel()
    assert repr(handle) == "<TimerHandle cancelled when=12.5>"


def test_weak_references_to_handles(loop: Any) -> None:
    handle = loop.call_later(100, nothing)
    ref = weakref.ref(handle)
    assert ref() is handle
    del handle
    assert ref() is not None
    loop.close()
    assert ref() is None


def test_handles_of_stock_asyncio_still_work(loop: Any) -> None:
    # Someone may build a TimerHandle by hand and cancel it.
    handle = asyncio.TimerHandle(1.0, nothing, (), loop)
    handle.cancel()
    assert handle.cancelled()
    plain = asyncio.Handle(nothing, (), loop)
    plain.cancel()
    assert repr(plain) == "<Handle cancelled>"


def test_sleeping_tasks_wake_in_order(loop: Any) -> None:
    order: list[int] = []
    start = loop.time() + 0.02  # later than the last of them is asleep

    async def sleeper(number: int) -> None:
        wake = loop.create_future()
        loop.call_at(start + 0.002 * number, wake.set_result, None)
        await wake
        order.append(number)

    async def main() -> None:
        await asyncio.gather(*(sleeper(n) for n in reversed(range(20))))

    loop.run_until_complete(main())
    assert order == list(range(20))

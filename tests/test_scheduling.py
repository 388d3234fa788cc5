"""call_soon, turns, stop, run_forever, run_until_complete, close, reports."""

# mypy: disable-error-code="func-returns-value,has-type"

from __future__ import annotations

import asyncio
import contextvars
import socket
import sys
import weakref
from typing import Any

import pytest

from support import PY, PY_FULL, turns

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("VAR", default="-")


def spin(loop: Any) -> None:
    """One turn of the loop."""
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_callbacks_run_in_order_with_their_arguments(loop: Any) -> None:
    seen: list[Any] = []
    for number in range(1000):
        loop.call_soon(lambda *args: seen.append(args), number, str(number))
    spin(loop)
    assert seen == [(n, str(n)) for n in range(1000)]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 8, 40])
def test_any_number_of_arguments(loop: Any, count: int) -> None:
    seen: list[Any] = []
    loop.call_soon(lambda *args: seen.append(args), *range(count))
    spin(loop)
    assert seen == [tuple(range(count))]


def test_handle_type_and_life(loop: Any) -> None:
    handle = loop.call_soon(int)
    assert isinstance(handle, asyncio.Handle)
    assert not isinstance(handle, asyncio.TimerHandle)
    assert handle.cancelled() is False
    assert handle.cancel() is None
    assert handle.cancelled() is True
    handle.cancel()
    assert "cancelled" in repr(handle)
    spin(loop)


def test_handle_repr_names_the_callback(loop: Any) -> None:
    handle = loop.call_soon(spin, 1)
    text = repr(handle)
    assert text.startswith("<Handle ") and text.endswith(">")
    assert "spin(" in text and "test_scheduling.py" in text
    handle.cancel()
    assert repr(handle) == "<Handle cancelled>"
    spin(loop)


def test_cancelled_handle_drops_what_it_held(loop: Any) -> None:
    class Thing:
        def __call__(self, other: Any) -> None:
            raise AssertionError("ran")

    callback, argument = Thing(), Thing()
    refs = [weakref.ref(callback), weakref.ref(argument)]
    handle = loop.call_soon(callback, argument)
    del callback, argument
    assert all(ref() is not None for ref in refs)
    handle.cancel()
    assert [ref() for ref in refs] == [None, None]
    spin(loop)


def test_cancel_keeps_others(loop: Any) -> None:
    seen: list[int] = []
    handles = [loop.call_soon(seen.append, n) for n in range(10)]
    for handle in handles[::2]:
        handle.cancel()
    spin(loop)
    assert seen == [1, 3, 5, 7, 9]


def test_cancel_from_an_earlier_callback_of_the_turn(loop: Any) -> None:
    seen: list[str] = []
    loop.call_soon(lambda: later.cancel())
    later = loop.call_soon(seen.append, "cancelled")
    loop.call_soon(seen.append, "kept")
    spin(loop)
    assert seen == ["kept"]


def test_cancel_itself_while_running(loop: Any) -> None:
    seen: list[str] = []

    def callback() -> None:
        handle.cancel()
        seen.append("ran")

    handle = loop.call_soon(callback)
    spin(loop)
    assert seen == ["ran"] and handle.cancelled()


def test_callback_scheduled_in_a_callback_runs_next_turn(loop: Any) -> None:
    seen: list[str] = []

    def first() -> None:
        seen.append("first")
        loop.call_soon(seen.append, "third")

    loop.call_soon(first)
    loop.call_soon(seen.append, "second")
    spin(loop)
    assert seen == ["first", "second"]
    spin(loop)
    assert seen == ["first", "second", "third"]


def test_self_rescheduling_lets_others_run(loop: Any) -> None:
    count = 0

    def again() -> None:
        nonlocal count
        count += 1
        loop.call_soon(again) if count < 500 else loop.stop()

    loop.call_soon(again)
    loop.call_later(0, lambda: order.append(count))
    order: list[int] = []
    loop.run_forever()
    assert count == 500
    assert order and order[0] < 500


def test_ring_grows_while_it_is_drained(loop: Any) -> None:
    seen: list[int] = []

    def fan(depth: int, number: int) -> None:
        seen.append(number)
        if depth:
            for child in range(3):
                loop.call_soon(fan, depth - 1, number * 3 + child)

    loop.call_soon(fan, 7, 0)
    for _ in range(9):
        spin(loop)
    assert len(seen) == sum(3**n for n in range(8))
    assert sorted(seen[-(3**7) :]) == seen[-(3**7) :]


def test_context_is_copied_at_call_soon(loop: Any) -> None:
    seen: list[str] = []
    VAR.set("before")
    loop.call_soon(lambda: seen.append(VAR.get()))
    VAR.set("after")
    spin(loop)
    assert seen == ["before"]


def test_context_argument_is_used_and_kept(loop: Any) -> None:
    context = contextvars.copy_context()
    context.run(VAR.set, "given")
    seen: list[str] = []

    def callback() -> None:
        seen.append(VAR.get())
        VAR.set("changed")

    handle = loop.call_soon(callback, context=context)
    if PY >= (3, 12):
        assert handle.get_context() is context
    spin(loop)
    assert seen == ["given"]
    assert context[VAR] == "changed"
    assert VAR.get() != "changed"


def test_context_none_means_a_copy(loop: Any) -> None:
    seen: list[str] = []
    token = VAR.set("mine")
    loop.call_soon(lambda: seen.append(VAR.get()), context=None)
    spin(loop)
    VAR.reset(token)
    assert seen == ["mine"]


def test_call_soon_refuses_other_keywords(loop: Any) -> None:
    with pytest.raises(TypeError):
        loop.call_soon(print, key=1)
    with pytest.raises(TypeError):
        loop.call_soon()


def test_not_callable_is_reported_when_it_runs(loop: Any, reports: Any) -> None:
    loop.call_soon(17)
    assert reports == []
    spin(loop)
    report = reports.one()
    assert isinstance(report["exception"], TypeError)
    assert "not callable" in str(report["exception"])


def test_context_that_is_no_context_is_reported(loop: Any, reports: Any) -> None:
    # The error appears wherever asyncio lets it appear: at the call or when
    # the callback runs.
    try:
        loop.call_soon(print, context="text")
    except (TypeError, AttributeError):
        return
    with pytest.raises(BaseException) as caught:
        spin(loop)
        raise reports.one()["exception"]
    assert isinstance(caught.value, (AttributeError, TypeError))


def test_callback_that_enters_its_own_context_again(loop: Any, reports: Any) -> None:
    context = contextvars.copy_context()
    loop.call_soon(context.run, print, context=context)
    spin(loop)
    report = reports.one()
    assert isinstance(report["exception"], RuntimeError)
    assert "already entered" in str(report["exception"])


def test_exception_goes_to_the_handler(loop: Any, reports: Any) -> None:
    def fail() -> None:
        raise ValueError("no")

    handle = loop.call_soon(fail)
    seen: list[str] = []
    loop.call_soon(seen.append, "next")
    spin(loop)
    report = reports.one()
    assert sorted(report) == ["exception", "handle", "message"]
    assert report["message"].startswith("Exception in callback ")
    assert "fail() at" in report["message"]
    assert str(report["exception"]) == "no"
    assert report["handle"] is handle
    assert seen == ["next"]


def test_default_handler_logs(loop: Any, log: Any) -> None:
    loop.set_exception_handler(None)
    loop.call_soon(lambda: 1 / 0)
    spin(loop)
    text = log.one()
    assert text.startswith("Exception in callback ")
    assert "handle: <Handle" in text
    assert "ZeroDivisionError: division by zero" in text


def test_handler_runs_in_the_failing_context(loop: Any) -> None:
    seen: list[str] = []
    loop.set_exception_handler(lambda _, context: seen.append(VAR.get()))
    VAR.set("outside")
    context = contextvars.copy_context()
    context.run(VAR.set, "inside")
    loop.call_soon(lambda: 1 / 0, context=context)
    spin(loop)
    # 3.12 runs the handler in the handle's context; 3.11 in the caller's.
    assert seen == ["inside" if PY >= (3, 12) else "outside"]


def test_handler_that_fails_is_logged(loop: Any, log: Any) -> None:
    def handler(loop: Any, context: Any) -> None:
        raise KeyError("handler")

    loop.set_exception_handler(handler)
    loop.call_soon(lambda: 1 / 0)
    spin(loop)
    text = log.one()
    assert text.startswith("Unhandled error in exception handler")
    assert "KeyError: 'handler'" in text
    assert loop.get_exception_handler() is handler


def test_set_exception_handler_checks(loop: Any) -> None:
    with pytest.raises(TypeError, match="callable object or None is expected"):
        loop.set_exception_handler("text")
    loop.set_exception_handler(None)
    assert loop.get_exception_handler() is None


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_exit_out_of_a_callback_leaves_a_usable_loop(
    loop: Any, kind: type[BaseException]
) -> None:
    seen: list[str] = []

    def leave() -> None:
        raise kind("leave")

    loop.call_soon(seen.append, "before")
    loop.call_soon(leave)
    loop.call_soon(seen.append, "after")
    with pytest.raises(kind, match="leave"):
        loop.run_forever()
    assert seen == ["before"]
    assert not loop.is_running() and not loop.is_closed()
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    spin(loop)
    assert seen == ["before", "after"]


def test_stop_drops_nothing_but_runs_nothing_queued_after(loop: Any) -> None:
    seen: list[str] = []

    def stopper() -> None:
        loop.stop()
        loop.call_soon(seen.append, "after")

    loop.call_soon(stopper)
    loop.call_soon(seen.append, "same turn")
    loop.run_forever()
    assert seen == ["same turn"]
    spin(loop)
    assert seen == ["same turn", "after"]


def test_stop_before_run_forever_makes_one_turn(loop: Any) -> None:
    seen: list[str] = []

    def first() -> None:
        seen.append("first")
        loop.call_soon(seen.append, "second")

    loop.call_soon(first)
    loop.stop()
    loop.run_forever()
    assert seen == ["first"]
    loop.stop()
    loop.run_forever()
    assert seen == ["first", "second"]


def test_stop_is_used_up_by_one_run(loop: Any) -> None:
    loop.stop()
    loop.stop()
    loop.run_forever()
    seen: list[int] = []
    loop.call_soon(lambda: loop.call_soon(seen.append, 1))
    loop.call_soon(lambda: loop.call_soon(loop.stop))
    loop.run_forever()
    assert seen == [1]


def test_run_until_complete_returns_and_raises(loop: Any) -> None:
    async def give(value: Any) -> Any:
        await turns(2)
        if isinstance(value, Exception):
            raise value
        return value

    assert loop.run_until_complete(give(5)) == 5
    with pytest.raises(ValueError, match="bad"):
        loop.run_until_complete(give(ValueError("bad")))
    future = loop.create_future()
    loop.call_soon(future.set_result, "future")
    assert loop.run_until_complete(future) == "future"
    assert loop.run_until_complete(future) == "future"


def test_run_until_complete_refuses_other_things(loop: Any) -> None:
    with pytest.raises(TypeError, match=r"asyncio\.Future, a coroutine"):
        loop.run_until_complete(5)


def test_run_until_complete_stopped_early(loop: Any) -> None:
    future = loop.create_future()
    loop.call_soon(loop.stop)
    message = "Event loop stopped before Future completed."
    with pytest.raises(RuntimeError, match=message):
        loop.run_until_complete(future)
    assert not future.done()
    assert not future._callbacks
    future.cancel()


def test_run_until_complete_of_a_cancelled_task(loop: Any) -> None:
    task = loop.create_task(asyncio.sleep(10))
    loop.call_soon(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)


def test_run_until_complete_when_the_task_exits(loop: Any) -> None:
    async def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit) as caught:
        loop.run_until_complete(leave())
    assert caught.value.code == 3
    spin(loop)


def skip_broken_reference(kind: str) -> None:
    if kind == "asyncio" and PY_FULL == (3, 13, 0):
        pytest.skip("3.13.0 forgets that its loop runs when it refuses to nest")


async def test_nesting_is_refused(loop: Any, loop_kind: str) -> None:
    skip_broken_reference(loop_kind)
    same = "This event loop is already running"
    with pytest.raises(RuntimeError) as caught:
        loop.run_forever()
    assert str(caught.value) == same
    coro = asyncio.sleep(0)
    with pytest.raises(RuntimeError) as caught:
        loop.run_until_complete(coro)
    assert str(caught.value) == same
    coro.close()
    assert asyncio.get_running_loop() is loop


async def test_another_loop_inside_is_refused(
    loop: Any, new_loop: Any, loop_kind: str
) -> None:
    skip_broken_reference(loop_kind)
    other = new_loop()
    message = "Cannot run the event loop while another loop is running"
    with pytest.raises(RuntimeError) as caught:
        other.run_forever()
    assert str(caught.value) == message
    other.close()


async def test_close_while_running(loop: Any) -> None:
    with pytest.raises(RuntimeError) as caught:
        loop.close()
    assert str(caught.value) == "Cannot close a running event loop"


async def test_running_facts(loop: Any) -> None:
    assert loop.is_running() is True
    assert loop.is_closed() is False
    assert asyncio.get_running_loop() is loop
    assert asyncio.get_event_loop() is loop


def test_idle_facts_and_repr(loop: Any) -> None:
    assert loop.is_running() is False
    assert "running=False closed=False debug=False" in repr(loop)
    loop.close()
    loop.close()
    assert loop.is_closed() is True
    assert "running=False closed=True debug=False" in repr(loop)


def nothing(*args: Any) -> None:
    """A callback that must never run."""
    raise AssertionError(args)


CLOSED_CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("call_soon", (nothing,)),
    ("call_soon_threadsafe", (nothing,)),
    ("call_later", (1, nothing)),
    ("call_at", (1, nothing)),
    ("run_forever", ()),
    ("run_in_executor", (None, nothing)),
    ("add_signal_handler", (10, nothing)),
]


@pytest.mark.parametrize("name,args", CLOSED_CALLS)
def test_closed_loop_refuses(loop: Any, name: str, args: Any) -> None:
    loop.close()
    with pytest.raises(RuntimeError) as caught:
        getattr(loop, name)(*args)
    assert str(caught.value) == "Event loop is closed"


def test_closed_loop_refuses_descriptors_and_tasks(loop: Any) -> None:
    loop.close()
    coro = asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.create_task(coro)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.run_until_complete(coro)
    coro.close()
    with socket.socket() as sock:
        for name in ("add_reader", "add_writer"):
            with pytest.raises(RuntimeError, match="Event loop is closed"):
                getattr(loop, name)(sock, nothing)


def test_closed_loop_still_answers(loop: Any) -> None:
    future = loop.create_future()
    loop.close()
    loop.stop()
    assert loop.time() > 0
    assert loop.get_debug() is False
    assert loop.is_running() is False
    assert loop.create_future().done() is False
    assert loop.remove_signal_handler(10) is False
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        future.add_done_callback(nothing)
        future.set_result(None)


def test_closed_loop_and_removing_a_descriptor(loop: Any) -> None:
    left, right = socket.socketpair()
    loop.close()
    outcomes = [loop.remove_reader(left), loop.remove_writer(left)]
    left.close()
    right.close()
    assert outcomes == [False, False]


def test_close_drops_what_was_queued(loop: Any) -> None:
    class Thing:
        def __call__(self) -> None:
            raise AssertionError("ran")

    soon, later = Thing(), Thing()
    refs = [weakref.ref(soon), weakref.ref(later)]
    loop.call_soon(soon)
    loop.call_later(100, later)
    del soon, later
    loop.close()
    assert [ref() for ref in refs] == [None, None]


def test_run_again_and_again(loop: Any) -> None:
    async def value(number: int) -> int:
        await asyncio.sleep(0)
        return number

    assert [loop.run_until_complete(value(n)) for n in range(50)] == list(range(50))


def test_default_attributes(loop: Any) -> None:
    assert loop.slow_callback_duration == 0.1
    loop.slow_callback_duration = 5
    assert loop.slow_callback_duration == 5
    assert loop.get_task_factory() is None
    loop.anything = "libraries put attributes on loops"
    assert loop.anything.startswith("libraries")


def test_subclass_overrides_are_used(loop: Any) -> None:
    class Mine(type(loop)):  # type: ignore[misc]
        def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
            self.calls = getattr(self, "calls", 0) + 1
            return super().call_soon(callback, *args, context=context)

    mine = Mine()
    seen: list[int] = []
    mine.call_soon(seen.append, 1)
    mine.call_soon(mine.stop)
    mine.run_forever()
    assert seen == [1] and mine.calls == 2
    mine.close()


def test_run_that_fails_before_it_begins(
    loop: Any, loop_kind: str, monkeypatch: Any
) -> None:
    if loop_kind == "asyncio" and PY_FULL > (3, 13, 0):
        pytest.skip("asyncio stopped to undo half a beginning with 3.13.1")
    real, calls = sys.set_asyncgen_hooks, []

    def hooks(*args: Any, **kwargs: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise MemoryError("hooks")
        real(*args, **kwargs)

    monkeypatch.setattr(sys, "set_asyncgen_hooks", hooks)
    with pytest.raises(MemoryError, match="hooks"):
        loop.run_forever()
    assert not loop.is_running()
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()
    loop.run_until_complete(turns(2))

"""The handle of call_soon_threadsafe(), which has a lock from 3.14 on."""

# mypy: disable-error-code="attr-defined,no-any-return"

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support import PY

pytestmark = pytest.mark.skipif(PY < (3, 14), reason="_ThreadSafeHandle came with 3.14")

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("VAR")


class Other:
    """One call in another thread, which may have to wait."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.result: list[Any] = []
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(call,))
        self.thread.start()

    def run(self, call: Callable[[], Any]) -> None:
        self.result.append(call())
        self.done.set()

    def waits(self) -> bool:
        return not self.done.wait(0.05)

    def finish(self) -> Any:
        assert self.done.wait(10)
        self.thread.join()
        return self.result[0]


@pytest.fixture
def run_once(loop: Any) -> Iterator[Callable[[], None]]:
    def run() -> None:
        loop.call_soon(loop.stop)
        loop.run_forever()

    yield run


def test_type_and_repr(loop: Any, run_once: Any) -> None:
    handle = loop.call_soon_threadsafe(print, "text")
    assert isinstance(handle, asyncio.events._ThreadSafeHandle)
    assert repr(handle) == "<_ThreadSafeHandle print()>"
    assert isinstance(handle._lock, type(threading.RLock()))
    assert handle._lock is handle._lock
    handle.cancel()
    assert repr(handle) == "<_ThreadSafeHandle cancelled>"
    assert handle._callback is None and handle._args is None
    run_once()


def test_repr_in_debug_mode(loop: Any, run_once: Any) -> None:
    loop.set_debug(True)
    handle = loop.call_soon_threadsafe(print, "text")
    line = sys._getframe().f_lineno - 1
    origin = f" created at {__file__}:{line}>"
    assert repr(handle) == "<_ThreadSafeHandle print('text')" + origin
    handle.cancel()
    expected = "<_ThreadSafeHandle cancelled print('text')" + origin
    assert repr(handle) == handle._repr == expected
    assert handle._callback is None
    run_once()


def test_other_kinds_have_no_lock(loop: Any, run_once: Any) -> None:
    handles = [loop.call_soon(int), loop.call_later(0, int)]
    assert not any(hasattr(handle, "_lock") for handle in handles)
    run_once()
    run_once()


@pytest.mark.parametrize("call", ["cancel", "cancelled"])
@pytest.mark.parametrize("debug", [False, True])
def test_another_thread_waits_for_the_callback(
    loop: Any, run_once: Any, call: str, debug: bool
) -> None:
    seen: list[Any] = []
    loop.set_debug(debug)
    loop.slow_callback_duration = 100

    def callback() -> None:
        seen.append(Other(getattr(handle, call)))
        assert seen[0].waits()
        seen.append("end")

    handle = loop.call_soon_threadsafe(callback)
    run_once()
    assert seen[1] == "end"
    assert seen[0].finish() is (None if call == "cancel" else False)
    assert handle.cancelled() is (call == "cancel")


def test_several_threads_wait(loop: Any, run_once: Any) -> None:
    others: list[Other] = []

    def callback() -> None:
        others.extend(Other(handle.cancelled) for _ in range(4))
        others.append(Other(handle.cancel))
        assert all(other.waits() for other in others)

    handle = loop.call_soon_threadsafe(callback)
    run_once()
    for other in others:
        other.finish()
    assert handle.cancelled()


def test_callback_may_use_its_handle(loop: Any, run_once: Any) -> None:
    seen: list[Any] = []

    def callback() -> None:
        seen.append(handle.cancelled())
        with handle._lock, handle._lock:
            handle.cancel()
            seen.append(handle.cancelled())
        other = Other(handle.cancelled)
        assert other.waits()  # the callback itself still holds it
        with handle._lock:
            seen.append(handle.cancelled())
        assert other.waits()
        seen.append(other)

    handle = loop.call_soon_threadsafe(callback)
    run_once()
    assert seen[:3] == [False, True, True]
    assert seen[3].finish() is True
    with handle._lock:
        pass


def test_lock_asked_for_in_the_callback_is_held(loop: Any, run_once: Any) -> None:
    seen: list[Any] = []

    def callback() -> None:
        assert handle.cancelled() is False
        lock = handle._lock
        assert lock._is_owned()
        seen.append(Other(lambda: lock.acquire(blocking=False)))
        seen[0].finish()

    handle = loop.call_soon_threadsafe(callback)
    run_once()
    assert seen[0].result == [False]
    assert not handle._lock._is_owned()
    assert Other(lambda: handle._lock.acquire(blocking=False)).finish() is True


def test_loop_waits_for_the_lock(loop: Any, run_once: Any) -> None:
    seen: list[str] = []
    taken, free = threading.Event(), threading.Event()

    def hold() -> None:
        with handle._lock:
            taken.set()
            assert free.wait(10)
            seen.append("freed")

    handle = loop.call_soon_threadsafe(seen.append, "called")
    other = Other(hold)
    assert taken.wait(10)
    timer = threading.Timer(0.05, free.set)
    timer.start()
    run_once()
    other.finish()
    timer.join()
    assert seen == ["freed", "called"]


def test_cancelled_while_the_loop_waits(loop: Any, run_once: Any) -> None:
    seen: list[str] = []
    begun, taken = threading.Event(), threading.Event()

    def hold() -> None:
        with handle._lock:
            taken.set()
            assert begun.wait(10)
            handle.cancel()
            seen.append("cancelled")

    loop.call_soon(threading.Timer(0.05, begun.set).start)
    handle = loop.call_soon_threadsafe(seen.append, "called")
    other = Other(hold)
    assert taken.wait(10)
    run_once()
    other.finish()
    assert seen == ["cancelled"]


@pytest.mark.parametrize("ask", [False, True])
def test_error_in_the_callback(
    loop: Any, run_once: Any, reports: Any, ask: bool
) -> None:
    others: list[Other] = []

    def handler(loop: Any, context: Any) -> None:
        reports.append(context)
        others.append(Other(handle.cancelled))
        assert others[0].waits()  # it is held while the error is reported

    loop.set_exception_handler(handler)
    handle = loop.call_soon_threadsafe(lambda: 1 / 0)
    if ask:
        assert not handle._lock._is_owned()
    run_once()
    assert others[0].finish() is False
    report = reports.one()
    assert report["handle"] is handle
    assert isinstance(report["exception"], ZeroDivisionError)
    assert Other(handle.cancelled).finish() is False


@pytest.mark.parametrize("ask", [False, True])
def test_exit_in_the_callback(loop: Any, ask: bool) -> None:
    def callback() -> None:
        if ask:
            assert handle._lock._is_owned()
        raise SystemExit(7)

    handle = loop.call_soon_threadsafe(callback)
    with pytest.raises(SystemExit) as caught:
        loop.run_forever()
    assert caught.value.code == 7
    assert Other(handle.cancelled).finish() is False


def test_run_by_hand(loop: Any, run_once: Any) -> None:
    seen: list[int] = []
    handle = loop.call_soon_threadsafe(seen.append, 1)
    handle._run()
    assert seen == [1]
    handle.cancel()
    handle._run()
    run_once()
    assert seen == [1]


def test_a_new_handle_is_not_locked(loop: Any, run_once: Any) -> None:
    locks = []
    for _ in range(20):
        handle = loop.call_soon_threadsafe(int)
        locks.append(handle._lock)
        locks[-1].acquire()
        handle.cancel()
        del handle
        run_once()
    assert len({id(lock) for lock in locks}) == 20

    def callback() -> None:
        assert handle._lock._is_owned()

    handle = loop.call_soon_threadsafe(callback)
    run_once()
    handle = None
    handle = loop.call_soon_threadsafe(int)
    assert Other(handle.cancelled).finish() is False
    run_once()


def test_life(loop: Any, run_once: Any) -> None:
    class Callback:
        def __call__(self) -> None:
            pass

    callback = Callback()
    callback.handle = loop.call_soon_threadsafe(callback)
    refs = [weakref.ref(callback), weakref.ref(callback.handle)]
    assert callback.handle._lock is not None
    run_once()
    assert refs[0]() is callback
    del callback
    gc.collect()
    assert [ref() for ref in refs] == [None, None]
    handle = loop.call_soon_threadsafe(int)
    assert gc.is_tracked(handle) and loop in gc.get_referents(handle)
    run_once()


def test_context(loop: Any, run_once: Any) -> None:
    handle = loop.call_soon_threadsafe(VAR.set, "inside")
    run_once()
    context = handle.get_context()
    assert context is handle._context is handle.get_context()
    assert VAR.get(None) is None and context[VAR] == "inside"
    seen: list[Any] = []

    def callback() -> None:
        other = Other(later.get_context)
        seen.append(other.finish())
        VAR.set("after")

    empty = contextvars.Context()
    later = empty.run(loop.call_soon_threadsafe, callback)
    run_once()
    assert seen[0] is later.get_context() and seen[0][VAR] == "after"


def test_class_methods_work_on_it(loop: Any, run_once: Any) -> None:
    """Code that calls the methods of asyncio's class finds what it needs."""
    base = asyncio.events._ThreadSafeHandle
    seen: list[int] = []
    handle = loop.call_soon_threadsafe(seen.append, 1)
    base._run(handle)
    assert base.cancelled(handle) is False
    base.cancel(handle)
    assert base.cancelled(handle) is handle.cancelled() is True
    run_once()
    assert seen == [1]


def test_cancel_race(loop: Any) -> None:
    """After cancel() has returned the callback neither runs nor begins."""
    rounds = 2000
    wrong: list[int] = []
    ended = threading.Event()

    def feed() -> None:
        for number in range(rounds):
            running: list[bool] = []
            handle = loop.call_soon_threadsafe(running.append, True)
            handle.cancel()
            before = len(running)
            if number % 50 == 0:
                ended.wait(0.0005)
            if len(running) != before or not handle.cancelled():
                wrong.append(number)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=feed)
    thread.start()
    loop.run_forever()
    thread.join()
    assert wrong == []

"""Future: making, dying, subclasses, many waiters."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import weakref
from typing import Any

import pytest

from support import PY, collect, turns

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("VAR", default="-")


def spin(loop: Any) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()


@pytest.fixture(params=["create_future", "class", "stock"])
def make(request: Any, loop: Any, future_class: Any) -> Any:
    """The ways to make a future: the loop's, by its class, asyncio's own."""
    if request.param == "create_future":
        return loop.create_future
    if request.param == "class":
        return lambda: future_class(loop=loop)
    return lambda: asyncio.Future(loop=loop)


def test_constructor_errors(loop: Any, future_class: Any) -> None:
    with pytest.raises(TypeError):
        future_class(loop)
    with pytest.raises(TypeError):
        future_class(loop=loop, other=1)
    # Nothing is running or set, so there is no loop to take.
    asyncio.set_event_loop(None)
    with pytest.raises((RuntimeError, DeprecationWarning)):
        future_class()
    gc.collect()


async def test_constructor_takes_the_running_loop(loop: Any, future_class: Any) -> None:
    assert future_class().get_loop() is loop
    assert future_class(loop=None).get_loop() is loop


def test_uninitialised(future_class: Any) -> None:
    future = future_class.__new__(future_class)
    assert future.cancelled() is False
    with pytest.raises((RuntimeError, AttributeError)):
        future.get_loop()
    for name in ("set_result", "set_exception", "add_done_callback"):
        with pytest.raises((RuntimeError, AttributeError, TypeError)):
            getattr(future, name)(ValueError())
    del future
    gc.collect()


def test_initialised_twice(loop: Any, future_class: Any) -> None:
    future = future_class(loop=loop)
    future.set_result(1)
    if PY >= (3, 15):
        with pytest.raises(RuntimeError, match="already initialized"):
            future.__init__(loop=loop)
        return
    future.__init__(loop=loop)
    assert not future.done()
    future.cancel()


def test_never_retrieved(make: Any, loop: Any, reports: Any) -> None:
    future = make()
    error = ZeroDivisionError("lost")
    future.set_exception(error)
    text = repr(future)
    del future
    collect()
    report = reports.one()
    assert report["message"] == "Future exception was never retrieved"
    assert report["exception"] is error
    assert repr(report["future"]) == text
    assert report["future"].exception() is error


def test_never_retrieved_with_origin(loop: Any, reports: Any) -> None:
    loop.set_debug(True)
    future = loop.create_future()
    future.set_exception(OSError())
    del future
    collect()
    assert reports.one()["source_traceback"]


@pytest.mark.parametrize("how", ["result", "exception", "await", "flag", "callback"])
def test_retrieved_is_not_reported(make: Any, loop: Any, how: str) -> None:
    future = make()
    future.set_exception(OSError())
    if how == "flag":
        future._log_traceback = False
    elif how == "await":
        with pytest.raises(OSError):
            loop.run_until_complete(future)
    elif how == "callback":
        future.add_done_callback(lambda f: f.exception())
        spin(loop)
    else:
        try:
            getattr(future, how)()
        except OSError:
            assert how == "result"
    del future
    collect()


def test_weak_references_and_attributes(make: Any) -> None:
    future = make()
    ref = weakref.ref(future)
    table = weakref.WeakKeyDictionary({future: 1})
    future.extra = "attribute"
    assert future.extra == "attribute" and len(table) == 1
    assert {future: 1}[future] == 1
    del future
    assert ref() is None and len(table) == 0


def test_cycles_are_collected(make: Any) -> None:
    future = make()
    future.me = future
    future.add_done_callback(future.cancel)
    ref = weakref.ref(future)
    del future
    collect()
    assert ref() is None
    future = make()
    future.set_result([future])
    ref = weakref.ref(future)
    del future
    collect()
    assert ref() is None


def test_reference_counts(make: Any, loop: Any) -> None:
    value, error = object(), ValueError()
    before = sys.getrefcount(value)
    for _ in range(50):
        future = make()
        future.set_result(value)
        future.result()
        loop.run_until_complete(future)
    del future
    collect()
    assert sys.getrefcount(value) == before
    before = sys.getrefcount(error)
    for _ in range(50):
        future = make()
        future.set_exception(error)
        future.exception()
    del future
    collect()
    assert sys.getrefcount(error) == before


def test_subclass(loop: Any, future_class: Any) -> None:
    class Mine(future_class):  # type: ignore[misc]
        __slots__ = ("note",)

        def cancel(self, msg: Any = None) -> bool:
            self.note = msg
            return bool(super().cancel(msg))

    future = Mine(loop=loop)
    assert future.cancel("reason") is True
    assert future.note == "reason"
    assert repr(future) == "<Mine cancelled>"


def test_subclass_callbacks_are_seen_by_tasks(loop: Any, future_class: Any) -> None:
    calls: list[str] = []

    class Mine(future_class):  # type: ignore[misc]
        def add_done_callback(self, fn: Any, *, context: Any = None) -> None:
            calls.append("add")
            super().add_done_callback(fn, context=context)

        def result(self) -> Any:
            calls.append("result")
            return super().result()

    future = Mine(loop=loop)

    async def main() -> Any:
        return await future

    loop.call_later(0.001, future.set_result, 9)
    assert loop.run_until_complete(main()) == 9
    assert calls[0] == "add"


def test_finished_by_another_future(loop: Any, make: Any) -> None:
    first, second = make(), loop.create_future()
    first.add_done_callback(lambda f: second.set_result(f.result()))
    loop.call_soon(first.set_result, "chained")
    assert loop.run_until_complete(second) == "chained"


@pytest.mark.skipif(PY < (3, 14), reason="the call graph came with 3.14")
async def test_awaited_by(loop: Any) -> None:
    future = loop.create_future()
    assert future._asyncio_awaited_by is None

    async def wait() -> Any:
        return await future

    tasks = [asyncio.create_task(wait()) for _ in range(3)]
    await turns(2)
    assert future._asyncio_awaited_by == set(tasks)
    future.set_result(1)
    assert await asyncio.gather(*tasks) == [1, 1, 1]
    assert not future._asyncio_awaited_by  # None or an empty set


def test_many_waiters_wake_in_order(make: Any, loop: Any) -> None:
    future = make()
    order: list[int] = []

    async def wait(number: int) -> None:
        await future
        order.append(number)

    async def main() -> None:
        tasks = [asyncio.create_task(wait(n)) for n in range(50)]
        await turns(2)
        future.set_result(None)
        await asyncio.gather(*tasks)

    loop.run_until_complete(main())
    assert order == list(range(50))


def test_wake_order_mixes_with_callbacks(make: Any, loop: Any) -> None:
    future = make()
    order: list[str] = []

    async def wait() -> None:
        await future
        order.append("task")

    async def main() -> None:
        future.add_done_callback(lambda f: order.append("first"))
        task = asyncio.create_task(wait())
        await turns(2)
        future.add_done_callback(lambda f: order.append("second"))
        loop.call_soon(order.append, "soon 1")
        future.set_result(None)
        loop.call_soon(order.append, "soon 2")
        await task

    loop.run_until_complete(main())
    assert order == ["soon 1", "first", "task", "second", "soon 2"]

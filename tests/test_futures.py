"""Future: states, callbacks, awaiting, errors, reports, subclasses."""

# mypy: disable-error-code="comparison-overlap,index"

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest

from support import PY

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("VAR", default="-")


@pytest.fixture(params=["create_future", "class", "stock"])
def make(request: Any, loop: Any, future_class: Any) -> Any:
    """The ways to make a future: the loop's, by its class, asyncio's own."""
    if request.param == "create_future":
        return loop.create_future
    if request.param == "class":
        return lambda: future_class(loop=loop)
    return lambda: asyncio.Future(loop=loop)


def spin(loop: Any) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_types(loop: Any, future_class: Any) -> None:
    future = loop.create_future()
    assert isinstance(future, asyncio.Future)
    assert type(future) is future_class
    assert issubclass(future_class, asyncio.Future)
    assert asyncio.isfuture(future)
    assert future.get_loop() is loop
    assert future._asyncio_future_blocking is False
    alias = future_class[int]
    assert alias.__origin__ is future_class and alias.__args__ == (int,)


def test_pending(make: Any) -> None:
    future = make()
    assert future.done() is False and future.cancelled() is False
    with pytest.raises(asyncio.InvalidStateError, match="Result is not set"):
        future.result()
    with pytest.raises(asyncio.InvalidStateError, match="Exception is not set"):
        future.exception()
    future.cancel()


def test_result(make: Any) -> None:
    future = make()
    value = object()
    assert future.set_result(value) is None
    assert future.done() and not future.cancelled()
    assert future.result() is value and future.result() is value
    assert future.exception() is None
    assert future.cancel() is False
    with pytest.raises(asyncio.InvalidStateError, match="invalid state"):
        future.set_result(1)
    with pytest.raises(asyncio.InvalidStateError, match="invalid state"):
        future.set_exception(ValueError())


def test_exception(make: Any) -> None:
    future = make()
    error = ValueError("wrong")
    assert future.set_exception(error) is None
    assert future.done() and not future.cancelled()
    assert future.exception() is error
    with pytest.raises(ValueError, match="wrong") as caught:
        future.result()
    assert caught.value is error
    assert future.cancel() is False


def test_exception_class_and_wrong_types(make: Any) -> None:
    future = make()
    future.set_exception(KeyError)
    assert type(future.exception()) is KeyError
    future = make()
    with pytest.raises(TypeError):
        future.set_exception("text")
    with pytest.raises(TypeError):
        future.set_exception()
    with pytest.raises(TypeError):
        future.set_result()
    assert not future.done()
    future.cancel()


def test_stop_iteration(make: Any) -> None:
    future = make()
    if PY >= (3, 13):
        future.set_exception(StopIteration("x"))
        error = future.exception()
        assert type(error) is RuntimeError
        assert str(error) == (
            "StopIteration interacts badly with generators and cannot be "
            "raised into a Future"
        )
        assert type(error.__cause__) is StopIteration
        return
    with pytest.raises(TypeError, match="StopIteration interacts badly"):
        future.set_exception(StopIteration)
    future.cancel()


def test_traceback_does_not_grow(make: Any) -> None:
    def depth(error: BaseException) -> int:
        count, traceback = 0, error.__traceback__
        while traceback:
            count, traceback = count + 1, traceback.tb_next
        return count

    future = make()
    future.set_exception(ValueError("x"))
    depths = []
    for _ in range(5):
        try:
            future.result()
        except ValueError as error:
            depths.append(depth(error))
    assert len(set(depths)) == 1


def test_cancel(make: Any) -> None:
    future = make()
    assert future.cancel() is True
    assert future.cancelled() and future.done()
    assert future.cancel() is False
    with pytest.raises(asyncio.CancelledError) as caught:
        future.result()
    assert caught.value.args == ()
    with pytest.raises(asyncio.CancelledError):
        future.exception()
    with pytest.raises(asyncio.InvalidStateError):
        future.set_result(1)


@pytest.mark.parametrize("message", ["why", 5, None])
def test_cancel_message(make: Any, message: Any) -> None:
    future = make()
    future.cancel(msg=message)
    assert future._cancel_message == message
    error = future._make_cancelled_error()
    assert type(error) is asyncio.CancelledError
    assert error.args == (() if message is None else (message,))
    with pytest.raises(asyncio.CancelledError) as caught:
        future.result()
    assert caught.value.args == (() if message is None else (message,))


def test_cancel_message_is_writable(make: Any) -> None:
    future = make()
    future._cancel_message = "set"
    assert future._cancel_message == "set"
    future.cancel("other")
    assert future._cancel_message == "other"


def test_callbacks_run_in_order_and_later(make: Any, loop: Any) -> None:
    future = make()
    seen: list[Any] = []
    for number in range(5):
        future.add_done_callback(lambda f, n=number: seen.append((n, f is future)))
    future.set_result(None)
    assert seen == []
    spin(loop)
    assert seen == [(n, True) for n in range(5)]


def test_callback_added_when_done(make: Any, loop: Any) -> None:
    future = make()
    future.set_result(None)
    seen: list[str] = []
    loop.call_soon(seen.append, "before")
    future.add_done_callback(lambda f: seen.append("callback"))
    loop.call_soon(seen.append, "after")
    spin(loop)
    assert seen == ["before", "callback", "after"]


@pytest.mark.parametrize("how", ["set_result", "set_exception", "cancel"])
def test_callbacks_run_however_it_ends(make: Any, loop: Any, how: str) -> None:
    future = make()
    seen: list[Any] = []
    future.add_done_callback(seen.append)
    value = ValueError() if how == "set_exception" else 1
    getattr(future, how)(value)
    spin(loop)
    assert seen == [future]
    future.cancelled() or future.exception()


def test_remove_done_callback(make: Any, loop: Any) -> None:
    future = make()
    seen: list[str] = []

    def one(_: Any) -> None:
        seen.append("one")

    def two(_: Any) -> None:
        seen.append("two")

    assert future.remove_done_callback(one) == 0
    for callback in (one, two, one, one, two):
        future.add_done_callback(callback)
    assert future.remove_done_callback(one) == 3
    assert future.remove_done_callback(one) == 0
    future.set_result(None)
    assert future.remove_done_callback(two) == 0
    spin(loop)
    assert seen == ["two", "two"]


def test_remove_with_an_eq_that_interferes(make: Any, loop: Any) -> None:
    future = make()

    class Evil:
        def __eq__(self, other: object) -> bool:
            future.remove_done_callback(id)
            return False

        def __hash__(self) -> int:
            return 1

        def __call__(self, future: Any) -> None:
            raise AssertionError("ran")

    for callback in (str, id, bool, repr):
        future.add_done_callback(callback)
    assert future.remove_done_callback(Evil()) == 0
    future.cancel()
    assert future.cancelled()


def test_remove_with_an_eq_that_raises(make: Any) -> None:
    future = make()

    class Evil:
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            raise ZeroDivisionError

    future.add_done_callback(str)
    future.add_done_callback(id)
    with pytest.raises(ZeroDivisionError):
        future.remove_done_callback(Evil())
    future.cancel()


def test_callback_contexts(make: Any, loop: Any) -> None:
    future = make()
    seen: list[str] = []
    given = contextvars.copy_context()
    given.run(VAR.set, "given")
    VAR.set("at add")
    future.add_done_callback(lambda f: seen.append(VAR.get()))
    future.add_done_callback(lambda f: seen.append(VAR.get()), context=given)
    VAR.set("at set")
    future.set_result(None)
    spin(loop)
    assert seen == ["at add", "given"]


def test_callback_context_none(make: Any, loop: Any) -> None:
    """None is the context of whoever completes the future."""
    future = make()
    seen: list[str] = []
    VAR.set("at add")
    future.add_done_callback(lambda f: seen.append(VAR.get()), context=None)
    future.add_done_callback(lambda f: seen.append(VAR.get()), context=None)
    VAR.set("at set")
    future.set_result(None)
    VAR.set("at late add")
    future.add_done_callback(lambda f: seen.append(VAR.get()), context=None)
    VAR.set("at run")
    spin(loop)
    assert seen == ["at set", "at set", "at late add"]


def test_callbacks_attribute(make: Any) -> None:
    future = make()
    assert future._callbacks is None or future._callbacks == []
    context = contextvars.copy_context()
    future.add_done_callback(int, context=context)
    future.add_done_callback(str)
    pairs = future._callbacks
    assert [pair[0] for pair in pairs] == [int, str]
    assert pairs[0][1] is context
    assert isinstance(pairs[1][1], contextvars.Context)
    future.remove_done_callback(int)
    future.remove_done_callback(str)
    assert not future._callbacks
    future.cancel()


def test_callback_error_is_reported(make: Any, loop: Any, reports: Any) -> None:
    future = make()
    seen: list[int] = []
    future.add_done_callback(lambda f: 1 / 0)
    future.add_done_callback(lambda f: seen.append(1))
    future.set_result(None)
    spin(loop)
    assert isinstance(reports.one()["exception"], ZeroDivisionError)
    assert seen == [1]


def test_attributes(make: Any, loop: Any) -> None:
    future = make()
    assert future._loop is loop
    assert future._state == "PENDING"
    assert future._result is None and future._exception is None
    assert future._source_traceback is None
    assert future._log_traceback is False
    future.set_result(3)
    assert (future._state, future._result) == ("FINISHED", 3)
    future = make()
    future.set_exception(OSError())
    assert future._log_traceback is True
    assert type(future._exception) is OSError
    with pytest.raises(ValueError, match="_log_traceback can only be set to False"):
        future._log_traceback = True
    future._log_traceback = False
    assert future._log_traceback is False
    future = make()
    future.cancel()
    assert future._state == "CANCELLED"


def test_repr(make: Any) -> None:
    future = make()
    assert repr(future) == "<Future pending>"
    future.add_done_callback(test_types)
    assert repr(future).startswith("<Future pending cb=[test_types() at ")
    future.remove_done_callback(test_types)
    future.set_result("value")
    assert repr(future) == "<Future finished result='value'>"
    future = make()
    future.set_exception(ValueError("bad"))
    assert repr(future) == "<Future finished exception=ValueError('bad')>"
    future.exception()
    future = make()
    future.cancel()
    assert repr(future) == "<Future cancelled>"


def test_repr_of_a_future_in_itself(make: Any) -> None:
    future = make()
    future.set_result([future])
    assert "..." in repr(future)
    future = make()
    future.add_done_callback(lambda f, g=future: None)
    assert "pending" in repr(future)
    future.cancel()


def test_await(make: Any, loop: Any) -> None:
    future = make()

    async def main() -> Any:
        return await future

    loop.call_soon(future.set_result, 5)
    assert loop.run_until_complete(main()) == 5
    assert loop.run_until_complete(main()) == 5


@pytest.mark.parametrize("value", [None, (1, 2), (), StopIteration, ValueError("x")])
def test_await_odd_results(make: Any, loop: Any, value: Any) -> None:
    async def main(future: Any) -> Any:
        return await future

    future = make()
    loop.call_soon(future.set_result, value)
    assert loop.run_until_complete(main(future)) is value
    assert loop.run_until_complete(main(future)) is value


def test_await_raises(make: Any, loop: Any) -> None:
    future = make()

    async def main() -> Any:
        await future

    loop.call_soon(future.set_exception, LookupError("x"))
    for _ in range(2):
        with pytest.raises(LookupError, match="x"):
            loop.run_until_complete(main())


def test_iterator_protocol(make: Any) -> None:
    future = make()
    iterator = iter(future)
    assert next(iterator) is future
    assert future._asyncio_future_blocking is True
    with pytest.raises(RuntimeError, match="await wasn't used with future"):
        next(iterator)
    future = make()
    iterator = future.__await__()
    assert iterator.send(None) is future
    future.set_result(7)
    with pytest.raises(StopIteration) as caught:
        iterator.send(None)
    assert caught.value.value == 7


def test_iterator_throw_and_close(make: Any) -> None:
    future = make()
    iterator = future.__await__()
    next(iterator)
    with pytest.raises(ValueError, match="thrown"):
        iterator.throw(ValueError("thrown"))
    future._asyncio_future_blocking = False
    iterator = future.__await__()
    next(iterator)
    iterator.close()
    with pytest.raises(ValueError):
        future.__await__().throw(ValueError)
    with pytest.raises(TypeError):
        future.__await__().throw("text")
    future.cancel()

"""Awaitables, futures, tasks and exceptions as no tidy program has them."""

from __future__ import annotations

import asyncio
import asyncio.futures
import asyncio.tasks
import collections.abc
import sys
import types
from collections.abc import Callable, Generator
from typing import Any


class OddError(BaseException):
    """No Exception, and nothing that the interpreter knows."""


class BadStr(Exception):
    """An exception that cannot be shown."""

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


def make_error(kind: str, number: int) -> BaseException:
    """The exception of this kind that is made as the number-th."""
    simple: dict[str, type[BaseException]] = {
        "value": ValueError,
        "odd": OddError,
        "bad": BadStr,
        "exit": SystemExit,
        "interrupt": KeyboardInterrupt,
        "stop": StopIteration,
        "stop_async": StopAsyncIteration,
        "closing": GeneratorExit,
        "cancelled": asyncio.CancelledError,
        "timeout": TimeoutError,
        "state": asyncio.InvalidStateError,
    }
    if kind in simple:
        return simple[kind](number)
    if kind == "group":
        parts = [ValueError(number), asyncio.CancelledError(number)]
        return BaseExceptionGroup(f"group {number}", parts)
    if kind == "plain_group":
        return ExceptionGroup(f"group {number}", [LookupError(number)])
    assert kind == "caused", kind
    error = LookupError(number)
    error.__cause__ = ValueError("why")
    error.add_note(f"note {number}")
    return error


ERRORS = [
    "value",
    "odd",
    "bad",
    "stop",
    "stop_async",
    "closing",
    "cancelled",
    "timeout",
    "state",
    "group",
    "plain_group",
    "caused",
    "exit",
    "interrupt",
]


class OtherLoop:
    """Enough of a loop to own a future."""

    def get_debug(self) -> bool:
        return False

    def call_soon(self, *args: Any, **kwargs: Any) -> None:
        raise AssertionError("called on the other loop")

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        pass

    def __repr__(self) -> str:
        return "<OtherLoop>"


class Duck:
    """A future by looks only; calls back at once, soon, or breaks."""

    _asyncio_future_blocking: Any = False

    def __init__(self, loop: Any, how: str) -> None:
        self._loop = loop
        self.how = how
        self.calls: list[Any] = []
        if how != "duck_no_get_loop":
            self.get_loop = lambda: loop

    def __await__(self) -> Generator[Any, None, Any]:
        self._asyncio_future_blocking = 1 if self.how == "duck_int" else True
        yield self
        if self.how == "duck_error":
            raise LookupError("duck")
        return "duck"

    def result(self) -> str:
        if self.how == "duck_bad_result":
            raise ValueError("no result")
        return "result"

    def add_done_callback(self, callback: Any, *, context: Any = None) -> None:
        if self.how == "duck_bad_add":
            raise ValueError("no callbacks here")
        if self.how == "duck_now":
            callback(self)
        else:
            self._loop.call_soon(callback, self, context=context)
        if self.how == "duck_twice":
            self._loop.call_soon(callback, self, context=context)

    def cancel(self, msg: Any = None) -> bool:
        if self.how == "duck_bad_cancel":
            raise ValueError("no cancel here")
        return self.how == "duck_cancel_yes"

    def __repr__(self) -> str:
        return "<Duck>"


class NextOnly:
    """An iterator that yields None a few times; no generator."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __await__(self) -> NextOnly:
        return self

    def __iter__(self) -> NextOnly:
        return self

    def __next__(self) -> Any:
        self.count -= 1
        if self.count < 0:
            raise StopIteration("next only")
        return None


class Awaits:
    """Its __await__ is whatever function it is given."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function

    def __await__(self) -> Any:
        return self.function()


@types.coroutine
def yields(*values: Any) -> Generator[Any, Any, Any]:
    """Yield these to the task and return what the last yield gave."""
    got = None
    for value in values:
        got = yield value
    return got


@types.coroutine
def blocks_by_hand(future: Any) -> Generator[Any, Any, Any]:
    """What Future.__await__ does, without its check after the wait."""
    future._asyncio_future_blocking = True
    got = yield future
    return got


@types.coroutine
def swallows(*values: Any) -> Generator[Any, Any, Any]:
    """Yield these whatever is thrown in meanwhile."""
    caught: list[str] = []
    for value in values:
        try:
            yield value
        except BaseException as error:
            caught.append(type(error).__name__)
    return caught


def raises() -> Any:
    raise LookupError("from __await__")


def odd_awaitable(kind: str, loop: Any) -> Any:
    """An awaitable for `await`; some of them cannot be awaited."""
    if kind.startswith("duck"):
        return Duck(loop, kind)
    if kind == "none":
        return yields(None, None)
    if kind == "int":
        return yields(42)
    if kind == "ints":
        return swallows(42, None, "x")
    if kind == "unblocked":
        return yields(loop.create_future())
    if kind == "done_unblocked":
        future = loop.create_future()
        future.set_result(1)
        return yields(future)
    if kind == "by_hand":
        future = loop.create_future()
        loop.call_soon(set_if_pending, future)
        return blocks_by_hand(future)
    if kind == "done_by_hand":
        future = loop.create_future()
        future.set_result(2)
        return blocks_by_hand(future)
    if kind == "generator":
        return yields(1 for _ in ())
    if kind == "other_loop":
        return asyncio.Future(loop=OtherLoop())  # type: ignore[arg-type]
    if kind == "swallow_other":
        future = asyncio.Future(loop=OtherLoop())  # type: ignore[arg-type]
        future._asyncio_future_blocking = True
        return swallows(future, None)
    if kind == "next_only":
        return NextOnly(2)
    table: dict[str, Any] = {
        "raises": Awaits(raises),
        "not_iterator": Awaits(lambda: 3),
        "coroutine": Awaits(lambda: yields(None)),
        "list_iterator": Awaits(lambda: iter([None, None])),
        "list_of_int": Awaits(lambda: iter([None, 7])),
        "not_awaitable": 5,
    }
    return table[kind]


def set_if_pending(future: Any) -> None:
    if not future.done():
        future.set_result("set")


ODD = [
    "none",
    "int",
    "ints",
    "unblocked",
    "done_unblocked",
    "by_hand",
    "done_by_hand",
    "generator",
    "other_loop",
    "swallow_other",
    "next_only",
    "raises",
    "not_iterator",
    "coroutine",
    "list_iterator",
    "list_of_int",
    "not_awaitable",
    "duck",
    "duck_int",
    "duck_error",
    "duck_now",
    "duck_twice",
    "duck_bad_result",
    "duck_bad_add",
    "duck_bad_cancel",
    "duck_cancel_yes",
    "duck_no_get_loop",
]


class DuckCoroutine(collections.abc.Coroutine[Any, Any, Any]):
    """A coroutine by its methods, around a real one."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def send(self, value: Any) -> Any:
        return self.real.send(value)

    def throw(self, *args: Any) -> Any:
        return self.real.throw(args[-1] if len(args) > 1 and args[1] else args[0])

    def close(self) -> None:
        self.real.close()

    def __await__(self) -> Any:
        return self.real.__await__()

    def __repr__(self) -> str:
        return "<DuckCoroutine>"


def native_types(kind: str) -> tuple[Any, Any]:
    """(Task, Future) that loops of this kind make."""
    if kind in ("hotloop", "testing"):
        import hotloop

        return hotloop.Task, hotloop.Future
    return asyncio.Task, asyncio.Future


def subclasses(kind: str) -> tuple[Any, Any]:
    """A Task and a Future class derived in Python, that change nothing or little."""
    task, future = native_types(kind)

    class SubTask(task):  # type: ignore[misc]
        def cancel(self, msg: Any = None) -> bool:
            done: bool = super().cancel(msg if msg is None else f"sub {msg}")
            return done

        def __hash__(self) -> int:
            return 7

    class SubFuture(future):  # type: ignore[misc]
        def set_result(self, result: Any) -> None:
            super().set_result(["sub", result])

        def result(self) -> Any:
            return ["got", super().result()]

    return SubTask, SubFuture


TASK_KINDS = ["loop"] * 6 + [
    "asyncio",
    "ensure",
    "stock",
    "python",
    "sub",
    "eager",
    "eager_stock",
    "eager_off",
    "duck",
    "native",
    "context",
]
FUTURE_KINDS = ["loop"] * 4 + ["stock", "python", "sub"]
FACTORIES = ["none", "none", "none", "eager", "plain", "custom_eager", "two_args"]

HAS_EAGER = sys.version_info >= (3, 12)


def make_stock(loop: Any, coro: Any, **kwargs: Any) -> Any:
    """A task factory; the default names of its tasks would count on their own."""
    kwargs["name"] = kwargs.get("name") or "made"
    return asyncio.Task(coro, loop=loop, **kwargs)


def factory(kind: str, task_class: Any) -> Any:
    """A task factory; None is the loop's own way."""
    if kind == "plain":
        return make_stock
    if kind == "two_args":
        return lambda loop, coro: task_class(coro, loop=loop)
    if kind == "eager" and HAS_EAGER:
        return asyncio.eager_task_factory  # type: ignore[attr-defined]
    if kind == "custom_eager" and HAS_EAGER:
        return asyncio.create_eager_task_factory(task_class)  # type: ignore[attr-defined]
    return None

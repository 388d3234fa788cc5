"""Task: everything a coroutine can await, odd things too."""

# mypy: disable-error-code="var-annotated"

from __future__ import annotations

import asyncio
import collections.abc
import contextvars
import types
from typing import Any

import pytest

from support import PY, turns

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("VAR", default="-")


async def value(result: Any = None) -> Any:
    await asyncio.sleep(0)
    return result


@pytest.fixture(params=["create_task", "class", "stock"])
def make(request: Any, loop: Any, task_class: Any) -> Any:
    """The ways to make a task: the loop's, by its class, asyncio's own."""
    if request.param == "create_task":
        return loop.create_task
    if request.param == "class":
        return lambda coro, **kwargs: task_class(coro, loop=loop, **kwargs)
    return lambda coro, **kwargs: asyncio.Task(coro, loop=loop, **kwargs)


def test_awaiting_each_other(make: Any, loop: Any) -> None:
    async def outer() -> Any:
        return await make(value("inner"))

    assert loop.run_until_complete(make(outer())) == "inner"


def test_awaits_itself(make: Any, loop: Any) -> None:
    async def main() -> None:
        await box[0]

    box = [make(main())]
    with pytest.raises(RuntimeError, match="Task cannot await on itself: <Task"):
        loop.run_until_complete(box[0])


@pytest.mark.parametrize("thing", [5, "text", object()])
def test_bad_yields(make: Any, loop: Any, thing: Any) -> None:
    class Yields:
        def __await__(self) -> Any:
            yield thing

    async def main() -> None:
        await Yields()

    with pytest.raises(RuntimeError, match="Task got bad yield: "):
        loop.run_until_complete(make(main()))


def test_future_yielded_without_await(make: Any, loop: Any) -> None:
    future = loop.create_future()

    class Yields:
        def __await__(self) -> Any:
            yield future

    async def main() -> None:
        await Yields()

    with pytest.raises(RuntimeError, match="yield was used instead of yield from"):
        loop.run_until_complete(make(main()))
    future.cancel()


def test_generator_yielded(make: Any, loop: Any) -> None:
    class Yields:
        def __await__(self) -> Any:
            yield (n for n in ())

    async def main() -> None:
        await Yields()

    with pytest.raises(RuntimeError) as caught:
        loop.run_until_complete(make(main()))
    assert "Task got bad yield: <generator" in str(caught.value) or (
        "yield was used instead of yield from" in str(caught.value)
    )


def test_error_of_a_bad_yield_can_be_caught(make: Any, loop: Any) -> None:
    class Yields:
        def __await__(self) -> Any:
            try:
                yield 5
            except RuntimeError:
                return "caught"

    async def main() -> Any:
        return await Yields()

    assert loop.run_until_complete(make(main())) == "caught"


def test_future_of_another_loop(make: Any, loop: Any, new_loop: Any) -> None:
    other = new_loop()
    future = other.create_future()

    async def main() -> None:
        await future

    with pytest.raises(RuntimeError, match="attached to a different loop"):
        loop.run_until_complete(make(main()))
    assert not future._callbacks
    other.close()


def test_duck_typed_future(make: Any, loop: Any) -> None:
    class Duck:
        _asyncio_future_blocking = False

        def __init__(self) -> None:
            self.callbacks: list[Any] = []

        def get_loop(self) -> Any:
            return loop

        def add_done_callback(self, fn: Any, *, context: Any) -> None:
            self.callbacks.append((fn, context))

        def result(self) -> str:
            return "quack"

        def cancel(self, msg: Any = None) -> bool:
            return False

        def __await__(self) -> Any:
            self._asyncio_future_blocking = True
            yield self
            return self.result()

        def finish(self) -> None:
            for callback, context in self.callbacks:
                loop.call_soon(callback, self, context=context)

    duck = Duck()

    async def main() -> Any:
        return await duck

    task = make(main())
    loop.run_until_complete(turns(2))
    assert task._fut_waiter is duck
    assert isinstance(duck.callbacks[0][1], contextvars.Context)
    duck.finish()
    assert loop.run_until_complete(task) == "quack"


def test_collections_coroutine(make: Any, loop: Any) -> None:
    class Mine(collections.abc.Coroutine):  # type: ignore[type-arg]
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def send(self, sent: Any) -> Any:
            return self.inner.send(sent)

        def throw(self, *args: Any) -> Any:
            return self.inner.throw(*args)

        def close(self) -> None:
            self.inner.close()

        def __await__(self) -> Any:
            return self.inner.__await__()

    assert loop.run_until_complete(make(Mine(value("inner")))) == "inner"
    mine = Mine(asyncio.sleep(10))
    task = make(mine)
    loop.run_until_complete(turns(1))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    assert task.get_coro() is mine


def test_types_coroutine(make: Any, loop: Any) -> None:
    @types.coroutine
    def old() -> Any:
        yield
        return "old style"

    async def main() -> Any:
        return await old()

    assert loop.run_until_complete(make(main())) == "old style"
    if PY >= (3, 12):
        with pytest.raises(TypeError, match="a coroutine was expected"):
            make(n for n in ())


class Hasty:
    """A future by looks that wakes its task before it sleeps, or twice."""

    _asyncio_future_blocking = True

    def __init__(self, loop: Any, times: int) -> None:
        self._loop = loop
        self.times = times

    def __await__(self) -> Any:
        self._asyncio_future_blocking = True
        yield self

    def get_loop(self) -> Any:
        return self._loop

    def result(self) -> None:
        return None

    def add_done_callback(self, callback: Any, *, context: Any) -> None:
        self.callback = callback
        if self.times == 0:
            callback(self)
        for _ in range(self.times):
            self._loop.call_soon(callback, self)


def test_failed_step_is_reported_outside_the_task(
    make: Any, loop: Any, reports: Any
) -> None:
    """The exception handler finds no current task."""
    current: list[Any] = []

    def handler(_: Any, context: Any) -> None:
        current.append(asyncio.current_task(loop))
        reports.append(context)

    loop.set_exception_handler(handler)
    hasty = Hasty(loop, times=0)

    async def main() -> None:
        await hasty

    task = make(main())
    loop.run_until_complete(turns(2))
    assert "while another task" in str(reports.one()["exception"])
    assert current == [None]
    loop.call_soon(hasty.callback, hasty)
    loop.run_until_complete(task)


def test_step_of_a_task_that_is_done(make: Any, loop: Any, reports: Any) -> None:
    async def main() -> str:
        await Hasty(loop, times=2)
        return "done"

    task = make(main())
    assert loop.run_until_complete(task) == "done"
    loop.run_until_complete(turns(1))
    name = "__step" if PY >= (3, 14) else "_step"
    error = reports.one()["exception"]
    assert isinstance(error, asyncio.InvalidStateError)
    assert str(error) == f"{name}(): already done: {task!r} None"


def test_task_that_waits_twice_for_a_future(make: Any, loop: Any, reports: Any) -> None:
    """Stepped by hand, a task waits again; both wake-ups know the future."""
    future = loop.create_future()

    async def main() -> None:
        await Hasty(loop, times=2)
        await future

    task = make(main())
    loop.run_until_complete(turns(4))
    future.cancel("once")
    with pytest.raises(asyncio.CancelledError, match="once"):
        loop.run_until_complete(task)
    loop.run_until_complete(turns(1))
    assert str(reports.one()["exception"]).endswith("CancelledError('once')")

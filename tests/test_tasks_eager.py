"""Task factories, eager start, subclasses, mixtures, deep chains."""

# mypy: disable-error-code="comparison-overlap,union-attr,var-annotated"

from __future__ import annotations

import asyncio
import contextvars
import gc
from typing import Any

import pytest

from support import PY, PY_FULL, collect, turns

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("VAR", default="-")
EAGER = pytest.mark.skipif(PY < (3, 12), reason="eager tasks came with 3.12")
# From here on create_task hands every keyword to the factory and to Task.
KEYWORDS = PY >= (3, 14) or (3, 13, 3) <= PY_FULL < (3, 14)


async def value(result: Any = None) -> Any:
    await asyncio.sleep(0)
    return result


async def at_once(result: Any = None) -> Any:
    return result


async def test_factory_with_two_parameters(loop: Any) -> None:
    made: list[Any] = []

    def factory(loop: Any, coro: Any) -> Any:
        made.append((loop, coro))
        return asyncio.Task(coro, loop=loop)

    loop.set_task_factory(factory)
    assert loop.get_task_factory() is factory
    coro = value(3)
    task = loop.create_task(coro)
    assert await task == 3
    assert made == [(loop, coro)]
    loop.set_task_factory(None)
    assert loop.get_task_factory() is None


async def test_factory_keywords(loop: Any) -> None:
    seen: list[dict[str, Any]] = []

    def factory(loop: Any, coro: Any, **kwargs: Any) -> Any:
        seen.append(kwargs)
        return asyncio.Task(coro, loop=loop, **kwargs)

    loop.set_task_factory(factory)
    context = contextvars.copy_context()
    tasks = [
        loop.create_task(value()),
        loop.create_task(value(), name="named"),
        loop.create_task(value(), context=context),
    ]
    assert tasks[1].get_name() == "named"
    await asyncio.gather(*tasks)
    loop.set_task_factory(None)
    if PY >= (3, 14):
        assert seen[1] == {"name": "named"}
    assert "context" not in seen[0] or seen[0]["context"] is None
    assert seen[2]["context"] is context


@pytest.mark.skipif(not KEYWORDS, reason="extra keywords came with 3.13.3")
async def test_factory_gets_unknown_keywords(loop: Any) -> None:
    seen: list[dict[str, Any]] = []

    def factory(loop: Any, coro: Any, *, custom: Any = None, **kwargs: Any) -> Any:
        seen.append({"custom": custom})
        return asyncio.Task(coro, loop=loop, **kwargs)

    loop.set_task_factory(factory)
    await loop.create_task(value(), custom=5)
    loop.set_task_factory(None)
    assert seen == [{"custom": 5}]


async def test_unknown_keywords_are_refused(loop: Any) -> None:
    coro = value()
    with pytest.raises(TypeError):
        loop.create_task(coro, nonsense=1)
    coro.close()


async def test_positional_name_is_refused(loop: Any) -> None:
    coro = value()
    with pytest.raises(TypeError):
        loop.create_task(coro, "name")
    coro.close()


async def test_factory_that_is_not_callable(loop: Any) -> None:
    with pytest.raises(TypeError, match="task factory must be a callable or None"):
        loop.set_task_factory(5)


async def test_factory_that_fails(loop: Any) -> None:
    def factory(loop: Any, coro: Any, **kwargs: Any) -> Any:
        coro.close()
        raise LookupError("factory")

    loop.set_task_factory(factory)
    with pytest.raises(LookupError, match="factory"):
        loop.create_task(value())
    loop.set_task_factory(None)


async def test_factory_that_gives_something_else(loop: Any, future_class: Any) -> None:
    class Named(future_class):  # type: ignore[misc]
        def set_name(self, name: Any) -> None:
            self.name = name

    def factory(loop: Any, coro: Any, **kwargs: Any) -> Any:
        coro.close()
        future = Named(loop=loop)
        future.set_result("not a task")
        return future

    loop.set_task_factory(factory)
    assert await loop.create_task(value()) == "not a task"
    loop.set_task_factory(None)


@EAGER
async def test_eager_factory(loop: Any) -> None:
    loop.set_task_factory(asyncio.eager_task_factory)
    seen: list[Any] = []

    async def main() -> str:
        seen.append(asyncio.current_task())
        await asyncio.sleep(0)
        seen.append(asyncio.current_task())
        return "result"

    me = asyncio.current_task()
    task = loop.create_task(main(), name="eager")
    assert len(seen) == 1 and asyncio.current_task() is me
    assert task in asyncio.all_tasks()
    assert task.get_name() == "eager"
    assert await task == "result"
    assert seen == [task, task]
    done = loop.create_task(at_once(7))
    assert done.done() and done.result() == 7
    assert done not in asyncio.all_tasks()
    loop.set_task_factory(None)


@EAGER
async def test_eager_errors(loop: Any) -> None:
    loop.set_task_factory(asyncio.eager_task_factory)

    async def bad() -> None:
        raise ValueError("eager")

    task = loop.create_task(bad())
    assert task.done() and isinstance(task.exception(), ValueError)
    with pytest.raises(ValueError, match="eager"):
        await task

    async def cancelled() -> None:
        raise asyncio.CancelledError

    task = loop.create_task(cancelled())
    assert task.cancelled()
    loop.set_task_factory(None)


@EAGER
async def test_eager_context(loop: Any) -> None:
    loop.set_task_factory(asyncio.eager_task_factory)

    async def main() -> str:
        before = VAR.get()
        VAR.set("inside")
        return before

    VAR.set("outside")
    task = loop.create_task(main())
    assert task.result() == "outside" and VAR.get() == "outside"
    loop.set_task_factory(None)


@EAGER
async def test_eager_nested(loop: Any) -> None:
    loop.set_task_factory(asyncio.eager_task_factory)
    order: list[str] = []

    async def inner(name: str) -> None:
        order.append(f"{name} in")
        await asyncio.sleep(0)
        order.append(f"{name} out")

    async def outer() -> None:
        order.append("outer in")
        task = asyncio.create_task(inner("a"))
        order.append("outer on")
        await task

    await asyncio.create_task(outer())
    assert order == ["outer in", "a in", "outer on", "a out"]
    loop.set_task_factory(None)


@EAGER
async def test_eager_task_group_and_gather(loop: Any) -> None:
    loop.set_task_factory(asyncio.eager_task_factory)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(at_once(n)) for n in range(5)]
        tasks += [group.create_task(value(n)) for n in range(5)]
    assert [task.result() for task in tasks] == [*range(5), *range(5)]
    assert await asyncio.gather(at_once(1), value(2)) == [1, 2]
    loop.set_task_factory(None)


@EAGER
async def test_eager_start_in_the_constructor(loop: Any, task_class: Any) -> None:
    seen: list[str] = []

    async def main() -> int:
        seen.append("started")
        await asyncio.sleep(0)
        return 1

    task = task_class(main(), loop=loop, eager_start=True, name="n")
    assert seen == ["started"] and task.get_name() == "n"
    assert await task == 1
    late = task_class(main(), loop=loop, eager_start=False)
    assert seen == ["started"]
    assert await late == 1


@EAGER
def test_eager_start_needs_a_running_loop(loop: Any, task_class: Any) -> None:
    seen: list[str] = []

    async def main() -> None:
        seen.append("started")

    if PY >= (3, 14):
        coro = main()
        try:
            task = task_class(coro, loop=loop, eager_start=True)
        except RuntimeError:
            coro.close()
            return
    else:
        task = task_class(main(), loop=loop, eager_start=True)
    assert seen == []
    loop.run_until_complete(task)
    assert seen == ["started"]


@EAGER
async def test_eager_start_keyword_of_create_task(loop: Any) -> None:
    seen: list[str] = []

    async def main() -> None:
        seen.append(asyncio.current_task().get_name())

    coro = main()
    if not KEYWORDS:
        with pytest.raises(TypeError):
            loop.create_task(coro, eager_start=True)
        coro.close()
        return
    task = loop.create_task(coro, eager_start=True, name="known")
    assert seen == ["known"] and task.done()


@EAGER
async def test_create_eager_task_factory(loop: Any, task_class: Any) -> None:
    class Mine(task_class):  # type: ignore[misc]
        pass

    loop.set_task_factory(asyncio.create_eager_task_factory(Mine))
    task = loop.create_task(at_once(1))
    assert type(task) is Mine and task.done()
    loop.set_task_factory(None)


@EAGER
async def test_eager_task_that_blocks_on_a_future(loop: Any) -> None:
    future = loop.create_future()

    async def main() -> Any:
        return await future

    loop.set_task_factory(asyncio.eager_task_factory)
    task = loop.create_task(main())
    loop.set_task_factory(None)
    assert task._fut_waiter is future
    future.set_result("x")
    assert await task == "x"


@EAGER
async def test_eager_cancel(loop: Any) -> None:
    loop.set_task_factory(asyncio.eager_task_factory)
    task = loop.create_task(asyncio.sleep(10))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    loop.set_task_factory(None)


@EAGER
async def test_eager_tasks_do_not_pile_up(loop: Any) -> None:
    loop.set_task_factory(asyncio.eager_task_factory)
    before = len([o for o in gc.get_objects() if isinstance(o, asyncio.Task)])
    for _ in range(100):
        loop.create_task(at_once())
    after = len([o for o in gc.get_objects() if isinstance(o, asyncio.Task)])
    assert after <= before + 1
    loop.set_task_factory(None)


async def test_subclass_overrides(loop: Any, task_class: Any) -> None:
    calls: list[str] = []

    class Mine(task_class):  # type: ignore[misc]
        def cancel(self, msg: Any = None) -> bool:
            calls.append("cancel")
            return bool(super().cancel(msg))

        def add_done_callback(self, fn: Any, *, context: Any = None) -> None:
            calls.append("add")
            super().add_done_callback(fn, context=context)

        def get_name(self) -> str:
            return "mine"

    task = Mine(value(4), loop=loop)
    assert await task == 4
    assert calls[0] == "add" and task.get_name() == "mine"
    assert "<Mine finished" in repr(task)
    task = Mine(asyncio.sleep(10), loop=loop)
    await turns(1)

    async def outer() -> None:
        await task

    waiter = asyncio.create_task(outer())
    await turns(2)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert "cancel" in calls and task.cancelled()


async def test_subclass_init(loop: Any, task_class: Any) -> None:
    class Mine(task_class):  # type: ignore[misc]
        def __init__(self, coro: Any, *, note: str, **kwargs: Any) -> None:
            super().__init__(coro, **kwargs)
            self.note = note

    task = Mine(value(1), note="text", loop=loop, name="n")
    assert task.note == "text" and task.get_name() == "n"
    assert await task == 1


async def test_stock_and_own_tasks_await_each_other(
    loop: Any, task_class: Any, future_class: Any
) -> None:
    async def chain(depth: int) -> int:
        if not depth:
            await asyncio.sleep(0)
            return 0
        kind = asyncio.Task if depth % 2 else task_class
        return 1 + await kind(chain(depth - 1), loop=loop)

    assert await chain(20) == 20

    async def wait(future: Any) -> Any:
        return await future

    for future_kind in (asyncio.Future, future_class):
        for task_kind in (asyncio.Task, task_class):
            future = future_kind(loop=loop)
            task = task_kind(wait(future), loop=loop)
            await turns(1)
            assert task._fut_waiter is future
            future.set_result("x")
            assert await task == "x"
            future = future_kind(loop=loop)
            task = task_kind(wait(future), loop=loop)
            await turns(1)
            task.cancel("m")
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            assert caught.value.args == ("m",) and future.cancelled()


async def test_python_future(loop: Any) -> None:
    future = asyncio.futures._PyFuture(loop=loop)  # type: ignore[attr-defined]

    async def wait() -> Any:
        return await future

    task = asyncio.create_task(wait())
    await turns(1)
    future.set_result("pure")
    assert await task == "pure"


def test_python_task(loop: Any) -> None:
    async def main() -> Any:
        return await asyncio.create_task(value("inner"))

    task = asyncio.tasks._PyTask(main(), loop=loop)  # type: ignore[attr-defined]
    assert loop.run_until_complete(task) == "inner"


def test_chain_of_awaiting_tasks(loop: Any) -> None:
    depth = 10_000

    async def main() -> int:
        future = loop.create_future()

        async def link(before: Any) -> int:
            return int(await before) + 1

        last: Any = future
        for _ in range(depth):
            last = loop.create_task(link(last))
        await turns(2)
        future.set_result(0)
        return int(await last)

    assert loop.run_until_complete(main()) == depth


def test_chain_dropped_at_once(loop: Any, reports: Any) -> None:
    depth = 10_000

    async def main() -> None:
        future = loop.create_future()

        async def link(before: Any) -> None:
            await before

        last: Any = future
        for _ in range(depth):
            last = loop.create_task(link(last))
            last._log_destroy_pending = False
        await turns(2)

    loop.run_until_complete(main())
    collect()
    assert asyncio.all_tasks(loop) == set()


def test_cancel_through_a_chain(loop: Any) -> None:
    depth = 100

    async def main() -> bool:
        async def link(before: Any) -> None:
            await before

        tasks: list[Any] = []
        last: Any = loop.create_future()
        for _ in range(depth):
            last = loop.create_task(link(last))
            tasks.append(last)
        await turns(2)
        last.cancel()
        await asyncio.wait(tasks)
        return all(task.cancelled() for task in tasks)

    assert loop.run_until_complete(main())


def test_long_chain_of_callbacks(loop: Any) -> None:
    first = future = loop.create_future()
    for _ in range(10_000):
        after = loop.create_future()
        future.add_done_callback(lambda f, g=after: g.set_result(f.result()))
        future = after
    loop.call_soon(first.set_result, "end")
    assert loop.run_until_complete(future) == "end"


async def test_async_generators_are_finalised(loop: Any) -> None:
    ended: list[str] = []

    async def numbers() -> Any:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            ended.append("closed")

    async for number in numbers():
        assert number == 1
        break
    collect()
    await turns(4)
    assert ended == ["closed"]


async def first(generator: Any) -> Any:
    return await generator.__anext__()


def test_shutdown_asyncgens(loop: Any, no_warnings: Any) -> None:
    ended: list[str] = []

    async def numbers() -> Any:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            ended.append("closed")

    generator = numbers()

    loop.run_until_complete(first(generator))
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert ended == ["closed"]
    other = numbers()
    loop.run_until_complete(first(other))
    warnings = no_warnings()
    assert any("after loop.shutdown_asyncgens() call" in text for text in warnings)
    loop.run_until_complete(other.aclose())


def test_async_generator_that_fails_at_shutdown(loop: Any, reports: Any) -> None:
    async def numbers() -> Any:
        try:
            yield 1
        finally:
            raise ValueError("at the end")

    generator = numbers()
    loop.run_until_complete(first(generator))
    loop.run_until_complete(loop.shutdown_asyncgens())
    report = reports.one()
    assert "error occurred during closing of asynchronous gen" in report["message"]
    assert report["asyncgen"] is generator


def test_tasks_made_before_the_loop_runs(loop: Any) -> None:
    tasks = [loop.create_task(value(n)) for n in range(100)]
    assert asyncio.all_tasks(loop) == set(tasks)
    assert loop.run_until_complete(asyncio.gather(*tasks)) == list(range(100))


def test_many_tasks(loop: Any) -> None:
    async def main() -> int:
        total = 0
        for _ in range(20):
            results = await asyncio.gather(*(value(n) for n in range(500)))
            total += sum(results)
        return total

    assert loop.run_until_complete(main()) == 20 * sum(range(500))


@EAGER
async def test_eager_within_an_eager_task_of_asyncio(
    loop: Any, task_class: Any
) -> None:
    """The task that made both is the current one again, and left later."""
    current = [asyncio.current_task()]

    async def inner() -> None:
        current.append(asyncio.current_task())

    async def outer() -> None:
        task = task_class(inner(), loop=loop, eager_start=True)
        current.append(asyncio.current_task())
        await task

    stock = asyncio.Task(outer(), loop=loop, eager_start=True)
    current.append(asyncio.current_task())
    loop.call_soon(lambda: current.append(asyncio.current_task()))
    await turns(1)
    assert current[0] is current[3] is asyncio.current_task()
    assert current[2] is stock
    assert current[4] is None

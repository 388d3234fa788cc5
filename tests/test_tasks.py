"""Task: life, names, contexts, registries, reports, odd awaitables."""

# mypy: disable-error-code="arg-type,attr-defined,index"

from __future__ import annotations

import asyncio
import contextvars
import io
import sys
import weakref
from typing import Any

import pytest

from support import PY, collect, turns

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("VAR", default="-")


async def value(result: Any = None) -> Any:
    await asyncio.sleep(0)
    return result


async def fail(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


@pytest.fixture(params=["create_task", "class", "stock"])
def make(request: Any, loop: Any, task_class: Any) -> Any:
    """The ways to make a task: the loop's, by its class, asyncio's own."""
    if request.param == "create_task":
        return loop.create_task
    if request.param == "class":
        return lambda coro, **kwargs: task_class(coro, loop=loop, **kwargs)
    return lambda coro, **kwargs: asyncio.Task(coro, loop=loop, **kwargs)


def test_types(loop: Any, task_class: Any, future_class: Any) -> None:
    task = loop.create_task(value(1))
    assert isinstance(task, asyncio.Task) and isinstance(task, asyncio.Future)
    assert type(task) is task_class
    assert issubclass(task_class, asyncio.Task)
    assert asyncio.isfuture(task)
    assert task_class[int].__origin__ is task_class
    assert loop.run_until_complete(task) == 1


def test_result_and_error(make: Any, loop: Any) -> None:
    task = make(value(5))
    assert not task.done() and task.get_loop() is loop
    with pytest.raises(asyncio.InvalidStateError, match="Result is not set"):
        task.result()
    assert loop.run_until_complete(task) == 5
    assert task.done() and task.result() == 5 and task.exception() is None
    error = ValueError("no")
    task = make(fail(error))
    with pytest.raises(ValueError) as caught:
        loop.run_until_complete(task)
    assert caught.value is error and task.exception() is error


def test_result_may_not_be_set(make: Any, loop: Any) -> None:
    task = make(value())
    with pytest.raises(RuntimeError, match="does not support set_result"):
        task.set_result(1)
    with pytest.raises(RuntimeError, match="does not support set_exception"):
        task.set_exception(ValueError())
    loop.run_until_complete(task)


def test_first_step_is_a_later_callback(make: Any, loop: Any) -> None:
    seen: list[str] = []

    async def main() -> None:
        seen.append("task")

    loop.call_soon(seen.append, "before")
    task = make(main())
    loop.call_soon(seen.append, "after")
    assert seen == []
    loop.run_until_complete(task)
    assert seen == ["before", "task", "after"]


@pytest.mark.parametrize("wrong", [None, 5, "text", value, object(), []])
def test_only_coroutines(make: Any, wrong: Any) -> None:
    with pytest.raises(TypeError, match="a coroutine was expected, got "):
        make(wrong)


def test_names(make: Any, loop: Any) -> None:
    task = make(value(), name="given")
    assert task.get_name() == "given"
    assert task.set_name("other") is None
    assert task.get_name() == "other"
    task.set_name(17)
    assert task.get_name() == "17"
    loop.run_until_complete(task)
    task = make(value(), name=42)
    assert task.get_name() == "42"
    loop.run_until_complete(task)


def test_default_names_count_up(make: Any, loop: Any) -> None:
    tasks = [make(value()) for _ in range(3)]
    names = [task.get_name() for task in tasks]
    numbers = [int(name.removeprefix("Task-")) for name in names]
    assert numbers == list(range(numbers[0], numbers[0] + 3))
    assert tasks[0].get_name() == names[0]
    loop.run_until_complete(asyncio.gather(*tasks))


def test_name_that_cannot_be_text(make: Any, loop: Any, reports: Any) -> None:
    class Bad:
        def __str__(self) -> str:
            raise LookupError("name")

    coro = value()
    with pytest.raises(LookupError):
        make(coro, name=Bad())
    coro.close()
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(turns(2))
    collect()
    # asyncio has made the task by then, and destroys it.
    messages = {report["message"] for report in reports.take()}
    assert messages <= {"Task was destroyed but it is pending!"}


def test_context_is_a_copy(make: Any, loop: Any) -> None:
    async def main() -> str:
        before = VAR.get()
        VAR.set("inside")
        await asyncio.sleep(0)
        assert VAR.get() == "inside"
        return before

    VAR.set("outside")
    task = make(main())
    VAR.set("changed")
    assert loop.run_until_complete(task) == "outside"
    assert VAR.get() == "changed"
    if PY >= (3, 12):
        assert task.get_context()[VAR] == "inside"


def test_given_context(make: Any, loop: Any) -> None:
    context = contextvars.copy_context()

    async def main() -> None:
        VAR.set("by task")
        await asyncio.sleep(0)

    task = make(main(), context=context)
    if PY >= (3, 12):
        assert task.get_context() is context
    loop.run_until_complete(task)
    assert context[VAR] == "by task"


async def test_shared_context_between_tasks(loop: Any) -> None:
    context = contextvars.copy_context()

    async def add(text: str) -> str:
        old = VAR.get()
        VAR.set(old + text)
        await asyncio.sleep(0)
        return VAR.get()

    context.run(VAR.set, "")
    results = await asyncio.gather(
        *(loop.create_task(add(text), context=context) for text in "abc")
    )
    assert results == ["abc"] * 3


async def test_current_task_and_all_tasks(loop: Any) -> None:
    me = asyncio.current_task()
    assert me is not None and asyncio.current_task(loop) is me
    assert asyncio.all_tasks() == {me}
    seen: list[Any] = []

    async def child() -> None:
        seen.append(asyncio.current_task())
        await asyncio.sleep(0)
        seen.append(asyncio.current_task())

    task = asyncio.create_task(child())
    assert asyncio.all_tasks() == {me, task}
    loop.call_soon(lambda: seen.append(asyncio.current_task()))
    await task
    assert seen == [task, None, task]
    assert asyncio.current_task() is me
    assert asyncio.all_tasks() == {me}


async def test_current_task_in_callbacks_is_none(loop: Any) -> None:
    seen: list[Any] = []
    future = loop.create_future()
    future.add_done_callback(lambda f: seen.append(asyncio.current_task()))
    loop.call_later(0, lambda: seen.append(asyncio.current_task()))
    future.set_result(None)
    await asyncio.sleep(0.005)
    assert seen == [None, None]


def test_current_task_outside(loop: Any) -> None:
    with pytest.raises(RuntimeError):
        asyncio.current_task()
    assert asyncio.current_task(loop) is None
    assert asyncio.all_tasks(loop) == set()


async def test_all_tasks_holds_them_weakly(loop: Any) -> None:
    tasks = [asyncio.create_task(value()) for _ in range(100)]
    assert asyncio.all_tasks() >= set(tasks)
    await asyncio.gather(*tasks)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    refs = [weakref.ref(task) for task in tasks]
    tasks.clear()
    await turns(2)
    collect()
    assert not any(ref() for ref in refs)


async def test_all_tasks_of_a_mixture(loop: Any, task_class: Any) -> None:
    class Mine(task_class):  # type: ignore[misc]
        pass

    tasks = {
        loop.create_task(value()),
        asyncio.Task(value(), loop=loop),
        Mine(value(), loop=loop),
        task_class(value(), loop=loop),
    }
    assert asyncio.all_tasks() - {asyncio.current_task()} == tasks
    await asyncio.wait(tasks)


def test_enter_and_leave_task(loop: Any, task_class: Any) -> None:
    async def main() -> None:
        task: Any = asyncio.current_task()
        with pytest.raises(RuntimeError, match="while another task"):
            asyncio.tasks._enter_task(loop, other)
        asyncio.tasks._leave_task(loop, task)
        assert asyncio.current_task() is None
        asyncio.tasks._enter_task(loop, other)
        assert asyncio.current_task() is other
        asyncio.tasks._leave_task(loop, other)
        asyncio.tasks._enter_task(loop, task)

    other: Any = loop.create_task(value())
    loop.run_until_complete(main())
    loop.run_until_complete(other)


def test_private_attributes(make: Any, loop: Any) -> None:
    async def main() -> None:
        await future

    future = loop.create_future()
    coro = main()
    task = make(coro)
    assert task.get_coro() is coro and task._coro is coro
    assert task._fut_waiter is None and task._must_cancel is False
    assert task._log_destroy_pending is True
    task._log_destroy_pending = False
    assert task._log_destroy_pending is False
    assert task._state == "PENDING"
    loop.run_until_complete(turns(2))
    assert task._fut_waiter is future
    assert isinstance(task._fut_waiter, asyncio.Future)
    assert task.cancelling() == 0
    with pytest.raises(AttributeError):
        task._fut_waiter = None
    with pytest.raises(AttributeError):
        task._must_cancel = True
    future.set_result(None)
    loop.run_until_complete(task)
    assert task._fut_waiter is None


def test_waiter_has_one_callback_of_the_task(make: Any, loop: Any) -> None:
    async def main() -> None:
        await future

    future = loop.create_future()
    task = make(main())
    loop.run_until_complete(turns(2))
    assert len(future._callbacks) == 1
    assert "wakeup" in repr(future) or "cb=[" in repr(future)
    future.set_result(None)
    loop.run_until_complete(task)


def test_coroutine_of_a_finished_task_is_released(make: Any, loop: Any) -> None:
    class Thing:
        pass

    async def main(thing: Any) -> None:
        await asyncio.sleep(0)

    thing = Thing()
    ref = weakref.ref(thing)
    task = make(main(thing))
    del thing
    loop.run_until_complete(task)
    assert ref() is None


def test_repr(make: Any, loop: Any) -> None:
    async def coro_name() -> None:
        await future

    future = loop.create_future()
    task = make(coro_name(), name="the name")
    text = repr(task)
    assert text.startswith("<Task pending name='the name' coro=<")
    assert "coro_name() running at" in text and "test_tasks.py:" in text
    loop.run_until_complete(turns(2))
    assert "wait_for=<Future pending cb=[" in repr(task)
    task.cancel()
    future_text = repr(task)
    assert "cancelling" in future_text or PY < (3, 11)
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    text = repr(task)
    assert text.startswith("<Task cancelled name='the name' coro=<")
    assert "coro_name() done, defined at " in text
    task = make(value("x"), name="n")
    loop.run_until_complete(task)
    assert repr(task).endswith("result='x'>")


def test_repr_equals_the_stock_task(loop: Any) -> None:
    mine = loop.create_task(value(), name="n")
    stock = asyncio.Task(value(), loop=loop, name="n")
    assert repr(mine) == repr(stock)
    loop.run_until_complete(asyncio.sleep(0))
    assert repr(mine) == repr(stock)
    loop.run_until_complete(asyncio.gather(mine, stock))
    assert repr(mine) == repr(stock)


def test_stack(make: Any, loop: Any) -> None:
    async def inner() -> None:
        await future

    async def outer() -> None:
        await inner()

    future = loop.create_future()
    task = make(outer())
    assert [frame.f_code.co_name for frame in task.get_stack()] == ["outer"]
    loop.run_until_complete(turns(2))
    frames = task.get_stack()
    assert frames[0].f_code.co_name == "outer"
    assert len(task.get_stack(limit=1)) == 1
    text = io.StringIO()
    task.print_stack(file=text)
    assert "Stack for <Task" in text.getvalue() and "outer" in text.getvalue()
    future.set_result(None)
    loop.run_until_complete(task)
    assert task.get_stack() == []


def test_stack_of_a_failed_task(make: Any, loop: Any) -> None:
    task = make(fail(ValueError("why")))
    with pytest.raises(ValueError):
        loop.run_until_complete(task)
    assert task.get_stack()[-1].f_code.co_name == "fail"
    text = io.StringIO()
    task.print_stack(file=text)
    assert "Traceback for <Task" in text.getvalue()
    assert "ValueError: why" in text.getvalue()


def test_never_retrieved(make: Any, loop: Any, reports: Any) -> None:
    task = make(fail(KeyError("lost")))
    loop.run_until_complete(turns(4))
    assert task.done()
    del task
    collect()
    report = reports.one()
    assert report["message"] == "Task exception was never retrieved"
    assert type(report["exception"]) is KeyError
    assert isinstance(report["future"], asyncio.Task)


def test_destroyed_but_pending(make: Any, loop: Any, reports: Any) -> None:
    def start() -> None:
        async def main() -> None:
            await loop.create_future()

        make(main(), name="lonely")

    start()
    loop.run_until_complete(turns(3))
    collect()
    report = reports.one()
    assert report["message"] == "Task was destroyed but it is pending!"
    assert report["task"].get_name() == "lonely"
    assert sorted(report) == ["message", "task"]
    # From 3.14 on the report brings the task back for all_tasks() to find.
    del report
    reports.clear()
    collect()


def test_destroy_report_may_be_switched_off(make: Any, loop: Any) -> None:
    def start() -> None:
        async def main() -> None:
            await loop.create_future()

        make(main())._log_destroy_pending = False

    start()
    loop.run_until_complete(turns(3))
    collect()
    assert asyncio.all_tasks(loop) == set()


def test_cycles_are_collected(make: Any, loop: Any) -> None:
    def start() -> Any:
        async def main(box: list[Any]) -> None:
            await asyncio.sleep(0)

        box: list[Any] = []
        task = make(main(box))
        box.append(task)
        task.me = task
        loop.run_until_complete(task)
        return weakref.ref(task)

    ref = start()
    collect()
    assert ref() is None


def test_weak_references(make: Any, loop: Any) -> None:
    task = make(value())
    ref = weakref.ref(task)
    table = weakref.WeakKeyDictionary({task: 1})
    loop.run_until_complete(task)
    assert ref() is task and len(table) == 1
    del task
    collect()
    assert ref() is None and len(table) == 0


@pytest.mark.parametrize("count", [1000])
def test_no_references_are_left(make: Any, loop: Any, count: int) -> None:
    marker = object()
    before = sys.getrefcount(marker)

    async def main(argument: Any) -> Any:
        await asyncio.sleep(0)
        return argument

    for _ in range(count):
        loop.run_until_complete(make(main(marker)))
    collect()
    assert sys.getrefcount(marker) == before

"""Every callback and task has a context of its own, empty ones among them."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from typing import Any

import pytest

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("VAR", default="-")


class Spoiler:
    """Sets the variable, in whatever context it dies."""

    def __del__(self) -> None:
        VAR.set("spoilt")


def in_empty(loop: Any, main: Any) -> Any:
    """Run a coroutine function where no variable is set."""
    run = loop.run_until_complete
    return contextvars.Context().run(lambda: run(main()))


async def turns(count: int = 2) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_callbacks_do_not_see_each_other(loop: Any) -> None:
    seen: list[str] = []

    def callback(text: str) -> None:
        seen.append(VAR.get())
        VAR.set(text)

    async def main() -> None:
        for text in "abc":
            loop.call_soon(callback, text)
        loop.call_later(0, callback, "d")
        await turns(3)
        seen.append(VAR.get())

    in_empty(loop, main)
    assert seen == ["-"] * 5


def test_tasks_do_not_see_each_other(loop: Any) -> None:
    seen: list[str] = []

    async def child(text: str) -> None:
        seen.append(VAR.get())
        await turns(1)
        VAR.set(text)
        await turns(3)
        seen.append(VAR.get())

    async def main() -> None:
        await asyncio.gather(*(child(text) for text in "abc"))
        seen.append(VAR.get())

    in_empty(loop, main)
    assert seen == ["-", "-", "-", "a", "b", "c", "-"]


def test_callback_and_task_take_turns(loop: Any) -> None:
    seen: list[str] = []

    def callback() -> None:
        seen.append(VAR.get())
        VAR.set("callback")

    async def main() -> None:
        for _ in range(3):
            loop.call_soon(callback)
            await turns(1)
            seen.append(VAR.get())
        VAR.set("main")
        loop.call_soon(callback)
        await turns(1)
        seen.append(VAR.get())

    in_empty(loop, main)
    assert seen == ["-"] * 6 + ["main", "main"]


def test_token_is_good_across_steps(loop: Any) -> None:
    async def child() -> str:
        token = VAR.set("child")
        VAR.reset(token)
        token = VAR.set("child")
        await turns(1)
        VAR.reset(token)
        await turns(1)
        return VAR.get()

    async def main() -> list[str]:
        return await asyncio.gather(child(), child(), child())

    assert in_empty(loop, main) == ["-"] * 3


def test_unused_token_keeps_the_context(loop: Any) -> None:
    """Empty again, but the token can still tell it from any other."""

    async def holder() -> str:
        first = VAR.set("first")
        second = VAR.set("second")
        VAR.reset(first)
        await turns(2)
        VAR.reset(second)
        return VAR.get()

    async def other() -> None:
        VAR.set("other")
        await turns(2)

    async def main() -> str:
        text, _ = await asyncio.gather(holder(), other())
        return text

    assert in_empty(loop, main) == "first"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="came with 3.12")
def test_context_of_a_running_task(loop: Any) -> None:
    async def child() -> contextvars.Context:
        task: Any = asyncio.current_task()
        context: contextvars.Context = task.get_context()
        VAR.set("child")
        assert context[VAR] == "child"
        await turns(1)
        assert task.get_context() is context
        assert VAR.get() == "child"
        return context

    async def main() -> None:
        first, second = await asyncio.gather(child(), child())
        assert first is not second

    in_empty(loop, main)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="came with 3.12")
def test_context_of_a_task_seen_from_outside(loop: Any) -> None:
    async def child() -> str:
        await turns(2)
        return VAR.get()

    async def main() -> str:
        task: Any = asyncio.create_task(child())
        before = task.get_context()
        await turns(1)
        assert task.get_context() is before
        before.run(VAR.set, "outside")
        return str(await task)

    assert in_empty(loop, main) == "outside"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="came with 3.12")
def test_context_of_a_handle(loop: Any) -> None:
    seen: list[Any] = []

    def callback() -> None:
        seen.append(handle.get_context())
        VAR.set("callback")

    async def main() -> None:
        nonlocal handle
        handle = loop.call_soon(callback)
        early = loop.call_soon(VAR.set, "early")
        assert early.get_context() is early.get_context()
        late = loop.call_soon(VAR.set, "late")
        await turns(1)
        assert seen[0][VAR] == "callback"
        assert handle.get_context() is seen[0]
        assert early.get_context()[VAR] == "early"
        assert late.get_context()[VAR] == "late"
        assert late.get_context() is late._context

    handle: Any = None
    in_empty(loop, main)


def test_context_attribute_of_a_handle(loop: Any) -> None:
    handle = loop.call_soon(print)
    assert isinstance(handle._context, contextvars.Context)
    assert handle._context is handle._context
    handle._context = other = contextvars.Context()
    assert handle._context is other
    handle.cancel()


def test_run_of_a_handle_by_hand(loop: Any) -> None:
    seen: list[str] = []

    def callback() -> None:
        seen.append(VAR.get())
        VAR.set("callback")

    async def main() -> None:
        handle = loop.call_soon(callback)
        handle._run()
        assert VAR.get() == "-"
        assert handle._context[VAR] == "callback"
        handle.cancel()

    in_empty(loop, main)
    assert seen == ["-"]


def test_done_callbacks(loop: Any) -> None:
    seen: list[str] = []

    def done(fut: Any) -> None:
        seen.append(VAR.get())
        VAR.set("done")

    async def main() -> None:
        fut = loop.create_future()
        fut.add_done_callback(done)
        fut.add_done_callback(done)
        VAR.set("main")
        fut.add_done_callback(done)
        fut.set_result(None)
        await turns(1)
        seen.append(VAR.get())

    in_empty(loop, main)
    assert seen == ["-", "-", "main", "main"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="came with 3.12")
def test_handler_sees_what_the_callback_set(loop: Any) -> None:
    seen: list[str] = []

    def handler(_: Any, context: dict[str, Any]) -> None:
        seen.append(VAR.get())

    def fail(text: str | None) -> None:
        if text is not None:
            VAR.set(text)
        raise ZeroDivisionError

    async def main() -> None:
        loop.call_soon(fail, "fail")
        loop.call_soon(fail, None)
        await turns(1)

    loop.set_exception_handler(handler)
    in_empty(loop, main)
    assert seen == ["fail", "-"]


def test_handler_of_a_loop_in_a_context(loop: Any) -> None:
    """The callback's context is not left entered around the handler."""
    seen: list[str] = []

    async def main() -> None:
        loop.call_soon(lambda: 1 / 0, context=contextvars.Context())
        await turns(1)

    def run() -> None:
        VAR.set("outer")
        loop.run_until_complete(main())

    loop.set_exception_handler(lambda *_: seen.append(VAR.get()))
    contextvars.Context().run(run)
    assert seen == ["outer" if sys.version_info < (3, 12) else "-"]


def test_finalizer_after_a_callback(loop: Any) -> None:
    """What dies with a handle must not set the next one's variables."""
    seen: list[str] = []

    async def main() -> None:
        loop.call_soon(lambda _: None, Spoiler())
        loop.call_soon(lambda: seen.append(VAR.get()))
        await turns(1)
        seen.append(VAR.get())

    in_empty(loop, main)
    assert seen == ["-", "-"]


def test_copies_made_inside(loop: Any) -> None:
    async def main() -> None:
        copy = contextvars.copy_context()
        copy.run(VAR.set, "copy")
        assert VAR.get() == "-"
        await turns(1)
        assert len(contextvars.copy_context()) == 0
        assert copy[VAR] == "copy"

    in_empty(loop, main)


def test_eager_child_in_a_step(loop: Any) -> None:
    """A child that starts inside of its parent's step does not share with it."""
    if not hasattr(asyncio, "eager_task_factory"):
        pytest.skip("eager tasks came with 3.12")
    seen: list[str] = []

    async def child() -> None:
        VAR.set("child")
        await turns(1)
        seen.append(VAR.get())

    async def main() -> None:
        loop.set_task_factory(asyncio.eager_task_factory)
        task = loop.create_task(child())
        seen.append(VAR.get())
        VAR.set("main")
        await task
        loop.set_task_factory(None)

    in_empty(loop, main)
    assert seen == ["-", "child"]


def test_turn_inside_of_a_callback(loop: Any) -> None:
    """A nested turn leaves the callback's context as it was."""
    seen: list[str] = []

    def outer() -> None:
        VAR.set("outer")
        loop.call_soon(inner)
        loop._run_once()
        seen.append(VAR.get())

    def inner() -> None:
        seen.append(VAR.get())
        VAR.set("inner")

    def clean() -> None:
        loop.call_soon(setting)
        loop._run_once()
        seen.append(VAR.get())

    def setting() -> None:
        VAR.set("setting")

    async def main() -> None:
        loop.call_soon(outer)
        await turns(1)
        loop.call_soon(clean)
        await turns(1)
        seen.append(VAR.get())

    in_empty(loop, main)
    assert seen == ["outer", "outer", "-", "-"]


def test_run_ends_in_the_context_it_began_in(loop: Any) -> None:
    def run() -> str:
        VAR.set("caller")
        loop.call_soon(loop.stop)
        loop.run_forever()
        return VAR.get()

    for _ in range(3):
        assert contextvars.Context().run(run) == "caller"


def test_exit_from_a_callback(loop: Any) -> None:
    def leave() -> None:
        VAR.set("leave")
        raise SystemExit

    def run() -> str:
        loop.call_soon(leave)
        with pytest.raises(SystemExit):
            loop.run_forever()
        return VAR.get()

    assert contextvars.Context().run(run) == "-"
    assert contextvars.Context().run(run) == "-"


def test_exit_from_a_turn_by_hand(loop: Any) -> None:
    def leave() -> None:
        VAR.set("leave")
        raise SystemExit

    def run() -> str:
        loop.call_soon(leave)
        with pytest.raises(SystemExit):
            loop._run_once()
        return VAR.get()

    for _ in range(3):
        assert contextvars.Context().run(run) == "-"


def test_exit_from_a_step_by_hand(loop: Any) -> None:
    async def leave() -> None:
        VAR.set("leave")
        raise SystemExit

    def run() -> str:
        task = loop.create_task(leave())
        asyncio._set_running_loop(loop)  # 3.14 has no task current without one
        with pytest.raises(SystemExit):
            loop._run_once()
        asyncio._set_running_loop(None)
        assert asyncio.current_task(loop) is None
        with pytest.raises(SystemExit):
            task.result()
        return VAR.get()

    for _ in range(3):
        assert contextvars.Context().run(run) == "-"

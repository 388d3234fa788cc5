"""Cancelling tasks: when, how often, with which message; exits."""

# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support import PY, turns

CancelledError = asyncio.CancelledError


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_cancel_before_the_first_step(loop: Any) -> None:
    ran: list[int] = []

    async def main() -> None:
        ran.append(1)

    task = asyncio.create_task(main())
    assert task.cancel() is True
    assert task._must_cancel is True
    assert not task.done()
    with pytest.raises(CancelledError):
        await task
    assert task.cancelled() and ran == []


async def test_cancel_while_waiting(loop: Any) -> None:
    future = loop.create_future()

    async def main() -> None:
        await future

    task = asyncio.create_task(main())
    await turns(1)
    assert task.cancel() is True
    assert future.cancelled() and task._must_cancel is False
    with pytest.raises(CancelledError):
        await task
    assert task.cancel() is False


async def test_cancel_of_a_done_task(loop: Any) -> None:
    task = asyncio.create_task(asyncio.sleep(0, "done"))
    await task
    assert task.cancel() is False
    assert task.cancelling() == 0
    assert not task.cancelled() and task.result() == "done"


async def test_cancel_between_wake_up_and_step(loop: Any) -> None:
    future = loop.create_future()

    async def main() -> str:
        try:
            await future
        except CancelledError:
            return "cancelled"
        return "woken"

    task = asyncio.create_task(main())
    await turns(1)
    future.set_result(None)
    assert task.cancel() is True
    assert await task == "cancelled"


async def test_cancel_may_be_refused(loop: Any) -> None:
    async def main() -> str:
        try:
            await forever()
        except CancelledError:
            await asyncio.sleep(0)
        return "survived"

    task = asyncio.create_task(main())
    await turns(1)
    task.cancel()
    assert await task == "survived"
    assert task.cancelled() is False and task.cancelling() == 1


async def test_cancel_at_a_bare_yield(loop: Any) -> None:
    seen: list[str] = []

    async def main() -> None:
        try:
            while True:
                await asyncio.sleep(0)
        finally:
            seen.append("finally")

    task = asyncio.create_task(main())
    await turns(3)
    task.cancel()
    with pytest.raises(CancelledError):
        await task
    assert seen == ["finally"]


async def test_cancelling_itself(loop: Any) -> None:
    async def main() -> str:
        task: Any = asyncio.current_task()
        assert task.cancel() is True
        with pytest.raises(CancelledError):
            await asyncio.sleep(0)
        task.cancel()
        return "returned"

    task = asyncio.create_task(main())
    # asyncio: a cancel that was asked for and not delivered wins.
    with pytest.raises(CancelledError):
        await task


async def test_raising_cancelled_without_being_asked(loop: Any) -> None:
    async def main() -> None:
        raise CancelledError("own")

    task = asyncio.create_task(main())
    with pytest.raises(CancelledError) as caught:
        await task
    assert caught.value.args == ("own",)
    assert task.cancelled() and task.cancelling() == 0


async def test_error_instead_of_cancel(loop: Any) -> None:
    async def main() -> None:
        try:
            await forever()
        except CancelledError:
            raise LookupError("instead") from None

    task = asyncio.create_task(main())
    await turns(1)
    task.cancel()
    with pytest.raises(LookupError, match="instead"):
        await task


@pytest.mark.parametrize("message", ["text", 5, None])
async def test_messages(loop: Any, message: Any) -> None:
    wanted = () if message is None else (message,)
    seen: list[Any] = []

    async def main() -> None:
        try:
            await forever()
        except CancelledError as error:
            seen.append(error.args)
            raise

    task = asyncio.create_task(main())
    await turns(1)
    task.cancel(msg=message)
    with pytest.raises(CancelledError) as caught:
        await task
    assert seen == [wanted] and caught.value.args == wanted
    early = asyncio.create_task(main())
    early.cancel(message)
    with pytest.raises(CancelledError) as caught:
        await early
    assert caught.value.args == wanted


async def test_message_through_nested_tasks(loop: Any) -> None:
    async def outer() -> None:
        await asyncio.create_task(forever())

    task = asyncio.create_task(outer())
    await turns(2)
    task.cancel("deep")
    with pytest.raises(CancelledError) as caught:
        await task
    assert caught.value.args == ("deep",)


async def test_cancelled_error_points_at_the_wait(loop: Any) -> None:
    task = asyncio.create_task(forever())
    await turns(1)
    task.cancel()
    with pytest.raises(CancelledError) as caught:
        await task
    names = []
    error: Any = caught.value
    while error is not None:
        traceback = error.__traceback__
        while traceback:
            names.append(traceback.tb_frame.f_code.co_name)
            traceback = traceback.tb_next
        error = error.__context__
    assert "forever" in names


async def test_cancelling_counts(loop: Any) -> None:
    task = asyncio.create_task(forever())
    assert task.cancelling() == 0
    assert task.uncancel() == 0
    await turns(1)
    for count in (1, 2, 3):
        task.cancel()
        assert task.cancelling() == count
    assert task.uncancel() == 2
    assert task.uncancel() == 1
    assert task.uncancel() == 0
    assert task.uncancel() == 0
    with pytest.raises(CancelledError):
        await task


async def test_uncancel_before_the_first_step(loop: Any) -> None:
    task = asyncio.create_task(asyncio.sleep(0, "ran"))
    task.cancel()
    assert task.uncancel() == 0
    # 3.13 forgets the cancel with the last uncancel, earlier versions do not.
    assert task._must_cancel is (PY < (3, 13))
    if PY < (3, 13):
        with pytest.raises(CancelledError):
            await task
    else:
        assert await task == "ran"


async def test_uncancel_inside(loop: Any) -> None:
    async def main() -> str:
        task: Any = asyncio.current_task()
        try:
            await forever()
        except CancelledError:
            assert task.cancelling() == 1
            assert task.uncancel() == 0
        await asyncio.sleep(0)
        return "went on"

    task = asyncio.create_task(main())
    await turns(1)
    task.cancel()
    assert await task == "went on"


async def test_cancel_twice_while_waiting(loop: Any) -> None:
    seen: list[int] = []

    async def main() -> None:
        for number in range(2):
            try:
                await forever()
            except CancelledError:
                seen.append(number)

    task = asyncio.create_task(main())
    await turns(1)
    task.cancel()
    task.cancel()
    await turns(2)
    assert seen == [0]
    task.cancel()
    await task
    assert seen == [0, 1]


async def test_cancel_goes_to_a_future_that_refuses(
    loop: Any, future_class: Any
) -> None:
    class Stubborn(future_class):  # type: ignore[misc]
        def cancel(self, msg: Any = None) -> bool:
            return False

    future = Stubborn(loop=loop)

    async def main() -> Any:
        return await future

    task = asyncio.create_task(main())
    await turns(1)
    assert task.cancel() is True
    assert task._must_cancel is True
    future.set_result(1)
    with pytest.raises(CancelledError):
        await task


async def test_cancel_that_raises(loop: Any, future_class: Any) -> None:
    class Broken(future_class):  # type: ignore[misc]
        def cancel(self, msg: Any = None) -> bool:
            raise ZeroDivisionError

    future = Broken(loop=loop)

    async def main() -> Any:
        return await future

    task = asyncio.create_task(main())
    await turns(1)
    with pytest.raises(ZeroDivisionError):
        task.cancel()
    future.set_result("fine")
    assert await task == "fine"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_exit_in_a_task(loop: Any, kind: type[BaseException]) -> None:
    async def leave() -> None:
        await asyncio.sleep(0)
        raise kind("leave")

    async def main() -> None:
        box.append(asyncio.create_task(leave()))
        await forever()

    box: list[Any] = []
    outer = loop.create_task(main())
    with pytest.raises(kind, match="leave"):
        loop.run_until_complete(outer)
    assert box[0].done() and isinstance(box[0].exception(), kind)
    assert not outer.done()
    outer.cancel()
    with pytest.raises(CancelledError):
        loop.run_until_complete(outer)


def test_generator_exit_is_an_error_like_others(loop: Any) -> None:
    async def leave() -> None:
        raise GeneratorExit("odd")

    with pytest.raises(GeneratorExit):
        loop.run_until_complete(leave())


def test_stop_iteration_out_of_a_task(loop: Any) -> None:
    async def leave() -> None:
        raise StopIteration

    with pytest.raises(RuntimeError, match="coroutine raised StopIteration"):
        loop.run_until_complete(leave())


async def test_cancel_storm(loop: Any) -> None:
    async def work() -> None:
        while True:
            try:
                await asyncio.sleep(0.001)
            except CancelledError:
                await asyncio.sleep(0)
                raise

    tasks = [asyncio.create_task(work()) for _ in range(500)]
    for step in range(5):
        await asyncio.sleep(0.001)
        for task in tasks[step * 100 : step * 100 + 100]:
            task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)

"""What asyncio builds on tasks: gather, wait, groups, timeouts, locks."""

# mypy: disable-error-code="comparison-overlap"

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support import collect, turns

CancelledError = asyncio.CancelledError


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_shield(loop: Any) -> None:
    inner = asyncio.create_task(asyncio.sleep(0.01, "inner"))

    async def main() -> Any:
        return await asyncio.shield(inner)

    task = asyncio.create_task(main())
    await turns(2)
    task.cancel()
    with pytest.raises(CancelledError):
        await task
    assert not inner.cancelled()
    assert await inner == "inner"


async def test_shield_reports_a_lost_error(loop: Any, reports: Any) -> None:
    gate = loop.create_future()

    async def bad() -> None:
        await gate
        raise ValueError("lost")

    outer = asyncio.shield(bad())
    await turns(1)
    outer.cancel()
    await turns(1)
    gate.set_result(None)
    await turns(3)
    collect()
    assert isinstance(reports.one()["exception"], ValueError)


async def test_gather(loop: Any) -> None:
    results = await asyncio.gather(
        asyncio.sleep(0.002, "a"), asyncio.sleep(0, "b"), asyncio.sleep(0.001, "c")
    )
    assert results == ["a", "b", "c"]
    assert await asyncio.gather() == []
    task = asyncio.create_task(asyncio.sleep(0, 1))
    assert await asyncio.gather(task, task) == [1, 1]


async def test_gather_errors(loop: Any) -> None:
    async def bad() -> None:
        raise OSError("first")

    slow = asyncio.create_task(asyncio.sleep(0.005, "slow"))
    with pytest.raises(OSError, match="first"):
        await asyncio.gather(bad(), slow)
    assert await slow == "slow"
    found = await asyncio.gather(bad(), asyncio.sleep(0, 2), return_exceptions=True)
    assert isinstance(found[0], OSError) and found[1] == 2


async def test_gather_cancel(loop: Any) -> None:
    tasks = [asyncio.create_task(forever()) for _ in range(3)]
    group = asyncio.gather(*tasks)
    await turns(1)
    assert group.cancel() is True
    with pytest.raises(CancelledError):
        await group
    assert all(task.cancelled() for task in tasks)


async def test_gather_with_a_cancelled_child(loop: Any) -> None:
    task = asyncio.create_task(forever())
    group = asyncio.gather(task, asyncio.sleep(0.001), return_exceptions=True)
    await turns(1)
    task.cancel()
    results = await group
    assert isinstance(results[0], CancelledError)


@pytest.mark.parametrize(
    "when", ["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"]
)
async def test_wait(loop: Any, when: str) -> None:
    gates = [loop.create_future() for _ in range(3)]

    async def passes(number: int) -> None:
        await gates[number]
        if number == 1:
            raise ValueError

    async def opens() -> None:
        for gate in gates:
            await turns(10)
            gate.set_result(None)

    tasks = [asyncio.create_task(passes(number)) for number in range(3)]
    opener = asyncio.create_task(opens())
    done, pending = await asyncio.wait(tasks, return_when=when)
    wanted = {"FIRST_COMPLETED": 1, "FIRST_EXCEPTION": 2, "ALL_COMPLETED": 3}
    assert len(done) == wanted[when]
    assert done | pending == set(tasks)
    await asyncio.gather(opener, *tasks, return_exceptions=True)


async def test_wait_timeout(loop: Any) -> None:
    task = asyncio.create_task(forever())
    done, pending = await asyncio.wait([task], timeout=0.005)
    assert done == set() and pending == {task}
    task.cancel()
    await turns(2)


async def test_as_completed(loop: Any) -> None:
    order = [
        await future
        for future in asyncio.as_completed(
            [asyncio.sleep(0.02, 3), asyncio.sleep(0, 1), asyncio.sleep(0.01, 2)]
        )
    ]
    assert order == [1, 2, 3]


async def test_wait_for(loop: Any) -> None:
    assert await asyncio.wait_for(asyncio.sleep(0, "in time"), 5) == "in time"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(forever(), 0.005)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(forever(), 0)
    assert await asyncio.wait_for(asyncio.sleep(0, "no limit"), None) == "no limit"
    task = asyncio.create_task(asyncio.wait_for(forever(), 10))
    await turns(2)
    task.cancel()
    with pytest.raises(CancelledError):
        await task


async def test_timeout(loop: Any) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.005):
            await forever()
    async with asyncio.timeout(None) as scope:
        await asyncio.sleep(0)
    assert not scope.expired()
    task: Any = asyncio.current_task()
    assert task.cancelling() == 0
    async with asyncio.timeout(10) as scope:
        scope.reschedule(loop.time() + 20)
        assert scope.when() > loop.time() + 10
    with pytest.raises(TimeoutError):
        async with asyncio.timeout_at(loop.time() - 1):
            await forever()


async def test_nested_timeouts(loop: Any) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.005):
            async with asyncio.timeout(10) as inner:
                await forever()
    assert not inner.expired()
    async with asyncio.timeout(10) as outer:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.005):
                await forever()
    assert not outer.expired()


async def test_task_group(loop: Any) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(asyncio.sleep(0.001, n)) for n in range(10)]
        named = group.create_task(asyncio.sleep(0), name="named")
    assert [task.result() for task in tasks] == list(range(10))
    assert named.get_name() == "named"


async def test_task_group_errors(loop: Any) -> None:
    cancelled: list[int] = []

    async def bad(error: Exception) -> None:
        await asyncio.sleep(0.001)
        raise error

    async def wait() -> None:
        try:
            await forever()
        except CancelledError:
            cancelled.append(1)
            raise

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(bad(ValueError("a")))
            group.create_task(bad(KeyError("b")))
            group.create_task(wait())
            await forever()
    kinds = {type(error) for error in caught.value.exceptions}
    assert kinds <= {ValueError, KeyError} and kinds
    assert cancelled == [1]
    task: Any = asyncio.current_task()
    assert task.cancelling() == 0


async def test_task_group_cancelled_from_outside(loop: Any) -> None:
    ended: list[str] = []

    async def child() -> None:
        try:
            await forever()
        finally:
            ended.append("child")

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
            group.create_task(child())

    task = asyncio.create_task(main())
    await turns(2)
    task.cancel()
    with pytest.raises(CancelledError):
        await task
    assert ended == ["child", "child"]


async def test_lock_handover_under_cancel(loop: Any) -> None:
    lock = asyncio.Lock()
    order: list[int] = []

    async def hold(number: int) -> None:
        async with lock:
            order.append(number)
            await asyncio.sleep(0)

    await lock.acquire()
    tasks = [asyncio.create_task(hold(n)) for n in range(6)]
    await turns(2)
    tasks[0].cancel()
    tasks[3].cancel()
    lock.release()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [1, 2, 4, 5]
    assert not lock.locked()


async def test_queue_under_cancel(loop: Any) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=2)
    got: list[int] = []

    async def consume() -> None:
        while True:
            got.append(await queue.get())
            queue.task_done()

    waiting = asyncio.create_task(queue.get())
    await turns(1)
    waiting.cancel()
    consumers = [asyncio.create_task(consume()) for _ in range(3)]
    for number in range(100):
        await queue.put(number)
    await queue.join()
    assert sorted(got) == list(range(100))
    for task in consumers:
        task.cancel()
    await asyncio.gather(waiting, *consumers, return_exceptions=True)


async def test_primitives(loop: Any) -> None:
    event, condition = asyncio.Event(), asyncio.Condition()
    semaphore, barrier = asyncio.Semaphore(2), asyncio.Barrier(3)
    peak = running = 0

    async def limited() -> None:
        nonlocal peak, running
        async with semaphore:
            running += 1
            peak = max(peak, running)
            await asyncio.sleep(0)
            running -= 1

    async def notified() -> str:
        async with condition:
            await condition.wait()
        await event.wait()
        await barrier.wait()
        return "done"

    tasks = [asyncio.create_task(notified()) for _ in range(3)]
    await asyncio.gather(*(limited() for _ in range(10)))
    async with condition:
        condition.notify_all()
    event.set()
    assert await asyncio.gather(*tasks) == ["done"] * 3
    assert peak == 2

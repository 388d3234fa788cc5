"""TaskGroup and timeouts: tasks that cannot outlive the block that started them.

Plain asyncio code: nothing here knows which event loop runs it.

    python examples/task_groups.py                             asyncio's loop
    python examples/run_with.py hotloop examples/task_groups.py

All succeed, or the first failure cancels the others and comes out as a group of
errors; the first result wins; a limit for each and for all; partial results where
failures are expected; a deadline that moves; work that must not be cut off.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def answer(number: int, after: float = 0) -> int:
    await asyncio.sleep(after)
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number


async def all_of(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All results, or the errors as a group; nothing goes on running."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in coroutines]
    return [task.result() for task in tasks]


async def first_of(*coroutines: Coroutine[Any, Any, T]) -> T:
    """The first result; the others are cancelled and have ended on return."""
    tasks = [asyncio.ensure_future(each) for each in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def those_in_time(
    coroutines: Iterable[Coroutine[Any, Any, T]], seconds: float
) -> list[T]:
    """The results there are after so many seconds; the rest is cancelled."""
    tasks = [asyncio.ensure_future(each) for each in coroutines]
    try:
        await asyncio.wait(tasks, timeout=seconds)
    finally:
        for task in tasks:
            task.cancel()  # does nothing to those that are done
        await asyncio.gather(*tasks, return_exceptions=True)
    ended = [task for task in tasks if not task.cancelled()]
    return [task.result() for task in ended if not task.exception()]


async def while_it_moves(progress: asyncio.Queue[int], patience: float) -> int:
    """Count until nothing has come for so long."""
    count = 0
    try:
        async with asyncio.timeout(patience) as limit:
            while True:
                await progress.get()
                count += 1
                limit.reschedule(asyncio.get_running_loop().time() + patience)
    except TimeoutError:
        return count


async def save(log: list[str]) -> None:
    log.append("saving")
    await asyncio.sleep(0.01)
    log.append("saved")


async def to_its_end(task: asyncio.Task[Any]) -> None:
    """Wait for a task that must not be cut off, however often we are cancelled."""
    cancelled = None
    while not task.done():
        try:
            await asyncio.wait([task])  # unlike `await task`, does not cancel it
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled:
        raise cancelled


async def saving_on_cancel(log: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await to_its_end(asyncio.create_task(save(log)))


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000, help="groups of 20 tasks")
    options = parser.parse_args()

    print("all:", await all_of(answer(n) for n in range(5)))
    try:
        await all_of([answer(1, 60), answer(-1), answer(2, 60), answer(-2)])
    except* ValueError as errors:
        print("failures:", *errors.exceptions)
    print("first:", await first_of(answer(1, 60), answer(2), answer(3, 60)))
    in_time = await those_in_time(
        [answer(1), answer(2, 60), answer(-3), answer(4)], 0.2
    )
    print("in time:", in_time)
    try:
        await asyncio.wait_for(answer(1, 60), timeout=0.001)
    except TimeoutError:
        print("wait_for: too late")
    moves: asyncio.Queue[int] = asyncio.Queue()
    for number in range(7):
        moves.put_nowait(number)
    print("moves:", await while_it_moves(moves, 0.1))
    log: list[str] = []
    task = asyncio.create_task(saving_on_cancel(log))
    await asyncio.sleep(0)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.wait([task])
    print(f"cancelled={task.cancelled()}:", *log)
    print("tasks left:", len(asyncio.all_tasks()) - 1)

    started = time.perf_counter()
    for _ in range(options.count):
        async with asyncio.timeout(60):
            await all_of(answer(n) for n in range(20))
    elapsed = time.perf_counter() - started
    print(f"{options.count * 20 / elapsed:,.0f} tasks/s")


if __name__ == "__main__":
    asyncio.run(main())

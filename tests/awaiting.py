"""Tasks that wait for each other in every way asyncio has; also a program.

    python awaiting.py asyncio|hotloop SCENARIO...

starts the scenarios, prints "ready" and waits for its standard input to end.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from support import loop_factory

Scenario = Callable[[], Awaitable[Any]]
SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


async def leaf() -> None:
    await asyncio.sleep(1000)


async def deep(levels: int) -> None:
    if levels:
        await deep(levels - 1)
    else:
        await leaf()


@scenario
async def sleeping() -> None:
    await deep(3)


@scenario
async def gathering() -> None:
    await asyncio.gather(deep(1), deep(0), asyncio.gather(leaf(), leaf()))


@scenario
async def grouping() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(deep(1), name="first")
        group.create_task(nested_group(), name="second")


async def nested_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(leaf(), name="inner")


@scenario
async def waiting_for() -> None:
    await asyncio.wait_for(deep(1), 1000)


@scenario
async def timing_out() -> None:
    async with asyncio.timeout(1000), asyncio.timeout(2000):
        await deep(1)


@scenario
async def shielding() -> None:
    inner = asyncio.create_task(deep(1), name="shielded")
    await asyncio.shield(inner)


@scenario
async def waiting() -> None:
    await asyncio.wait([asyncio.create_task(leaf(), name=f"w{n}") for n in range(3)])


@scenario
async def completing() -> None:
    tasks = [asyncio.create_task(leaf(), name=f"c{n}") for n in range(3)]
    for task in asyncio.as_completed(tasks):
        await task


async def wait_on(awaitable: Awaitable[Any]) -> None:
    await awaitable


@scenario
async def many_on_one() -> None:
    one = asyncio.create_task(leaf(), name="one")
    others = [asyncio.create_task(wait_on(one), name=name) for name in "abc"]
    await one
    await asyncio.wait(others)


@scenario
async def many_on_a_future() -> None:
    future = asyncio.get_running_loop().create_future()
    tasks = [asyncio.create_task(wait_on(future), name=f"f{n}") for n in range(3)]
    await tasks[0]


@scenario
async def locking() -> None:
    lock = asyncio.Lock()

    async def hold() -> None:
        async with lock:
            await leaf()

    tasks = [asyncio.create_task(hold(), name=f"l{n}") for n in range(2)]
    await asyncio.wait(tasks)


@scenario
async def queueing() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(1)
    getter = asyncio.create_task(queue.get(), name="getter")
    await getter


@scenario
async def starting_eagerly() -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        task = asyncio.Task(deep(1), loop=loop, name="stock", eager_start=True)
        group.create_task(wait_on(task), name="on a stock task")
        loop.set_task_factory(asyncio.eager_task_factory)
        try:
            group.create_task(deep(2), name="eager")
            group.create_task(leaf(), name="e")
        finally:
            loop.set_task_factory(None)


@scenario
async def generating() -> None:
    async def numbers() -> Any:
        yield 1
        await leaf()
        yield 2

    async for _ in numbers():
        pass


@scenario
async def renaming() -> None:
    task = asyncio.create_task(deep(0), name="before")
    await asyncio.sleep(0)
    task.set_name("after")
    await task


@scenario
async def numbered() -> None:
    await asyncio.gather(*[asyncio.create_task(leaf()) for _ in range(3)])


@scenario
async def chained() -> None:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_later(1000, future.set_result, None)
    await asyncio.wait_for(asyncio.shield(future), 1000)


async def start(names: list[str]) -> list[asyncio.Task[Any]]:
    """One task for each scenario, all of them waiting."""
    tasks = [asyncio.ensure_future(SCENARIOS[name]()) for name in names]
    for task, name in zip(tasks, names, strict=True):
        task.set_name(name)
    for _ in range(10):
        await asyncio.sleep(0)
    return tasks


async def stop(tasks: list[asyncio.Task[Any]]) -> None:
    me = asyncio.current_task()
    while others := asyncio.all_tasks() - {me}:
        for task in others:
            task.cancel()
        await asyncio.wait(others)
    await asyncio.gather(*tasks, return_exceptions=True)


async def program(names: list[str]) -> None:
    tasks = await start(names)
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    loop.add_reader(0, ended.set_result, None)
    print("ready", flush=True)
    await ended
    loop.remove_reader(0)
    await stop(tasks)


SPIN = "spin"  # in the place of scenarios: a task that never waits


async def spin() -> None:
    async def spinning() -> None:
        print("ready", flush=True)
        while reader.is_alive():
            pass

    reader = threading.Thread(target=sys.stdin.read)
    reader.start()
    await asyncio.create_task(spinning(), name="spinning")


if __name__ == "__main__":
    kind, *names = sys.argv[1:]
    with asyncio.Runner(loop_factory=loop_factory(kind)) as runner:
        runner.run(spin() if names == [SPIN] else program(names))

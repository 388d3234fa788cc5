"""Rows that start tasks."""

from __future__ import annotations

import asyncio

from .waiting import noop

BATCH = 100
CHILDREN = 10
TREE_BRANCHES = 6
TREE_DEPTH = 3
TREE_TASKS = sum(TREE_BRANCHES**level for level in range(1, TREE_DEPTH + 1))


async def create_task(rounds: int) -> None:
    """Start a hundred tasks, then await them all."""
    loop = asyncio.get_running_loop()
    for _ in range(rounds):
        for task in [loop.create_task(noop()) for _ in range(BATCH)]:
            await task


async def spawn_await(rounds: int) -> None:
    """Start one task and await it."""
    loop = asyncio.get_running_loop()
    for _ in range(rounds):
        await loop.create_task(noop())


async def gather(rounds: int) -> None:
    """``asyncio.gather`` of ten coroutines; counts the coroutines."""
    for _ in range(rounds):
        await asyncio.gather(*[noop() for _ in range(CHILDREN)])


async def task_group(rounds: int) -> None:
    """A TaskGroup of ten tasks; counts the tasks."""
    for _ in range(rounds):
        async with asyncio.TaskGroup() as group:
            for _ in range(CHILDREN):
                group.create_task(noop())


async def cancel(rounds: int) -> None:
    """Start a task, let it wait, cancel it and await its end."""
    loop = asyncio.get_running_loop()

    async def wait_forever() -> None:
        await loop.create_future()

    for _ in range(rounds):
        task = loop.create_task(wait_forever())
        await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            continue


async def branch(depth: int) -> None:
    """One node of the tree: yields once, as a leaf, or gathers six nodes."""
    if depth == 0:
        await asyncio.sleep(0)
        return
    await asyncio.gather(*[branch(depth - 1) for _ in range(TREE_BRANCHES)])


async def async_tree(rounds: int) -> None:
    """Trees of gathers, three deep and six wide; counts the tasks."""
    for _ in range(rounds):
        await branch(TREE_DEPTH)

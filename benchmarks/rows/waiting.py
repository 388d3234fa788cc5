"""Rows in which tasks wait and wake each other."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Generator

LOCK_USERS = 10
LONG = 5.0


@types.coroutine
def step() -> Generator[None]:
    """Give up the rest of this turn."""
    yield


async def noop() -> None:
    """Finish at once."""


async def bare_yield(rounds: int) -> None:
    """One task gives up its turn by a bare ``yield``."""
    for _ in range(rounds):
        await step()


async def sleep_zero(rounds: int) -> None:
    """One task awaits ``asyncio.sleep(0)``."""
    for _ in range(rounds):
        await asyncio.sleep(0)


async def future_pingpong(rounds: int) -> None:
    """Two tasks wake each other through futures; counts every wake-up."""
    loop = asyncio.get_running_loop()
    slots = [loop.create_future(), loop.create_future()]

    async def player(mine: int) -> None:
        other = 1 - mine
        for _ in range(rounds):
            await slots[mine]
            slots[mine] = loop.create_future()
            slots[other].set_result(None)

    players = [loop.create_task(player(0)), loop.create_task(player(1))]
    slots[0].set_result(None)
    for task in players:
        await task


async def queue_pingpong(rounds: int) -> None:
    """Two tasks send an item to and fro; counts every blocking ``get``."""
    there: asyncio.Queue[int] = asyncio.Queue(1)
    back: asyncio.Queue[int] = asyncio.Queue(1)

    async def returner() -> None:
        for _ in range(rounds):
            item = await there.get()
            await back.put(item)

    task = asyncio.get_running_loop().create_task(returner())
    for _ in range(rounds):
        await there.put(1)
        await back.get()
    await task


async def contended_lock(rounds: int) -> None:
    """Ten tasks take turns in holding a lock over one ``sleep(0)``."""
    loop = asyncio.get_running_loop()
    lock = asyncio.Lock()

    async def user() -> None:
        for _ in range(rounds):
            async with lock:
                await asyncio.sleep(0)

    for task in [loop.create_task(user()) for _ in range(LOCK_USERS)]:
        await task


async def timeout(rounds: int) -> None:
    """Enter and leave ``asyncio.timeout`` without waiting inside."""
    for _ in range(rounds):
        async with asyncio.timeout(LONG):
            pass


async def wait_for(rounds: int) -> None:
    """``asyncio.wait_for`` of a coroutine that finishes at once."""
    for _ in range(rounds):
        await asyncio.wait_for(noop(), LONG)

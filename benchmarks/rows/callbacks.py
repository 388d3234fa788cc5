"""Rows that schedule plain callbacks."""

from __future__ import annotations

import asyncio

BATCH = 100
LATER = 10.0
TIMERS = 1000
FIRST_DELAY = 0.0005
SPREAD = 0.004


def nothing() -> None:
    """The callback."""


async def call_soon(rounds: int) -> None:
    """A callback that schedules itself again: one a turn."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    left = rounds

    def again() -> None:
        nonlocal left
        left -= 1
        if left:
            loop.call_soon(again)
        else:
            done.set_result(None)

    loop.call_soon(again)
    await done


async def call_soon_burst(rounds: int) -> None:
    """Schedule a callback and run it, a hundred per turn."""
    call = asyncio.get_running_loop().call_soon
    for _ in range(rounds):
        for _ in range(BATCH):
            call(nothing)
        await asyncio.sleep(0)


async def call_later_cancel(rounds: int) -> None:
    """Start a timer and cancel it, a hundred per turn."""
    call = asyncio.get_running_loop().call_later
    for _ in range(rounds):
        for _ in range(BATCH):
            call(LATER, nothing).cancel()
        await asyncio.sleep(0)


async def timers_fire(rounds: int) -> None:
    """Start a thousand timers due in 0.5 to 4.5 ms, and wait for all."""
    loop = asyncio.get_running_loop()
    delays = [FIRST_DELAY + SPREAD * i / TIMERS for i in range(TIMERS)]

    async def one_round() -> None:
        left = TIMERS
        done = loop.create_future()

        def fired() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                done.set_result(None)

        for delay in delays:
            loop.call_later(delay, fired)
        await done

    for _ in range(rounds):
        await one_round()

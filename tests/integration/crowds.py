"""Many users of one client, who do not always wait for their answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from support import PY, turns

# The clients wait by it; a task that is cancelled then goes on as if nothing were.
no_lost_cancellation = pytest.mark.skipif(
    PY < (3, 12),
    reason="wait_for() of Python 3.11 loses a cancellation as its future is done",
)


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks, and have them end by that."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)


def start(*coroutines: Any) -> list[asyncio.Task[Any]]:
    """A task for each."""
    return [asyncio.create_task(coroutine) for coroutine in coroutines]


async def impatient_users(
    ask: Callable[[str], Awaitable[str]],
    *,
    users: int,
    rounds: int,
    patience: int,
    share: float,
    long: int,
) -> None:
    """Each asks for the echo of texts of its own, and gets that or nothing.

    A question is cancelled with the probability `share`, after up to `patience`
    turns of the loop. A third of the texts is `long` times as long.
    """
    chance = random.Random(1)
    outcomes = {"answered": 0, "cancelled": 0}

    async def user(number: int) -> None:
        for turn in range(rounds):
            text = f"{number}/{turn}" * chance.choice([1, 1, long])
            task = asyncio.ensure_future(ask(text))
            await turns(chance.randrange(patience))
            if chance.random() < share:
                task.cancel()
            try:
                assert await task == text
            except asyncio.CancelledError:
                outcomes["cancelled"] += 1
            else:
                outcomes["answered"] += 1

    await asyncio.gather(*(user(number) for number in range(users)))
    assert sum(outcomes.values()) == users * rounds
    assert min(outcomes.values()) > 3

"""Rows of suite *exec*: work handed to threads. CPU time of all threads counts."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

BATCH = 100


def nothing() -> None:
    """The work."""


class Indirect(Executor):
    """Stands for executors that are no ThreadPoolExecutor but have one."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._pool.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._pool.shutdown(wait, cancel_futures=cancel_futures)


async def one_by_one(rounds: int) -> None:
    """Await one call in the default thread pool after the other."""
    loop = asyncio.get_running_loop()
    for _ in range(rounds):
        await loop.run_in_executor(None, nothing)


async def to_thread(rounds: int) -> None:
    """The same by ``asyncio.to_thread``, which copies the context."""
    for _ in range(rounds):
        await asyncio.to_thread(nothing)


async def batch(rounds: int) -> None:
    """Start a hundred calls, then await them all."""
    loop = asyncio.get_running_loop()
    for _ in range(rounds):
        for future in [loop.run_in_executor(None, nothing) for _ in range(BATCH)]:
            await future


async def other_executor(rounds: int) -> None:
    """One call after the other in an executor of another class."""
    loop = asyncio.get_running_loop()
    with Indirect() as executor:
        for _ in range(rounds):
            await loop.run_in_executor(executor, nothing)

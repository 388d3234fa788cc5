"""Rows that cross threads. CPU time of all threads counts."""

from __future__ import annotations

import asyncio
import threading

BURST = 100


def nothing() -> None:
    """The callback, and the work of an executor."""


async def call_soon_threadsafe(rounds: int) -> None:
    """Another thread schedules bursts of a hundred callbacks."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    ran = threading.Semaphore(0)

    def sender() -> None:
        for _ in range(rounds):
            for _ in range(BURST - 1):
                loop.call_soon_threadsafe(nothing)
            loop.call_soon_threadsafe(ran.release)
            ran.acquire()
        loop.call_soon_threadsafe(done.set_result, None)

    thread = threading.Thread(target=sender, daemon=True)
    thread.start()
    await done
    thread.join()


async def run_in_executor(rounds: int) -> None:
    """Await one call in the default thread pool after the other."""
    loop = asyncio.get_running_loop()
    for _ in range(rounds):
        await loop.run_in_executor(None, nothing)

"""Worker of suite *scale*: very many of one kind at once, cancelled at once.

``python -m benchmarks.workers.scale LOOP KIND COUNT`` answers with the nanoseconds
and the resident bytes of each: all of them are made, wait together, are cancelled,
and the loop runs until the last one has ended.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from ..child import answer, die_with_parent
from ..loops import loop_factory
from .memory import FAR_AWAY, nothing, resident_bytes, turns

WARM_UP = 1000
SPREAD = 0.001


class Stopwatch:
    """Adds up the time inside of several ``with`` blocks."""

    def __init__(self) -> None:
        self.ns = 0
        self._began = 0

    def __enter__(self) -> None:
        self._began = time.perf_counter_ns()

    def __exit__(self, *exc: object) -> None:
        self.ns += time.perf_counter_ns() - self._began


async def timers(count: int, kept: list[Any], watch: Stopwatch) -> int:
    """Timers at different times; returns what they take while they wait."""
    loop = asyncio.get_running_loop()
    before = resident_bytes()
    with watch:
        for i in range(count):
            kept[i] = loop.call_later(FAR_AWAY + i * SPREAD, nothing)
        await turns()
    used = resident_bytes() - before
    with watch:
        for handle in kept:
            handle.cancel()
        await turns()
    return used


async def tasks(count: int, kept: list[Any], watch: Stopwatch) -> int:
    """Tasks that wait for one event which never comes."""
    loop = asyncio.get_running_loop()
    never = loop.create_future()

    async def wait() -> None:
        await never

    before = resident_bytes()
    with watch:
        for i in range(count):
            kept[i] = loop.create_task(wait())
        await turns()
    used = resident_bytes() - before
    with watch:
        never.cancel()
        await turns()
    assert all(task.done() for task in kept)
    return used


async def futures(count: int, kept: list[Any], watch: Stopwatch) -> int:
    """Futures with a callback each."""
    loop = asyncio.get_running_loop()
    called = 0

    def done(future: asyncio.Future[None]) -> None:
        nonlocal called
        called += 1

    before = resident_bytes()
    with watch:
        for i in range(count):
            kept[i] = future = loop.create_future()
            future.add_done_callback(done)
        await turns()
    used = resident_bytes() - before
    with watch:
        for future in kept:
            future.cancel()
        await turns()
    assert called == count
    return used


Kind = Callable[[int, list[Any], Stopwatch], Awaitable[int]]
KINDS: dict[str, Kind] = {"timers": timers, "tasks": tasks, "futures": futures}


async def measure(kind: str, count: int) -> None:
    """Measure and answer."""
    await KINDS[kind](WARM_UP, [None] * WARM_UP, Stopwatch())
    watch = Stopwatch()
    kept: list[Any] = [None] * count
    used = await KINDS[kind](count, kept, watch)
    answer({"ns": watch.ns / count, "bytes": used / count})


def main() -> None:
    """Measure one kind under one loop."""
    die_with_parent()
    loop, kind, count = sys.argv[1:]
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(measure(kind, int(count)))


if __name__ == "__main__":
    main()

"""Producers and consumers around a queue, and two clean ways to stop them.

Plain asyncio code: nothing here knows which event loop runs it.

    python examples/queue_workers.py                           asyncio's loop
    python examples/run_with.py hotloop examples/queue_workers.py

The bounded queue makes fast producers wait. At the regular end nothing is lost: the
producers finish, join() waits until every item is done, then the consumers, which
wait for more, are cancelled. When a consumer fails, TaskGroup ends everybody.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable

Work = Callable[[int], int]


async def produce(queue: asyncio.Queue[int], items: range) -> None:
    for item in items:
        await queue.put(item)


async def consume(queue: asyncio.Queue[int], work: Work, results: list[int]) -> None:
    while True:
        item = await queue.get()
        try:
            results.append(work(item))
        finally:
            queue.task_done()


async def process(
    items: range, work: Work, producers: int = 4, consumers: int = 8, limit: int = 100
) -> list[int]:
    """Results of all items, in the order in which they were done."""
    queue: asyncio.Queue[int] = asyncio.Queue(limit)
    results: list[int] = []
    async with asyncio.TaskGroup() as group:
        waiting = [
            group.create_task(consume(queue, work, results)) for _ in range(consumers)
        ]
        async with asyncio.TaskGroup() as sources:
            for number in range(producers):
                sources.create_task(produce(queue, items[number::producers]))
        await queue.join()
        for task in waiting:
            task.cancel()  # TaskGroup takes cancelled tasks as ended
    return results


def square(number: int) -> int:
    return number * number


def square_small(number: int) -> int:
    if number >= 1000:
        raise ValueError(f"{number} is too big")
    return number * number


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=50_000, help="items")
    options = parser.parse_args()
    items = range(options.count)
    started = time.perf_counter()
    results = await process(items, square)
    elapsed = time.perf_counter() - started
    expected = sum(number * number for number in items)
    print(f"{len(results)} items, sum is right: {sum(results) == expected}")
    try:
        await process(range(2000), square_small)
    except* ValueError as group:
        print("a consumer failed:", group.exceptions[0])
    left = asyncio.all_tasks() - {asyncio.current_task()}
    print(f"{len(left)} tasks left")
    print(f"{len(results) / elapsed:,.0f} items/s")


if __name__ == "__main__":
    asyncio.run(main())

"""A micro-batcher: calls made at the same time become one call for all.

Plain asyncio code: nothing here knows which event loop runs it.

    python examples/micro_batch.py                             asyncio's loop
    python examples/run_with.py hotloop examples/micro_batch.py

For back ends where a question costs a round trip however much it asks. Callers use
get(key); the keys of one turn of the loop (or of `delay` seconds) go out together, at
most `limit` at a time, each only once. A caller that is cancelled takes nothing from
the others; an error goes to the callers of its batch.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")
Load = Callable[[Sequence[K]], Awaitable[Sequence[V]]]


class Batcher(Generic[K, V]):
    """Collects keys for load(), which returns one value for each."""

    def __init__(self, load: Load[K, V], limit: int = 100, delay: float = 0) -> None:
        self.load, self.limit, self.delay = load, limit, delay
        self.waiting: dict[K, list[asyncio.Future[V]]] = {}
        self.timer: asyncio.Handle | None = None
        self.running: set[asyncio.Task[None]] = set()

    async def get(self, key: K) -> V:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[V] = loop.create_future()
        self.waiting.setdefault(key, []).append(future)
        if len(self.waiting) == self.limit:
            self._send()
        elif self.timer is None and self.delay:
            self.timer = loop.call_later(self.delay, self._send)
        elif self.timer is None:
            self.timer = loop.call_soon(self._send)
        return await future

    def _send(self) -> None:
        if self.timer:
            self.timer.cancel()
            self.timer = None
        batch, self.waiting = self.waiting, {}
        task = asyncio.create_task(self._run(batch))
        self.running.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self.running.discard)

    async def _run(self, batch: dict[K, list[asyncio.Future[V]]]) -> None:
        try:
            values = await self.load(list(batch))
        except BaseException as exc:
            for future in (each for futures in batch.values() for each in futures):
                if isinstance(exc, asyncio.CancelledError):
                    future.cancel()
                elif not future.done():
                    future.set_exception(exc)
            if not isinstance(exc, Exception):
                raise
            return
        for futures, value in zip(batch.values(), values, strict=True):
            for future in futures:
                if not future.done():  # its caller may have been cancelled
                    future.set_result(value)


class Store:
    """A back end that counts its round trips."""

    def __init__(self) -> None:
        self.trips = 0

    async def squares(self, numbers: Sequence[int]) -> Sequence[int]:
        self.trips += 1
        await asyncio.sleep(0.001)
        if -1 in numbers:
            raise ValueError("no such number: -1")
        return [number**2 for number in numbers]


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=50_000, help="calls")
    options = parser.parse_args()

    store = Store()
    batcher = Batcher(store.squares)
    started = time.perf_counter()
    squares = await asyncio.gather(*(batcher.get(n) for n in range(options.count)))
    elapsed = time.perf_counter() - started
    right = squares == [number**2 for number in range(options.count)]
    print(f"{options.count} calls, {store.trips} round trips, all right: {right}")

    store.trips = 0
    same = await asyncio.gather(*(batcher.get(7) for _ in range(1000)))
    print(f"{len(same)} calls for one key, {store.trips} round trip: {set(same)}")

    calls = [asyncio.create_task(batcher.get(number)) for number in range(3)]
    await asyncio.sleep(0)
    calls[1].cancel()
    outcome = await asyncio.gather(*calls, return_exceptions=True)
    print("one is cancelled:", *(repr(each) for each in outcome))
    bad = await asyncio.gather(batcher.get(1), batcher.get(-1), return_exceptions=True)
    print("one is wrong:", *(repr(each) for each in bad))
    print("the next batch:", await batcher.get(12))
    print(f"{options.count / elapsed:,.0f} calls/s")


if __name__ == "__main__":
    asyncio.run(main())

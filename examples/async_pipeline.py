"""Async generators as a pipeline, closed properly when the reader stops early.

Plain asyncio code: nothing here knows which event loop runs it.

    python examples/async_pipeline.py                          asyncio's loop
    python examples/run_with.py hotloop examples/async_pipeline.py

source -> parse -> batched -> async comprehension, over a real connection. Leaving an
`async for` does not close the generator: what it holds would stay open until the
garbage collector comes by. aclosing() closes it, and every stage its own source.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")
gone: asyncio.Queue[str] = asyncio.Queue()  # what the server says of its clients
closed: list[str] = []  # what the generators say when they end


async def numbers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The server: as many numbered lines as the client asked for."""
    count = int(await reader.readline())
    try:
        for start in range(0, count, 1000):
            lines = (f"{n}\n" for n in range(start, min(start + 1000, count)))
            writer.write("".join(lines).encode())
            await writer.drain()
            await asyncio.sleep(0)  # while there is room, drain() does not wait
    except ConnectionError:
        gone.put_nowait("server: the client has gone")
    writer.close()


async def lines(address: tuple[str, int], count: int) -> AsyncGenerator[bytes, None]:
    """The lines of one connection, which ends with the generator."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(b"%d\n" % count)
        async for line in reader:
            yield line
    finally:
        writer.close()
        await writer.wait_closed()
        closed.append("lines: closed")


async def parse(source: AsyncGenerator[bytes, None]) -> AsyncGenerator[int, None]:
    async with aclosing(source):
        async for line in source:
            yield int(line)


async def batched(
    source: AsyncGenerator[T, None], size: int
) -> AsyncGenerator[list[T], None]:
    batch: list[T] = []
    async with aclosing(source):
        async for item in source:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    if batch:
        yield batch


class Countdown:
    """An iterator as a class, for state that others look at meanwhile."""

    def __init__(self, start: int) -> None:
        self.left = start

    def __aiter__(self) -> Countdown:
        return self

    async def __anext__(self) -> int:
        if self.left == 0:
            raise StopAsyncIteration
        await asyncio.sleep(0)
        self.left -= 1
        return self.left


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=100_000, help="lines")
    options = parser.parse_args()
    server = await asyncio.start_server(numbers, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()[:2]
    async with server:
        started = time.perf_counter()
        pipeline = batched(parse(lines(address, options.count)), 100)
        sums = [sum(batch) async for batch in pipeline]
        elapsed = time.perf_counter() - started
        right = sum(sums) == sum(range(options.count))
        print(f"{len(sums)} batches, sum is right: {right}; {closed.pop()}")

        async with aclosing(parse(lines(address, 10_000_000))) as many:
            first = [number async for number in until(many, 5)]
        print(f"stopped early with {first}; {closed.pop()}")
        print(await gone.get())
    even = {number: number**2 async for number in Countdown(10) if number % 2 == 0}
    print(even)
    print(f"{options.count / elapsed:,.0f} lines/s")


async def until(source: AsyncIterator[int], end: int) -> AsyncGenerator[int, None]:
    """The items before `end`; the caller goes on owning the source."""
    async for number in source:
        if number == end:
            return
        yield number


if __name__ == "__main__":
    asyncio.run(main())

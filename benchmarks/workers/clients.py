"""Clients of a server: twenty tasks, each awaiting an answer before it asks again.

``python -m benchmarks.workers.clients LOOP WHAT ADDRESS SECONDS``. The loop under test
is the client's.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from ..child import answer, die_with_parent
from ..cputime import CpuMeter
from ..loops import loop_factory

TASKS = 20
WARMUP = 0.5
PIPELINE = 10
ROWS = 1000

Request = Callable[[], Awaitable[object]]


@asynccontextmanager
async def with_asyncpg(address: str) -> AsyncIterator[Request]:
    """One row by its key, over a pool of twenty connections."""
    import asyncpg

    async with asyncpg.create_pool(address, min_size=TASKS, max_size=TASKS) as pool:
        await pool.execute("DROP TABLE IF EXISTS item")
        await pool.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
        names = [(number, f"item {number}") for number in range(ROWS)]
        await pool.copy_records_to_table("item", records=names)
        await pool.execute("ANALYZE item")
        query = "SELECT id, name FROM item WHERE id = $1"

        async def one() -> None:
            async with pool.acquire() as connection:
                row = await connection.fetchrow(query, 77)
            assert row is not None and row["name"] == "item 77"

        yield one


@asynccontextmanager
async def with_redis(address: str) -> AsyncIterator[Request]:
    """A value set and read again."""
    import redis.asyncio

    async with redis.asyncio.from_url(address, max_connections=TASKS) as client:
        await client.set("key", b"x" * 100)

        async def one() -> None:
            assert len(await client.get("key")) == 100

        yield one


@asynccontextmanager
async def with_redis_pipeline(address: str) -> AsyncIterator[Request]:
    """Ten commands in one pipeline."""
    import redis.asyncio

    async with redis.asyncio.from_url(address, max_connections=TASKS) as client:

        async def one() -> None:
            async with client.pipeline(transaction=False) as pipe:
                for number in range(PIPELINE // 2):
                    pipe.set(f"key{number}", b"x" * 100)
                    pipe.get(f"key{number}")
                assert len(await pipe.execute()) == PIPELINE

        yield one


@asynccontextmanager
async def with_aiohttp(address: str) -> AsyncIterator[Request]:
    """A GET over connections that are kept."""
    import aiohttp

    connector = aiohttp.TCPConnector(limit=TASKS)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one() -> None:
            async with session.get(address) as response:
                await response.read()

        yield one


@asynccontextmanager
async def with_httpx(address: str) -> AsyncIterator[Request]:
    """A GET over connections that are kept."""
    import httpx

    async with httpx.AsyncClient() as client:

        async def one() -> None:
            (await client.get(address)).raise_for_status()

        yield one


CLIENTS: dict[str, Callable[[str], AbstractAsyncContextManager[Request]]] = {
    "asyncpg": with_asyncpg,
    "redis": with_redis,
    "redis-pipeline": with_redis_pipeline,
    "aiohttp-client": with_aiohttp,
    "httpx": with_httpx,
}


async def repeat(one: Request, until: float, latencies: list[float]) -> None:
    """Make requests until the clock says so, and note how long each took."""
    now = time.perf_counter()
    while now < until:
        await one()
        before, now = now, time.perf_counter()
        latencies.append(now - before)


async def load(one: Request, seconds: float) -> list[float]:
    """All the tasks at once; the sorted latencies."""
    latencies: list[float] = []
    until = time.perf_counter() + seconds
    await asyncio.gather(*(repeat(one, until, latencies) for _ in range(TASKS)))
    return sorted(latencies)


async def run(what: str, address: str, seconds: float) -> None:
    async with CLIENTS[what](address) as one:
        await load(one, WARMUP)
        meter = CpuMeter(os.getpid())
        meter.start()
        start = time.perf_counter()
        latencies = await load(one, seconds)
        count = len(latencies)
        figures = {
            "rate": count / (time.perf_counter() - start),
            "p50_us": latencies[count // 2] * 1e6,
            "p99_us": latencies[count * 99 // 100] * 1e6,
        }
        answer(figures | meter.stop(count))


def main() -> None:
    die_with_parent()
    loop, what, address, seconds = sys.argv[1:]
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(run(what, address, float(seconds)))


if __name__ == "__main__":
    main()

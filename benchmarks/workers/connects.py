"""Client with a connection per request.

``python -m benchmarks.workers.connects LOOP MODE PORT SIZE SECONDS``: several tasks
connect, send one request, await its answer and close, again and again. The server is
to be idle most of the time, so that the client limits the rate.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import cast

from ..child import answer, die_with_parent
from ..cputime import CpuMeter
from ..loops import loop_factory
from ..servers.serve import HOST

TASKS = 20
WARMUP = 0.3

Request = Callable[[], Awaitable[None]]


class OneRequest(asyncio.Protocol):
    """Sends a request, waits for its answer, closes."""

    __slots__ = ("done", "left", "request", "transport")

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.left = len(request)
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.left -= len(data)
        if self.left == 0:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.done.set_result(None)


def protocol(port: int, request: bytes) -> Request:
    """A transport and a protocol for every request."""
    loop = asyncio.get_running_loop()

    async def one() -> None:
        _, client = await loop.create_connection(
            lambda: OneRequest(request), HOST, port
        )
        await client.done

    return one


def streams(port: int, request: bytes) -> Request:
    """A reader and a writer for every request."""

    async def one() -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(request)
        await reader.readexactly(len(request))
        writer.close()
        await writer.wait_closed()

    return one


async def with_aiohttp(port: int, seconds: float) -> dict[str, float]:
    """aiohttp's client, told not to keep connections."""
    import aiohttp

    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    url = f"http://{HOST}:{port}/"
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one() -> None:
            async with session.get(url) as response:
                await response.read()

        return await measured(one, seconds)


async def repeat(one: Request, until: float) -> int:
    """Make requests until the clock says so; how many."""
    count = 0
    while time.perf_counter() < until:
        await one()
        count += 1
    return count


async def measured(one: Request, seconds: float) -> dict[str, float]:
    """Requests per second, and the CPU time of one."""
    await repeat(one, time.perf_counter() + WARMUP)
    meter = CpuMeter(os.getpid())
    meter.start()
    start = time.perf_counter()
    counts = await asyncio.gather(*(repeat(one, start + seconds) for _ in range(TASKS)))
    spent = time.perf_counter() - start
    return {"rate": sum(counts) / spent} | meter.stop(sum(counts))


async def run(mode: str, port: int, size: int, seconds: float) -> None:
    if mode == "aiohttp":
        done = await with_aiohttp(port, seconds)
    else:
        make = protocol if mode == "protocol" else streams
        done = await measured(make(port, b"x" * size), seconds)
    answer(done)


def main() -> None:
    die_with_parent()
    loop, mode, port, size, seconds = sys.argv[1:]
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(run(mode, int(port), int(size), float(seconds)))


if __name__ == "__main__":
    main()

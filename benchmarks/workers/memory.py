"""Worker of suite *memory*: resident bytes of one kind of object.

``python -m benchmarks.workers.memory LOOP ROW COUNT``
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from ..child import ROOT, answer, die_with_parent, module_command
from ..limits import raise_descriptor_limit
from ..loops import loop_factory

HOST = "127.0.0.1"
FAR_AWAY = 3600.0
BACKLOG = 1024
BATCH = 500
BATCH_SECONDS = 10.0
SPARE_DESCRIPTORS = 200
TURNS = 3
WARM_UP = 100


def resident_bytes() -> int:
    """Resident memory of this process, after a collection."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def nothing() -> None:
    """The callback of the timers."""


class Idle(asyncio.Protocol):
    """A connection that nobody uses."""

    __slots__ = ()
    made = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        Idle.made += 1


async def turns() -> None:
    """Let what was scheduled happen."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def timers(count: int) -> tuple[int, int]:
    """Pending timers, all at different times."""
    loop = asyncio.get_running_loop()

    def start(number: int) -> None:
        for i in range(number):
            loop.call_later(FAR_AWAY + i * 0.001, nothing)

    start(WARM_UP)
    await turns()
    before = resident_bytes()
    start(count)
    await turns()
    return resident_bytes() - before, count


async def tasks(count: int) -> tuple[int, int]:
    """Pending tasks with their coroutines, which all await one future."""
    loop = asyncio.get_running_loop()
    never: asyncio.Future[None] = loop.create_future()

    async def wait() -> None:
        await never

    kept: list[asyncio.Task[None] | None] = [None] * count
    warm_up = [loop.create_task(wait()) for _ in range(WARM_UP)]
    await turns()
    before = resident_bytes()
    for i in range(count):
        kept[i] = loop.create_task(wait())
    await turns()
    used = resident_bytes() - before
    never.set_result(None)
    for task in (*warm_up, *kept):
        if task is not None:
            await task
    return used, count


async def connections(count: int) -> tuple[int, int]:
    """Idle connections of a server; another process holds the other ends."""
    count = min(count, raise_descriptor_limit() - SPARE_DESCRIPTORS)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Idle, HOST, 0, backlog=BACKLOG)
    port = server.sockets[0].getsockname()[1]
    command = module_command("workers.connector", port)
    client = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE)
    try:
        await more_connections(client, WARM_UP)
        before = resident_bytes()
        await more_connections(client, count)
        return resident_bytes() - before, count
    finally:
        client.kill()
        client.wait()


async def more_connections(client: subprocess.Popen[bytes], count: int) -> None:
    """Have the client connect so often, in batches the backlog can hold."""
    assert client.stdin is not None
    for start in range(0, count, BATCH):
        batch = min(BATCH, count - start)
        client.stdin.write(b"%d\n" % batch)
        client.stdin.flush()
        await accepted(client, Idle.made + batch)


async def accepted(client: subprocess.Popen[bytes], wanted: int) -> None:
    """Wait until so many connections were made in all."""
    deadline = time.monotonic() + BATCH_SECONDS
    while Idle.made < wanted:
        if client.poll() is not None:
            raise RuntimeError(f"the client ended after {Idle.made} connections")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{wanted - Idle.made} connections are missing")
        await asyncio.sleep(0.001)


KINDS: dict[str, Callable[[int], Awaitable[tuple[int, int]]]] = {
    "timer": timers,
    "connection": connections,
    "task": tasks,
}


async def measure(kind: str, count: int) -> None:
    """Measure and answer; the parent ends this process after that."""
    used, number = await KINDS[kind](count)
    answer({"bytes": used / number, "count": number})


def main() -> None:
    """Measure one kind of object under one loop."""
    die_with_parent()
    loop, kind, count = sys.argv[1:]
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(measure(kind, int(count)))


if __name__ == "__main__":
    main()

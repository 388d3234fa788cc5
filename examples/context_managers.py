"""Async context managers: resources that are let go of, whatever happens.

Plain asyncio code: nothing here knows which event loop runs it.

    python examples/context_managers.py                        asyncio's loop
    python examples/run_with.py hotloop examples/context_managers.py

AsyncExitStack holds as many resources as turn out to be needed, and closes them in
reverse order: also those opened before one that fails to open, and also when the task
is cancelled. pop_all() hands them over once everything has come up.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

log: list[str] = []


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async for line in reader:
        writer.write(line)
        await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def serving(name: str) -> AsyncIterator[int]:
    """A server for the time of the block; gives its port."""
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    try:
        async with server:
            yield server.sockets[0].getsockname()[1]
    finally:
        log.append(f"{name} stopped")


class Connection:
    """A class that is a context manager: it connects in __aenter__."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def __aenter__(self) -> Connection:
        if self.port == 0:
            raise ConnectionRefusedError("port 0")
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        await self.writer.wait_closed()
        log.append("disconnected")

    async def ask(self, text: str) -> str:
        self.writer.write(text.encode() + b"\n")
        return (await self.reader.readline()).decode().rstrip()


class Cluster:
    """Servers and a connection to each; all of them, or none."""

    def __init__(self, names: Sequence[str], broken: bool = False) -> None:
        self.names, self.broken = names, broken

    async def __aenter__(self) -> Cluster:
        async with contextlib.AsyncExitStack() as stack:
            self.connections = []
            for name in self.names:
                port = await stack.enter_async_context(serving(name))
                port = 0 if self.broken and name == self.names[-1] else port
                connection = await stack.enter_async_context(Connection(port))
                self.connections.append(connection)
            stack.callback(log.append, "cluster stops")
            self.stack = stack.pop_all()  # from here on __aexit__ closes
        return self

    async def __aexit__(self, *details: object) -> None:
        await self.stack.aclose()


def take_log() -> str:
    text = ", ".join(log)
    log.clear()
    return text


async def wait_in_cluster(inside: asyncio.Event) -> None:
    async with Cluster(["one"]):
        inside.set()
        await asyncio.Event().wait()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=300, help="clusters")
    options = parser.parse_args()

    async with Cluster(["one", "two"]) as cluster:
        answers = [await each.ask("hello") for each in cluster.connections]
    print(*answers)
    print(take_log())
    try:
        async with Cluster(["one", "two"], broken=True):
            pass
    except ConnectionRefusedError as exc:
        print(f"{exc}: {take_log()}")
    inside = asyncio.Event()
    task = asyncio.create_task(wait_in_cluster(inside))
    await inside.wait()
    task.cancel()
    await asyncio.wait([task])
    print(f"cancelled={task.cancelled()}: {take_log()}")

    started = time.perf_counter()
    for _ in range(options.count):
        async with Cluster(["one", "two", "three"]) as cluster:
            await asyncio.gather(*(each.ask("ping") for each in cluster.connections))
    elapsed = time.perf_counter() - started
    print(f"{options.count} clusters came and went, {len(log)} steps")
    print(f"{options.count / elapsed:,.0f} clusters/s")


if __name__ == "__main__":
    asyncio.run(main())

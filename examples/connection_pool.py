"""A pool of connections: bounded, fair, and safe when its users are cancelled.

Plain asyncio code: nothing here knows which event loop runs it.

    python examples/connection_pool.py                         asyncio's loop
    python examples/run_with.py hotloop examples/connection_pool.py

A connection goes back only after a complete answer. After an error, a timeout or a
cancellation nobody knows what is still on its way in it, so it is closed instead, and
the next user gets a new one. The free connection used last is taken first, so that
those too many for the load are left idle.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Pool:
    """At most `size` connections to an address; use it with `async with`."""

    def __init__(self, address: tuple[str, int], size: int) -> None:
        self.address = address
        self.slots = asyncio.Semaphore(size)
        self.free: list[Connection] = []
        self.opened = 0

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        async with self.slots:
            reader, writer = await self._take()
            try:
                yield reader, writer
            except BaseException:
                writer.transport.abort()
                raise
            self.free.append((reader, writer))

    async def _take(self) -> Connection:
        while self.free:
            reader, writer = self.free.pop()
            # The server may have closed it while it was idle.
            if not (reader.at_eof() or writer.is_closing()):
                return reader, writer
            writer.close()
        self.opened += 1
        return await asyncio.open_connection(*self.address)

    async def __aenter__(self) -> Pool:
        return self

    async def __aexit__(self, *details: object) -> None:
        writers = [writer for _, writer in self.free]
        for writer in writers:
            writer.close()
        for writer in writers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        self.free.clear()


async def upper(pool: Pool, text: str) -> str:
    """One request: a line out, a line in."""
    async with pool.connection() as (reader, writer):
        writer.write(text.encode() + b"\n")
        return (await reader.readuntil()).decode().rstrip()


async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The server: upper case; never an answer to "hang"; closes after "bye"."""
    with contextlib.suppress(ConnectionError):
        async for line in reader:
            if line == b"hang\n":
                continue
            writer.write(line.upper())
            await writer.drain()
            if line == b"bye\n":
                break
    writer.close()


async def use_all_day(pool: Pool, users: int, count: int) -> int:
    """Returns how many answers were right."""

    async def use(user: int) -> int:
        right = 0
        for number in range(count):
            text = f"user {user} request {number}"
            right += await upper(pool, text) == text.upper()
        return right

    return sum(await asyncio.gather(*map(use, range(users))))


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--count", type=int, default=100, help="requests of each")
    options = parser.parse_args()
    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()[:2]
    async with server, Pool(address, size=10) as pool:
        started = time.perf_counter()
        right = await use_all_day(pool, options.users, options.count)
        elapsed = time.perf_counter() - started
        print(f"{right} right answers over {pool.opened} connections")

        for _ in range(3):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.02):
                    await upper(pool, "hang")
        print(f"three users gave up: {len(pool.free)} connections left")
        await upper(pool, "bye")
        reader, _ = pool.free[-1]
        await reader.read()  # until the end of file is there
        print(f"after the server closed one: {await upper(pool, 'still here')}")
        await use_all_day(pool, 50, 2)
        print(f"under load again: {len(pool.free)} connections")
    print(f"{right / elapsed:,.0f} requests/s")


if __name__ == "__main__":
    asyncio.run(main())

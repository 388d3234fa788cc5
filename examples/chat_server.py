"""A chat server: everybody in a room reads what anybody in it says.

Plain asyncio code: nothing here knows which event loop runs it.

    python examples/chat_server.py                             asyncio's loop
    python examples/run_with.py hotloop examples/chat_server.py
    python examples/chat_server.py --serve 127.0.0.1:8008      then: nc 127.0.0.1 8008

The first line of a client is its name, the second its room. Each member has a queue
and a task that sends from it: one who reads slowly delays nobody, and is thrown out
when its queue is full.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from collections import defaultdict

WAITING = 1000  # lines that a slow reader may be behind
MEMBERS = 20  # in each room, when the program tries itself
Address = tuple[str, int]


class Member:
    """One connection in a room; owns the task that writes to it."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.queue: asyncio.Queue[bytes] = asyncio.Queue(WAITING)
        self.sender = asyncio.create_task(self._send())

    def tell(self, line: bytes) -> None:
        try:
            self.queue.put_nowait(line)
        except asyncio.QueueFull:
            self.writer.transport.abort()  # its reader gets end of file and leaves

    async def _send(self) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                self.writer.write(await self.queue.get())
                await self.writer.drain()

    async def close(self) -> None:
        self.sender.cancel()
        self.writer.close()
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await self.sender
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


class Chat:
    """The rooms and who is in them."""

    def __init__(self) -> None:
        self.rooms: defaultdict[bytes, set[Member]] = defaultdict(set)

    def say(self, room: bytes, line: bytes) -> None:
        for member in self.rooms[room]:
            member.tell(line)

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        member = Member(writer)
        try:
            name = (await reader.readuntil()).strip()
            room = (await reader.readuntil()).strip()
            self.rooms[room].add(member)
            self.say(room, b"* %b is here\n" % name)
            try:
                async for line in reader:
                    self.say(room, b"%b: %b" % (name, line))
            finally:
                self.rooms[room].discard(member)
                self.say(room, b"* %b has left\n" % name)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            await member.close()


async def client(
    address: Address, name: str, room: str, everybody: asyncio.Barrier, expected: int
) -> int:
    """Says its lines and returns how many of the room it heard."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(f"{name}\n{room}\n".encode())
    own = f"* {name} is here\n".encode()
    while await reader.readline() != own:
        pass
    await everybody.wait()
    for number in range(expected // MEMBERS):
        writer.write(f"line {number}\n".encode())
        await writer.drain()
    heard = 0
    while heard < expected:
        line = await reader.readline()
        if not line:
            raise ConnectionError("thrown out")
        heard += not line.startswith(b"*")
    await everybody.wait()  # nobody leaves before all have heard everything
    writer.close()
    await writer.wait_closed()
    return heard


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", metavar="HOST:PORT")
    parser.add_argument("--rooms", type=int, default=5)
    parser.add_argument("--count", type=int, default=30, help="lines of each member")
    options = parser.parse_args()
    host, _, port = (options.serve or "127.0.0.1:0").rpartition(":")
    server = await asyncio.start_server(Chat().serve, host, int(port))
    async with server, asyncio.TaskGroup() as group:
        address = server.sockets[0].getsockname()[:2]
        if options.serve:
            print("serving on", *address, flush=True)
            await server.serve_forever()
        everybody = asyncio.Barrier(options.rooms * MEMBERS + 1)
        expected = MEMBERS * options.count
        tasks = [
            group.create_task(client(address, f"{n}", f"{room}", everybody, expected))
            for room in range(options.rooms)
            for n in range(MEMBERS)
        ]
        await everybody.wait()  # all are in their rooms
        started = time.perf_counter()
        await everybody.wait()
        elapsed = time.perf_counter() - started
    heard = [task.result() for task in tasks]
    print(f"{len(tasks)} clients said {options.count} lines each")
    print(f"{sum(heard)} lines delivered, {min(heard)} to {max(heard)} to each")
    print(f"{sum(heard) / elapsed:,.0f} lines/s")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())

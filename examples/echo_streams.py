"""A line echo server and its clients, with asyncio's streams.

Plain asyncio code: nothing here knows which event loop runs it.

    python examples/echo_streams.py                            asyncio's loop
    python examples/run_with.py hotloop examples/echo_streams.py

Each client sends numbered lines and checks every answer.
"""

from __future__ import annotations

import argparse
import asyncio
import time

CLIENTS = 20


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
    finally:
        writer.close()


async def client(host: str, port: int, name: int, count: int) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    for number in range(count):
        line = f"client {name} line {number}\n".encode()
        writer.write(line)
        answer = await reader.readline()
        if answer != line:
            raise ValueError(f"sent {line!r}, received {answer!r}")
    writer.close()
    await writer.wait_closed()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=500, help="lines of each client")
    count = parser.parse_args().count
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server:
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for name in range(CLIENTS):
                group.create_task(client(host, port, name, count))
        elapsed = time.perf_counter() - started
    print(f"{CLIENTS * count} lines echoed")
    print(f"{CLIENTS * count / elapsed:,.0f} lines/s")


if __name__ == "__main__":
    asyncio.run(main())

"""A line echo server and its clients, with asyncio's streams.

Plain asyncio code: nothing here knows which event loop runs it.

    python examples/echo_streams.py                            asyncio's loop
    python examples/run_with.py hotloop examples/echo_streams.py

Each client sends numbered lines and checks every answer.
"""

from __future__ import annotations

import asyncio
import time

CLIENTS = 20
LINES = 500


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
    finally:
        writer.close()


async def client(host: str, port: int, name: int) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    for number in range(LINES):
        line = f"client {name} line {number}\n".encode()
        writer.write(line)
        answer = await reader.readline()
        if answer != line:
            raise ValueError(f"sent {line!r}, received {answer!r}")
    writer.close()
    await writer.wait_closed()


async def main() -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server:
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for name in range(CLIENTS):
                group.create_task(client(host, port, name))
        elapsed = time.perf_counter() - started
    loop = type(asyncio.get_running_loop())
    print(
        f"{loop.__module__}.{loop.__qualname__}: {CLIENTS * LINES} lines echoed "
        f"in {elapsed:.2f} s, {CLIENTS * LINES / elapsed:,.0f} per second"
    )


if __name__ == "__main__":
    asyncio.run(main())

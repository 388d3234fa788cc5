"""Echo server: ``python -m benchmarks.servers.echo LOOP MODE SIZE``."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable
from typing import Any, cast

from .serve import BACKLOG, HOST, run_server, serve_until_killed

HEAD = 64
CHUNK = 64 * 1024


class Echo(asyncio.Protocol):
    """Writes what it receives."""

    __slots__ = ("transport",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class TwoWrites(Echo):
    """Answers with a head and a body, in two writes."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        self.transport.write(data[:HEAD])
        self.transport.write(data[HEAD:])


class BufferedEcho(asyncio.BufferedProtocol):
    """Receives into its own buffer and writes a copy of what is there."""

    __slots__ = ("buffer", "transport")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.buffer = memoryview(bytearray(CHUNK))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(bytes(self.buffer[:nbytes]))


async def echo_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Echo whatever `read` returns."""
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    writer.close()


async def echo_lines(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Echo line by line."""
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.close()


PROTOCOLS: dict[str, Callable[[], asyncio.BaseProtocol]] = {
    "protocol": Echo,
    "two_writes": TwoWrites,
    "buffered": BufferedEcho,
}
HANDLERS = {"streams_read": echo_read, "streams_readline": echo_lines}


def start_server(loop: str) -> Any:
    """The start_server() of the loop itself where it has one, else asyncio's."""
    module: Any = importlib.import_module("hotloop") if loop == "hotloop" else asyncio
    return module.start_server


async def serve(loop: str, mode: str, size: int) -> None:
    """Serve one mode for ever."""
    if mode in PROTOCOLS:
        server = await asyncio.get_running_loop().create_server(
            PROTOCOLS[mode], HOST, 0, backlog=BACKLOG
        )
    else:
        limit = max(64 * 1024, 2 * size)
        start = start_server(loop) if mode.startswith("c") else asyncio.start_server
        handler = HANDLERS[mode.removeprefix("c")]
        server = await start(handler, HOST, 0, backlog=BACKLOG, limit=limit)
    await serve_until_killed(server.sockets[0].getsockname()[1])


def main() -> None:
    loop, mode, size = sys.argv[1:]
    run_server(loop, serve(loop, mode, int(size)))


if __name__ == "__main__":
    main()

"""TLS server: ``python -m benchmarks.servers.tls LOOP MODE CERTIFICATE KEY``."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Callable
from typing import cast

from .echo import BufferedEcho, Echo, echo_read
from .serve import BACKLOG, HOST, run_server, serve_until_killed, server_context

BLOCK = bytes(256 * 1024)


class Sink(asyncio.Protocol):
    """Counts what it receives."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def data_received(self, data: bytes) -> None:
        self.count += len(data)


class Source(asyncio.Protocol):
    """Writes as fast as the transport lets it, a block each turn of the loop."""

    __slots__ = ("closed", "loop", "paused", "transport")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.loop = asyncio.get_running_loop()
        self.paused = self.closed = False
        self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.loop.call_soon(self.send)

    def send(self) -> None:
        """Write a block, and the next one soon unless told to pause."""
        if self.paused or self.closed:
            return
        self.transport.write(BLOCK)
        if not self.paused:
            self.loop.call_soon(self.send)


PROTOCOLS: dict[str, Callable[[], asyncio.BaseProtocol]] = {
    "echo": Echo,
    "buffered": BufferedEcho,
    "sink": Sink,
    "source": Source,
}


async def serve(mode: str, context: ssl.SSLContext) -> None:
    """Serve one mode for ever."""
    if mode == "streams":
        server = await asyncio.start_server(
            echo_read, HOST, 0, backlog=BACKLOG, ssl=context
        )
    else:
        server = await asyncio.get_running_loop().create_server(
            PROTOCOLS[mode], HOST, 0, backlog=BACKLOG, ssl=context
        )
    await serve_until_killed(server.sockets[0].getsockname()[1])


def main() -> None:
    loop, mode, chain, key = sys.argv[1:]
    run_server(loop, serve(mode, server_context(chain, key)))


if __name__ == "__main__":
    main()

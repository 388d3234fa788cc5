"""Helpers of the tests that need a server: serving, its protocols, its end."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from support import Recorder, until


class Echo(asyncio.Protocol):
    """Sends back what it gets; closes when the peer does."""

    transport: Any

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Keeper:
    """A protocol factory that keeps what it made."""

    def __init__(self) -> None:
        self.protocols: list[Recorder] = []

    def __call__(self) -> Recorder:
        self.protocols.append(Recorder())
        return self.protocols[-1]

    async def connected(self, count: int = 1) -> None:
        """Wait until so many connections have begun."""
        await until(lambda: len(self.protocols) >= count)
        for protocol in self.protocols:
            await protocol.connected

    async def closed(self) -> None:
        """Close every connection and wait for its end."""
        for protocol in self.protocols:
            protocol.transport.close()
            await protocol.closed


async def serve(factory: Any = Recorder, **kwargs: Any) -> tuple[Any, Any]:
    """A TCP server of the running loop and its address; the test stops it."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(factory, "127.0.0.1", 0, **kwargs)
    return server, server.sockets[0].getsockname()


async def stop(server: Any) -> None:
    """Close a server and wait until its connections have ended."""
    server.close()
    await server.wait_closed()


async def visit(address: Any) -> None:
    """Connect to a TCP server and close, saying nothing."""
    _, writer = await asyncio.open_connection(*address)
    await leave(writer)


async def leave(writer: Any) -> None:
    """Close a stream writer and wait for the end."""
    writer.close()
    await writer.wait_closed()


def unused_port(family: int = socket.AF_INET, host: str = "127.0.0.1") -> int:
    """A port that nobody listens on."""
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        port: int = sock.getsockname()[1]
        return port

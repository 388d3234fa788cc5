"""The table of scenarios, and the ends of connections that they use."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import support

SCENARIOS: dict[str, Callable[[Any], Any]] = {}


def scenario(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    SCENARIOS[function.__name__] = function
    return function


class End(asyncio.Protocol):
    """Counts what it gets, and knows when it is over."""

    def __init__(self) -> None:
        self.size = 0
        self.transport: Any = None
        loop = asyncio.get_running_loop()
        self.made = loop.create_future()
        self.lost = loop.create_future()
        self.wanted: tuple[int, Any] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.made.set_result(None)

    def data_received(self, data: bytes) -> None:
        self.size += len(data)
        if self.wanted is not None and self.size >= self.wanted[0]:
            self.wanted[1].set_result(None)
            self.wanted = None

    def connection_lost(self, error: BaseException | None) -> None:
        if not self.made.done():
            self.made.cancel()
        self.lost.set_result(error)

    async def got(self, size: int) -> None:
        """Wait until so much has come; what ended the connection is raised."""
        if self.size < size:
            future = asyncio.get_running_loop().create_future()
            self.wanted = size, future
            await asyncio.wait({future, self.lost}, return_when="FIRST_COMPLETED")
            if not future.done():
                future.cancel()
                raise ConnectionError("over too early") from self.lost.result()


class Buffered(End, asyncio.BufferedProtocol):
    def __init__(self) -> None:
        super().__init__()
        self.buffer = bytearray(4096)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self.buffer[:nbytes]))


async def swallow(sock: socket.socket, size: int) -> None:
    """Read so much from a plain socket."""
    while size > 0:
        size -= len(await asyncio.get_running_loop().sock_recv(sock, 1_000_000))


async def drop(*transports: Any) -> None:
    """Abort what there is of these transports and let them end."""
    for transport in transports:
        if transport is not None:
            transport.abort()
    await support.turns(3)


@contextlib.asynccontextmanager
async def pair(
    protocol: type[Any] = End, make: Callable[[], Any] = support.tcp_pair
) -> AsyncIterator[tuple[Any, Any, socket.socket]]:
    """A transport, its protocol, and the plain socket at the far end."""
    near, far = make()
    end = protocol()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_accepted_socket(lambda: end, near)
    try:
        yield transport, end, far
    finally:
        far.close()
        await drop(transport)

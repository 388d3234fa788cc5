"""Helpers of the datagram tests: recording protocols and endpoints."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from support import PY, turns

HEADER = 8 if PY >= (3, 13) else 0


class Recorder(asyncio.DatagramProtocol):
    """Writes down everything that happens to it."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.got: list[tuple[bytes, Any]] = []
        self.errors: list[BaseException] = []
        self.lost: list[BaseException | None] = []
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.events.append("made")
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.got.append((data, addr))

    def error_received(self, exc: BaseException) -> None:
        self.errors.append(exc)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.events.append("lost")
        self.lost.append(exc)

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    @property
    def data(self) -> list[bytes]:
        return [data for data, _ in self.got]


class Echo(Recorder):
    """Sends back what it receives."""

    def datagram_received(self, data: bytes, addr: Any) -> None:
        super().datagram_received(data, addr)
        self.transport.sendto(data, addr)


async def endpoint(protocol: Any = None, **options: Any) -> tuple[Any, Any]:
    """An endpoint of the running loop, on a free UDP port unless told."""
    loop: Any = asyncio.get_running_loop()
    protocol = Recorder() if protocol is None else protocol
    if not options:
        options = {"local_addr": ("127.0.0.1", 0)}
    return await loop.create_datagram_endpoint(lambda: protocol, **options)


async def adopt(sock: socket.socket, protocol: Any = None) -> tuple[Any, Any]:
    """An endpoint on a socket that exists."""
    return await endpoint(protocol, sock=sock)


def udp_socket(*, connected_to: Any = None) -> socket.socket:
    """A bound, non-blocking UDP socket."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    if connected_to is not None:
        sock.connect(connected_to)
    sock.setblocking(False)
    return sock


def address(transport: Any) -> Any:
    return transport.get_extra_info("sockname")


def received(sock: socket.socket) -> list[bytes]:
    """What waits in a non-blocking socket."""
    found = []
    while True:
        try:
            found.append(sock.recv(1 << 18))
        except BlockingIOError:
            return found


async def finish(*transports: Any) -> None:
    """Abort the transports, and let connection_lost run."""
    for transport in transports:
        transport.abort()
    await turns(3)

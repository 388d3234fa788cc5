"""Rows in which two tasks of one loop talk through ``sock_*`` calls."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

HOST = "127.0.0.1"
SIZE = 512
RESET = struct.pack("ii", 1, 0)


@contextmanager
def unblocked(kind: socket.SocketKind) -> Iterator[socket.socket]:
    """A non-blocking socket of this kind, bound to a free port."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.setblocking(False)
        sock.bind((HOST, 0))
        yield sock


async def datagrams(rounds: int) -> None:
    """Two tasks exchange datagrams; counts every one received."""
    loop = asyncio.get_running_loop()

    async def echo(sock: socket.socket) -> None:
        for _ in range(rounds):
            data, peer = await loop.sock_recvfrom(sock, 65536)
            await loop.sock_sendto(sock, data, peer)

    kind = socket.SOCK_DGRAM
    with unblocked(kind) as near, unblocked(kind) as far:
        echoing = loop.create_task(echo(far))
        data, target = b"x" * SIZE, far.getsockname()
        for _ in range(rounds):
            await loop.sock_sendto(near, data, target)
            await loop.sock_recvfrom(near, 65536)
        await echoing


async def connections(rounds: int) -> None:
    """One task connects, another one accepts, both close.

    The client resets, so that no port stays taken.
    """
    loop = asyncio.get_running_loop()

    async def accept(listener: socket.socket) -> None:
        for _ in range(rounds):
            conn, _ = await loop.sock_accept(listener)
            conn.close()

    with unblocked(socket.SOCK_STREAM) as listener:
        listener.listen(16)
        target = listener.getsockname()
        accepting = loop.create_task(accept(listener))
        for _ in range(rounds):
            with socket.socket() as sock:
                sock.setblocking(False)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                await loop.sock_connect(sock, target)
        await accepting

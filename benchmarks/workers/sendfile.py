"""Sends a file: ``python -m benchmarks.workers.sendfile LOOP ROW MIB TIMES``.

Answers with the CPU nanoseconds of this process for one file of so many MiB,
the least of several times, and with the seconds it took. A child process
receives it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import IO

from ..child import answer, die_with_parent
from ..loops import loop_factory
from ..suites.sendfile import MIB

CHUNK = 1 << 20


def receive(sock: socket.socket) -> None:
    """In the child: throw everything away until the stream ends."""
    buffer = bytearray(CHUNK)
    flags = socket.MSG_TRUNC if sys.platform == "linux" else 0
    while sock.recv_into(buffer, 0, flags):
        pass


def connected() -> socket.socket:
    """A TCP socket whose other end a child process reads."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    if os.fork() == 0:
        near.close()
        receive(far)
        os._exit(0)
    far.close()
    near.setblocking(False)
    return near


class Writer(asyncio.Protocol):
    """Knows when everything was written."""

    def __init__(self) -> None:
        self.drained = asyncio.Event()

    def resume_writing(self) -> None:
        self.drained.set()


async def transport_of(sock: socket.socket) -> tuple[asyncio.Transport, Writer]:
    """A transport for the socket, and its protocol."""
    loop = asyncio.get_running_loop()
    transport, writer = await loop.connect_accepted_socket(Writer, sock)
    transport.set_write_buffer_limits(0)
    return transport, writer


async def by_sendfile(sock: socket.socket, file: IO[bytes]) -> None:
    """``loop.sendfile`` on a transport."""
    transport, _ = await transport_of(sock)
    await asyncio.get_running_loop().sendfile(transport, file, fallback=False)


async def by_sock_sendfile(sock: socket.socket, file: IO[bytes]) -> None:
    """``loop.sock_sendfile``."""
    await asyncio.get_running_loop().sock_sendfile(sock, file, fallback=False)


async def by_write(sock: socket.socket, file: IO[bytes]) -> None:
    """Read the file piece by piece into the transport."""
    transport, writer = await transport_of(sock)
    while data := file.read(CHUNK):
        writer.drained.clear()
        transport.write(data)
        if transport.get_write_buffer_size():
            await writer.drained.wait()


WAYS: dict[str, Callable[[socket.socket, IO[bytes]], Awaitable[None]]] = {
    "sendfile": by_sendfile,
    "sock_sendfile": by_sock_sendfile,
    "write": by_write,
}


async def measure(row: str, file: IO[bytes], times: int) -> dict[str, float]:
    """Send the file so many times."""
    best = {"ns": float("inf"), "seconds": 0.0}
    for _ in range(times):
        file.seek(0)
        sock = connected()
        wall, cpu = time.monotonic(), time.process_time_ns()
        await WAYS[row](sock, file)
        spent = time.process_time_ns() - cpu
        if spent < best["ns"]:
            best = {"ns": spent, "seconds": time.monotonic() - wall}
    return best


def main() -> None:
    die_with_parent()
    loop, row, mib, times = sys.argv[1:]
    try:
        with tempfile.TemporaryFile() as file:
            for _ in range(int(mib)):
                file.write(os.urandom(MIB))
            file.flush()
            with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
                answer(runner.run(measure(row, file, int(times))))
    except Exception as exc:
        answer({"error": f"{type(exc).__name__}: {exc}"})


if __name__ == "__main__":
    main()

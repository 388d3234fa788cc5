"""Echo server of ``sock_*`` calls: ``python -m benchmarks.servers.sock LOOP MODE``."""

from __future__ import annotations

import asyncio
import socket
import sys

from .serve import BACKLOG, HOST, announce, run_server

CHUNK = 64 * 1024


async def echo_recv(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    """Echo with sock_recv."""
    while data := await loop.sock_recv(sock, CHUNK):
        await loop.sock_sendall(sock, data)


async def echo_recv_into(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    """Echo with sock_recv_into."""
    buffer = memoryview(bytearray(CHUNK))
    while size := await loop.sock_recv_into(sock, buffer):
        await loop.sock_sendall(sock, buffer[:size])


HANDLERS = {"recv": echo_recv, "recv_into": echo_recv_into}


async def serve(mode: str) -> None:
    """Serve one mode for ever."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def handle(sock: socket.socket) -> None:
        with sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await HANDLERS[mode](loop, sock)

    with socket.create_server((HOST, 0), backlog=BACKLOG) as listener:
        listener.setblocking(False)
        announce(listener.getsockname()[1])
        while True:
            sock, _ = await loop.sock_accept(listener)
            task = loop.create_task(handle(sock))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


def main() -> None:
    loop, mode = sys.argv[1:]
    run_server(loop, serve(mode))


if __name__ == "__main__":
    main()

"""A server replaced while it serves: the new process gets the listening socket.

    python examples/handover.py

Needs hotloop: asyncio's transports cannot send descriptors (docs/sockets.md).

The old process sends the open socket over a Unix socket, after the kernel has told it
who is at the other end. The new one says when it serves; only then does the old one
stop accepting. Clients that connect all the time are never refused.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import struct
import sys
import tempfile
import time
from asyncio.subprocess import Process
from pathlib import Path
from typing import Any, cast

import hotloop

Address = tuple[str, int]
Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class WhoAmI(asyncio.Protocol):
    """Answers with the number of its process, and hangs up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(b"%d\n" % os.getpid())
        transport.close()


async def take_over(path: str) -> None:
    """The new process. This one ends when the old one lets go of it."""
    reader, writer = await asyncio.open_unix_connection(path)
    transport: Any = writer.transport
    transport.recv_fds()  # from now on, keep what arrives
    writer.write(b"give\n")
    await reader.readexactly(1)  # the byte that the descriptor came with
    (fd,) = transport.recv_fds()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(WhoAmI, sock=socket.socket(fileno=fd))
    async with server:
        writer.write(b"serving\n")
        await reader.read()
    writer.close()


def process_at(writer: asyncio.StreamWriter) -> int:
    """Which process of our user is at the other end; 0 for another user's."""
    sock = writer.get_extra_info("socket")
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, _ = struct.unpack("3i", found)
    return int(pid) if uid == os.getuid() else 0


async def hand_over(
    server: asyncio.Server, path: str, clean_up: contextlib.ExitStack
) -> Process:
    """Have a new process take the server's socket, and stop accepting."""
    peers: asyncio.Queue[Peer] = asyncio.Queue()
    entrance = await asyncio.start_unix_server(
        lambda reader, writer: peers.put_nowait((reader, writer)), path
    )
    command = [sys.executable, __file__, "--take", path]
    process = await asyncio.create_subprocess_exec(*command)
    try:
        reader, writer = await peers.get()
        clean_up.callback(writer.close)
        while process_at(writer) != process.pid:
            writer.close()
            reader, writer = await peers.get()
            clean_up.callback(writer.close)
        await reader.readuntil()
        transport: Any = writer.transport
        transport.send_fds(b"L", server.sockets)
        await reader.readuntil()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    finally:
        entrance.close()
    server.close()
    return process


async def visit(address: Address) -> int:
    """Returns which process answered; raises if nobody listens."""
    reader, writer = await asyncio.open_connection(*address)
    pid = int(await reader.readuntil())
    writer.close()
    await writer.wait_closed()
    return pid


async def visit_until(address: Address, stop: asyncio.Event) -> int:
    visits = 0
    while not stop.is_set():
        await visit(address)
        visits += 1
    return visits


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--take", metavar="PATH", help="be the new process")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--count", type=int, default=2000, help="visits at the end")
    options = parser.parse_args()
    if options.take:
        return await take_over(options.take)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(WhoAmI, "127.0.0.1", 0)
    with contextlib.ExitStack() as clean_up:
        clean_up.callback(server.close)
        folder = clean_up.enter_context(tempfile.TemporaryDirectory())
        address = server.sockets[0].getsockname()
        print("the old process answers:", await visit(address) == os.getpid())
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group, asyncio.timeout(60):
            clients = [
                group.create_task(visit_until(address, stop))
                for _ in range(options.clients)
            ]
            path = str(Path(folder, "handover"))
            process = await hand_over(server, path, clean_up)
            stop.set()
        print("visits meanwhile, none refused:", all(task.result() for task in clients))
        started = time.perf_counter()
        pids = {await visit(address) for _ in range(options.count)}
        elapsed = time.perf_counter() - started
        print("then only the new one answers:", pids == {process.pid})
    print("it has ended:", await process.wait())
    print(f"{options.count / elapsed:,.0f} connections/s")


if __name__ == "__main__":
    hotloop.run(main())

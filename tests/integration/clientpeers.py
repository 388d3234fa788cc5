"""What clients of HTTP are tested against: servers of aiohttp.web, and a proxy."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import web

from support import until

MIB = 1 << 20


@contextlib.asynccontextmanager
async def serving(
    *routes: web.RouteDef, host: str = "127.0.0.1", port: int = 0, **options: Any
) -> AsyncIterator[int]:
    """An aiohttp server of the running loop; gives its port."""
    app = web.Application(client_max_size=1 << 30)
    app.add_routes(routes)
    tls = options.pop("ssl", None)
    options.setdefault("access_log", None)
    options.setdefault("shutdown_timeout", 1)
    runner = web.AppRunner(app, **options)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def serving_streams(handler: Any, **options: Any) -> AsyncIterator[int]:
    """A server on asyncio's streams, for answers that no HTTP server gives.

    It waits for its handlers, as wait_closed() does only since Python 3.12.
    """
    tasks: set[Any] = set()

    async def handle(reader: Any, writer: Any) -> None:
        tasks.add(asyncio.current_task())
        await handler(reader, writer)

    server = await asyncio.start_server(handle, "127.0.0.1", 0, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
        if tasks:
            await asyncio.wait(tasks)


async def request_head(reader: asyncio.StreamReader) -> bytes:
    """The head of the next request, empty when there is none."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return b""


@contextlib.contextmanager
def full_listener(host: str = "127.0.0.1", port: int = 0) -> Any:
    """An address to which connecting neither succeeds nor fails."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((host, port))
        listener.listen(0)
        # One connection fits into the queue; that the next one waits is Linux.
        for _ in range(2):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def block(number: int, size: int) -> bytes:
    """Bytes that differ from block to block, the same in every run."""
    seed = hashlib.sha256(b"%d" % number).digest()
    return (seed * (size // len(seed) + 1))[:size]


def checksum_of(blocks: int, size: int) -> str:
    """The digest of so many blocks, one after the other."""
    digest = hashlib.sha256()
    for number in range(blocks):
        digest.update(block(number, size))
    return digest.hexdigest()


class Source:
    """A body in blocks that counts how many were asked for."""

    def __init__(self, blocks: int, size: int) -> None:
        self.blocks, self.size = blocks, size
        self.made = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.made < self.blocks:
            self.made += 1
            yield block(self.made - 1, self.size)

    async def stalled(self) -> None:
        """Wait until the blocks are no longer asked for."""
        await standstill(lambda: self.made)


async def standstill(value: Callable[[], Any], seconds: float = 0.1) -> None:
    """Wait until the value has begun to grow and then stands for a while."""
    await until(value)
    loop = asyncio.get_running_loop()
    seen, since = value(), loop.time()
    while loop.time() - since < seconds:
        await asyncio.sleep(0.005)
        if value() != seen:
            seen, since = value(), loop.time()


class Proxy:
    """A proxy for CONNECT: relays bytes, asks for a password where told to."""

    def __init__(self, login: str | None = None) -> None:
        self.login = login
        self.targets: list[str] = []
        self.open = 0

    async def __call__(self, reader: Any, writer: Any) -> None:
        self.open += 1
        try:
            await self.serve(reader, writer)
        finally:
            self.open -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def serve(self, reader: Any, writer: Any) -> None:
        head = (await request_head(reader)).decode("latin-1")
        if not head:
            return
        method, target, _ = head.split("\r\n")[0].split()
        assert method == "CONNECT"
        if not self.admits(head):
            writer.write(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n")
            return
        self.targets.append(target)
        host, port = target.rsplit(":", 1)
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        try:
            await asyncio.gather(
                self.relay(reader, far_writer), self.relay(far_reader, writer)
            )
        finally:
            far_writer.close()
            with contextlib.suppress(OSError):
                await far_writer.wait_closed()

    def admits(self, head: str) -> bool:
        if self.login is None:
            return True
        word = base64.b64encode(self.login.encode()).decode()
        return f"proxy-authorization: basic {word}".lower() in head.lower()

    async def relay(self, reader: Any, writer: Any) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

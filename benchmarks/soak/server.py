"""The process under test: ``python -m benchmarks.soak.server LOOP CHAIN KEY FAULT``.

FAULT is a defect made on purpose, to see that it is found: see `FAULTS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import socket
import ssl
import struct
import sys
from typing import Any, cast

import aiohttp
from aiohttp import web

from ..child import answer
from ..servers.serve import BACKLOG, HOST, server_context
from .chores import Chores
from .inside import figures, obey, run, trim
from .wire import (
    END,
    HANG_UP,
    HEADER,
    LIMIT,
    Account,
    Damage,
    Sums,
    check,
    message,
    read_message,
    some_bytes,
    split,
)

FAULTS = ("none", "leak", "lost-byte", "kept-socket")
LEAK_BYTES = 100
LOSE_ONE_IN = 300
KEEP_ONE_IN = 20
IDLE_SECONDS = 3600.0
DATAGRAM = struct.Struct("!QI")


class Server:
    """All services, one account."""

    def __init__(self, account: Account, fault: str, leak: int = LEAK_BYTES) -> None:
        self.account = account
        self.fault = fault
        self.leak = leak
        self.requests = 0
        self.kept: list[Any] = []
        self.chores = Chores(account)

    def opened(self, kind: str, sock: Any) -> None:
        """Count a connection."""
        self.account.add(f"{kind} opened")
        number = self.account.counts[f"{kind} opened"]
        if self.fault == "kept-socket" and number % KEEP_ONE_IN == 0:
            self.kept.append(socket.socket(fileno=os.dup(sock.fileno())))

    def answer(self, sums: Sums, payload: bytes, wanted: int) -> bytes:
        """Return what is to be sent for one message."""
        self.requests += 1
        self.account.add("bytes received", len(payload))
        if self.fault == "leak":
            self.kept.append(bytes(self.leak))
        if wanted == END:
            sums.compare(payload)
            self.account.add("compared")
            return message(sums.packed(), END)
        sums.receiving(payload)
        reply = some_bytes(wanted)
        sums.sending(reply)
        self.account.add("bytes sent", wanted)
        data = message(reply, 0)
        if self.fault == "lost-byte" and self.requests % LOSE_ONE_IN == 0:
            return data[:-1]
        return data

    async def stream(
        self, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve one connection through a stream."""
        sums = Sums()
        self.opened(kind, writer.get_extra_info("socket"))
        try:
            while True:
                try:
                    async with asyncio.timeout(IDLE_SECONDS):
                        payload, wanted = await read_message(reader)
                except asyncio.IncompleteReadError as exc:
                    if exc.partial or reader.exception() is not None:
                        self.account.add(f"{kind} cut short")
                    else:  # the peer has sent all, and may still read
                        writer.write(message(sums.packed(), END))
                    break
                if wanted == HANG_UP:
                    writer.transport.abort()
                    break
                writer.write(self.answer(sums, payload, wanted))
                await writer.drain()
        except Damage as exc:
            self.account.error(kind, exc)
        except OSError:
            self.account.add(f"{kind} reset")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            self.account.add(f"{kind} closed")

    async def http(self, request: web.Request) -> web.Response:
        """Answer a request whose path says how much is wanted."""
        payload = await request.read()
        check(payload, int(request.headers["X-Sum"]))
        reply = self.answer(Sums(), payload, int(request.match_info["wanted"]))
        return web.Response(body=reply)

    async def websocket(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one WebSocket."""
        socket_ = web.WebSocketResponse(max_msg_size=2 * LIMIT, compress=False)
        await socket_.prepare(request)
        transport = request.transport
        assert transport is not None
        sums = Sums()
        self.opened("websocket", transport.get_extra_info("socket"))
        try:
            async for received in socket_:
                if received.type is not aiohttp.WSMsgType.BINARY:
                    continue
                payload, wanted = split(received.data)
                if wanted == HANG_UP:
                    transport.abort()
                    break
                await socket_.send_bytes(self.answer(sums, payload, wanted))
        except Damage as exc:
            self.account.error("websocket", exc)
        except OSError:
            self.account.add("websocket reset")
        finally:
            self.account.add("websocket closed")
        return socket_

    async def sample(self) -> dict[str, Any]:
        """Say how it looks inside."""
        return figures(self.account)

    async def go(self) -> dict[str, Any]:
        """Begin with the chores, or go on."""
        self.chores.go()
        return {}

    async def quiet(self) -> dict[str, Any]:
        """Stand still; give back all that is free."""
        await self.chores.stop()
        trim()
        return figures(self.account)


class Framed(asyncio.Protocol):
    """The same service without a stream: a buffer, and flow control."""

    transport: asyncio.Transport

    def __init__(self, server: Server) -> None:
        self.server = server
        self.sums = Sums()
        self.buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.server.opened("protocol", transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while len(self.buffer) >= HEADER.size and not self.transport.is_closing():
            length, wanted, _ = HEADER.unpack_from(self.buffer)
            end = HEADER.size + length
            if len(self.buffer) < end:
                break
            whole = bytes(memoryview(self.buffer)[:end])
            del self.buffer[:end]
            self.serve(whole, wanted)

    def serve(self, whole: bytes, wanted: int) -> None:
        """Answer one message."""
        if wanted == HANG_UP:
            self.transport.abort()
            return
        try:
            payload, _ = split(whole)
            self.transport.write(self.server.answer(self.sums, payload, wanted))
        except Damage as exc:
            self.server.account.error("protocol", exc)
            self.transport.abort()

    def eof_received(self) -> None:
        if self.buffer:
            self.server.account.add("protocol cut short")
        else:
            self.transport.write(message(self.sums.packed(), END))

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.account.add("protocol closed")


class Datagrams(asyncio.DatagramProtocol):
    """Sends back each datagram."""

    transport: asyncio.DatagramTransport

    def __init__(self, account: Account) -> None:
        self.account = account

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No isinstance(): uvloop's is none of asyncio's.
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: Any) -> None:
        _, crc = DATAGRAM.unpack_from(data)
        try:
            check(data[DATAGRAM.size :], crc)
        except Damage as exc:
            self.account.error("datagram", exc)
        self.account.add("datagrams received")
        self.transport.sendto(data, address)

    def error_received(self, exc: Exception) -> None:
        self.account.add("datagram errors")


async def start(server: Server, context: ssl.SSLContext) -> dict[str, int]:
    """Start all services and return their ports."""
    loop = asyncio.get_running_loop()
    app = web.Application(client_max_size=2 * LIMIT)
    app.router.add_post("/{wanted}", server.http)
    app.router.add_get("/", server.websocket)
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=IDLE_SECONDS)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0, backlog=BACKLOG).start()

    async def stream(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await server.stream("stream", reader, writer)

    async def tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.stream("tls", reader, writer)

    # Beside asyncio's streams those of hotloop, where that is the loop.
    own = importlib.import_module(
        "hotloop" if type(loop).__module__.startswith("hotloop") else "asyncio"
    )
    started = {
        "stream": await asyncio.start_server(stream, HOST, 0, backlog=BACKLOG),
        "tls": await own.start_server(tls, HOST, 0, backlog=BACKLOG, ssl=context),
        "protocol": await loop.create_server(
            lambda: Framed(server), HOST, 0, backlog=BACKLOG
        ),
    }
    ports = {k: s.sockets[0].getsockname()[1] for k, s in started.items()}
    ports["http"] = ports["websocket"] = runner.addresses[0][1]
    transport, _ = await loop.create_datagram_endpoint(
        lambda: Datagrams(server.account), (HOST, 0)
    )
    ports["datagram"] = transport.get_extra_info("sockname")[1]
    server.kept.append((started, runner))
    return ports


async def main(account: Account) -> None:
    """Serve until standard input ends."""
    chain, key, fault, leak = sys.argv[2:]
    server = Server(account, fault, int(leak))
    answer(await start(server, server_context(chain, key)))
    await obey({"sample": server.sample, "go": server.go, "quiet": server.quiet})


if __name__ == "__main__":
    run(sys.argv[1], main)

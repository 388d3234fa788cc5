"""The clients of the load: one class for each kind of connection."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import socket
import ssl
import struct
import zlib
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import aiohttp

from ..servers.serve import HOST
from .server import DATAGRAM
from .wire import (
    END,
    HANG_UP,
    LIMIT,
    Account,
    Damage,
    Sums,
    check,
    message,
    read_message,
    some_bytes,
    some_size,
    split,
)

RESET = struct.pack("ii", 1, 0)
CANCEL_SECONDS = 0.01
DATAGRAM_SECONDS = 20.0
DATAGRAM_BYTES = 1200
DATAGRAMS_AT_ONCE = 4


Endings = tuple[Callable[[Any], Awaitable[None]], ...]


class Surroundings:
    """Where the server is, and what the clients of a process share."""

    def __init__(self, ports: dict[str, int], context: ssl.SSLContext) -> None:
        self.ports = ports
        self.context = context

    @functools.cached_property
    def session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=0)
        return aiohttp.ClientSession(connector=connector)

    async def close(self) -> None:
        await self.session.close()


class Client:
    """One connection."""

    name: ClassVar[str]
    endings: ClassVar[Endings] = ()

    def __init__(self, account: Account, around: Surroundings) -> None:
        self.account = account
        self.around = around
        self.sums = Sums()

    @property
    def port(self) -> int:
        return self.around.ports[self.name]

    async def open(self) -> None:
        """Connect."""
        raise NotImplementedError

    async def exchange(self) -> None:
        """Send a message and check its answer."""
        raise NotImplementedError

    async def end_orderly(self) -> None:
        """End the connection so that both sides agree on what was sent."""
        raise NotImplementedError

    async def clean_up(self) -> None:
        """Close what is left."""

    def payload(self) -> memoryview:
        """Return something to send."""
        payload = some_bytes(some_size())
        self.sums.sending(payload)
        self.account.add("bytes sent", len(payload))
        return payload

    def got(self, payload: bytes, wanted: int) -> None:
        """See whether this is what was asked for."""
        if len(payload) != wanted:
            raise Damage(f"{len(payload)} bytes instead of {wanted}")
        self.sums.receiving(payload)
        self.account.add("bytes received", wanted)
        self.account.add("exchanges")


class Stream(Client):
    """A stream, over TCP."""

    name = "stream"
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def open(self) -> None:
        self.reader, self.writer = await self.connect()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(HOST, self.port)

    async def exchange(self) -> None:
        wanted = some_size()
        self.writer.write(message(self.payload(), wanted))
        await self.writer.drain()
        payload, _ = await read_message(self.reader)
        self.got(payload, wanted)

    async def compare(self) -> None:
        """Take the sums of the server, and its end."""
        payload, _ = await read_message(self.reader)
        self.sums.compare(payload)
        self.account.add("compared")

    async def end_orderly(self) -> None:
        self.writer.write(message(self.sums.packed(), END))
        await self.compare()

    async def end_half_closed(self) -> None:
        self.writer.write_eof()
        await self.compare()
        if await self.reader.read():
            raise Damage("something after the end")

    async def end_reset(self) -> None:
        """Close with data unread, so that the server gets a RST."""
        self.writer.write(message(some_bytes(some_size()), some_size()))
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.writer.transport.abort()

    async def end_aborted(self) -> None:
        self.writer.transport.abort()

    async def end_cancelled(self) -> None:
        """Cancel an exchange at some moment, which leaves the rest undefined."""
        task = asyncio.create_task(self.exchange())
        await asyncio.sleep(random.random() * CANCEL_SECONDS)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        self.writer.transport.abort()

    async def end_hung_up(self) -> None:
        """Have the server abort the connection."""
        self.writer.write(message(b"", HANG_UP))
        with contextlib.suppress(ConnectionError):
            if await self.reader.read():
                raise Damage("something from who hangs up")

    async def clean_up(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    endings: ClassVar[Endings] = (
        end_orderly,
        end_half_closed,
        end_reset,
        end_aborted,
        end_cancelled,
        end_hung_up,
    )


class Framed(Stream):
    """The same, to a server that is a Protocol."""

    name = "protocol"


class Tls(Stream):
    """A stream over TLS, which has no half-closed connections."""

    name = "tls"
    endings: ClassVar[Endings] = (
        Stream.end_orderly,
        Stream.end_orderly,
        Stream.end_reset,
        Stream.end_aborted,
        Stream.end_cancelled,
        Stream.end_hung_up,
    )

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = self.around.context
        return await asyncio.open_connection(HOST, self.port, ssl=context)


class Http(Stream):
    """Requests over a connection that is kept."""

    name = "http"

    async def exchange(self) -> None:
        payload, wanted = self.payload(), some_size()
        head = (
            f"POST /{wanted} HTTP/1.1\r\nHost: {HOST}\r\n"
            f"Content-Length: {len(payload)}\r\nX-Sum: {zlib.crc32(payload)}\r\n\r\n"
        )
        self.writer.writelines([head.encode(), payload])
        await self.writer.drain()
        lines = (await self.reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        if not lines[0].startswith(b"http/1.1 200"):
            raise Damage(f"{lines[0]!r}")
        fields = dict(line.split(b": ") for line in lines[1:] if line)
        body = await self.reader.readexactly(int(fields[b"content-length"]))
        self.got(split(body)[0], wanted)

    async def end_orderly(self) -> None:
        self.writer.close()

    async def end_reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.writer.write(b"POST /1 HTTP/1.1\r\nContent-Length: 100\r\n\r\n")
        self.writer.transport.abort()

    endings: ClassVar[Endings] = (
        end_orderly,
        end_reset,
        Stream.end_aborted,
        Stream.end_cancelled,
    )


class WebSocket(Client):
    """A WebSocket of aiohttp's client."""

    name = "websocket"
    socket: aiohttp.ClientWebSocketResponse

    async def open(self) -> None:
        self.socket = await self.around.session.ws_connect(
            f"http://{HOST}:{self.port}/", max_msg_size=2 * LIMIT
        )

    async def ask(self, payload: bytes | memoryview, wanted: int) -> bytes:
        await self.socket.send_bytes(message(payload, wanted))
        received = await self.socket.receive()
        if received.type is not aiohttp.WSMsgType.BINARY:
            raise Damage(f"{received.type!r} instead of an answer")
        return split(received.data)[0]

    async def exchange(self) -> None:
        wanted = some_size()
        self.got(await self.ask(self.payload(), wanted), wanted)

    async def end_orderly(self) -> None:
        self.sums.compare(await self.ask(self.sums.packed(), END))
        self.account.add("compared")
        await self.socket.close()

    async def end_reset(self) -> None:
        """After the last frame there is a RST in place of a FIN."""
        self.socket.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, RESET
        )

    async def end_cancelled(self) -> None:
        task = asyncio.create_task(self.exchange())
        await asyncio.sleep(random.random() * CANCEL_SECONDS)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def end_hung_up(self) -> None:
        await self.socket.send_bytes(message(b"", HANG_UP))
        received = await self.socket.receive()
        if received.type is aiohttp.WSMsgType.BINARY:
            raise Damage("something from who hangs up")

    async def clean_up(self) -> None:
        await self.socket.close()

    endings: ClassVar[Endings] = (end_orderly, end_reset, end_cancelled, end_hung_up)


class Datagram(Client, asyncio.DatagramProtocol):
    """Numbered datagrams; the kernel may drop some, and counts them."""

    name = "datagram"
    transport: asyncio.DatagramTransport

    def __init__(self, account: Account, around: Surroundings) -> None:
        super().__init__(account, around)
        self.number = 0
        self.awaited: dict[int, int] = {}
        self.given_up: set[int] = set()
        self.all_there = asyncio.Event()

    async def open(self) -> None:
        self.transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: self, remote_addr=(HOST, self.port)
        )

    def datagram_received(self, data: bytes, address: Any) -> None:
        number, crc = DATAGRAM.unpack_from(data)
        try:
            check(data[DATAGRAM.size :], crc)
            if number in self.given_up:
                self.given_up.discard(number)
                self.account.add("datagrams lost", -1)
            elif self.awaited.pop(number, None) != crc:
                raise Damage(f"datagram {number} was not sent, or came twice")
        except Damage as exc:
            self.account.error("datagram", exc)
        self.account.add("datagrams back")
        if not self.awaited:
            self.all_there.set()

    def error_received(self, exc: Exception) -> None:
        self.account.error("datagram", exc)

    async def exchange(self) -> None:
        self.all_there.clear()
        self.awaited.clear()
        for _ in range(random.randint(1, DATAGRAMS_AT_ONCE)):
            payload = bytes(some_bytes(random.randrange(DATAGRAM_BYTES)))
            crc = zlib.crc32(payload)
            self.number += 1
            self.awaited[self.number] = crc
            self.transport.sendto(DATAGRAM.pack(self.number, crc) + payload)
            self.account.add("datagrams sent")
        try:
            async with asyncio.timeout(DATAGRAM_SECONDS):
                await self.all_there.wait()
        except TimeoutError:
            self.account.add("datagrams lost", len(self.awaited))
            self.given_up.update(self.awaited)
        self.account.add("exchanges")

    async def end_orderly(self) -> None:
        self.transport.close()

    async def end_aborted(self) -> None:
        self.transport.abort()

    async def clean_up(self) -> None:
        self.transport.close()

    endings: ClassVar[Endings] = (end_orderly, end_aborted)


CLIENTS: dict[str, type[Client]] = {
    kind.name: kind for kind in (Http, WebSocket, Tls, Stream, Framed, Datagram)
}

"""Stream transports, streams and TLS."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import pathlib
import socket
import ssl
import tempfile
from typing import Any

import certificates
import servers
import support

from .common import Buffered, End, drop, pair, scenario, swallow


@scenario
async def transport_writes(faults: Any) -> None:
    async with pair() as (transport, _, far):
        with faults:
            transport.write(b"x")
            transport.write(bytearray(b"x" * 100))
            transport.writelines([b"a", b"b", memoryview(b"c")])
            await asyncio.sleep(0)
            transport.write(memoryview(b"y" * 70_000))
            transport.write(b"z" * 3_000_000)
            transport.writelines([b"z" * 1000] * 20)
            transport.get_write_buffer_size()
            transport.get_write_buffer_limits()
            transport.set_write_buffer_limits(high=1000)
            transport.write_eof()
            size, expected = 0, 1 + 100 + 3 + 70_000 + 3_000_000 + 20_000
            while size < expected and not transport.is_closing():
                try:
                    size += len(far.recv(1_000_000))
                except BlockingIOError:
                    await asyncio.sleep(0)
        if size != expected and not faults.notes.told:
            raise ValueError(size)


@scenario
async def transport_reads(faults: Any) -> None:
    async with pair() as (transport, end, far):
        with faults:
            far.send(b"x" * 100)
            await end.got(100)
            transport.pause_reading()
            far.send(b"x" * 1000)
            await asyncio.sleep(0)
            transport.resume_reading()
            await end.got(1100)
            transport.set_protocol(end)
            far.send(b"x" * 200_000)
            await end.got(201_100)
            far.shutdown(socket.SHUT_WR)
            await end.lost


@scenario
async def buffered_reads(faults: Any) -> None:
    async with pair(Buffered) as (_, end, far):
        with faults:
            far.send(b"x" * 100)
            await end.got(100)
            far.send(b"x" * 20_000)
            await end.got(20_100)
            far.close()
            await end.lost


@scenario
async def transport_flow(faults: Any) -> None:
    """The far end does not read for a while: writing pauses and resumes."""

    class Flow(End):
        paused = 0

        def pause_writing(self) -> None:
            self.paused += 1

        def resume_writing(self) -> None:
            self.paused -= 1

    async with pair(Flow, support.unix_pair) as (transport, end, far):
        with faults:
            transport.write(b"x" * 1_000_000)
            transport.write(b"x" * 1000)
            await asyncio.sleep(0)
            size = 0
            while size < 1_001_000 and not transport.is_closing():
                try:
                    size += len(far.recv(100_000))
                except BlockingIOError:
                    await asyncio.sleep(0)
            transport.close()
            await end.lost


@scenario
async def transport_reset(faults: Any) -> None:
    async with pair() as (transport, end, far):
        with faults:
            support.reset(far)
            await end.lost
            transport.write(b"x")
    async with pair() as (transport, end, far):
        with faults:
            transport.abort()
            await end.lost


@scenario
async def transport_sendfile(faults: Any) -> None:
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * 200_000)
        file.flush()
        file.seek(0)
        async with pair() as (transport, _, far):
            far.setblocking(False)
            with faults:
                transport.write(b"before")
                await asyncio.gather(
                    loop.sendfile(transport, file), swallow(far, 200_006)
                )


async def use_streams(reader: Any, writer: Any) -> None:
    """Talks to serve_streams()."""
    writer.write(b"line\n" + b"x" * 100 + b"until;" + b"rest" * 5)
    await writer.drain()
    await reader.readline()
    await reader.readexactly(100)
    await reader.readuntil(b";")
    await reader.read(3)
    writer.writelines([b"more", b"\n"])
    await writer.drain()
    async for line in reader:
        if line.endswith(b"more\n"):
            break
    writer.get_extra_info("peername")
    writer.write_eof()
    await reader.read()


async def serve_streams(reader: Any, writer: Any) -> None:
    try:
        while data := await reader.read(1000):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


async def with_streams(faults: Any, module: Any) -> None:
    served: list[Any] = []

    async def serve(reader: Any, writer: Any) -> None:
        served.append(writer)
        await serve_streams(reader, writer)

    server = writer = None
    try:
        with faults:
            server = await module.start_server(serve, "127.0.0.1", 0)
            reader, writer = await module.open_connection(
                *server.sockets[0].getsockname()
            )
            # As in asyncio, only debug mode tells why a server drops a client.
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await use_streams(reader, writer)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
    finally:
        if writer is not None:
            writer.transport.abort()
        if server is not None:
            server.close()
        await drop(*(writer.transport for writer in served))


@scenario
async def streams_in_c(faults: Any) -> None:
    import hotloop

    await with_streams(faults, hotloop)


@scenario
async def streams_of_asyncio(faults: Any) -> None:
    await with_streams(faults, asyncio)


@scenario
async def streams_waiting(faults: Any) -> None:
    """Reads that wait for what comes later, and one that is cancelled."""
    import hotloop

    near, far = support.tcp_pair()
    reader, writer = await hotloop.open_connection(sock=near)
    try:
        with faults:
            for data, read in (
                (b"a\n", reader.readline),
                (b"123", functools.partial(reader.readexactly, 3)),
                (b"abc;", functools.partial(reader.readuntil, b";")),
                (b"any", functools.partial(reader.read, 10)),
            ):
                waiting = asyncio.ensure_future(read())
                await asyncio.sleep(0)
                far.send(data)
                await waiting
            waiting = asyncio.ensure_future(reader.readline())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            waiting = asyncio.ensure_future(reader.readexactly(10))
            await asyncio.sleep(0)
            far.send(b"abc")
            far.shutdown(socket.SHUT_WR)
            with contextlib.suppress(asyncio.IncompleteReadError):
                await waiting
            writer.write(b"x" * 3_000_000)
            draining = asyncio.ensure_future(writer.drain())
            await asyncio.sleep(0)
            while not draining.done():
                with contextlib.suppress(BlockingIOError):
                    far.recv(1_000_000)
                await asyncio.sleep(0)
            await draining
    finally:
        far.close()
        await drop(writer.transport)


async def read_in_vain(faults: Any, way: str, *arguments: Any) -> None:
    """What a read does not return for want of memory, the next one does."""
    import hotloop

    part = b"x" * 1000 + b"|" * 100
    reader = hotloop.StreamReader(loop=asyncio.get_running_loop())
    reader.feed_data(part[:1000])  # the store grows to twice its size
    reader.feed_data(part[1000:])
    reader.feed_eof()
    read = functools.partial(getattr(reader, way), *arguments)
    task = None
    with faults, contextlib.suppress(MemoryError):
        task = asyncio.create_task(read())  # which needs no StopIteration
        while not task.done():
            await asyncio.sleep(0)
    if task is None:
        return
    try:
        data = await task
    except MemoryError:
        data = await read()
    assert data == part, (way, data)


@scenario
async def read_again(faults: Any) -> None:
    await read_in_vain(faults, "read", 5000)


@scenario
async def readuntil_again(faults: Any) -> None:
    await read_in_vain(faults, "readuntil", b"|" * 100)


@functools.cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's."""
    authority = certificates.root()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        leaf = certificates.issue(authority, "localhost")
        server.load_cert_chain(leaf.save(pathlib.Path(folder, "leaf.pem")))
    client = ssl.create_default_context(cadata=authority.pem.decode())
    return server, client


@scenario
async def tls(faults: Any) -> None:
    loop = asyncio.get_running_loop()
    ends: list[End] = []

    class Server(servers.Echo, End):
        def connection_made(self, transport: Any) -> None:
            End.connection_made(self, transport)
            ends.append(self)

    server_context, client_context = contexts()
    server = await loop.create_server(Server, "127.0.0.1", 0, ssl=server_context)
    address = server.sockets[0].getsockname()
    transport = None
    try:
        # As in asyncio, only debug mode tells why a server drops a client.
        with contextlib.suppress(ConnectionError), faults:
            transport, end = await loop.create_connection(
                End, *address, ssl=client_context, server_hostname="localhost"
            )
            transport.write(b"x" * 100)
            await end.got(100)
            transport.writelines([b"x" * 1000, b"y" * 50_000])
            await end.got(51_100)
            transport.pause_reading()
            transport.resume_reading()
            transport.write(b"x" * 1_000_000)
            await end.got(1_051_100)
            transport.get_extra_info("peercert")
            transport.get_extra_info("cipher")
            transport.close()
            await end.lost
    finally:
        server.close()
        await drop(transport, *(end.transport for end in ends))


@scenario
async def start_tls(faults: Any) -> None:
    loop = asyncio.get_running_loop()
    server_context, client_context = contexts()
    async with pair() as (near, end, far):
        other = End()
        distant, _ = await loop.connect_accepted_socket(lambda: other, far.dup())
        made: list[Any] = [distant]
        try:
            with faults:
                made += await asyncio.gather(
                    loop.start_tls(
                        near, end, client_context, server_hostname="localhost"
                    ),
                    loop.start_tls(distant, other, server_context, server_side=True),
                )
                made[1].write(b"x" * 1000)
                await other.got(1000)
                made[2].write(b"x" * 1000)
                await end.got(1000)
                made[1].close()
                await support.turns(5)
        finally:
            await drop(*made)

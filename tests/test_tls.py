"""TLS through the standard library's SSLProtocol, and sendfile."""

from __future__ import annotations

import asyncio
import os
import random
import ssl
from typing import Any

import pytest

from servers import leave, stop
from support import (
    Recorder,
    connected,
    finish,
    read_all,
    settle,
    tcp_pair,
    turns,
    until,
)


async def echo(reader: Any, writer: Any) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
    try:
        await writer.wait_closed()
    except ConnectionError:
        assert writer.is_closing()


async def test_streams(loop: Any, tls: Any) -> None:
    server_side, client_side = tls
    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server_side)
    address = server.sockets[0].getsockname()
    reader, writer = await asyncio.open_connection(
        *address, ssl=client_side, server_hostname="localhost"
    )
    for size in (1, 100, 16384, 100_000, 2_000_000):
        data = random.Random(size).randbytes(size)
        writer.write(data)
        assert await reader.readexactly(size) == data
    ssl_object = writer.get_extra_info("ssl_object")
    assert ssl_object.version().startswith("TLS")
    assert writer.get_extra_info("peercert")["subject"]
    assert writer.get_extra_info("cipher") and writer.get_extra_info("sslcontext")
    assert writer.get_extra_info("peername") == address
    assert writer.can_write_eof() is False
    await leave(writer)
    await settle()
    await stop(server)


async def test_many_connections(loop: Any, tls: Any) -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=tls[0])
    address = server.sockets[0].getsockname()

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection(
            *address, ssl=tls[1], server_hostname="localhost"
        )
        for _ in range(5):
            writer.write(b"%d" % number)
            assert await reader.read(100) == b"%d" % number
        await leave(writer)

    await asyncio.gather(*(client(n) for n in range(20)))
    await settle()
    await stop(server)


async def test_protocols(loop: Any, tls: Any) -> None:
    class Echo(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.write(data)

    server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=tls[0])
    address = server.sockets[0].getsockname()
    transport, protocol = await loop.create_connection(
        Recorder, *address, ssl=tls[1], server_hostname="localhost"
    )
    assert isinstance(transport, asyncio.Transport)
    transport.write(b"secret")
    transport.writelines([b" and", b" more"])
    await until(lambda: protocol.data == b"secret and more")
    transport.pause_reading()
    assert not transport.is_reading()
    transport.resume_reading()
    transport.close()
    assert await protocol.closed is None
    await asyncio.sleep(0.01)
    await stop(server)


async def test_certificate_that_is_not_trusted(loop: Any, tls: Any) -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=tls[0])
    address = server.sockets[0].getsockname()
    loop.set_exception_handler(lambda loop, context: None)
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection(
            *address, ssl=ssl.create_default_context(), server_hostname="localhost"
        )
    await asyncio.sleep(0.02)
    await settle()
    await stop(server)


async def test_client_that_does_not_speak_tls(loop: Any, tls: Any) -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=tls[0])
    loop.set_exception_handler(lambda loop, context: None)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    try:
        await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        assert reader.exception() is not None
    writer.close()
    await asyncio.wait([asyncio.create_task(writer.wait_closed())])
    await asyncio.sleep(0.02)
    await stop(server)


async def test_start_tls(loop: Any, tls: Any) -> None:
    upgraded = loop.create_future()

    async def serve(reader: Any, writer: Any) -> None:
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"GO\n")
        await writer.drain()
        await writer.start_tls(tls[0])
        upgraded.set_result(writer.get_extra_info("ssl_object") is not None)
        await echo(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"STARTTLS\n")
    assert await reader.readline() == b"GO\n"
    await writer.start_tls(tls[1], server_hostname="localhost")
    writer.write(b"now secret")
    assert await reader.readexactly(10) == b"now secret"
    assert await upgraded
    await leave(writer)
    await settle()
    await stop(server)


async def test_start_tls_of_protocols(loop: Any, tls: Any) -> None:
    class Server(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if data == b"plain":
                self.task = loop.create_task(self.upgrade())
            else:
                self.secure.write(data.upper())

        async def upgrade(self) -> None:
            self.transport.write(b"ok")
            self.secure = await loop.start_tls(
                self.transport, self, tls[0], server_side=True
            )
            ready.set()

    ready = asyncio.Event()
    server = await loop.create_server(Server, "127.0.0.1", 0)
    transport, protocol = await loop.create_connection(
        Recorder, *server.sockets[0].getsockname()
    )
    transport.write(b"plain")
    await until(lambda: protocol.data == b"ok")
    secure = await loop.start_tls(
        transport, protocol, tls[1], server_hostname="localhost"
    )
    await ready.wait()
    secure.write(b"secret")
    await until(lambda: protocol.data == b"okSECRET")
    secure.close()
    await protocol.closed
    await asyncio.sleep(0.01)
    await stop(server)


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_start_tls_of_what_is_closed(
    loop: Any, tls: Any, how: str, when: str
) -> None:
    """Closed by the program itself, that is: then there is nothing to return."""
    near, far = tcp_pair()
    transport, protocol = await loop.connect_accepted_socket(Recorder, near)
    end = getattr(transport, how)
    if when == "before":
        end()
    else:
        loop.call_soon(loop.call_soon, end)
    assert (
        await loop.start_tls(transport, protocol, tls[1], server_hostname="localhost")
    ) is None
    await turns(3)
    assert near.fileno() == -1
    far.close()


async def test_tls_over_unix(loop: Any, tls: Any, tmp_path: Any) -> None:
    path = str(tmp_path / "s")
    server = await asyncio.start_unix_server(echo, path, ssl=tls[0])
    reader, writer = await asyncio.open_unix_connection(
        path, ssl=tls[1], server_hostname="localhost"
    )
    writer.write(b"hi")
    assert await reader.readexactly(2) == b"hi"
    await leave(writer)
    await settle()
    await stop(server)


async def test_handshake_timeout(loop: Any, tls: Any) -> None:
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    with pytest.raises((ConnectionAbortedError, TimeoutError)):
        await loop.create_connection(
            Recorder,
            *server.sockets[0].getsockname(),
            ssl=tls[1],
            server_hostname="localhost",
            ssl_handshake_timeout=0.05,
        )
    await asyncio.sleep(0.02)
    await stop(server)


async def send_a_file(tmp_path: Any, transport: Any, receive: Any) -> None:
    loop = asyncio.get_running_loop()
    data = os.urandom(1_500_000)
    (tmp_path / "file").write_bytes(data)
    with open(tmp_path / "file", "rb") as file:
        transport.write(b"head")
        sending = asyncio.create_task(loop.sendfile(transport, file, 100, 1_000_000))
        got = await receive(1_000_004)
        assert await sending == 1_000_000
        assert got == b"head" + data[100:1_000_100]
        transport.write(b"tail")
        assert await receive(4) == b"tail"


async def test_sendfile(loop: Any, tmp_path: Any) -> None:
    transport, protocol, peer = await connected()
    await send_a_file(tmp_path, transport, lambda size: read_all(peer, size))
    assert transport.is_reading()
    peer.send(b"and back")
    await until(lambda: protocol.data == b"and back")
    await finish(transport, peer)


async def test_sendfile_whole_and_paused(loop: Any, tmp_path: Any) -> None:
    transport, _, peer = await connected()
    transport.pause_reading()
    (tmp_path / "file").write_bytes(b"f" * 300_000)
    with open(tmp_path / "file", "rb") as file:
        sending = asyncio.create_task(loop.sendfile(transport, file))
        assert len(await read_all(peer, 300_000)) == 300_000
        assert await sending == 300_000
        assert file.tell() == 300_000
    assert not transport.is_reading()
    await finish(transport, peer)


async def test_sendfile_to_a_peer_that_leaves(loop: Any, tmp_path: Any) -> None:
    transport, protocol, peer = await connected()
    (tmp_path / "file").write_bytes(b"f" * 20_000_000)
    with open(tmp_path / "file", "rb") as file:
        sending = asyncio.create_task(loop.sendfile(transport, file))
        await asyncio.sleep(0.01)
        peer.close()
        with pytest.raises(ConnectionError):
            await sending
    transport.abort()
    await protocol.closed
    await turns(2)


async def test_sendfile_errors(loop: Any, tmp_path: Any) -> None:
    transport, protocol, peer = await connected()
    (tmp_path / "file").write_bytes(b"data")
    with open(tmp_path / "file", "rb") as file:
        transport.close()
        with pytest.raises(RuntimeError, match="Transport is closing"):
            await loop.sendfile(transport, file)
    await protocol.closed
    peer.close()


async def test_sendfile_over_tls(loop: Any, tls: Any, tmp_path: Any) -> None:
    received = asyncio.Queue()  # type: ignore[var-annotated]

    class Server(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            received.put_nowait(None)

    made: list[Any] = []

    def factory() -> Any:
        made.append(Server())
        return made[-1]

    server = await loop.create_server(factory, "127.0.0.1", 0, ssl=tls[0])
    transport, protocol = await loop.create_connection(
        Recorder,
        *server.sockets[0].getsockname(),
        ssl=tls[1],
        server_hostname="localhost",
    )

    async def receive(size: int) -> bytes:
        while len(made[0].data) < size:
            await received.get()
        data = bytes(made[0].data[:size])
        del made[0].data[:size]
        return data

    await send_a_file(tmp_path, transport, receive)
    transport.close()
    await protocol.closed
    await asyncio.sleep(0.01)
    await stop(server)

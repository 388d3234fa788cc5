"""Sockets, servers, datagrams and pipes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
from typing import Any

import servers
import support

from .common import End, drop, pair, scenario, swallow


@scenario
async def readers(faults: Any) -> None:
    loop = asyncio.get_running_loop()
    left, right = support.unix_pair()
    readable, writable = loop.create_future(), loop.create_future()

    def on_readable() -> None:
        left.recv(10)
        readable.set_result(None)

    def on_writable() -> None:
        loop.remove_writer(left)
        writable.set_result(None)

    try:
        with faults:
            loop.add_reader(left, on_readable)
            loop.add_writer(left, on_writable)
            loop.add_reader(left.fileno(), on_readable)
            right.send(b"x")
            await readable
            await writable
            loop.remove_reader(left)
    finally:
        loop.remove_reader(left)
        loop.remove_writer(left)
        left.close()
        right.close()


@scenario
async def many_readers(faults: Any) -> None:
    """Descriptors with high numbers, so that tables grow."""
    loop = asyncio.get_running_loop()
    pairs = [support.unix_pair() for _ in range(100)]
    try:
        with faults:
            for left, _ in pairs[-3:]:
                loop.add_reader(left, int)
            pairs[-1][1].send(b"x")
            await asyncio.sleep(0)
    finally:
        for left, right in pairs:
            loop.remove_reader(left)
            left.close()
            right.close()


@scenario
async def sockets(faults: Any) -> None:
    loop = asyncio.get_running_loop()
    left, right = support.tcp_pair()
    try:
        with faults:
            await loop.sock_sendall(left, b"x" * 1000)
            await loop.sock_recv(right, 500)
            await loop.sock_recv_into(right, bytearray(500))
            waiting = asyncio.ensure_future(loop.sock_recv(right, 10))
            await asyncio.sleep(0)
            await loop.sock_sendall(left, b"y")
            await waiting
            waiting = asyncio.ensure_future(loop.sock_recv(right, 10))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            await asyncio.gather(
                loop.sock_sendall(left, b"z" * 6_000_000), swallow(right, 6_000_000)
            )
    finally:
        left.close()
        right.close()


@scenario
async def socket_connect(faults: Any) -> None:
    loop = asyncio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    made = [socket.socket()]
    made[0].setblocking(False)
    try:
        with faults:
            accepting = asyncio.ensure_future(loop.sock_accept(listener))
            await loop.sock_connect(made[0], listener.getsockname())
            made.append((await accepting)[0])
            await loop.sock_sendall(made[0], b"x")
            await loop.sock_recv(made[1], 1)
    finally:
        listener.close()
        for sock in made:
            sock.close()
        if not accepting.done():
            accepting.cancel()
        elif not accepting.cancelled() and accepting.exception() is None:
            accepting.result()[0].close()


@scenario
async def socket_datagrams(faults: Any) -> None:
    loop = asyncio.get_running_loop()
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    try:
        with faults:
            await loop.sock_sendto(sock, b"x", sock.getsockname())
            await loop.sock_recvfrom(sock, 10)
            waiting = asyncio.ensure_future(loop.sock_recvfrom(sock, 10))
            await asyncio.sleep(0)
            await loop.sock_sendto(sock, b"y", sock.getsockname())
            await waiting
            await loop.sock_sendto(sock, b"x", sock.getsockname())
            await loop.sock_recvfrom_into(sock, bytearray(10))
    finally:
        sock.close()


@scenario
async def socket_sendfile(faults: Any) -> None:
    loop = asyncio.get_running_loop()
    left, right = support.tcp_pair()
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * 3_000_000)
        file.flush()
        file.seek(0)
        try:
            with faults:
                await asyncio.gather(
                    loop.sock_sendfile(left, file), swallow(right, 3_000_000)
                )
        finally:
            left.close()
            right.close()


@scenario
async def tcp_server(faults: Any) -> None:
    loop = asyncio.get_running_loop()
    ends: list[End] = []

    class Server(servers.Echo, End):
        def connection_made(self, transport: Any) -> None:
            End.connection_made(self, transport)
            ends.append(self)

    with faults:
        server = await loop.create_server(Server, "127.0.0.1", 0)
        try:
            address = server.sockets[0].getsockname()
            transport, end = await loop.create_connection(End, *address)
            try:
                transport.write(b"x" * 1000)
                # As in asyncio, only debug mode tells why a server drops a client.
                with contextlib.suppress(ConnectionError):
                    await end.got(1000)
                for name in ("peername", "sockname", "socket", "nonsense"):
                    transport.get_extra_info(name)
                repr(transport)
            finally:
                transport.close()
                await end.lost
        finally:
            faults.control.disarm()
            server.close()
            await drop(*(end.transport for end in ends))
            await server.wait_closed()


@scenario
async def accept(faults: Any) -> None:
    """Clients that know nothing of the server's troubles."""
    loop = asyncio.get_running_loop()
    ends: list[End] = []

    class Server(End):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            ends.append(self)

    server = await loop.create_server(Server, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    clients = []
    try:
        with faults:
            for _ in range(3):
                clients.append(socket.create_connection(address))
                clients[-1].send(b"x" * 10)
                while len(ends) < len(clients) and not faults.notes.told:
                    await asyncio.sleep(0.0005)
                if len(ends) == len(clients):
                    await ends[-1].got(10)
    finally:
        for client in clients:
            client.close()
        server.close()
        await drop(*(end.transport for end in ends))
        await server.wait_closed()


@scenario
async def unix_server(faults: Any) -> None:
    loop = asyncio.get_running_loop()
    ends: list[End] = []

    def factory() -> End:
        ends.append(End())
        return ends[-1]

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "s")
        server = transport = None
        try:
            with faults:
                server = await loop.create_unix_server(factory, path)
                transport, _ = await loop.create_unix_connection(factory, path)
                transport.write(b"x" * 10)
                while len(ends) < 2:
                    await asyncio.sleep(0)
                await next(end for end in ends if end.transport is not transport).got(
                    10
                )
        finally:
            if server is not None:
                server.close()
            await drop(transport, *(end.transport for end in ends))


@scenario
async def datagrams(faults: Any) -> None:
    loop = asyncio.get_running_loop()

    class Peer(asyncio.DatagramProtocol):
        def __init__(self) -> None:
            self.got: list[Any] = []
            self.lost = loop.create_future()

        def datagram_received(self, data: bytes, address: Any) -> None:
            self.got.append(data)

        def error_received(self, error: Exception) -> None:
            faults.notes.add(error)

        def connection_lost(self, error: BaseException | None) -> None:
            self.lost.set_result(None)

    where = ("127.0.0.1", 0)
    made: list[Any] = []
    try:
        with faults:
            made.append(await loop.create_datagram_endpoint(Peer, where))
            address = made[0][0].get_extra_info("sockname")
            client, peer = await loop.create_datagram_endpoint(
                Peer, remote_addr=address
            )
            made.append((client, peer))
            for number in range(5):
                client.sendto(b"%d" % number)
            made[0][0].sendto(b"1", client.get_extra_info("sockname"))
            made[0][0].sendto(b"1" * 1000, client.get_extra_info("sockname"))
            while len(made[0][1].got) < 5 or len(peer.got) < 2:
                if faults.notes.told:
                    break
                await asyncio.sleep(0)
            for transport, _ in made:
                transport.close()
            for _, protocol in made:
                await protocol.lost
    finally:
        await drop(*(transport for transport, _ in made))


@scenario
async def pipes(faults: Any) -> None:
    loop = asyncio.get_running_loop()
    reading, writing = os.pipe()
    files = [os.fdopen(reading, "rb", 0), os.fdopen(writing, "wb", 0)]
    made: list[Any] = []
    try:
        with faults:
            source, end = await loop.connect_read_pipe(End, files[0])
            made.append(source)
            sink, _ = await loop.connect_write_pipe(End, files[1])
            made.append(sink)
            sink.write(b"x" * 10)
            sink.write(b"x" * 200_000)
            await end.got(200_010)
            source.pause_reading()
            source.resume_reading()
            sink.close()
            await end.lost
    finally:
        for transport in made:
            transport.close()
        await support.turns(3)
        for file in files:
            file.close()


@scenario
async def descriptors(faults: Any) -> None:
    """Descriptors that travel over a Unix socket."""
    got: list[int] = []

    class Receiver(End):
        def fds_received(self, fds: list[int]) -> None:
            got.extend(fds)

    async with pair(Receiver, support.unix_pair) as (transport, end, far):
        reading, writing = os.pipe()
        try:
            with faults:
                socket.send_fds(far, [b"x" * 10], [reading])
                await end.got(10)
                transport.send_fds(b"y" * 10, [writing])
                await asyncio.sleep(0)
                far.setblocking(True)
                got.extend(socket.recv_fds(far, 10, 3)[1])
        finally:
            for fd in (reading, writing, *got):
                with contextlib.suppress(OSError):
                    os.close(fd)

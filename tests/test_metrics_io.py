"""What a loop counts of input and output, against what real sockets moved."""

from __future__ import annotations

import asyncio
import os
import pathlib
import socket
import struct
from typing import Any

import pytest

from hotloop import Metrics
from servers import Echo
from support import collect, until, wanted_kinds

pytestmark = pytest.mark.skipif("hotloop" not in wanted_kinds(), reason="hotloop's own")

SIZES = [1, 1000, 300_000]


@pytest.fixture
def loop_kind() -> str:
    return "hotloop"  # asyncio's loops have none of this


class Count(asyncio.Protocol):
    """Counts the bytes it gets."""

    received = 0
    transport: Any

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.lost = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.received += len(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


async def echo(loop: Any, protocol: Any, sizes: list[int]) -> None:
    """Send so much at a time, and wait until it is back."""
    total = 0
    for size in sizes:
        total += size
        protocol.transport.write(b"x" * size)
        await until(lambda: protocol.received == total)  # noqa: B023


async def settled(loop: Any) -> None:
    """Wait until every connection has ended."""
    await until(lambda: loop.metrics().connections_open == 0)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_bytes_of_streams(loop: Any, kind: str, tmp_path: pathlib.Path) -> None:
    if kind == "tcp":
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        before = loop.metrics()
        _, client = await loop.create_connection(Count, *address)
    else:
        path = str(tmp_path / "socket")
        server = await loop.create_unix_server(Echo, path)
        before = loop.metrics()
        _, client = await loop.create_unix_connection(Count, path)
    assert before.listeners == 1
    await echo(loop, client, SIZES)
    delta = loop.metrics().since(before)
    # There and back, through this one loop.
    assert delta.bytes_sent == delta.bytes_received == 2 * sum(SIZES)
    assert delta.reads >= 2 * len(SIZES)
    assert delta.writes >= 2 * len(SIZES)
    assert delta.connections_open == 2
    assert (delta.connections_accepted, delta.connections_made) == (1, 2)
    client.transport.close()
    await settled(loop)
    server.close()
    await server.wait_closed()
    after = loop.metrics().since(before)
    assert (after.connections_lost, after.listeners) == (2, 0)


@pytest.mark.parametrize("buffered", [False, True])
async def test_every_way_of_reading_counts(loop: Any, buffered: bool) -> None:
    class Buffered(asyncio.BufferedProtocol):
        """Gets its bytes in a buffer of its own."""

        received = 0

        def get_buffer(self, sizehint: int) -> bytearray:
            self.buffer = bytearray(10_000)
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            self.received += nbytes

    server = await loop.create_server(Echo, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    before = loop.metrics()
    if buffered:
        transport, protocol = await loop.create_connection(Buffered, *address)
        transport.write(b"x" * 50_000)
        await until(lambda: protocol.received == 50_000)
    else:
        reader, writer = await asyncio.open_connection(*address)
        transport = writer.transport
        writer.writelines([b"x" * 20_000, b"y" * 30_000])
        assert len(await reader.readexactly(50_000)) == 50_000
    delta = loop.metrics().since(before)
    assert delta.bytes_sent == delta.bytes_received == 100_000
    transport.close()
    await settled(loop)
    server.close()
    await server.wait_closed()


async def test_bytes_of_tls_are_those_on_the_wire(loop: Any, tls: Any) -> None:
    context, trust = tls
    server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=context)
    address = server.sockets[0].getsockname()
    before = loop.metrics()
    _, client = await loop.create_connection(
        Count, *address, ssl=trust, server_hostname="localhost"
    )
    await echo(loop, client, SIZES)
    delta = loop.metrics().since(before)
    plain = 2 * sum(SIZES)
    # The handshake is some kilobytes, a record 22 bytes and more of 16 KiB.
    assert plain < delta.bytes_sent == delta.bytes_received < 1.01 * plain + 10_000
    assert delta.connections_made == 2
    client.transport.close()
    await settled(loop)
    server.close()
    await server.wait_closed()


async def test_a_reset_is_an_end(loop: Any) -> None:
    made: list[Count] = []

    def factory() -> Count:
        made.append(Count())
        return made[-1]

    server = await loop.create_server(factory, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    before = loop.metrics()
    for _ in range(5):
        with socket.create_connection(address) as client:
            # Closing sends a reset and no end.
            linger = struct.pack("ii", 1, 0)
            await until(lambda: bool(made) and hasattr(made[-1], "transport"))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        assert isinstance(await made.pop().lost, ConnectionResetError)
    delta = loop.metrics().since(before)
    assert delta.connections_accepted == delta.connections_made == 5
    assert delta.connections_lost == 5 and delta.connections_open == 0
    server.close()
    await server.wait_closed()


async def test_connections_that_fail(loop: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = unused.getsockname()
        before = loop.metrics()
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(Count, *address)
        assert loop.metrics().since(before).connects_failed == 1
        with socket.socket() as sock:
            sock.setblocking(False)
            with pytest.raises(ConnectionRefusedError):
                await loop.sock_connect(sock, address)
    delta = loop.metrics().since(before)
    assert delta.connects_failed == 2
    assert delta.connections_made == delta.connections_open == 0


async def test_a_protocol_that_cannot_be_made(loop: Any) -> None:
    def factory() -> Count:
        failed.append(1)
        raise ValueError

    failed: list[int] = []
    server = await loop.create_server(factory, "127.0.0.1", 0)
    before = loop.metrics()
    with socket.create_connection(server.sockets[0].getsockname()):
        await until(lambda: bool(failed))
    delta = loop.metrics().since(before)
    assert (delta.connections_accepted, delta.connections_made) == (1, 0)
    assert delta.connections_open == 0
    server.close()
    await server.wait_closed()


async def test_a_transport_that_nobody_closed(loop: Any) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        before = loop.metrics().connections_open
        transport, protocol = await loop.create_connection(asyncio.Protocol, sock=ours)
        transport.pause_reading()
        assert loop.metrics().connections_open == before + 1
        with pytest.warns(ResourceWarning, match="unclosed transport"):
            del transport, protocol, ours
            collect()
        assert loop.metrics().connections_open == before


@pytest.mark.parametrize("connected", [False, True])
async def test_datagrams(loop: Any, connected: bool) -> None:
    class Peer(asyncio.DatagramProtocol):
        """Counts what it gets."""

        def __init__(self) -> None:
            self.sizes: list[int] = []

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.sizes.append(len(data))

    before = loop.metrics()
    server, peer = await loop.create_datagram_endpoint(
        Peer, local_addr=("127.0.0.1", 0)
    )
    address = server.get_extra_info("sockname")
    if connected:
        client, _ = await loop.create_datagram_endpoint(Peer, remote_addr=address)
        target = None
    else:
        client, _ = await loop.create_datagram_endpoint(
            Peer, local_addr=("127.0.0.1", 0)
        )
        target = address
    assert loop.metrics().datagram_endpoints == before.datagram_endpoints + 2
    sizes = [100] * 20 + [1, 9000, 50]
    # In one turn: some leave at once, others together at its end.
    for size in sizes:
        client.sendto(b"x" * size, target)
    await until(lambda: len(peer.sizes) == len(sizes))
    delta = loop.metrics().since(before)
    assert delta.datagrams_sent == delta.datagrams_received == len(sizes)
    assert delta.datagram_bytes_sent == delta.datagram_bytes_received == sum(sizes)
    assert delta.bytes_sent == delta.bytes_received == 0
    client.close()
    server.close()
    await until(lambda: loop.metrics().datagram_endpoints == 0)


async def test_pipes(loop: Any) -> None:
    read_end, write_end = os.pipe()
    before = loop.metrics()
    _, protocol = await loop.connect_read_pipe(Count, os.fdopen(read_end, "rb"))
    writing, _ = await loop.connect_write_pipe(
        asyncio.BaseProtocol, os.fdopen(write_end, "wb")
    )
    assert loop.metrics().pipes == 2
    writing.write(b"x" * 100_000)
    await until(lambda: protocol.received == 100_000)
    delta = loop.metrics().since(before)
    assert delta.bytes_sent == delta.bytes_received == 100_000
    assert delta.connections_made == 0
    writing.close()
    await protocol.lost
    await until(lambda: loop.metrics().pipes == 0)


async def test_socket_operations(loop: Any, tmp_path: pathlib.Path) -> None:
    ours, theirs = socket.socketpair()
    before = loop.metrics()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        sending = loop.create_task(loop.sock_sendall(ours, b"x" * 500_000))
        received = 0
        while received < 500_000:
            received += len(await loop.sock_recv(theirs, 100_000))
        await sending
        delta = loop.metrics().since(before)
        assert delta.bytes_sent == delta.bytes_received == 500_000
        # recv() before anything had come, and when nothing more would.
        assert delta.reads >= 5 and delta.writes >= 1
        file = tmp_path / "file"
        file.write_bytes(b"y" * 1000)
        with file.open("rb") as opened:
            assert await loop.sock_sendfile(ours, opened) == 1000
        assert len(await loop.sock_recv(theirs, 5000)) == 1000
    assert loop.metrics().since(before).bytes_sent == 501_000


async def test_datagrams_of_socket_operations(loop: Any) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        before = loop.metrics()
        await loop.sock_sendto(sock, b"x" * 77, sock.getsockname())
        data, _ = await loop.sock_recvfrom(sock, 1000)
        assert len(data) == 77
        delta = loop.metrics().since(before)
    assert (delta.datagrams_sent, delta.datagram_bytes_sent) == (1, 77)
    assert (delta.datagrams_received, delta.datagram_bytes_received) == (1, 77)


async def test_watching(loop: Any) -> None:
    before: Metrics = loop.metrics()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        loop.add_reader(ours, lambda: None)
        assert loop.metrics().watching == before.watching + 1
        loop.remove_reader(ours)
        assert loop.metrics().watching == before.watching


async def test_protocols_in_the_profile(loop: Any) -> None:
    loop.enable_metrics(profile=True)
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    _, client = await loop.create_connection(Count, *server.sockets[0].getsockname())
    await echo(loop, client, [10, 10])
    events = {e.name: e for e in loop.profile() if e.kind == "event"}
    assert events["servers.Echo"].calls >= 3
    assert events["servers.Echo"].seconds > 0
    client.transport.close()
    await settled(loop)
    server.close()
    await server.wait_closed()

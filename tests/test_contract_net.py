"""asyncio's contract, row by row: transports and sockets. See contract.toml."""

# mypy: disable-error-code="misc"

from __future__ import annotations

import asyncio
import contextvars
import socket
import ssl
from typing import Any

import pytest

from support import (
    PY,
    BufferedRecorder,
    Recorder,
    connected,
    finish,
    tcp_pair,
    turns,
    unix_pair,
    until,
)

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("contract", default="")


async def test_d16_a_closed_transport_answers(loop: Any) -> None:
    """D16: nothing raises because the transport is closed."""
    transport, protocol, peer = await connected()
    transport.close()
    await protocol.closed
    transport.write(b"x")
    transport.close()
    transport.abort()
    transport.pause_reading()
    transport.resume_reading()
    assert transport.is_closing() and not transport.is_reading()
    assert transport.get_write_buffer_size() == 0
    transport.set_write_buffer_limits(high=100, low=10)
    assert transport.get_write_buffer_limits() == (10, 100)
    assert transport.get_extra_info("peername") is not None
    peer.close()


async def test_d19_pause_writing_is_called_inside_write(loop: Any) -> None:
    """D19: synchronously, and in the context of the one that writes."""

    class Watch(Recorder):
        def pause_writing(self) -> None:
            super().pause_writing()
            VAR.set(VAR.get() + " paused")

    transport, protocol, peer = await connected(Watch())
    transport.set_write_buffer_limits(high=0)
    VAR.set("writer")
    while "pause" not in protocol.events:
        transport.write(b"x" * 1_000_000)
    assert VAR.get() == "writer paused"
    await finish(transport, peer)


@pytest.mark.parametrize("data", [None, 0, "", "text", [1], {}])
async def test_d20_only_bytes_are_written(loop: Any, data: Any) -> None:
    """D20: what is no bytes-like object is refused, even if it is false."""
    transport, _, peer = await connected()
    with pytest.raises(TypeError):
        transport.write(data)
    await finish(transport, peer)


class Client:
    """A TLS client without a loop: a plain socket and two memory buffers."""

    def __init__(self, context: ssl.SSLContext, sock: socket.socket) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming, self.outgoing, server_hostname="localhost"
        )

    async def flush(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self.sock, self.outgoing.read())

    async def handshake(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self.flush()
                self.incoming.write(await loop.sock_recv(self.sock, 65536))
        await self.flush()


async def test_d21_end_of_stream_without_a_tls_alert(loop: Any, tls: Any) -> None:
    """D21: eof_received() is called when TCP ends without a close_notify."""
    near, far = tcp_pair()
    client = Client(tls[1], far)
    protocol = Recorder(loop)
    accepting = asyncio.create_task(
        loop.connect_accepted_socket(lambda: protocol, near, ssl=tls[0])
    )
    await client.handshake()
    _, given = await accepting
    assert given is protocol
    client.tls.write(b"before the end")
    await client.flush()
    far.shutdown(socket.SHUT_WR)
    await protocol.closed
    far.close()
    assert protocol.data == b"before the end"
    assert protocol.events == ["made", "data", "eof", "lost"]
    await turns(2)


async def test_d22_queued_connections_are_accepted_in_bursts(loop: Any) -> None:
    """D22: 50 clients that wait are taken within a few turns, not one in each."""
    made: list[Any] = []
    turns_with_new: set[int] = set()
    turn = 0

    class Keep(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            made.append(transport)
            turns_with_new.add(turn)

    server = await loop.create_server(Keep, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    clients = [socket.create_connection(address) for _ in range(50)]
    while len(made) < 50:
        await asyncio.sleep(0)
        turn += 1
    assert len(turns_with_new) <= 4
    for transport in made:
        transport.close()
    server.close()
    await server.wait_closed()
    for client in clients:
        client.close()


async def test_d24_a_connection_kept_after_its_end_still_reads(loop: Any) -> None:
    """D24: is_reading() stays true when eof_received() keeps the transport."""
    protocol = Recorder(loop)
    protocol.keep_open = True
    transport, _, peer = await connected(protocol)
    peer.shutdown(socket.SHUT_WR)
    await protocol.eof
    await turns(2)
    assert transport.is_reading() is True
    transport.write(b"still")
    assert await loop.sock_recv(peer, 10) == b"still"
    await finish(transport, peer)


async def test_get_buffer_is_asked_for_any_size(loop: Any) -> None:
    """2.1: the size hint of a plain transport is -1."""
    transport, protocol, peer = await connected(BufferedRecorder())
    peer.send(b"x" * 10_000)
    await until(lambda: len(protocol.data) == 10_000)
    assert set(protocol.hints) == {-1}
    await finish(transport, peer)


@pytest.mark.parametrize("proto", [0, socket.IPPROTO_TCP])
async def test_no_delay_is_set(loop: Any, loop_kind: str, proto: int) -> None:
    """2.1: TCP_NODELAY is set; asyncio leaves out sockets made without a protocol."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        near = socket.socket(proto=proto)
        near.connect(listener.getsockname())
        far, _ = listener.accept()
    near.setblocking(False)
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
    option = near.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert bool(option) is (proto != 0 or loop_kind != "asyncio")
    await finish(transport, far)


@pytest.mark.parametrize(
    "name",
    [
        *("_buffer", "_conn_lost", "_extra", "_loop", "_protocol", "_server", "_sock"),
        *("_sendfile_compatible", "_sock_fd", "_start_tls_compatible", "max_size"),
    ],
)
async def test_private_attribute_of_a_transport(loop: Any, name: str) -> None:
    """2.1: what libraries look at is there, and the type is asyncio's."""
    transport, _, peer = await connected()
    getattr(transport, name)
    assert isinstance(transport, asyncio.Transport)
    await finish(transport, peer)


async def test_the_socket_of_a_transport(loop: Any) -> None:
    """2.2: the socket knows its protocol and may be shut down."""
    near, far = tcp_pair()
    transport, protocol = await loop.connect_accepted_socket(
        lambda: Recorder(loop), near
    )
    sock = transport.get_extra_info("socket")
    assert (sock.family, sock.type, sock.proto) == (near.family, near.type, near.proto)
    assert sock.get_inheritable() is False
    sock.shutdown(socket.SHUT_WR)
    assert await loop.sock_recv(far, 1) == b""
    transport.close()
    await protocol.closed
    far.close()


async def test_sockets_of_a_server(loop: Any) -> None:
    """2.4: asyncio's type; a tuple of sockets, empty when it is closed."""
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    assert isinstance(server, asyncio.Server)
    assert type(server.sockets) is tuple and len(server.sockets) == 1
    server.close()
    assert server.sockets == ()
    await server.wait_closed()


@pytest.mark.skipif(PY < (3, 14), reason="closes its clients from 3.14 on")
async def test_serve_forever_cancelled_closes_its_clients(loop: Any) -> None:
    """2.4: from 3.14 on the clients go with the server."""
    protocols: list[Recorder] = []

    def factory() -> Recorder:
        protocols.append(Recorder(loop))
        return protocols[-1]

    server = await loop.create_server(factory, "127.0.0.1", 0)
    serving = asyncio.create_task(server.serve_forever())
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    await until(lambda: protocols)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert await protocols[0].closed is None
    writer.close()
    await writer.wait_closed()


async def test_d33_what_is_there_is_received_at_once(loop: Any) -> None:
    """D33: the system call comes first; only one that would block waits."""
    turned: list[int] = []
    near, far = unix_pair()
    far.send(b"waiting")
    buffer = bytearray(3)
    loop.call_soon(turned.append, 1)
    assert await loop.sock_recv(near, 4) == b"wait"
    assert await loop.sock_recv_into(near, buffer) == 3 and buffer == b"ing"
    with socket.socket() as listener, socket.socket() as client:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        client.connect(listener.getsockname())
        accepted, _ = await loop.sock_accept(listener)
        accepted.close()
    assert turned == []
    near.close()
    far.close()


async def test_d35_one_descriptor_for_two_purposes(loop: Any) -> None:
    """D35: a descriptor may be watched twice; a transport's may not."""
    near, far = unix_pair()
    calls: list[str] = []
    loop.add_reader(near, calls.append, "first")
    loop.add_reader(near, calls.append, "second")
    loop.add_writer(near.fileno(), lambda: loop.remove_writer(near))
    far.send(b"x")
    await until(lambda: calls)
    assert set(calls) == {"second"}
    assert loop.remove_reader(near.fileno()) is True
    assert loop.remove_reader(near) is False
    transport, protocol = await loop.connect_accepted_socket(
        lambda: Recorder(loop), near
    )
    with pytest.raises(RuntimeError, match="is used by transport"):
        loop.add_reader(near.fileno(), int)
    transport.close()
    await protocol.closed
    far.close()

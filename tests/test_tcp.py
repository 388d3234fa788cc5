"""TCP connections through protocols: data, order, integrity, facts."""

# mypy: disable-error-code="attr-defined,misc"

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import random
import socket
from typing import Any

import pytest

from servers import Echo, leave, serve, stop
from support import (
    PY,
    BufferedRecorder,
    Recorder,
    connected,
    finish,
    read_all,
    reset,
    turns,
    until,
)

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("VAR", default="-")
KINDS = [Recorder, BufferedRecorder]


@pytest.mark.parametrize("size", [1, 2, 1000, 65536, 300_000])
async def test_echo(loop: Any, size: int) -> None:
    server, address = await serve(Echo)
    transport, protocol = await loop.create_connection(Recorder, *address)
    message = random.Random(size).randbytes(size)
    transport.write(message)
    await until(lambda: len(protocol.data) >= size)
    assert protocol.data == message
    transport.close()
    await protocol.closed
    assert protocol.events == ["made", "data", "lost"]
    assert protocol.error is None
    await stop(server)


async def test_many_round_trips(loop: Any) -> None:
    server, address = await serve(Echo)
    transport, protocol = await loop.create_connection(Recorder, *address)
    for number in range(500):
        transport.write(b"%06d" % number)
        await until(lambda n=number: len(protocol.data) == 6 * (n + 1))
    assert protocol.data == b"".join(b"%06d" % n for n in range(500))
    transport.close()
    await protocol.closed
    await stop(server)


async def test_many_connections(loop: Any) -> None:
    server, address = await serve(Echo)
    pairs = await asyncio.gather(
        *(loop.create_connection(Recorder, *address) for _ in range(200))
    )
    for number, (transport, _) in enumerate(pairs):
        transport.write(b"%d" % number)
    await until(lambda: all(p.data for _, p in pairs))
    for number, (transport, protocol) in enumerate(pairs):
        assert protocol.data == b"%d" % number
        transport.close()
    await asyncio.gather(*(protocol.closed for _, protocol in pairs))
    await stop(server)


class Digest(asyncio.Protocol):
    """Hashes what it reads, slowly: pauses reading again and again."""

    def __init__(self, size: int) -> None:
        self.left = size
        self.hash = hashlib.sha256()
        self.done = asyncio.get_running_loop().create_future()
        self.pauses = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.may_write = asyncio.Event()
        self.may_write.set()

    def data_received(self, data: bytes) -> None:
        self.hash.update(data)
        self.left -= len(data)
        if self.left <= 0 and not self.done.done():
            self.done.set_result(self.hash.digest())
        elif self.pauses < 50:
            self.pauses += 1
            self.transport.pause_reading()
            loop = asyncio.get_running_loop()
            loop.call_later(0.002, self.transport.resume_reading)

    def pause_writing(self) -> None:
        self.may_write.clear()

    def resume_writing(self) -> None:
        self.may_write.set()


async def pour(protocol: Digest, size: int, seed: int) -> bytes:
    """Write that many random bytes in pieces of odd sizes; their digest."""
    generator = random.Random(seed)
    block = generator.randbytes(1 << 20)
    digest = hashlib.sha256()
    while size:
        start = generator.randrange(1 << 19)
        piece = block[start : start + min(size, generator.randrange(1, 1 << 19))]
        digest.update(piece)
        protocol.transport.write(piece)
        size -= len(piece)
        await protocol.may_write.wait()
    return digest.digest()


async def test_64_megabytes_both_ways(loop: Any) -> None:
    size = 64 << 20
    accepted = loop.create_future()

    def factory() -> Digest:
        protocol = Digest(size)
        accepted.set_result(protocol)
        return protocol

    server, address = await serve(factory)
    _, client = await loop.create_connection(lambda: Digest(size), *address)
    other = await accepted
    await until(lambda: hasattr(other, "may_write"))
    sent, returned = await asyncio.gather(pour(client, size, 1), pour(other, size, 2))
    assert await other.done == sent
    assert await client.done == returned
    for protocol in (client, other):
        protocol.transport.close()
    await turns(5)
    await stop(server)


@pytest.mark.parametrize("size", [1, 7, 64, 4096, 1 << 20])
async def test_buffered_protocol_of_any_buffer(loop: Any, size: int) -> None:
    transport, protocol, peer = await connected(BufferedRecorder(size))
    message = random.Random(size).randbytes(20_000 if size > 7 else 500)
    await loop.sock_sendall(peer, message)
    await until(lambda: len(protocol.data) == len(message))
    assert protocol.data == message
    assert set(protocol.hints) == {-1}
    peer.close()
    await protocol.closed
    assert protocol.events == ["made", "eof", "lost"]
    transport.close()


async def test_buffered_protocol_with_a_window(loop: Any) -> None:
    class Window(BufferedRecorder):
        def get_buffer(self, sizehint: int) -> Any:
            self.at = len(self.data) % 10
            return memoryview(self.buffer)[self.at : self.at + 5]

        def buffer_updated(self, nbytes: int) -> None:
            assert 0 < nbytes <= 5
            self.data += self.buffer[self.at : self.at + nbytes]

    transport, protocol, peer = await connected(Window(20))
    peer.send(b"0123456789" * 10)
    await until(lambda: len(protocol.data) == 100)
    assert protocol.data == b"0123456789" * 10
    await finish(transport, peer)


@pytest.mark.parametrize("kind", KINDS)
async def test_order_of_callbacks(loop: Any, kind: Any) -> None:
    transport, protocol, peer = await connected(kind())
    assert protocol.events == ["made"] and protocol.transport is transport
    peer.send(b"x")
    peer.close()
    await protocol.closed
    assert protocol.data == b"x"
    assert [e for e in protocol.events if e != "data"] == ["made", "eof", "lost"]
    assert transport.is_closing()


async def test_connection_made_comes_before_data(loop: Any) -> None:
    peer = socket.socket()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        peer.connect(listener.getsockname())
        near, _ = listener.accept()
    peer.sendall(b"already there")
    peer.shutdown(socket.SHUT_WR)
    near.setblocking(False)
    protocol = Recorder(loop)
    await loop.connect_accepted_socket(lambda: protocol, near)
    await protocol.closed
    assert protocol.events == ["made", "data", "eof", "lost"]
    assert protocol.data == b"already there"
    peer.close()


async def test_data_is_not_delivered_inside_write(loop: Any) -> None:
    server, address = await serve(Echo)
    inside: list[bool] = []

    class Check(Recorder):
        writing = False

        def data_received(self, data: bytes) -> None:
            inside.append(self.writing)
            super().data_received(data)

    transport, protocol = await loop.create_connection(Check, *address)
    for _ in range(50):
        protocol.writing = True
        transport.write(b"x" * 1000)
        protocol.writing = False
        await turns(1)
    await until(lambda: len(protocol.data) == 50_000)
    assert inside and not any(inside)
    transport.close()
    await protocol.closed
    await stop(server)


async def test_connection_lost_comes_a_turn_later(loop: Any) -> None:
    for name in ("close", "abort"):
        transport, protocol, peer = await connected()
        getattr(transport, name)()
        assert protocol.events == ["made"] and transport.is_closing()
        await protocol.closed
        assert protocol.events == ["made", "lost"] and protocol.error is None
        peer.close()


async def test_extra_info(loop: Any) -> None:
    transport, _, peer = await connected()
    sock = transport.get_extra_info("socket")
    assert isinstance(sock, asyncio.trsock.TransportSocket)
    assert sock.fileno() > 0 and sock.family == socket.AF_INET
    names = peer.getpeername(), peer.getsockname()
    assert transport.get_extra_info("sockname") == names[0]
    assert transport.get_extra_info("peername") == names[1]
    assert transport.get_extra_info("nothing") is None
    assert transport.get_extra_info("nothing", 5) == 5
    await finish(transport, peer)
    assert transport.get_extra_info("sockname") == names[0]
    assert transport.get_extra_info("peername") == names[1]
    assert transport.get_extra_info("socket") is sock
    assert sock.fileno() == -1


async def test_types_and_attributes(loop: Any) -> None:
    transport, protocol, peer = await connected()
    assert isinstance(transport, asyncio.Transport)
    assert isinstance(transport, asyncio.transports._FlowControlMixin)
    assert not isinstance(transport, asyncio.DatagramTransport)
    assert transport.get_protocol() is protocol
    assert transport.is_reading() is True and transport.is_closing() is False
    assert transport._loop is loop and transport._protocol is protocol
    assert transport._sock_fd == transport.get_extra_info("socket").fileno()
    assert transport._conn_lost == 0 and transport._server is None
    assert transport._start_tls_compatible is True
    assert transport.max_size == 256 * 1024
    assert transport._extra["peername"] == peer.getsockname()
    transport.mine = "attributes may be put on transports"
    await finish(transport, peer)
    assert transport.get_protocol() is None


async def test_repr(loop: Any) -> None:
    transport, _, peer = await connected()
    fd = transport.get_extra_info("socket").fileno()
    text = repr(transport)
    assert f"fd={fd}" in text and "read=" in text
    assert "write=<idle, bufsize=0>" in text
    transport.close()
    assert "closing" in repr(transport)
    await finish(transport, peer)
    assert "closed" in repr(transport)


async def test_no_delay(loop: Any) -> None:
    server, address = await serve(Recorder)
    transport, protocol = await loop.create_connection(Recorder, *address)
    sock = transport.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    transport.close()
    await protocol.closed
    await stop(server)


async def test_no_delay_on_accepted_sockets(loop: Any) -> None:
    flags: list[int] = []

    class Check(Recorder):
        def connection_made(self, transport: Any) -> None:
            sock = transport.get_extra_info("socket")
            flags.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            transport.close()

    server, address = await serve(Check)
    # A listener made by the user has proto 0, and so has what it accepts.
    _, writer = await asyncio.open_connection(*address)
    await until(lambda: flags)
    assert flags[0] != 0
    await leave(writer)
    await stop(server)


@pytest.mark.parametrize("kind", KINDS)
async def test_context_of_the_callbacks(loop: Any, kind: Any) -> None:
    seen: list[str] = []

    class Watch(kind):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            seen.append(VAR.get())
            VAR.set("set in made")

        def eof_received(self) -> bool:
            seen.append(VAR.get())
            VAR.set("set in eof")
            return bool(super().eof_received())

        def connection_lost(self, exc: Any) -> None:
            seen.append(VAR.get())
            super().connection_lost(exc)

    VAR.set("caller")
    transport, protocol, peer = await connected(Watch())
    VAR.set("later")
    peer.close()
    await protocol.closed
    transport.close()
    assert seen[0] == "caller"
    if PY < (3, 15):
        # connection_made has a copy; reading began in one that it left alone.
        assert seen[1:] == ["caller", "set in eof"]
    else:
        assert seen[1:] == ["set in made", "set in eof"]
    assert VAR.get() == "later"


async def test_contexts_of_a_servers_connections(loop: Any) -> None:
    seen: list[str] = []
    closed: list[int] = []

    class Watch(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            seen.append(VAR.get())
            VAR.set("from another connection")
            transport.close()

        def connection_lost(self, exc: Any) -> None:
            closed.append(1)

    VAR.set("server")
    server, address = await serve(Watch)
    VAR.set("later")
    for count in range(1, 4):
        _, writer = await asyncio.open_connection(*address)
        await until(lambda c=count: len(closed) == c)
        await leave(writer)
    assert len(seen) == 3 and len(set(seen)) == 1
    assert seen[0] == "server"
    await stop(server)


async def test_connect_errors_name_the_address(loop: Any) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    made: list[int] = []
    with pytest.raises(ConnectionRefusedError) as caught:
        await loop.create_connection(lambda: made.append(1), "127.0.0.1", port)
    assert f"Connect call failed ('127.0.0.1', {port})" in str(caught.value)
    assert made == []


async def test_connect_with_every_argument(loop: Any) -> None:
    server, (host, port) = await serve(Echo)
    kwargs: dict[str, Any] = {
        "family": socket.AF_INET,
        "proto": socket.IPPROTO_TCP,
        "local_addr": ("127.0.0.1", 0),
        "happy_eyeballs_delay": 0.1,
        "interleave": 1,
    }
    if PY >= (3, 12):
        kwargs["all_errors"] = True
    transport, protocol = await loop.create_connection(Recorder, host, port, **kwargs)
    transport.write(b"x")
    await until(lambda: protocol.data)
    transport.close()
    await protocol.closed
    await stop(server)


async def test_connect_with_a_socket(loop: Any) -> None:
    server, address = await serve(Echo)
    sock = socket.socket()
    sock.setblocking(False)
    await loop.sock_connect(sock, address)
    transport, protocol = await loop.create_connection(Recorder, sock=sock)
    assert transport.get_extra_info("socket").fileno() == sock.fileno()
    transport.write(b"x")
    await until(lambda: protocol.data)
    transport.close()
    await protocol.closed
    assert sock.fileno() == -1
    await stop(server)


async def test_wrong_sockets(loop: Any) -> None:
    with pytest.raises(ValueError, match="host and port was not specified"):
        await loop.create_connection(Recorder)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        with pytest.raises(ValueError, match="A Stream Socket was expected"):
            await loop.create_connection(Recorder, sock=sock)
        with pytest.raises(ValueError, match="A Stream Socket was expected"):
            await loop.connect_accepted_socket(Recorder, sock)
    with (
        socket.socket() as sock,
        pytest.raises(ValueError, match="can not be specified"),
    ):
        await loop.create_connection(Recorder, "localhost", 1, sock=sock)


async def test_a_socket_of_a_transport_is_not_for_sock_calls(loop: Any) -> None:
    transport, _, peer = await connected()
    sock = transport.get_extra_info("socket")._sock
    with pytest.raises(RuntimeError, match="is used by transport"):
        await loop.sock_recv(sock, 10)
    await loop.sock_sendall(peer, b"still alive")
    await until(lambda: transport.get_protocol().data == b"still alive")
    await finish(transport, peer)


async def test_ipv6(loop: Any) -> None:
    try:
        server = await loop.create_server(Echo, "::1", 0)
    except OSError:
        pytest.skip("no IPv6 here")
    address = server.sockets[0].getsockname()
    transport, protocol = await loop.create_connection(Recorder, *address[:2])
    assert transport.get_extra_info("peername")[:2] == address[:2]
    transport.write(b"six")
    await until(lambda: protocol.data == b"six")
    transport.close()
    await protocol.closed
    await stop(server)


async def test_peer_that_resets(loop: Any) -> None:
    transport, protocol, peer = await connected()
    reset(peer)
    await protocol.closed
    assert isinstance(protocol.error, ConnectionResetError)
    assert protocol.events == ["made", "lost"]
    transport.close()


async def test_transport_keeps_the_blocking_mode(loop: Any) -> None:
    transport, _, peer = await connected()
    assert transport.get_extra_info("socket").gettimeout() == 0
    transport.write(b"x")
    assert await read_all(peer, 1) == b"x"
    await finish(transport, peer)

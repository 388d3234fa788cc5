"""TLS where something reaches in: from callbacks, by hand, past the transport."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import sys
import threading
import time
from typing import Any

import pytest

from support import Recorder, tcp_pair, turns, until
from test_tls_deferred import take_until_it_breaks
from tlspeers import SECONDS, Peer, open_tls, recv_exactly, with_peer

# ---- what is only deferred, when it is gone around ----


class Answering(Recorder):
    """Writes an answer, then does something that must not overtake it."""

    def __init__(self, then: Any) -> None:
        super().__init__()
        self.then = then

    def data_received(self, data: bytes) -> None:
        self.transport.write(b"answer")
        self.then(self.transport)


def shut_socket(transport: Any) -> None:
    transport.get_extra_info("socket")._sock.shutdown(socket.SHUT_WR)


def unwrap(transport: Any) -> None:
    with pytest.raises(ssl.SSLWantReadError):
        transport.get_extra_info("ssl_object").unwrap()
    transport.write(b"")
    asyncio.get_running_loop().call_later(0.1, transport.abort)


def write_by_object(transport: Any) -> None:
    transport.get_extra_info("ssl_object").write(b" by hand")
    transport.write(b" and more")
    asyncio.get_running_loop().call_soon(transport.close)


def close_below(transport: Any) -> None:
    transport._ssl_protocol._transport.close()


def abort_below(transport: Any) -> None:
    transport._ssl_protocol._transport.abort()


@pytest.mark.parametrize(
    "then", [shut_socket, unwrap, write_by_object, close_below, abort_below]
)
async def test_answer_is_not_overtaken(loop: Any, tls: Any, then: Any) -> None:
    def ask(sock: ssl.SSLSocket) -> bytes:
        sock.sendall(b"question")
        return take_until_it_breaks(sock)

    transport, _, peer = await with_peer(tls, ask, protocol=Answering(then))
    expected = b"answer"
    if then is write_by_object:
        expected += b" by hand and more"
    if then is unwrap and transport.get_write_buffer_size() == 0:
        await asyncio.sleep(0)
    assert await peer.ended() == expected
    transport.abort()
    await turns(3)


def test_answer_before_the_run_ends(new_loop: Any, tls: Any) -> None:
    """What raises out of the run does not keep it for ever."""
    loop = new_loop()
    got: list[bytes] = []
    connected, answered = threading.Event(), threading.Event()

    def ask(sock: ssl.SSLSocket) -> None:
        assert connected.wait(SECONDS)
        sock.sendall(b"question")
        got.append(recv_exactly(sock, 6))
        answered.set()

    class Leaving(Recorder):
        def data_received(self, data: bytes) -> None:
            self.transport.write(b"answer")
            raise KeyboardInterrupt

    transport, _, peer = loop.run_until_complete(
        with_peer_on(loop, tls, ask, lambda: Leaving(loop))
    )
    connected.set()
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(asyncio.sleep(SECONDS))
    loop.run_until_complete(asyncio.sleep(0))
    assert answered.wait(SECONDS) and got == [b"answer"]
    transport.abort()
    loop.run_until_complete(turns(4))
    peer.wait()
    loop.close()


async def with_peer_on(loop: Any, tls: Any, work: Any, factory: Any) -> Any:
    return await with_peer(tls, work, protocol=factory())


async def test_buffer_changed_while_writing_pauses(
    loop: Any, loop_kind: str, tls: Any
) -> None:
    """pause_writing() writes, too, and the big buffer is changed afterwards."""
    if loop_kind == "asyncio":
        pytest.skip("asyncio never sends the rest of it")
    size = 12_000_000
    go = threading.Event()

    class Pausing(Recorder):
        def pause_writing(self) -> None:
            self.transport.write(b"tail")

    def work(sock: ssl.SSLSocket) -> bytes:
        assert go.wait(SECONDS)
        return recv_exactly(sock, size + 8)

    transport, _, peer = await with_peer(tls, work, protocol=Pausing())
    transport.set_write_buffer_limits(1000, 100)
    data = bytearray(b"A") * size
    transport.write(data)
    transport.write(b"more")
    data[:] = b"Z" * size
    data.clear()
    go.set()
    got = await peer.result()
    assert got[:size].count(b"A") == size and sorted(got[size:]) == sorted(b"tailmore")
    transport.abort()


# ---- the SSLObject ----


async def test_object_read_by_hand(loop: Any, tls: Any) -> None:
    """A part of a record taken by the program: the transport gets the rest."""

    def work(sock: ssl.SSLSocket) -> bytes:
        assert sock.recv(5) == b"ready"
        sock.sendall(b"0123456789")
        return sock.recv(10)

    transport, protocol, peer = await with_peer(tls, work)
    transport.pause_reading()
    transport.write(b"ready")
    ssl_object = transport.get_extra_info("ssl_object")
    head = b""
    for _ in range(2000):
        try:
            head = ssl_object.read(3)
        except ssl.SSLWantReadError:
            await asyncio.sleep(0.005)
        else:
            break
    assert head == b"012"
    transport.resume_reading()
    await until(lambda: protocol.data == b"3456789")
    transport.close()
    await peer.result()
    await protocol.closed


async def test_object_without_its_inside(loop: Any, tls: Any, reports: Any) -> None:
    """Whatever a program does to the object, the process goes on."""

    def work(sock: ssl.SSLSocket) -> bytes:
        sock.sendall(b"hello")
        return take_until_it_breaks(sock)

    transport, protocol, peer = await with_peer(tls, work)
    await until(lambda: protocol.data == b"hello")
    ssl_object = transport.get_extra_info("ssl_object")
    ssl_object._sslobj = None
    gc.collect()
    transport.write(b"perhaps")
    await turns(3)
    transport.abort()
    await protocol.closed
    await peer.result()
    reports.take()


@pytest.mark.parametrize("feed", ["plain", "stream"])
async def test_lost_by_hand_in_a_read(
    loop: Any, tls: Any, reports: Any, feed: str
) -> None:
    """A method of the object calls connection_lost() itself."""
    lose: list[Any] = []

    class Losing(ssl.SSLObject):
        def read(self, *args: Any) -> Any:
            data = super().read(*args)
            while lose:
                lose.pop().connection_lost(None)
            return data

    def work(sock: ssl.SSLSocket) -> bytes:
        assert sock.recv(5) == b"ready"
        sock.sendall(b"hello")
        return take_until_it_breaks(sock)

    tls[1].sslobject_class = Losing
    protocol: Any = Recorder()
    if feed == "stream":
        protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
    transport, _, peer = await with_peer(tls, work, protocol=protocol)
    below = transport._ssl_protocol._transport
    lose.append(transport._ssl_protocol)
    transport.write(b"ready")
    await until(lambda: not lose)
    await turns(3)
    below.abort()
    await peer.result()
    assert [str(one["exception"]) for one in reports.take()] == [
        "'NoneType' object has no attribute 'data_received'"
    ]


async def test_patched_methods_are_called(
    loop: Any, tls: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool that replaces SSLObject.read() and write() sees the data."""
    seen = {"read": 0, "write": 0}

    def counting(name: str) -> Any:
        original = getattr(ssl.SSLObject, name)

        def method(self: Any, *args: Any) -> Any:
            seen[name] += 1
            return original(self, *args)

        return method

    for name in seen:
        monkeypatch.setattr(ssl.SSLObject, name, counting(name))

    def work(sock: ssl.SSLSocket) -> bytes:
        sock.sendall(b"hello")
        return sock.recv(100)

    transport, protocol, peer = await with_peer(tls, work)
    transport.write(b"hi")
    assert await peer.result() == b"hi"
    await until(lambda: protocol.data == b"hello")
    assert seen["read"] > 0 and seen["write"] > 0
    transport.close()
    await protocol.closed


# ---- the end of the data ----


async def test_much_unread_at_the_end(loop: Any, tls: Any) -> None:
    """Reading resumes after the peer has left: all of it arrives, then the end."""
    size = 3_000_000

    def work(sock: ssl.SSLSocket) -> None:
        sock.sendall(b"d" * size)
        socket.socket.shutdown(sock, socket.SHUT_WR)
        sock.recv(1)

    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _, peer = await with_peer(tls, work, protocol=protocol)
    transport.set_read_buffer_limits(high=16 * 1024 * 1024)
    transport.pause_reading()
    await until(lambda: transport.get_read_buffer_size() > size)
    await asyncio.sleep(0.05)
    transport.resume_reading()
    assert len(await reader.read()) == size
    transport.abort()
    await peer.ended()


async def test_small_buffer_at_the_end(loop: Any, loop_kind: str, tls: Any) -> None:
    """A protocol that takes a part at a time gets all of it before the end."""
    if loop_kind == "asyncio":
        pytest.skip("asyncio drops what does not fit in when the end has come")

    class Small(Recorder, asyncio.BufferedProtocol):  # type: ignore[misc]
        buffer = bytearray(100)
        data_received = None  # type: ignore[assignment]

        def get_buffer(self, sizehint: int) -> memoryview:
            return memoryview(self.buffer)

        def buffer_updated(self, nbytes: int) -> None:
            self.data += self.buffer[:nbytes]

    def work(sock: ssl.SSLSocket) -> None:
        sock.sendall(os.urandom(20_000))

    _, protocol, peer = await with_peer(tls, work, protocol=Small())
    await protocol.closed
    assert len(protocol.data) == 20_000
    await peer.ended()


async def test_close_of_what_has_ended_unread(
    loop: Any, loop_kind: str, tls: Any
) -> None:
    if loop_kind == "asyncio":
        pytest.skip("asyncio waits for a resume_reading() that nobody calls")

    def work(sock: ssl.SSLSocket) -> None:
        sock.sendall(b"unread")
        socket.socket.shutdown(sock, socket.SHUT_WR)
        sock.recv(1)

    transport, protocol, peer = await with_peer(tls, work)
    transport.pause_reading()
    await asyncio.sleep(0.1)
    transport.close()
    assert await asyncio.wait_for(protocol.closed, SECONDS) is None
    await peer.ended()


async def test_slow_reader_outlasts_the_timeout(loop: Any, tls: Any) -> None:
    """close() waits for a peer that reads, however slowly."""
    data = os.urandom(16_000_000)

    def slowly(sock: ssl.SSLSocket) -> bytes:
        got = bytearray()
        while chunk := sock.recv(500_000):
            got += chunk
            time.sleep(0.0015)
        return bytes(got)

    transport, protocol, peer = await with_peer(tls, slowly, ssl_shutdown_timeout=10)
    transport.write(data)
    transport.close()
    assert await peer.result() == data
    assert await protocol.closed is None


@pytest.mark.parametrize("pace", ["steadily", "a trickle"])
async def test_reader_that_has_left_half(
    loop: Any, loop_kind: str, tls: Any, pace: str
) -> None:
    """The peer said it sends no more: it gets all as long as it reads on."""
    if loop_kind == "asyncio":
        pytest.skip("asyncio waits for ever up to 3.13, and not at all later")
    data = os.urandom(14_000_000)
    stop = threading.Event()

    def work(sock: ssl.SSLSocket) -> bytes:
        assert recv_exactly(sock, 5) == b"ready"
        socket.socket.shutdown(sock, socket.SHUT_WR)
        got = bytearray()
        with contextlib.suppress(OSError):
            size = 16384 if pace == "steadily" else 20
            while not stop.is_set() and (chunk := sock.recv(size)):
                got += chunk
                time.sleep(0.0015 if pace == "steadily" else 0.05)
        return bytes(got)

    transport, protocol, peer = await with_peer(tls, work, ssl_shutdown_timeout=0.4)
    transport.write(b"ready")
    transport.write(data)
    error = await asyncio.wait_for(protocol.closed, SECONDS)
    if pace == "steadily":
        assert error is None and await peer.result() == data
    else:
        assert type(error) is TimeoutError
        stop.set()
        await peer.ended()


# ---- arguments ----


@pytest.mark.parametrize("falsy", [0, "", None])
async def test_server_without_tls(loop: Any, falsy: Any) -> None:
    """Whatever is false means no TLS."""
    protocols: list[Recorder] = []

    def factory() -> Recorder:
        protocols.append(Recorder())
        return protocols[-1]

    server = await loop.create_server(factory, "127.0.0.1", 0, ssl=falsy)
    address = server.sockets[0].getsockname()
    transport, protocol = await loop.create_connection(Recorder, *address)
    transport.write(b"plain")
    await until(lambda: protocols and protocols[0].data == b"plain")
    transport.close()
    await protocol.closed
    await protocols[0].closed
    server.close()
    await server.wait_closed()


async def test_collected_while_paused(loop: Any, tls: Any, no_warnings: Any) -> None:
    """A dropped connection is garbage like any other, in whatever order."""
    for _ in range(3):
        near, far = tcp_pair()
        peer = Peer(far, lambda sock: sock_work(sock, tls[0]))
        transport = await open_tls(near, tls, "client", Recorder())
        transport.pause_reading()
        await asyncio.sleep(0.02)
        gc.collect()
        below = transport._ssl_protocol._transport
        below.pause_reading()
        near.close()
        below.abort()
        del transport, below
        await peer.ended()
        await turns(3)
        gc.collect()
    assert sys.getrefcount(tls[1]) < 50


def sock_work(sock: Any, context: ssl.SSLContext) -> None:
    with context.wrap_socket(sock, server_side=True) as wrapped:
        wrapped.sendall(b"x" * 5000)
        take_until_it_breaks(wrapped)

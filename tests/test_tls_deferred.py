"""What is written over TLS waits for the end of the turn, and is not lost by that."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
from typing import Any

import pytest

from support import Recorder
from tlspeers import SECONDS, Peer, both_ends, recv_exactly, tcp_pair, with_peer


def take_until_it_breaks(tls: ssl.SSLSocket) -> bytes:
    """The work of a peer that reads what comes before the connection breaks."""
    got = bytearray()
    try:
        while data := tls.recv(65536):
            got += data
    except OSError:
        pass
    return bytes(got)


class Sized(Recorder):
    """Reads until it has so much."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.got = bytearray()
        self.whole = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.got += data
        if len(self.got) >= self.size and not self.whole.done():
            self.whole.set_result(bytes(self.got))


@pytest.mark.parametrize("size", [10, 20_000])
async def test_write_then_abort(loop: Any, tls: Any, size: int) -> None:
    transport, _, peer = await with_peer(tls, take_until_it_breaks)
    data = os.urandom(size)
    transport.write(data)
    transport.abort()
    assert await peer.result() == data


async def test_write_then_raise(loop: Any, tls: Any, reports: Any) -> None:
    """asyncio has the answer in the kernel before the protocol fails."""

    class Failing(Recorder):
        def data_received(self, data: bytes) -> None:
            self.transport.write(b"answer")
            raise ZeroDivisionError

    def ask(sock: ssl.SSLSocket) -> bytes:
        sock.sendall(b"question")
        return take_until_it_breaks(sock)

    _, protocol, peer = await with_peer(tls, ask, protocol=Failing())
    assert await peer.result() == b"answer"
    await protocol.closed
    (report,) = reports.take()
    assert report["message"] == "Fatal error on SSL protocol"
    assert type(report["exception"]) is ZeroDivisionError


async def test_write_when_writing_resumes(loop: Any, tls: Any) -> None:
    """Every callback may write, also one that comes while data leaves."""
    size = 20_000_000

    class Resuming(Recorder):
        resumed = 0

        def resume_writing(self) -> None:
            self.resumed += 1
            self.transport.write(b"and this")

    go = threading.Event()

    def work(sock: ssl.SSLSocket) -> bytes:
        assert go.wait(SECONDS)
        return recv_exactly(sock, size + 8)

    transport, protocol, peer = await with_peer(tls, work, protocol=Resuming())
    transport.set_write_buffer_limits(1000, 100)
    data = os.urandom(size)
    transport.write(data[:-5000])
    transport.write(data[-5000:])
    assert protocol.events == ["made", "pause"]
    go.set()
    assert await peer.result() == data + b"and this"
    assert protocol.resumed == 1
    transport.abort()


async def test_many_small_writes(loop: Any, tls: Any) -> None:
    pieces = [os.urandom(n % 97) for n in range(5000)]
    whole = b"".join(pieces)
    transport, _, peer = await with_peer(tls, lambda s: recv_exactly(s, len(whole)))
    for number, piece in enumerate(pieces):
        transport.write(piece)
        if number % 1000 == 999:
            await asyncio.sleep(0)
    assert await peer.result() == whole
    transport.abort()


async def test_buffers_may_be_changed_after_write(loop: Any, tls: Any) -> None:
    sizes = (1, 100, 16_383, 16_384, 16_385, 70_000, 1_000_000)
    expected = b"".join(bytes([n]) * size for n, size in enumerate(sizes))
    transport, _, peer = await with_peer(tls, lambda s: recv_exactly(s, len(expected)))
    for n, size in enumerate(sizes):
        data = bytearray([n]) * size
        transport.write(data)
        data[:] = b"\xff" * size
        view = bytearray(b"") if n % 2 else None
        if view is not None:
            transport.write(view)
    assert await peer.result() == expected
    transport.abort()


async def test_slow_reader_gets_everything(loop: Any, tls: Any) -> None:
    """Far more than the kernel takes, then close(): all of it arrives."""
    data = os.urandom(12_000_000)

    def slowly(sock: ssl.SSLSocket) -> bytes:
        got = bytearray()
        while chunk := sock.recv(400_000):
            got += chunk
        return bytes(got)

    transport, protocol, peer = await with_peer(tls, slowly)
    transport.write(data)
    transport.write(b"end")
    transport.close()
    assert await peer.result() == data + b"end"
    assert await protocol.closed is None


@pytest.mark.parametrize("size", [1, 5000, 300_000, 2_000_000])
async def test_both_ways_at_once(loop: Any, tls: Any, size: int) -> None:
    there, back = os.urandom(size), os.urandom(size)
    ends = [Sized(size), Sized(size)]
    client, server = await both_ends(tls, *ends)
    client.write(there)
    server.write(back)
    assert await asyncio.gather(*(one.whole for one in ends)) == [back, there]
    client.close()
    await ends[0].closed
    await ends[1].closed


async def test_get_write_buffer_size_is_what_was_not_taken(loop: Any, tls: Any) -> None:
    transport, _, peer = await with_peer(tls, lambda s: recv_exactly(s, 1000))
    transport.write(bytes(1000))
    assert transport.get_write_buffer_size() == 0
    assert await peer.result() == bytes(1000)
    transport.abort()


async def test_written_before_start_tls_stays_plain(loop: Any, tls: Any) -> None:
    """What a plain transport still holds back leaves before the handshake does."""
    near, far = tcp_pair()

    def work(sock: Any) -> tuple[bytes, bytes]:
        plain = sock.recv(5)
        with tls[0].wrap_socket(sock, server_side=True) as wrapped:
            return plain, recv_exactly(wrapped, 6)

    peer = Peer(far, work)
    protocol = Recorder()
    plain, _ = await loop.connect_accepted_socket(lambda: protocol, near)
    plain.write(b"plain")
    transport = await loop.start_tls(
        plain, protocol, tls[1], server_hostname="localhost"
    )
    transport.write(b"secret")
    assert await peer.result() == (b"plain", b"secret")
    transport.abort()

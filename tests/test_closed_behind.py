"""What a program does to a socket that belongs to a transport or a server."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Any

import pytest

from support import tcp_pair, turns, unix_pair

PAIRS = pytest.mark.parametrize("pair", [unix_pair, tcp_pair], ids=["unix", "tcp"])


class Recorder(asyncio.Protocol):
    def __init__(self) -> None:
        self.data = b""
        self.lost: list[Exception | None] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.append(error)

    def lost_by(self) -> int | None:
        (error,) = self.lost
        assert isinstance(error, OSError)
        return error.errno


async def connected(loop: Any, sock: socket.socket, factory: Any = Recorder) -> Any:
    sock.setblocking(False)
    _, protocol = await loop.create_connection(factory, sock=sock)
    return protocol


def renumber(sock: socket.socket, fd: int) -> socket.socket:
    """The socket under this number, which is free."""
    if sock.fileno() == fd:
        return sock
    os.dup2(sock.fileno(), fd, inheritable=False)
    sock.close()
    return socket.socket(fileno=fd)


def reuse(fd: int) -> tuple[socket.socket, socket.socket]:
    """A pair whose first socket has this number."""
    near, far = unix_pair()
    if far.fileno() == fd:
        near, far = far, near
    return renumber(near, fd), far


def plug_holes(below: int) -> list[int]:
    """Take all free numbers below this one, so that it is the next to be given."""
    taken: list[int] = []
    while (fd := os.open(os.devnull, os.O_RDONLY)) < below:
        taken.append(fd)
    os.close(fd)
    return taken


def received(sock: socket.socket) -> bytes:
    try:
        return sock.recv(100)
    except BlockingIOError:
        return b""


@PAIRS
async def test_writes_do_not_reach_a_stranger(loop: Any, pair: Any) -> None:
    near, far = pair()
    protocol = await connected(loop, near)
    fd = near.fileno()
    near.close()
    stranger, peer = reuse(fd)
    protocol.transport.write(b"secret")
    await turns(3)
    assert received(peer) == b""
    assert protocol.lost_by() == errno.EBADF
    peer.send(b"for the stranger")
    await turns(3)
    assert received(stranger) == b"for the stranger"
    assert protocol.data == b""
    os.fstat(stranger.fileno())
    for sock in (far, stranger, peer):
        sock.close()


@PAIRS
async def test_an_event_under_way_reads_nothing_of_a_stranger(
    loop: Any, pair: Any
) -> None:
    class First(Recorder):
        def data_received(self, data: bytes) -> None:
            fd = second.fileno()
            second.close()
            strangers.extend(reuse(fd))
            strangers[1].send(b"for the stranger")

    strangers: list[socket.socket] = []
    one, one_far = pair()
    second, second_far = pair()
    first = await connected(loop, one, First)
    other = await connected(loop, second)
    one_far.send(b"x")
    second_far.send(b"y")
    await asyncio.sleep(0.02)
    # The order of two events is the poller's.
    if strangers and not other.data:
        assert other.lost_by() == errno.EBADF
        assert received(strangers[0]) == b"for the stranger"
    else:
        assert other.data == b"y"
    first.transport.abort()
    other.transport.abort()
    await turns(2)
    for sock in (one_far, second_far, *strangers):
        sock.close()


async def test_half_closing_and_closing_spare_a_stranger(loop: Any) -> None:
    near, far = unix_pair()
    protocol = await connected(loop, near)
    fd = near.fileno()
    near.close()
    stranger, peer = reuse(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        protocol.transport.write_eof()
    protocol.transport.close()
    await turns(2)
    assert len(protocol.lost) == 1
    stranger.send(b"still open")
    assert received(peer) == b"still open"
    for sock in (far, stranger, peer):
        sock.close()


async def test_a_detached_socket_is_left_alone(loop: Any) -> None:
    near, far = unix_pair()
    protocol = await connected(loop, near)
    fd = near.detach()
    far.send(b"for its new owner")
    await turns(3)
    protocol.transport.close()
    await turns(2)
    assert protocol.data == b""
    with socket.socket(fileno=fd) as owner:
        assert received(owner) == b"for its new owner"
    far.close()


async def test_datagrams_do_not_reach_a_stranger(loop: Any) -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, sock=sock
    )
    fd = sock.fileno()
    sock.close()
    stranger = renumber(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), fd)
    stranger.bind(("127.0.0.1", 0))
    stranger.setblocking(False)
    target = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    target.bind(("127.0.0.1", 0))
    target.setblocking(False)
    for _ in range(3):
        transport.sendto(b"secret", target.getsockname())
    await turns(3)
    assert received(target) == b""
    target.sendto(b"for the stranger", stranger.getsockname())
    await turns(3)
    assert received(stranger) == b"for the stranger"
    transport.abort()
    await turns(2)
    stranger.close()
    target.close()


@pytest.mark.parametrize("how", ["close", "shutdown", "shutdown the view"])
async def test_what_was_written_leaves_before(loop: Any, how: str) -> None:
    """The program holds the socket and ends it itself after its last write."""
    near, far = unix_pair()
    protocol = await connected(loop, near)
    view = protocol.transport.get_extra_info("socket")
    protocol.transport.write(b"last ")
    protocol.transport.writelines([b"wo", b"rds"])
    if how == "close":
        near.close()
    elif how == "shutdown":
        near.shutdown(socket.SHUT_WR)
    else:
        del near
        view.shutdown(socket.SHUT_WR)
    assert received(far) == b"last words"
    protocol.transport.abort()
    await turns(2)
    far.close()


async def test_a_server_whose_socket_was_closed(loop: Any, loop_kind: str) -> None:
    """Its number must not bar the connections of another server."""
    if loop_kind != "hotloop":
        pytest.skip("asyncio's selector has to stumble over it once")

    class Echo(Recorder):
        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    stale = await loop.create_server(Recorder, sock=listening)
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    clients = [socket.socket() for _ in range(4)]
    plugs = plug_holes(listening.fileno())
    listening.close()
    answers = []
    for client in clients:
        client.setblocking(False)
        await loop.sock_connect(client, address)
        await loop.sock_sendall(client, b"ping")
        for _ in range(50):
            await asyncio.sleep(0.001)
            if answer := received(client):
                answers.append(answer)
                break
        client.shutdown(socket.SHUT_RDWR)
        await turns(3)
    assert answers == [b"ping"] * 4
    for client in clients:
        client.close()
    server.close()
    stale.close()
    for plug in plugs:
        os.close(plug)
    await turns(3)

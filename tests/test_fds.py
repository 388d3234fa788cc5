"""Descriptors over Unix stream transports: send_fds, recv_fds, fds_received."""

# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import pathlib
import random
import socket
import sys
import weakref
from typing import Any

import pytest

from support import (
    BufferedRecorder,
    Recorder,
    collect,
    connected,
    finish,
    run_script,
    tcp_pair,
    turns,
    unix_pair,
    until,
)


@pytest.fixture(params=["hotloop"])
def loop_kind(request: pytest.FixtureRequest) -> str:
    """asyncio has none of this."""
    kind: str = request.param
    return kind


class Taker(Recorder):
    """Writes down descriptors among the data they came with."""

    def __init__(self, loop: Any = None) -> None:
        super().__init__(loop)
        self.fds: list[int] = []
        self.sizes: list[tuple[int, int]] = []

    def fds_received(self, fds: list[int]) -> None:
        self.sizes.append((len(self.data), len(fds)))
        self.fds += fds

    def close_fds(self) -> None:
        for fd in self.fds:
            os.close(fd)


class BufferedTaker(BufferedRecorder):
    fds_received = Taker.fds_received
    close_fds = Taker.close_fds

    def __init__(self, size: int = 1024) -> None:
        super().__init__(size)
        self.fds: list[int] = []
        self.sizes: list[tuple[int, int]] = []


def same_file(left: int, right: int) -> bool:
    a, b = os.fstat(left), os.fstat(right)
    return (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)


def pipe_with(text: bytes) -> int:
    """The reading end of a pipe that holds this text."""
    reading, writing = os.pipe()
    os.write(writing, text)
    os.close(writing)
    return reading


async def pair_of_transports(protocol: Any) -> tuple[Any, Any]:
    """A transport to send with, and one whose protocol is this."""
    loop = asyncio.get_running_loop()
    left, right = unix_pair()
    sender, _ = await loop.connect_accepted_socket(Recorder, left)
    receiver, _ = await loop.connect_accepted_socket(lambda: protocol, right)
    return sender, receiver


async def test_sent_to_a_plain_socket(loop: Any) -> None:
    transport, _, peer = await connected(pair=unix_pair)
    fd = pipe_with(b"through")
    transport.send_fds(b"one", [fd])
    os.close(fd)
    await turns(2)
    data, fds, flags, _ = socket.recv_fds(peer, 100, 10)
    assert (data, len(fds), flags & socket.MSG_CTRUNC) == (b"one", 1, 0)
    assert os.read(fds[0], 10) == b"through"
    os.close(fds[0])
    await finish(transport, peer)


@pytest.mark.parametrize("kind", [Taker, BufferedTaker])
async def test_received_from_a_plain_socket(loop: Any, kind: Any) -> None:
    transport, protocol, peer = await connected(kind(), pair=unix_pair)
    fd = pipe_with(b"in")
    socket.send_fds(peer, [b"a"], [fd])
    os.close(fd)
    await until(lambda: protocol.data == b"a")
    assert len(protocol.fds) == 1 and protocol.sizes == [(0, 1)]
    assert os.read(protocol.fds[0], 10) == b"in"
    assert fcntl.fcntl(protocol.fds[0], fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    assert transport.recv_fds() == []
    protocol.close_fds()
    await finish(transport, peer)


@pytest.mark.parametrize("kind", [Taker, BufferedTaker])
async def test_place_among_writes(loop: Any, kind: Any) -> None:
    protocol = kind()
    sender, receiver = await pair_of_transports(protocol)
    fds = [pipe_with(b"%d" % number) for number in range(5)]
    sender.write(b"before ")
    sender.send_fds(b"first ", fds[:1])
    sender.write(b"between ")
    sender.send_fds(bytearray(b"second "), fds[1:])
    sender.writelines([b"after", b"."])
    for fd in fds:
        os.close(fd)
    await until(lambda: protocol.data.endswith(b"."))
    assert protocol.data == b"before first between second after."
    assert [size for _, size in protocol.sizes] == [1, 4]
    # With their first byte, in front of which the kernel may put plain data that
    # was waiting; never with what came after.
    assert protocol.sizes[0][0] <= 7
    assert 13 <= protocol.sizes[1][0] <= 21
    assert [os.read(fd, 10) for fd in protocol.fds] == [b"0", b"1", b"2", b"3", b"4"]
    protocol.close_fds()
    await finish(sender)
    await finish(receiver)


async def test_many_while_the_kernel_is_full(loop: Any) -> None:
    """Random writes and descriptors through a slow reader: none moves."""
    generator = random.Random(7)
    protocol = Taker(loop)
    sender, receiver = await pair_of_transports(protocol)
    receiver.pause_reading()
    sent, places = bytearray(), []
    for number in range(40):
        piece = generator.randbytes(generator.randrange(1, 60_000))
        if number % 3 == 0:
            fds = [pipe_with(b"%d" % number) for _ in range(number % 4 + 1)]
            places.append((len(sent), len(fds)))
            sender.send_fds(piece, fds)
            for fd in fds:
                os.close(fd)
        else:
            sender.write(piece)
        sent += piece
    assert sender.get_write_buffer_size() > 0
    receiver.resume_reading()
    await until(lambda: len(protocol.data) == len(sent))
    assert protocol.data == sent
    assert [size for _, size in protocol.sizes] == [size for _, size in places]
    starts = [start for start, _ in places]
    seen = [at for at, _ in protocol.sizes]
    assert all(at <= start for at, start in zip(seen, starts, strict=True))
    assert all(at > start for at, start in zip(seen[1:], starts[:-1], strict=True))
    assert sum(size for _, size in places) == len(protocol.fds)
    protocol.close_fds()
    await finish(sender)
    await finish(receiver)


async def test_close_sends_what_waits(loop: Any) -> None:
    protocol = Taker(loop)
    sender, receiver = await pair_of_transports(protocol)
    receiver.pause_reading()
    fd = pipe_with(b"last")
    sender.write(bytes(500_000))
    sender.send_fds(b"!", [fd])
    os.close(fd)
    sender.close()
    receiver.resume_reading()
    await protocol.eof
    assert len(protocol.data) == 500_001 and len(protocol.fds) == 1
    assert os.read(protocol.fds[0], 10) == b"last"
    protocol.close_fds()
    await finish(receiver)
    await turns(3)


async def test_abort_closes_what_waits(loop: Any) -> None:
    transport, protocol, peer = await connected(pair=unix_pair)
    reading, writing = os.pipe()
    transport.write(bytes(500_000))
    transport.send_fds(b"!", [writing])
    os.close(writing)
    transport.abort()
    await protocol.closed
    assert os.read(reading, 1) == b""  # no writer is left
    os.close(reading)
    peer.close()


async def test_streams(loop: Any, tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "s")
    got: asyncio.Future[tuple[bytes, list[int]]] = loop.create_future()

    async def serve(reader: Any, writer: Any) -> None:
        assert writer.transport.recv_fds() == []
        data = await reader.readexactly(4)
        got.set_result((data, writer.transport.recv_fds()))
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_unix_server(serve, path)
    reader, writer = await asyncio.open_unix_connection(path)
    with open(path + ".txt", "w+b") as file:
        file.write(b"contents")
        file.flush()
        writer.transport.send_fds(memoryview(b"here"), [file])
        data, fds = await got
        assert data == b"here" and same_file(fds[0], file.fileno())
    assert os.pread(fds[0], 20, 0) == b"contents"
    os.close(fds[0])
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


async def test_taken_after_the_end(loop: Any) -> None:
    transport, protocol, peer = await connected(pair=unix_pair)
    assert transport.recv_fds() == []
    fd = pipe_with(b"x")
    socket.send_fds(peer, [b"x"], [fd])
    os.close(fd)
    peer.close()
    await protocol.closed
    await turns(2)
    fds = transport.recv_fds()
    assert len(fds) == 1 and transport.recv_fds() == []
    os.close(fds[0])


async def test_nobody_takes_them(loop: Any) -> None:
    transport, protocol, peer = await connected(pair=unix_pair)
    protocol.connected = None  # it holds the transport
    reading, writing = os.pipe()
    socket.send_fds(peer, [b"a"], [writing])  # before the first recv_fds()
    await until(lambda: protocol.data == b"a")
    assert transport.recv_fds() == []
    socket.send_fds(peer, [b"b"], [writing])  # held, then dropped
    await until(lambda: protocol.data == b"ab")
    os.close(writing)
    os.set_blocking(reading, False)
    with pytest.raises(BlockingIOError):
        os.read(reading, 1)
    await finish(transport, peer)
    held = weakref.ref(transport)
    protocol.transport = transport = None
    await turns(2)
    collect()
    assert held() is None
    assert os.read(reading, 1) == b""
    os.close(reading)


async def test_no_more_than_so_many_are_held(loop: Any) -> None:
    transport, protocol, peer = await connected(pair=unix_pair)
    assert transport.recv_fds() == []
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    fd = pipe_with(b"")
    for _ in range(4):
        socket.send_fds(peer, [b"x"], [fd] * 100)
    await until(lambda: len(protocol.data) == 4)
    fds = transport.recv_fds()
    assert len(fds) == 253
    if before:
        assert len(os.listdir("/proc/self/fd")) == before + 1 + 253
    for number in (*fds, fd):
        os.close(number)
    await finish(transport, peer)


async def test_closed_inside_fds_received(loop: Any) -> None:
    class Closes(Taker):
        def fds_received(self, fds: list[int]) -> None:
            super().fds_received(fds)
            self.transport.abort()

    for protocol in (Closes(loop), Taker(loop)):
        transport, _, peer = await connected(protocol, pair=unix_pair)
        fd = pipe_with(b"")
        socket.send_fds(peer, [b"data"], [fd])
        os.close(fd)
        await until(lambda p=protocol: p.fds)
        await turns(3)
        assert bool(protocol.data) is (type(protocol) is Taker)
        protocol.close_fds()
        await finish(transport, peer)


async def test_an_error_in_fds_received(loop: Any, reports: Any) -> None:
    seen: list[int] = []

    class Fails(Recorder):
        def fds_received(self, fds: list[int]) -> None:
            seen.extend(fds)
            raise ValueError("not these")

    transport, protocol, peer = await connected(Fails(loop), pair=unix_pair)
    fd = pipe_with(b"")
    socket.send_fds(peer, [b"data"], [fd])
    os.close(fd)
    assert str(await protocol.closed) == "not these"
    report = reports.one()
    assert report["message"] == "Fatal error: protocol.fds_received() call failed."
    assert protocol.events == ["made", "lost"]
    os.close(seen[0])  # it may have been in use already: ours to close
    await finish(transport, peer)


async def test_switching_protocols(loop: Any) -> None:
    transport, first, peer = await connected(pair=unix_pair)
    second = Taker(loop)
    second.connection_made(transport)
    transport.set_protocol(second)
    fd = pipe_with(b"")
    socket.send_fds(peer, [b"x"], [fd])
    await until(lambda: second.fds)
    transport.set_protocol(first)
    socket.send_fds(peer, [b"y"], [fd])
    await until(lambda: first.data == b"y")
    held = transport.recv_fds()
    assert len(second.fds) == 1 and len(held) == 1
    for number in (fd, *held):
        os.close(number)
    second.close_fds()
    await finish(transport, peer)


async def test_wrong_arguments(loop: Any) -> None:
    transport, _, peer = await connected(pair=unix_pair)
    closed = pipe_with(b"")
    os.close(closed)
    with pytest.raises(OSError, match="Bad file descriptor"):
        transport.send_fds(b"x", [closed])
    with pytest.raises(ValueError, match="at least one byte"):
        transport.send_fds(b"", [0])
    with pytest.raises(ValueError, match="at most 253"):
        transport.send_fds(b"x", [0] * 254)
    with pytest.raises(ValueError, match="negative"):
        transport.send_fds(b"x", [-1])
    with pytest.raises(TypeError, match="bytes-like"):
        transport.send_fds("x", [0])
    with pytest.raises(TypeError):
        transport.send_fds(b"x", 5)
    with pytest.raises(TypeError):
        transport.send_fds(b"x")
    transport.send_fds(b"plain", [])
    await turns(2)
    assert peer.recv(100) == b"plain"  # and nothing of what failed
    transport.write_eof()
    with pytest.raises(RuntimeError, match="after write_eof"):
        transport.send_fds(b"x", [0])
    await finish(transport, peer)


async def test_after_the_end(loop: Any) -> None:
    transport, _, peer = await connected(pair=unix_pair)
    await finish(transport, peer)
    transport.send_fds(b"x", [0])  # dropped, as what is written
    assert transport.recv_fds() == []


async def test_unix_sockets_only(loop: Any) -> None:
    transport, _, peer = await connected(Taker(loop), pair=tcp_pair)
    with pytest.raises(ValueError, match="over Unix sockets only"):
        transport.send_fds(b"x", [0])
    with pytest.raises(ValueError, match="over Unix sockets only"):
        transport.recv_fds()
    peer.send(b"plain")
    await until(lambda: transport.get_protocol().data == b"plain")
    await finish(transport, peer)


async def test_peer_is_gone(loop: Any) -> None:
    transport, protocol, peer = await connected(pair=unix_pair)
    transport.pause_reading()
    peer.close()
    transport.send_fds(b"x", [0])
    assert isinstance(await protocol.closed, BrokenPipeError)


@pytest.mark.skipif(sys.platform != "linux", reason="counts as Linux does")
def test_out_of_descriptors_on_receipt(loop_kind: str) -> None:
    script = """
    import resource

    class Taker(asyncio.Protocol):
        def connection_made(self, transport):
            self.lost = asyncio.get_running_loop().create_future()
        def fds_received(self, fds):
            print("received", len(fds))
            for fd in fds:
                os.close(fd)
        def data_received(self, data):
            print("data", data)
        def connection_lost(self, exc):
            self.lost.set_result(exc)

    async def main():
        loop = asyncio.get_running_loop()
        left, right = socket.socketpair()
        left.setblocking(False)
        _, protocol = await loop.connect_accepted_socket(Taker, left)
        socket.send_fds(right, [b"fine"], [0])
        await asyncio.sleep(0.05)
        used = max(int(name) for name in os.listdir("/proc/self/fd"))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 2, hard))
        socket.send_fds(right, [b"lost"], [0, 1, 2, 0, 1, 2])
        exc = await protocol.lost
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        print(type(exc).__name__, exc, len(os.listdir("/proc/self/fd")) <= used + 1)
        right.close()

    run(main)
    """.replace("run(main)", "run(main())")
    out, _ = run_script(loop_kind, script)
    assert out.splitlines() == [
        "received 1",
        "data b'fine'",
        "OSError [Errno 24] Too many open files True",
    ]


async def test_other_ancillary_data_is_ignored(loop: Any) -> None:
    if not hasattr(socket, "SCM_CREDENTIALS"):
        pytest.skip("no SCM_CREDENTIALS")
    transport, protocol, peer = await connected(Taker(loop), pair=unix_pair)
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    fd = pipe_with(b"")
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))
    peer.sendmsg([b"x"], [rights])
    os.close(fd)
    await until(lambda: protocol.data == b"x")
    assert len(protocol.fds) == 1
    protocol.close_fds()
    await finish(transport, peer)

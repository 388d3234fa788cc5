"""Unix stream sockets: servers, clients, paths, abstract names."""

from __future__ import annotations

import asyncio
import os
import pathlib
import socket
from typing import Any

import pytest

from servers import Echo, leave, stop
from support import (
    PY,
    BufferedRecorder,
    Recorder,
    connected,
    finish,
    settle,
    turns,
    unix_pair,
    until,
)


@pytest.fixture
def path(tmp_path: pathlib.Path) -> str:
    return str(tmp_path / "s")


@pytest.mark.parametrize("kind", [Recorder, BufferedRecorder])
async def test_echo(loop: Any, path: str, kind: Any) -> None:
    server = await loop.create_unix_server(Echo, path)
    transport, protocol = await loop.create_unix_connection(kind, path)
    assert transport.get_extra_info("peername") == path
    transport.write(b"hello")
    await until(lambda: protocol.data == b"hello")
    transport.close()
    await protocol.closed
    await stop(server)


async def test_streams(loop: Any, path: str) -> None:
    async def serve(reader: Any, writer: Any) -> None:
        while line := await reader.readline():
            writer.write(line.upper())
        await leave(writer)

    server = await asyncio.start_unix_server(serve, path)
    reader, writer = await asyncio.open_unix_connection(path)
    for number in range(50):
        writer.write(b"line %d\n" % number)
        assert await reader.readline() == b"LINE %d\n" % number
    writer.write_eof()
    assert await reader.read() == b""
    await leave(writer)
    await settle()
    await stop(server)


async def test_path_objects_and_cleanup(loop: Any, path: str) -> None:
    server = await loop.create_unix_server(Echo, pathlib.Path(path))
    assert os.path.exists(path)
    await stop(server)
    assert os.path.exists(path) is (PY < (3, 13))
    again = await loop.create_unix_server(Echo, path)
    await stop(again)


@pytest.mark.skipif(PY < (3, 13), reason="cleanup_socket came with 3.13")
async def test_cleanup_may_be_refused(loop: Any, path: str) -> None:
    server = await loop.create_unix_server(Echo, path, cleanup_socket=False)
    await stop(server)
    assert os.path.exists(path)


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="Linux only")
async def test_abstract_name(loop: Any) -> None:
    name = f"\0hotloop-test-{os.getpid()}"
    server = await loop.create_unix_server(Echo, name)
    transport, protocol = await loop.create_unix_connection(Recorder, name)
    transport.write(b"abstract")
    await until(lambda: protocol.data == b"abstract")
    transport.close()
    await protocol.closed
    await stop(server)


async def test_server_on_a_socket(loop: Any, path: str) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    server = await loop.create_unix_server(Echo, sock=sock)
    near = socket.socket(socket.AF_UNIX)
    near.connect(path)
    near.setblocking(False)
    transport, protocol = await loop.create_unix_connection(Recorder, sock=near)
    transport.write(b"x")
    await until(lambda: protocol.data)
    transport.close()
    await protocol.closed
    await stop(server)


async def test_errors(loop: Any, path: str) -> None:
    with pytest.raises(FileNotFoundError):
        await loop.create_unix_connection(Recorder, path)
    pathlib.Path(path).write_text("a file")
    with pytest.raises(OSError):
        await loop.create_unix_connection(Recorder, path)
    with pytest.raises(OSError, match="is already in use"):
        await loop.create_unix_server(Echo, path)
    with pytest.raises(ValueError, match="no path and sock were specified"):
        await loop.create_unix_connection(Recorder)
    with pytest.raises(ValueError, match="path was not specified, and no sock"):
        await loop.create_unix_server(Echo)
    with (
        socket.socket() as sock,
        pytest.raises(ValueError, match="A UNIX Domain Stream Socket"),
    ):
        await loop.create_unix_connection(Recorder, sock=sock)


async def test_extra_info_of_a_pair(loop: Any) -> None:
    transport, _, peer = await connected(pair=unix_pair)
    assert transport.get_extra_info("socket").family == socket.AF_UNIX
    assert transport.get_extra_info("sockname") == ""
    assert transport.get_extra_info("peername") == ""
    await finish(transport, peer)


async def test_many_clients(loop: Any, path: str) -> None:
    server = await loop.create_unix_server(Echo, path, backlog=200)
    pairs = await asyncio.gather(
        *(loop.create_unix_connection(Recorder, path) for _ in range(100))
    )
    for number, (transport, _) in enumerate(pairs):
        transport.write(b"%d" % number)
    await until(lambda: all(protocol.data for _, protocol in pairs))
    for number, (transport, protocol) in enumerate(pairs):
        assert protocol.data == b"%d" % number
        transport.close()
    await asyncio.gather(*(protocol.closed for _, protocol in pairs))
    await turns(3)
    await stop(server)


async def test_descriptors_can_still_be_passed(loop: Any) -> None:
    left, right = unix_pair()
    reading, writing = os.pipe()
    ready = asyncio.Event()
    loop.add_reader(left, ready.set)
    socket.send_fds(right, [b"fd"], [reading])
    await ready.wait()
    loop.remove_reader(left)
    message, fds, _, _ = socket.recv_fds(left, 10, 1)
    os.write(writing, b"through")
    assert message == b"fd" and os.read(fds[0], 10) == b"through"
    for fd in (reading, writing, *fds):
        os.close(fd)
    left.close()
    right.close()

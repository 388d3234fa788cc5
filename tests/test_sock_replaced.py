"""Sockets whose class or methods a program replaced."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from support import run_script, turns, unix_pair

METHODS = (
    "recv",
    "recv_into",
    "recvfrom",
    "recvfrom_into",
    "send",
    "sendto",
    "connect",
    "accept",
)


@pytest.fixture
def peers() -> Iterator[Any]:
    """Two UDP sockets."""
    socks = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(2)]
    for sock in socks:
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
    yield socks
    for sock in socks:
        sock.close()


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace methods of socket.socket; return the list of calls."""
    seen: list[str] = []

    def replacement(name: str) -> Any:
        own = getattr(socket.socket, name)

        def method(self: Any, *args: Any) -> Any:
            seen.append(name)
            return own(self, *args)

        return method

    for name in METHODS:
        monkeypatch.setattr(socket.socket, name, replacement(name), raising=False)
    return seen


async def test_replaced_methods_are_called(
    loop: Any, peers: Any, watched: list[str]
) -> None:
    left, right = unix_pair()
    await loop.sock_sendall(left, b"stream")
    assert await loop.sock_recv(right, 3) == b"str"
    assert await loop.sock_recv_into(right, bytearray(3)) == 3
    one, two = peers
    for _ in range(2):
        await loop.sock_sendto(one, b"datagram", two.getsockname())
    await loop.sock_recvfrom(two, 9)
    await loop.sock_recvfrom_into(two, bytearray(9))
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as client:
        listening.setblocking(False)
        client.setblocking(False)
        await loop.sock_connect(client, listening.getsockname())
        accepted, _ = await loop.sock_accept(listening)
        accepted.close()
    left.close()
    right.close()
    assert sorted(set(watched)) == sorted(METHODS)


async def test_streams_over_replaced_methods(loop: Any, watched: list[str]) -> None:
    async def answer(reader: Any, writer: Any) -> None:
        writer.write(await reader.readline())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"line\n")
    assert await reader.read() == b"line\n"
    writer.close()
    server.close()
    assert watched.count("send") == 2
    assert watched.count("recv") >= 3


async def test_the_class_is_replaced_meanwhile(
    loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = unix_pair()
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as client:
        client.setblocking(False)
        monkeypatch.setattr(socket, "socket", None)
        await loop.sock_connect(client, listening.getsockname())
    await loop.sock_sendall(left, b"x")
    assert await loop.sock_recv(right, 9) == b"x"
    left.close()
    right.close()


async def test_a_replaced_fileno_ends_the_coroutine(
    loop: Any, loop_kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if loop_kind == "asyncio":
        pytest.skip("asyncio sends on for a coroutine that is closed")
    left, right = unix_pair()
    data = bytes(8 << 20)  # outlives the call: what is sent wrongly is seen to arrive
    task = asyncio.create_task(loop.sock_sendall(left, data))
    await turns(2)
    own = socket.socket.fileno
    closed: list[bool] = []

    def fileno(self: Any) -> int:
        if self is left:
            task.get_coro().close()
            closed.append(True)
        return own(self)

    monkeypatch.setattr(socket.socket, "fileno", fileno, raising=False)
    while True:
        try:
            right.recv(1 << 20)
        except BlockingIOError:
            break
    await turns(5)
    assert closed
    with pytest.raises(BlockingIOError):
        right.recv(1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    left.close()
    right.close()


def test_replaced_before_the_import(loop_kind: str) -> None:
    loop = (
        "hotloop.new_event_loop" if loop_kind == "hotloop" else "asyncio.new_event_loop"
    )
    out, _ = run_script(
        loop_kind,
        f"""
        import asyncio, socket

        class Guarded(socket.socket):
            def connect(self, address):
                print("refused")
                raise PermissionError

        socket.socket = Guarded
        import hotloop

        async def main():
            server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
            try:
                await asyncio.open_connection(*server.sockets[0].getsockname())
            except PermissionError:
                server.close()

        with asyncio.Runner(loop_factory={loop}) as runner:
            runner.run(main())
        """,
        prelude=False,
    )
    assert out == "refused\n"

"""A typed program that uses every public name; the type checkers must know it all.

    python tests/typing/program.py

`make types` has mypy and pyright check it, and runs it: what they were told is true.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, assert_type

import hotloop
from hotloop import control
from hotloop.exporters import prometheus


class Echo(asyncio.Protocol):
    """Sends back what comes, and ends the connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)
        self.transport.close()


class Client(asyncio.Protocol):
    """Collects what comes until the end."""

    def __init__(self, ended: asyncio.Future[bytes]) -> None:
        self.received = b""
        self.ended = ended

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(self.received)


class Datagrams(asyncio.DatagramProtocol):
    """Keeps the first datagram."""

    def __init__(self, first: asyncio.Future[bytes]) -> None:
        self.first = first

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        if not self.first.done():
            self.first.set_result(data)


async def answer(value: int) -> int:
    return value


async def resolve(host: Any, port: Any, **options: int) -> list[Any]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


async def tasks_and_futures(loop: hotloop.Loop) -> None:
    future: hotloop.Future[str] = hotloop.Future(loop=loop)
    future.set_result("done")
    assert_type(await future, str)
    assert_type(future.result(), str)
    assert_type(future.get_loop(), asyncio.AbstractEventLoop)

    task = hotloop.Task(answer(1), loop=loop, name="one")
    assert_type(task, hotloop.Task[int])
    assert_type(await task, int)
    assert_type(task.get_name(), str)
    stock: asyncio.Task[int] = hotloop.Task(answer(2), loop=loop)
    assert_type(await asyncio.gather(stock, answer(3)), tuple[int, int])
    assert_type(await loop.create_task(answer(4)), int)

    handle = loop.call_soon(future.done)
    assert_type(handle, asyncio.Handle)
    assert_type(loop.call_later(60, print), asyncio.TimerHandle)
    assert_type(await loop.run_in_executor(None, len, b"four"), int)
    assert_type(loop.time(), float)


async def connections(loop: hotloop.Loop, folder: Path) -> None:
    path = str(folder / "socket")
    servers = [
        await loop.create_server(Echo, "127.0.0.1", 0),
        await loop.create_unix_server(Echo, path),
    ]
    assert_type(servers[0], asyncio.Server)
    host, port = servers[0].sockets[0].getsockname()[:2]

    def client() -> Client:
        return Client(loop.create_future())

    transport, protocol = await loop.create_connection(client, host, port)
    assert_type(transport, asyncio.Transport)
    assert_type(protocol, Client)
    transport.write(b"over TCP")
    assert await protocol.ended == b"over TCP"

    transport, protocol = await loop.create_unix_connection(client, path)
    assert_type(transport, asyncio.Transport)
    assert_type(protocol, Client)
    transport.write(b"over Unix")
    assert await protocol.ended == b"over Unix"

    def datagrams() -> Datagrams:
        return Datagrams(loop.create_future())

    ours, receiver = await loop.create_datagram_endpoint(datagrams, ("127.0.0.1", 0))
    assert_type(ours, asyncio.DatagramTransport)
    assert_type(receiver, Datagrams)
    ours.sendto(b"datagram", ours.get_extra_info("sockname"))
    assert await receiver.first == b"datagram"
    ours.close()

    infos = await loop.getaddrinfo("127.0.0.1", 80)
    assert_type(infos, list[Any])
    assert_type(await loop.getnameinfo(("127.0.0.1", 80), 3), tuple[str, str])
    loop.set_resolver(resolve)
    transport, protocol = await loop.create_connection(client, "a.test", port)
    transport.write(b"by name")
    assert await protocol.ended == b"by name"
    loop.set_resolver()
    for server in servers:
        server.close()


async def sockets(loop: hotloop.Loop) -> None:
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    with left, right:
        assert_type(await loop.sock_sendall(left, b"12345678"), None)
        assert_type(await loop.sock_recv(right, 4), bytes)
        assert_type(await loop.sock_recv_into(right, bytearray(4)), int)


async def streams(folder: Path) -> None:
    async def serve(reader: hotloop.StreamReader, writer: hotloop.StreamWriter) -> None:
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    path = str(folder / "streams")
    servers = [
        await hotloop.start_server(serve, "127.0.0.1", 0),
        await hotloop.start_unix_server(serve, path),
    ]
    assert_type(servers, list[asyncio.Server])
    port: int = servers[0].sockets[0].getsockname()[1]
    for reader, writer in (
        await hotloop.open_connection("127.0.0.1", port),
        await hotloop.open_unix_connection(path),
    ):
        assert_type(reader, hotloop.StreamReader)
        assert_type(writer, hotloop.StreamWriter)
        assert_type(writer.write(b"line\n"), None)
        assert_type(await writer.drain(), None)
        assert_type(await reader.readexactly(2), bytes)
        assert_type(await reader.readuntil(b"\n"), bytes)
        assert_type(await reader.read(), bytes)
        assert_type(reader.at_eof(), bool)
        as_stock: tuple[asyncio.StreamReader, asyncio.StreamWriter] = reader, writer
        as_stock[1].close()
        await writer.wait_closed()
    for server in servers:
        server.close()


def observing(loop: hotloop.Loop) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "s")
        with control.serve(loop, path=path) as served:
            assert_type(served, control.Control)
            assert_type(served.path, str)
            assert_type(served.closed, bool)
            with control.Client(path, timeout=5) as client:
                assert_type(client.ask("tasks", limit=3), Any)
    assert_type(control.find(os.getpid()), list[control.Place])
    assert_type(prometheus.text(loop, openmetrics=True), str)
    assert_type(prometheus.text({"one": loop}), str)
    assert_type(prometheus.Collector(loop).describe(), list[Any])


async def main() -> str:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, hotloop.Loop)
    await tasks_and_futures(loop)
    observing(loop)
    with tempfile.TemporaryDirectory() as name:
        await connections(loop, Path(name))
        await sockets(loop)
        await streams(Path(name))
    return f"hotloop {hotloop.__version__}"


def every_way_to_run() -> None:
    assert_type(hotloop.run(main()), str)
    assert_type(hotloop.run(answer(1), debug=True, streams=True), int)
    assert_type(hotloop.run(answer(2), loop_factory=None), int)
    assert_type(hotloop.run(answer(2), control=False), int)
    factory: Callable[[], asyncio.AbstractEventLoop] = hotloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        assert_type(runner.run(main()), str)
    loop = hotloop.new_event_loop()
    assert_type(loop, hotloop.Loop)
    stock: asyncio.SelectorEventLoop = loop
    assert_type(stock.run_until_complete(answer(3)), int)
    loop.close()
    assert_type(hotloop.install_streams(), None)
    assert_type(hotloop.uninstall_streams(), None)


def policies() -> None:
    # Python's own names of them are deprecated from 3.14 on.
    if sys.version_info < (3, 14):
        policy: asyncio.AbstractEventLoopPolicy = hotloop.EventLoopPolicy()
        policy.new_event_loop().close()
        assert_type(hotloop.install(), None)
        asyncio.set_event_loop_policy(None)  # pyright: ignore[reportDeprecated]


GetAddrInfo = Callable[..., Awaitable[Iterable[tuple[int, int, int, str, Any]]]]
resolver: GetAddrInfo = resolve

if __name__ == "__main__":
    every_way_to_run()
    policies()
    print("types hold at run time, process", os.getpid())

"""Behaviour that CPython's own tests look at by means that C code cannot serve.

tools/conformance/listed.toml names the tests of CPython and, for each, one of
these or of the other files: the same behaviour, seen from outside.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from support import PY, LoopFactory, Recorder, connected, finish, turns, unix_pair

# One turn


def test_one_turn_runs_what_was_due(loop: Any) -> None:
    later: list[Any] = []
    order: list[str] = []

    def due() -> None:
        order.append("due")
        later.append(loop.call_soon(order.append, "later"))

    cancelled = loop.call_at(loop.time() - 2, order.append, "cancelled")
    loop.call_at(loop.time() - 1, due)
    far = loop.call_later(3600, order.append, "far")
    cancelled.cancel()
    loop._run_once()
    assert order == ["due"]
    assert list(loop._ready) == later
    assert list(loop._scheduled) == [far]
    far.cancel()
    loop._run_once()
    assert order == ["due", "later"]


def test_stopped_before_it_runs_the_loop_still_looks_for_events(loop: Any) -> None:
    near, far = unix_pair()
    far.send(b"x")
    events: list[bytes] = []
    loop.add_reader(near, lambda: events.append(near.recv(1)))
    loop.stop()
    loop.run_forever()
    assert events == [b"x"]
    loop.remove_reader(near)
    near.close()
    far.close()


def test_event_is_delivered_once_by_loops_that_stop_at_once(loop: Any) -> None:
    near, far = unix_pair()
    far.send(b"x")
    calls: list[int] = []

    def on_readable() -> None:
        calls.append(1)
        loop.remove_reader(near)

    loop.add_reader(near, on_readable)
    for _ in range(2):
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert calls == [1]
    near.close()
    far.close()


@pytest.mark.skipif(PY < (3, 13), reason="before 3.13 there are no such hooks")
def test_a_run_made_of_its_parts(loop: Any) -> None:
    count = 0

    def again() -> None:
        nonlocal count
        count += 1
        if count < 10:
            loop.call_soon(again)

    loop.call_soon(again)
    loop._run_forever_setup()
    try:
        assert asyncio.get_running_loop() is loop and loop.is_running()
        for turn in range(1, 11):
            loop._run_once()
            assert count == turn
    finally:
        loop._run_forever_cleanup()
    assert asyncio._get_running_loop() is None and not loop.is_running()


# What a program replaces


class OtherTask(asyncio.Task[Any]):
    """A task of the program's own."""


def test_tasks_of_a_class_put_into_asyncio(
    loop: Any, task_class: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def inside() -> type:
        task = asyncio.create_task(asyncio.sleep(0))
        await task
        return type(task)

    with monkeypatch.context() as patch:
        patch.setattr(asyncio.tasks, "Task", OtherTask)
        task = loop.create_task(inside(), name="named")
        assert type(task) is OtherTask and task.get_name() == "named"
        assert loop.run_until_complete(task) is OtherTask
    assert loop.run_until_complete(inside()) is task_class


class OtherFuture(asyncio.Future[Any]):
    """A future of the program's own."""


def test_futures_of_a_class_put_into_asyncio(
    loop: Any, future_class: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def inside() -> type:
        future = loop.create_future()
        loop.call_soon(future.set_result, type(future))
        kind: type = await future
        return kind

    with monkeypatch.context() as patch:
        patch.setattr(asyncio.futures, "Future", OtherFuture)
        assert type(loop.create_future()) is OtherFuture
        assert loop.run_until_complete(inside()) is OtherFuture
    assert type(loop.create_future()) is future_class
    assert loop.run_until_complete(inside()) is future_class


def test_logger_put_into_asyncio(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Logger(logging.Logger):
        def warning(self, msg: object, *args: Any, **_: Any) -> None:
            seen.append(str(msg) % args)

    monkeypatch.setattr(asyncio.base_events, "logger", Logger("other"))
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert len(seen) == 1 and seen[0].startswith("Executing <Handle")


class CountingSocket(socket.socket):
    """A socket that counts calls, as one that limits or tunnels might."""

    calls: dict[str, int]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.calls = {}

    def count(self, name: str) -> None:
        self.calls[name] = self.calls.get(name, 0) + 1

    def recv(self, *args: Any) -> bytes:
        self.count("recv")
        return super().recv(*args)

    def recv_into(self, *args: Any) -> int:
        self.count("recv_into")
        return super().recv_into(*args)

    def send(self, *args: Any) -> int:
        self.count("send")
        return super().send(*args)

    def shutdown(self, how: int) -> None:
        self.count("shutdown")
        super().shutdown(how)

    def accept(self) -> tuple[socket.socket, Any]:
        self.count("accept")
        return super().accept()


class PlainSubclass(socket.socket):
    """A socket with a name of its own and nothing else."""


def counting_pair() -> tuple[CountingSocket, socket.socket]:
    near, far = unix_pair()
    counting = CountingSocket(near.family, near.type, fileno=near.detach())
    counting.setblocking(False)
    return counting, far


async def test_methods_of_a_socket_subclass_are_called(loop: Any) -> None:
    near, far = counting_pair()
    protocol = Recorder(loop)
    transport, _, peer = await connected(protocol, lambda: (near, far))
    transport.write(b"hello")
    assert await loop.sock_recv(peer, 10) == b"hello"
    await loop.sock_sendall(peer, b"world")
    transport.write_eof()
    assert await loop.sock_recv(peer, 10) == b""
    while protocol.data != b"world":
        await asyncio.sleep(0)
    assert near.calls["send"] == 1
    assert near.calls["shutdown"] == 1
    assert near.calls["recv"] >= 1
    transport.close()
    await protocol.closed
    assert near.fileno() == -1
    peer.close()


async def test_method_put_on_a_socket_is_called(loop: Any) -> None:
    near, far = unix_pair()
    tuned = PlainSubclass(near.family, near.type, fileno=near.detach())
    sent: list[bytes] = []

    def send(data: bytes) -> int:
        sent.append(bytes(data))
        return len(data)

    tuned.send = send  # type: ignore[method-assign, assignment]
    tuned.setblocking(False)
    transport, _, peer = await connected(Recorder(loop), lambda: (tuned, far))
    transport.write(b"swallowed")
    await turns(2)
    assert sent == [b"swallowed"]
    await finish(transport, peer)


async def test_subclass_that_overrides_nothing(loop: Any, loop_kind: str) -> None:
    near, far = unix_pair()
    plain = PlainSubclass(near.family, near.type, fileno=near.detach())
    plain.setblocking(False)
    transport, protocol, peer = await connected(Recorder(loop), lambda: (plain, far))
    if loop_kind == "hotloop":
        assert type(transport).__module__ == "hotloop._core"
    await loop.sock_sendall(peer, b"hello")
    transport.write(b"world")
    assert await loop.sock_recv(peer, 10) == b"world"
    while protocol.data != b"hello":
        await asyncio.sleep(0)
    await finish(transport, peer)


async def test_accept_of_a_socket_subclass_is_called(loop: Any) -> None:
    listening = CountingSocket()
    listening.bind(("127.0.0.1", 0))
    protocols: list[Recorder] = []

    def factory() -> Recorder:
        protocols.append(Recorder(loop))
        return protocols[-1]

    server = await loop.create_server(factory, sock=listening)
    client = socket.create_connection(listening.getsockname())
    while not protocols:
        await asyncio.sleep(0.001)
    await protocols[0].connected
    assert listening.calls["accept"] >= 1
    client.close()
    await protocols[0].closed
    server.close()
    await server.wait_closed()


# Tasks


def test_outcome_of_a_task_cannot_be_set_past_it(
    new_loop: LoopFactory, loop_kind: str
) -> None:
    if loop_kind == "asyncio":
        pytest.skip("asyncio lets it happen")
    loop = new_loop()

    async def work() -> str:
        await asyncio.sleep(0)
        return "its own"

    task = loop.create_task(work())
    with pytest.raises(RuntimeError):
        task.set_result("spam")  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError):
        asyncio.Future.set_result(task, "spam")
    with pytest.raises(RuntimeError):
        asyncio.Future.set_exception(task, ValueError())
    assert loop.run_until_complete(task) == "its own"
    loop.close()


# TLS


def tls_peer(
    listening: socket.socket, context: ssl.SSLContext, got: list[int]
) -> Callable[[], None]:
    """A server that says it is done before it reads what it was sent."""

    def run() -> None:
        sock, _ = listening.accept()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)

        def until_done(step: Callable[[], Any]) -> Any:
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    incoming.write(sock.recv(16384))

        until_done(tls.do_handshake)
        assert until_done(lambda: tls.read(4)) == b"ping"
        tls.write(b"pong")
        sock.sendall(outgoing.read())
        select.select([sock], [], [], 10)  # the client writes now
        time.sleep(0.1)  # its buffers fill
        with pytest.raises(ssl.SSLWantReadError):
            tls.unwrap()
        sock.sendall(outgoing.read())
        total = 0
        while True:
            try:
                total += len(until_done(lambda: tls.read(16384)))
            except ssl.SSLZeroReturnError:
                break
        got.append(total)
        sock.close()

    return run


async def test_data_written_before_the_peers_tls_end_arrives(
    loop: Any, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    server_context, client_context = tls
    got: list[int] = []
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        thread = threading.Thread(target=tls_peer(listening, server_context, got))
        thread.start()
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sock.setblocking(False)
        await loop.sock_connect(sock, listening.getsockname())
        reader, writer = await asyncio.open_connection(
            sock=sock, ssl=client_context, server_hostname="localhost"
        )
        writer.write(b"ping")
        assert await reader.readexactly(4) == b"pong"
        chunk = b"x" * (128 * 1024)
        for _ in range(16):
            writer.write(chunk)
        assert writer.transport.get_write_buffer_size() > 0
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        await loop.run_in_executor(None, thread.join)
    assert got == [16 * len(chunk)]

"""anyio on a loop made by `loop_factory`: scopes, streams, threads, sockets."""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import pathlib
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from typing import Any

import anyio
import anyio.abc
import anyio.from_thread
import anyio.to_thread
import pytest
from anyio.abc import SocketAttribute
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.tls import TLSListener, TLSStream

from clientpeers import MIB, block, checksum_of, full_listener, standstill
from support import loop_factory, until

Run = Callable[..., Any]


@pytest.fixture
def run(loop_kind: str) -> Run:
    """anyio.run() on the loop under test."""
    options = {"loop_factory": loop_factory(loop_kind)}

    def run(main: Any, *args: Any) -> Any:
        async def checked() -> Any:
            module = type(asyncio.get_running_loop()).__module__
            assert module.split(".")[0] == loop_kind
            return await main(*args)

        return anyio.run(checked, backend="asyncio", backend_options=options)

    return run


def test_task_groups_and_scopes(run: Run) -> None:
    """Nested scopes, shields, deadlines, errors of several children."""

    async def main() -> None:
        ended: list[str] = []

        async def child(name: str) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.001)
                    ended.append(name)

        async with anyio.create_task_group() as outer:
            outer.start_soon(child, "outer")
            with anyio.move_on_after(0.02) as scope:
                async with anyio.create_task_group() as inner:
                    for number in range(50):
                        inner.start_soon(child, str(number))
            assert scope.cancelled_caught and len(ended) == 50
            with anyio.fail_after(math.inf):
                await anyio.sleep(0)
            with pytest.raises(TimeoutError):
                with anyio.fail_after(0.001):
                    await anyio.sleep_forever()
            outer.cancel_scope.cancel("enough")
        assert ended[-1] == "outer"

        async def fails(error: Exception) -> None:
            await anyio.sleep(0)
            raise error

        with pytest.raises(ExceptionGroup) as caught:
            async with anyio.create_task_group() as group:
                group.start_soon(fails, ValueError("one"))
                group.start_soon(fails, KeyError("two"))
                group.start_soon(child, "with them")
        assert {type(error) for error in caught.value.exceptions} == {
            ValueError,
            KeyError,
        }
        assert ended[-1] == "with them"
        assert not asyncio.current_task().cancelling()  # type: ignore[union-attr]

    run(main)


def test_started(run: Run) -> None:
    async def main() -> None:
        async def service(number: int, *, task_status: Any) -> None:
            if number == 3:
                raise LookupError(number)
            task_status.started(number * 2)
            await anyio.sleep_forever()

        async with anyio.create_task_group() as group:
            assert await group.start(service, 4) == 8
            with pytest.raises(LookupError):
                await group.start(service, 3)
            with anyio.move_on_after(0.01) as scope:
                await group.start(lambda *, task_status: anyio.sleep_forever())
            assert scope.cancelled_caught
            group.cancel_scope.cancel()

    run(main)


def test_cancelled_at_every_moment(run: Run) -> None:
    """A level cancellation comes again at each await, until the scope ends."""

    async def main() -> None:
        for turn in range(40):
            steps = 0
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as group:

                    async def cancel(count: int, scope: Any) -> None:
                        for _ in range(count):
                            await asyncio.sleep(0)
                        scope.cancel()

                    group.start_soon(cancel, turn, scope)
                    try:
                        while True:
                            await anyio.lowlevel.checkpoint()
                            steps += 1
                    except anyio.get_cancelled_exc_class():
                        for _ in range(3):
                            with pytest.raises(anyio.get_cancelled_exc_class()):
                                await anyio.sleep(1)
                        raise
            assert scope.cancelled_caught and steps >= turn // 2

    run(main)


def test_memory_streams(run: Run) -> None:
    async def main() -> int:
        send, receive = anyio.create_memory_object_stream[int](5)
        got: list[int] = []

        async def producer(first: int, stream: Any) -> None:
            async with stream:
                for number in range(first, first + 100):
                    await stream.send(number)

        async def consumer(stream: Any) -> None:
            async with stream:
                async for number in stream:
                    got.append(number)
                    if number % 7 == 0:
                        with anyio.move_on_after(0):
                            got.append(await stream.receive())

        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(producer, number * 100, send.clone())
            for _ in range(5):
                group.start_soon(consumer, receive.clone())
            send.close()
            receive.close()
        assert sorted(got) == list(range(1000))
        return len(got)

    assert run(main) == 1000


def test_locks(run: Run) -> None:
    async def main() -> None:
        limiter = anyio.CapacityLimiter(3)
        lock, condition = anyio.Lock(), anyio.Condition()
        most = now = passed = 0

        async def worker() -> None:
            nonlocal most, now, passed
            async with limiter:
                now += 1
                most = max(most, now)
                async with lock:
                    await anyio.sleep(0)
                now -= 1
            async with condition:
                passed += 1
                condition.notify_all()

        async with anyio.create_task_group() as group:
            for _ in range(60):
                group.start_soon(worker)
            async with condition:
                while passed < 60:
                    await condition.wait()
        assert most == 3

    run(main)


def test_threads(run: Run) -> None:
    """Work in threads, calls back into the loop, cancellation of both."""

    async def main() -> None:
        loop_thread = threading.get_ident()

        async def here(value: int) -> int:
            await anyio.sleep(0)
            assert threading.get_ident() == loop_thread
            return value * 2

        def work(value: int) -> int:
            doubled: int = anyio.from_thread.run(here, value)
            return doubled + anyio.from_thread.run_sync(lambda: 1)

        results: list[int] = []

        async def one(value: int) -> None:
            results.append(await anyio.to_thread.run_sync(work, value))

        async with anyio.create_task_group() as group:
            for value in range(100):
                group.start_soon(one, value)
        assert sorted(results) == [value * 2 + 1 for value in range(100)]

        begun, release = threading.Event(), threading.Event()

        def blocks() -> None:
            begun.set()
            release.wait()

        with anyio.move_on_after(0.01) as scope:
            await anyio.to_thread.run_sync(blocks, abandon_on_cancel=True)
        assert scope.cancelled_caught
        release.set()

        def checks() -> None:
            begun.set()
            while True:
                anyio.from_thread.check_cancelled()
                anyio.from_thread.run(anyio.sleep, 0.001)

        begun.clear()
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, checks)
            await until(begun.is_set)
            group.cancel_scope.cancel()

    run(main)


def test_portal(loop_kind: str) -> None:
    """A loop in a thread of its own, called from this one."""
    options = {"loop_factory": loop_factory(loop_kind)}
    with anyio.from_thread.start_blocking_portal(
        "asyncio", backend_options=options
    ) as portal:
        module = portal.call(lambda: type(asyncio.get_running_loop()).__module__)
        assert module.split(".")[0] == loop_kind
        futures = [portal.start_task_soon(anyio.sleep, 0.001) for _ in range(100)]
        assert [future.result(20) for future in futures] == [None] * 100
        endless = portal.start_task_soon(anyio.sleep_forever)
        endless.cancel()

        async def served(*, task_status: Any) -> None:
            task_status.started("ready")
            await anyio.sleep_forever()

        future, value = portal.start_task(served)
        assert value == "ready"
        future.cancel()
        events: list[str] = []

        class Manager:
            async def __aenter__(self) -> Manager:
                events.append("enter")
                return self

            async def __aexit__(self, *args: Any) -> None:
                await anyio.sleep(0)
                events.append("exit")

        with portal.wrap_async_context_manager(Manager()):
            events.append("in")
        assert events == ["enter", "in", "exit"]
        with pytest.raises(ZeroDivisionError):
            portal.call(lambda: 1 / 0)


async def echo(stream: Any) -> None:
    async with stream:
        async for data in stream:
            await stream.send(data)


@pytest.mark.parametrize("kind", ["tcp", "unix", "tls"])
def test_stream_sockets(run: Run, tls: Any, tmp_path: pathlib.Path, kind: str) -> None:
    """Many users of one listener; each gets back what it sent."""

    async def listen() -> Any:
        if kind == "unix":
            return await anyio.create_unix_listener(tmp_path / "socket")
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        return TLSListener(listener, tls[0]) if kind == "tls" else listener

    async def connect(listener: Any) -> Any:
        if kind == "unix":
            return await anyio.connect_unix(tmp_path / "socket")
        if kind == "tls":
            port = listener.listener.extra(SocketAttribute.local_port)
            return await anyio.connect_tcp(
                "127.0.0.1", port, ssl_context=tls[1], tls_hostname="localhost"
            )
        port = listener.extra(SocketAttribute.local_port)
        return await anyio.connect_tcp("127.0.0.1", port)

    async def user(listener: Any, number: int) -> None:
        async with await connect(listener) as stream:
            data = block(number, 50_000 + number)

            async def send() -> None:
                await stream.send(data)
                if kind != "tls":
                    await stream.send_eof()

            async with anyio.create_task_group() as group:
                group.start_soon(send)
                got = await BufferedByteReceiveStream(stream).receive_exactly(len(data))
            assert got == data
            with anyio.move_on_after(0.005) as scope:
                if kind == "tls":
                    await stream.receive()
            assert scope.cancelled_caught == (kind == "tls")

    async def main() -> None:
        async with await listen() as listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, echo)
            async with anyio.create_task_group() as users:
                for number in range(40):
                    users.start_soon(user, listener, number)
            group.cancel_scope.cancel()

    run(main)


def test_sending_waits_for_the_reader(run: Run) -> None:
    async def main() -> None:
        sent = 0

        async def pour(stream: Any) -> None:
            nonlocal sent
            async with stream:
                for number in range(48):
                    await stream.send(block(number, MIB))
                    sent += 1

        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(SocketAttribute.local_port)
        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, pour)
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                await standstill(lambda: sent)
                assert sent < 20
                digest = hashlib.sha256()
                async for data in stream:
                    digest.update(data)
                assert digest.hexdigest() == checksum_of(48, MIB)
            group.cancel_scope.cancel()

    run(main)


def test_tls_endings(run: Run, tls: Any) -> None:
    """An end without TLS's goodbye is told from a proper one."""

    async def main() -> None:
        near, far = socket.socketpair()
        near_stream = await anyio.abc.SocketStream.from_socket(near)
        far_stream = await anyio.abc.SocketStream.from_socket(far)
        streams: list[Any] = [None, None]

        async def wrap(index: int, stream: Any, **options: Any) -> None:
            streams[index] = await TLSStream.wrap(stream, **options)

        async with anyio.create_task_group() as group:
            group.start_soon(lambda: wrap(0, near_stream, ssl_context=tls[0]))
            group.start_soon(
                lambda: wrap(1, far_stream, ssl_context=tls[1], hostname="localhost")
            )
        await streams[0].send(b"hello")
        assert await streams[1].receive() == b"hello"
        await near_stream.aclose()
        with pytest.raises(
            (anyio.EndOfStream, anyio.BrokenResourceError, ssl.SSLError)
        ):
            await streams[1].receive()
        await anyio.aclose_forcefully(streams[1])

    run(main)


def test_datagrams(run: Run, tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        async with await anyio.create_udp_socket(local_host="127.0.0.1") as server:
            port = server.extra(SocketAttribute.local_port)

            async def answer() -> None:
                async for data, address in server:
                    await server.sendto(data.upper(), *address)

            async def user(number: int) -> None:
                async with await anyio.create_connected_udp_socket(
                    "127.0.0.1", port
                ) as sock:
                    for count in range(10):
                        await sock.send(b"u%d-%d" % (number, count))
                        assert await sock.receive() == b"U%d-%d" % (number, count)

            async with anyio.create_task_group() as group:
                group.start_soon(answer)
                async with anyio.create_task_group() as users:
                    for number in range(20):
                        users.start_soon(user, number)
                group.cancel_scope.cancel()
        path = str(tmp_path / "datagrams")
        async with (
            await anyio.create_unix_datagram_socket(local_path=path) as server,
            await anyio.create_connected_unix_datagram_socket(path) as sock,
        ):
            await sock.send(b"unix")
            assert (await server.receive())[0] == b"unix"

    run(main)


def test_happy_eyeballs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first address is silent or refuses; the second one answers."""

    async def main() -> None:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(SocketAttribute.local_port)
        with full_listener("127.0.0.2", port):

            async def addresses(*args: Any, **options: Any) -> Any:
                return [
                    (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))
                    for host in ("127.0.0.2", "127.0.0.3", "127.0.0.1")
                ]

            monkeypatch.setattr("anyio._core._sockets.getaddrinfo", addresses)
            async with listener, anyio.create_task_group() as group:
                group.start_soon(listener.serve, echo)
                async with await anyio.connect_tcp(
                    "server.test", port, happy_eyeballs_delay=0.02
                ) as stream:
                    remote = stream.extra(SocketAttribute.remote_address)
                    assert remote == ("127.0.0.1", port)
                    await stream.send(b"x")
                    assert await stream.receive() == b"x"
                group.cancel_scope.cancel()
        with pytest.raises(OSError, match="All connection attempts failed"):
            await anyio.connect_tcp("server.test", port)

    run(main)


def test_waiting_for_a_socket(run: Run) -> None:
    async def main() -> None:
        near, far = socket.socketpair()
        near.setblocking(False)
        with near, far:
            await anyio.wait_writable(near)
            with anyio.move_on_after(0.01) as scope:
                await anyio.wait_readable(near)
            assert scope.cancelled_caught
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.wait_readable, near)
                await anyio.sleep(0)
                with pytest.raises(anyio.BusyResourceError):
                    await anyio.wait_readable(near)
                far.send(b"x")
            async with anyio.create_task_group() as group:

                async def closed() -> None:
                    near.recv(10)
                    with pytest.raises(anyio.ClosedResourceError):
                        await anyio.wait_readable(near)

                group.start_soon(closed)
                await asyncio.sleep(0)
                anyio.notify_closing(near)

    run(main)


def test_processes(run: Run) -> None:
    async def main() -> None:
        data = block(1, 2 * MIB)
        done = await anyio.run_process(["cat"], input=data)
        assert done.stdout == data
        code = "import sys; sys.exit(sys.stdin.read().count('x'))"
        async with await anyio.open_process([sys.executable, "-c", code]) as process:
            assert process.stdin is not None
            await process.stdin.send(b"xxx")
            await process.stdin.aclose()
            assert await process.wait() == 3
        with anyio.move_on_after(0.05) as scope:
            await anyio.run_process(["sleep", "1000"])
        assert scope.cancelled_caught

    run(main)


def test_signals(run: Run) -> None:
    async def main() -> list[int]:
        got: list[int] = []
        with anyio.open_signal_receiver(signal.SIGUSR1, signal.SIGUSR2) as received:
            for number in (signal.SIGUSR1, signal.SIGUSR2):
                os.kill(os.getpid(), number)
                got.append(await anext(received))
            with anyio.move_on_after(0.01) as scope:
                await anext(received)
            assert scope.cancelled_caught
        return got

    assert run(main) == [signal.SIGUSR1, signal.SIGUSR2]


def test_files(run: Run, tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        path = anyio.Path(tmp_path / "file")
        async with await path.open("wb") as file:
            for number in range(20):
                await file.write(block(number, 100_000))
        digest = hashlib.sha256()
        async with await anyio.open_file(path, "rb") as file:
            while data := await file.read(1 << 16):
                digest.update(data)
        assert digest.hexdigest() == checksum_of(20, 100_000)
        assert [entry.name async for entry in anyio.Path(tmp_path).iterdir()] == [
            "file"
        ]
        await path.unlink()
        assert not await path.exists()

    run(main)

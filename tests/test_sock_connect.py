"""sock_connect() and sock_accept() on real sockets, on both loops."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from support import start_script, turns


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        yield sock


@pytest.fixture
def client() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        sock.setblocking(False)
        yield sock


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def test_connecting_and_accepting(loop: Any, listener: Any, client: Any) -> None:
    accepting = asyncio.create_task(loop.sock_accept(listener))
    await turns(2)
    assert await loop.sock_connect(client, listener.getsockname()) is None
    conn, address = await accepting
    assert type(conn) is socket.socket
    assert conn.gettimeout() == 0
    assert os.get_blocking(conn.fileno()) is False
    assert os.get_inheritable(conn.fileno()) is False
    assert (conn.family, conn.type, conn.proto) == (
        listener.family,
        listener.type,
        listener.proto,
    )
    assert address == client.getsockname() == conn.getpeername()
    conn.close()


async def test_what_is_in_the_backlog_is_accepted_at_once(
    loop: Any, listener: Any, client: Any
) -> None:
    await loop.sock_connect(client, listener.getsockname())
    conn, _ = await loop.sock_accept(listener)
    assert loop._selector.get_map().get(listener.fileno()) is None
    conn.close()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", b"127.0.0.1"])
async def test_hosts(loop: Any, listener: Any, client: Any, host: Any) -> None:
    await loop.sock_connect(client, (host, listener.getsockname()[1]))
    assert client.getpeername() == listener.getsockname()


async def test_names_go_through_the_resolver_of_the_loop(
    loop: Any, listener: Any, client: Any, monkeypatch: Any
) -> None:
    asked: list[Any] = []

    async def getaddrinfo(host: Any, port: Any, **kwargs: Any) -> Any:
        asked.append((host, port, kwargs["family"], kwargs["type"]))
        return [(2, 1, 6, "", listener.getsockname())]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    await loop.sock_connect(client, ("some.name", 80))
    assert asked == [("some.name", 80, socket.AF_INET, socket.SOCK_STREAM)]
    assert client.getpeername() == listener.getsockname()


async def test_refused(loop: Any, client: Any) -> None:
    address = ("127.0.0.1", free_port())
    with pytest.raises(ConnectionRefusedError) as caught:
        await loop.sock_connect(client, address)
    assert caught.value.errno == errno.ECONNREFUSED
    assert str(address) in str(caught.value)


async def test_refused_of_ipv6_tells_the_whole_address(loop: Any) -> None:
    with socket.socket(socket.AF_INET6) as sock:
        sock.setblocking(False)
        try:
            sock.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6")
        port = free_port()
        with pytest.raises(ConnectionRefusedError) as caught:
            await loop.sock_connect(sock, ("::1", port))
        assert str(("::1", port, 0, 0)) in str(caught.value)


async def test_ipv6_keeps_scope_and_flow(loop: Any) -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_INET6))
        client = stack.enter_context(socket.socket(socket.AF_INET6))
        try:
            listener.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6")
        listener.listen()
        port = listener.getsockname()[1]
        client.setblocking(False)
        await loop.sock_connect(client, ("::1", port, 0, 0))
        assert client.getpeername() == ("::1", port, 0, 0)
        listener.setblocking(False)
        conn, address = await loop.sock_accept(listener)
        assert address == client.getsockname()
        conn.close()


@pytest.mark.parametrize(
    ("address", "error"),
    [
        (("127.0.0.1", 1 << 16), OverflowError),
        (("127.0.0.1", -1), OverflowError),
        (("127.0.0.1", "no service"), socket.gaierror),
        ((), ValueError),
        (None, TypeError),
    ],
)
async def test_wrong_addresses(
    loop: Any, client: Any, address: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await loop.sock_connect(client, address)


async def test_connecting_twice(loop: Any, listener: Any, client: Any) -> None:
    await loop.sock_connect(client, listener.getsockname())
    with pytest.raises(OSError) as caught:
        for _ in range(2):  # Linux says so from the third time on
            await loop.sock_connect(client, listener.getsockname())
    assert caught.value.errno == errno.EISCONN


async def test_datagram_sockets_connect(loop: Any) -> None:
    with contextlib.ExitStack() as stack:
        near, far = (
            stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(2)
        )
        far.bind(("127.0.0.1", 0))
        far.setblocking(False)
        near.setblocking(False)
        await loop.sock_connect(near, far.getsockname())
        await loop.sock_sendall(near, b"x")
        assert await loop.sock_recvfrom(far, 9) == (b"x", near.getsockname())


async def test_unix_paths(loop: Any, tmp_path: Any) -> None:
    path = str(tmp_path / "listener")
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        client = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.setblocking(False)
        client.setblocking(False)
        with pytest.raises(FileNotFoundError):
            await loop.sock_connect(client, path)
        listener.bind(path)
        listener.listen()
        task = asyncio.create_task(loop.sock_accept(listener))
        await turns(2)
        await loop.sock_connect(client, path.encode())
        conn, address = await task
        assert client.getpeername() == path
        assert address == ""
        conn.close()


async def test_accepting_on_a_socket_that_does_not_listen(
    loop: Any, client: Any
) -> None:
    with pytest.raises(OSError) as caught:
        await loop.sock_accept(client)
    assert caught.value.errno == errno.EINVAL


async def test_a_cancelled_connect(loop: Any, client: Any) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = []
        try:
            for _ in range(3):  # the backlog is full: the kernel answers no more
                sock = socket.socket()
                sock.setblocking(False)
                waiting.append(sock)
                sock.connect_ex(full.getsockname())
            await asyncio.sleep(0.01)
            task = asyncio.create_task(loop.sock_connect(client, full.getsockname()))
            await turns(2)
            assert not task.done()
            assert loop._selector.get_map().get(client.fileno()) is not None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await turns(2)
            assert task.cancelled()
            assert loop._selector.get_map().get(client.fileno()) is None
        finally:
            for sock in waiting:
                sock.close()


async def test_a_cancelled_accept_accepts_nothing(
    loop: Any, listener: Any, client: Any
) -> None:
    task = asyncio.create_task(loop.sock_accept(listener))
    await turns(2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await loop.sock_connect(client, listener.getsockname())
    await turns(3)
    conn, address = await loop.sock_accept(listener)
    assert address == client.getsockname()
    conn.close()


async def test_a_burst_of_connections(loop: Any, listener: Any) -> None:
    async def connect() -> None:
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, listener.getsockname())
            await loop.sock_sendall(sock, b"hello")
            assert await loop.sock_recv(sock, 9) == b"hello"

    async def serve(conn: socket.socket) -> None:
        with conn:
            while data := await loop.sock_recv(conn, 9):
                await loop.sock_sendall(conn, data)

    serving = []
    connecting = [asyncio.create_task(connect()) for _ in range(100)]
    for _ in range(100):
        conn, _ = await loop.sock_accept(listener)
        serving.append(asyncio.create_task(serve(conn)))
    await asyncio.gather(*connecting, *serving)


AUDIT = """
events = []
sys.addaudithook(lambda name, args: events.append((name, args[1:]))
                 if name.startswith("socket.") else None)

async def main():
    loop = asyncio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    client, near, far = socket.socket(), *(socket.socket(type=2) for _ in range(2))
    for sock in client, near, far:
        sock.setblocking(False)
    far.bind(("127.0.0.1", 0))
    del events[:]
    address, target = listener.getsockname(), far.getsockname()
    await loop.sock_connect(client, address)
    conn, _ = await loop.sock_accept(listener)
    await loop.sock_sendto(near, b"x", target)
    wanted = [("socket.connect", (address,)),
              ("socket.__new__", (2, 1, 0)),
              ("socket.sendto", (target,))]
    assert events == wanted, events

run(main())
print("done")
"""


def test_audit_events(loop_kind: str) -> None:
    process = start_script(loop_kind, AUDIT)
    out, err = process.communicate(timeout=60)
    assert out == "done\n", err


async def test_out_of_descriptors(loop: Any, listener: Any, client: Any) -> None:
    await loop.sock_connect(client, listener.getsockname())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(0))
        with pytest.raises(OSError) as caught:
            await loop.sock_accept(listener)
        assert caught.value.errno == errno.EMFILE
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in held:
            os.close(fd)
    conn, _ = await loop.sock_accept(listener)
    conn.close()


async def test_the_socket_is_closed_while_connecting(loop: Any, client: Any) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        await asyncio.sleep(0.01)
        task = asyncio.create_task(loop.sock_connect(client, full.getsockname()))
        await turns(2)
        client.close()
        await turns(2)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for sock in waiting:
            sock.close()

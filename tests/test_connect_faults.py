"""Client connections that fail, wait, are cancelled or are many at once."""

# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import sys
from typing import Any

import pytest

from servers import Echo, Keeper, leave, serve, stop, unused_port
from support import (
    Recorder,
    collect,
    finish_script,
    run_script,
    settle,
    start_script,
    turns,
    until,
)


def full_listener() -> tuple[socket.socket, list[socket.socket]]:
    """A listening socket whose queue is full, so that who connects must wait."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    waiting = []
    for _ in range(3):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(listener.getsockname())
        waiting.append(sock)
    return listener, waiting


def fds() -> set[str]:
    return set(os.listdir("/proc/self/fd" if sys.platform == "linux" else "/dev/fd"))


async def test_happy_eyeballs(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second address wins while the first hangs, whose socket is closed."""
    server, (_, port) = await serve(Echo)
    listener, waiting = full_listener()
    before = fds()
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", listener.getsockname()),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: found)
    transport, protocol = await loop.create_connection(
        Recorder, "name.test", 1, happy_eyeballs_delay=0.01
    )
    assert transport.get_extra_info("peername") == ("127.0.0.1", port)
    transport.close()
    await protocol.closed
    await settle()
    await until(lambda: len(fds()) <= len(before) + 1)  # the executor may have one
    for sock in (listener, *waiting):
        sock.close()
    await stop(server)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a queue that stays full")
async def test_cancelled_while_connecting(loop: Any) -> None:
    listener, waiting = full_listener()
    before = fds()
    for wait in (0, 1, 2, 5):
        task = asyncio.create_task(
            loop.create_connection(Recorder, *listener.getsockname())
        )
        await turns(wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert fds() == before, wait
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.open_connection(*listener.getsockname()), 0.02)
    assert fds() == before
    for sock in (listener, *waiting):
        sock.close()


@pytest.mark.skipif(sys.platform != "linux", reason="needs a queue that stays full")
async def test_connected_after_a_wait(loop: Any) -> None:
    """The kernel connects later: the loop hears of it from its poller."""
    listener, waiting = full_listener()
    listener.setblocking(False)
    task = asyncio.create_task(asyncio.open_connection(*listener.getsockname()))
    await asyncio.sleep(0.02)
    assert not task.done()
    accepted = []
    while not task.done():
        try:
            accepted.append(listener.accept()[0])
        except BlockingIOError:
            await asyncio.sleep(0.01)
    _, writer = await task
    assert writer.get_extra_info("peername") == listener.getsockname()
    await leave(writer)
    for sock in (listener, *waiting, *accepted):
        sock.close()


def test_refused_after_a_wait(loop_kind: str) -> None:
    """A peer that resets while it is asked, and one that never answers."""
    if sys.platform != "linux":
        pytest.skip("needs a queue that stays full")
    script = """
    async def main():
        loop = asyncio.get_running_loop()
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        for _ in range(3):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
            waiting.append(sock)
        address = listener.getsockname()
        task = asyncio.create_task(asyncio.open_connection(*address))
        await asyncio.sleep(0.05)
        print("waits", not task.done())
        listener.close()
        try:
            await task
        except OSError as exc:
            print(type(exc).__name__, exc.strerror == f"Connect call failed {address}")
        for sock in waiting:
            sock.close()

    run(main())
    """
    out, _ = run_script(loop_kind, script)
    assert out.splitlines() == ["waits True", "ConnectionRefusedError True"]


@pytest.mark.parametrize("turns_before", range(6))
async def test_cancelled_at_every_stage(loop: Any, turns_before: int) -> None:
    keeper = Keeper()
    server, address = await serve(keeper)
    made: list[Recorder] = []

    def factory() -> Recorder:
        made.append(Recorder(loop))
        return made[-1]

    task = asyncio.create_task(loop.create_connection(factory, *address))
    await turns(turns_before)
    task.cancel()
    try:
        transport, _ = await task
    except asyncio.CancelledError:
        pass
    else:
        transport.close()
    await turns(3)
    for protocol in made:
        if protocol.events:
            await protocol.closed
    await until(lambda: all(p.events for p in keeper.protocols))
    await keeper.closed()
    await stop(server)


async def test_factory_fails(loop: Any, unraisable: Any) -> None:
    server, address = await serve(Echo)

    def factory() -> Any:
        raise ZeroDivisionError("factory")

    with pytest.raises(ZeroDivisionError, match="factory"):
        await loop.create_connection(factory, *address)
    collect()
    unraisable.take()  # before 3.14 asyncio left the socket to the collector
    await stop(server)
    await settle()


async def test_connection_made_fails(loop: Any, reports: Any) -> None:
    server, address = await serve(Echo)

    class Fails(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            raise ZeroDivisionError("made")

    transport, protocol = await loop.create_connection(Fails, *address)
    assert "made" in str(reports.one()["exception"])
    transport.close()
    await protocol.closed
    await stop(server)


def test_out_of_descriptors(loop_kind: str) -> None:
    script = """
    import resource
    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        used = max(int(name) for name in os.listdir("/proc/self/fd"))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
        try:
            await loop.create_connection(asyncio.Protocol, *address)
        except OSError as exc:
            print(type(exc).__name__, exc)
        try:
            await loop.create_unix_connection(asyncio.Protocol, "/nowhere")
        except OSError as exc:
            print(type(exc).__name__, exc)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        server.close()
        await server.wait_closed()

    run(main())
    """
    out, _ = run_script(loop_kind, script)
    assert out.splitlines() == ["OSError [Errno 24] Too many open files"] * 2


def test_loop_stopped_while_connecting(loop_kind: str) -> None:
    """A connection under way when the program ends leaves nothing behind."""
    script = """
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    waiting = [socket.socket() for _ in range(3)]
    for sock in waiting:
        sock.setblocking(False)
        sock.connect_ex(listener.getsockname())
    new_loop().close()  # a process keeps what libuv needs for signals
    before = os.listdir("/proc/self/fd")
    loop = new_loop()
    task = loop.create_task(
        loop.create_connection(asyncio.Protocol, *listener.getsockname()))
    loop.run_until_complete(asyncio.sleep(0.01))
    print(task.done())
    task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    print(task.cancelled(), os.listdir("/proc/self/fd") == before)
    for sock in (listener, *waiting):
        sock.close()
    """
    out, _ = run_script(loop_kind, script)
    assert out.splitlines() == ["False", "True True"]


@pytest.mark.parametrize(
    "options", [{}, {"local_addr": ("127.0.0.1", 0)}, {"flags": 0}], ids=str
)
async def test_a_failure_leaves_no_cycle(loop: Any, options: Any) -> None:
    """What failed is freed at once, sockets and exceptions alike."""
    port = unused_port()
    with contextlib.suppress(ConnectionRefusedError):
        await loop.create_connection(Recorder, "127.0.0.1", port, **options)
    await turns(2)
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            with contextlib.suppress(ConnectionRefusedError):
                await loop.create_connection(Recorder, "127.0.0.1", port, **options)
        await turns(2)
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_at_random(loop_kind: str, seed: int) -> None:
    """Opens, closes, cancels and fails connections; nothing may be left over."""
    script = f"""
    import random
    generator = random.Random({seed})
    DEAD = socket.socket()
    DEAD.bind(("127.0.0.1", 0))

    class Peer(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport
            live.add(self)
            chance = generator.random()
            if chance < 0.2:
                transport.abort()
            elif chance < 0.4:
                transport.write(bytes(generator.randrange(1, 200_000)))
                transport.close()
        def data_received(self, data):
            if generator.random() < 0.2:
                self.transport.close()
            else:
                self.transport.write(data)
        def connection_lost(self, exc):
            live.discard(self)

    live = set()

    async def one(loop, addresses):
        address = generator.choice([*addresses, DEAD.getsockname(), "/nowhere"])
        if isinstance(address, str):
            work = loop.create_unix_connection(Peer, address)
        else:
            options = generator.choice(
                [{{}}, {{"happy_eyeballs_delay": 0.001}},
                 {{"local_addr": ("127.0.0.1", 0)}}])
            work = loop.create_connection(Peer, *address, **options)
        task = asyncio.ensure_future(work)
        if generator.random() < 0.4:
            for _ in range(generator.randrange(6)):
                await asyncio.sleep(0)
            task.cancel()
        try:
            transport, _ = await task
        except (OSError, asyncio.CancelledError):
            return
        transport.write(bytes(generator.randrange(1, 1000)))
        await asyncio.sleep(generator.choice([0, 0, 0.001]))
        generator.choice([transport.close, transport.abort])()

    async def main():
        loop = asyncio.get_running_loop()
        path = f"\\0hotloop-random-{{os.getpid()}}"
        servers = [
            await loop.create_server(Peer, "127.0.0.1", 0, backlog=5),
            await loop.create_unix_server(Peer, path),
        ]
        addresses = [servers[0].sockets[0].getsockname(), path]
        before = sorted(os.listdir("/proc/self/fd"))
        for _ in range(15):
            await asyncio.gather(*(one(loop, addresses) for _ in range(20)))
        gc.collect()  # asyncio's happy eyeballs leave cycles behind
        for _ in range(200):
            if not live and sorted(os.listdir("/proc/self/fd")) == before:
                break
            for peer in list(live):
                peer.transport.abort()
            await asyncio.sleep(0.01)
        left = set(os.listdir("/proc/self/fd")) - set(before)
        print(len(live), [os.readlink("/proc/self/fd/" + fd) for fd in left],
              len(asyncio.all_tasks()))
        for server in servers:
            server.close()
            await server.wait_closed()

    reported = []
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.get_loop().set_exception_handler(lambda _, c: reported.append(c))
        runner.run(main())
    DEAD.close()
    print(reported)
    """
    flags = ["-W", "error::ResourceWarning"] if loop_kind == "hotloop" else []
    process = start_script(loop_kind, script, *flags)
    code, out, err = finish_script(process, 60)
    assert (code, out.splitlines()) == (0, ["0 [] 1", "[]"]), err
    if loop_kind == "hotloop":
        assert err == ""

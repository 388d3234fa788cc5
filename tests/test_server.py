"""Servers: serving, closing, sockets, clients, running out of descriptors."""

# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from servers import Keeper, leave, serve, stop, visit
from support import (
    PY,
    PY_FULL,
    Recorder,
    collect,
    finish_script,
    settle,
    start_script,
    turns,
    until,
)


async def test_facts(loop: Any) -> None:
    server, address = await serve()
    assert isinstance(server, asyncio.AbstractServer)
    assert isinstance(server, asyncio.Server)
    assert server.is_serving() and server.get_loop() is loop
    assert isinstance(server.sockets, tuple)
    assert isinstance(server.sockets[0], asyncio.trsock.TransportSocket)
    assert repr(server).startswith("<Server sockets=(")
    server.close()
    server.close()
    assert server.sockets == () and not server.is_serving()
    await server.wait_closed()
    with pytest.raises(OSError):
        await asyncio.open_connection(*address)


async def test_start_serving_later(loop: Any) -> None:
    keeper = Keeper()
    server, address = await serve(keeper, start_serving=False)
    assert not server.is_serving()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)
    await server.start_serving()
    await server.start_serving()
    assert server.is_serving()
    _, writer = await asyncio.open_connection(*address)
    await keeper.connected()
    await leave(writer)
    await keeper.closed()
    await stop(server)


async def test_serve_forever(loop: Any) -> None:
    server, _address = await serve(start_serving=False)
    task = asyncio.create_task(server.serve_forever())
    await turns(3)
    assert server.is_serving()
    with pytest.raises(RuntimeError, match="is already being awaited on"):
        await server.serve_forever()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not server.is_serving() and server.sockets == ()
    with pytest.raises(RuntimeError, match="is closed"):
        await server.serve_forever()


async def test_async_with(loop: Any) -> None:
    keeper = Keeper()
    server, address = await serve(keeper)
    async with server as inside:
        assert inside is server
        _, writer = await asyncio.open_connection(*address)
        await keeper.connected()
        await leave(writer)
        await keeper.closed()
    assert not server.is_serving()


async def test_wait_closed_waits_for_clients(loop: Any) -> None:
    keeper = Keeper()
    server, address = await serve(keeper)
    _, writer = await asyncio.open_connection(*address)
    await keeper.connected()
    server.close()
    waiter = asyncio.create_task(server.wait_closed())
    await asyncio.sleep(0.01)
    # 3.11 and 3.12.0 returned at once.
    assert waiter.done() is (PY_FULL < (3, 12, 1))
    await keeper.closed()
    await asyncio.wait_for(waiter, 5)
    await leave(writer)


async def test_close_leaves_clients_alone(loop: Any) -> None:
    keeper = Keeper()
    server, address = await serve(keeper)
    reader, writer = await asyncio.open_connection(*address)
    await keeper.connected()
    server.close()
    keeper.protocols[0].transport.write(b"still here")
    assert await reader.readexactly(10) == b"still here"
    await leave(writer)
    await keeper.closed()
    await server.wait_closed()


@pytest.mark.skipif(PY < (3, 13), reason="close_clients came with 3.13")
@pytest.mark.parametrize("name", ["close_clients", "abort_clients"])
async def test_close_clients(loop: Any, name: str) -> None:
    keeper = Keeper()
    server, address = await serve(keeper)
    clients = [await asyncio.open_connection(*address) for _ in range(5)]
    await keeper.connected(5)
    server.close()
    assert getattr(server, name)() is None
    await asyncio.wait_for(server.wait_closed(), 5)
    for protocol in keeper.protocols:
        assert await protocol.closed is None
    for reader, writer in clients:
        assert await reader.read() == b""
        await leave(writer)


@pytest.mark.skipif(PY < (3, 13), reason="close_clients came with 3.13")
async def test_clients_are_held_weakly(loop: Any) -> None:
    keeper = Keeper()
    server, address = await serve(keeper)
    for _ in range(3):
        await visit(address)
    await keeper.connected(3)
    await keeper.closed()
    await turns(2)
    assert len(server._clients) == 0
    await stop(server)


async def test_many_clients_at_once(loop: Any) -> None:
    keeper = Keeper()
    server, address = await serve(keeper, backlog=300)
    socks = [socket.socket() for _ in range(250)]
    for sock in socks:
        sock.connect(address)
    await keeper.connected(250)
    peers = {p.transport.get_extra_info("peername") for p in keeper.protocols}
    assert peers == {sock.getsockname() for sock in socks}
    for sock in socks:
        sock.close()
    await asyncio.gather(*(protocol.closed for protocol in keeper.protocols))
    await stop(server)


async def test_accepting_lets_other_callbacks_run(loop: Any) -> None:
    keeper = Keeper()
    server, address = await serve(keeper, backlog=300)
    socks = [socket.socket() for _ in range(250)]
    for sock in socks:
        sock.connect(address)
    count = 0
    while len(keeper.protocols) < 250:
        await asyncio.sleep(0)
        count += 1
        assert count < 10_000
    for sock in socks:
        sock.close()
    await keeper.connected(250)
    await asyncio.gather(*(protocol.closed for protocol in keeper.protocols))
    await stop(server)


async def test_accepted_sockets_are_not_inherited(loop: Any) -> None:
    keeper = Keeper()
    server, address = await serve(keeper)
    _, writer = await asyncio.open_connection(*address)
    await keeper.connected()
    sock = keeper.protocols[0].transport.get_extra_info("socket")
    assert sock.get_inheritable() is False
    assert sock.gettimeout() == 0
    await leave(writer)
    await keeper.closed()
    await stop(server)


async def test_server_on_a_socket(loop: Any) -> None:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    keeper = Keeper()
    server = await loop.create_server(keeper, sock=sock)
    _, writer = await asyncio.open_connection(*sock.getsockname())
    await keeper.connected()
    await leave(writer)
    await keeper.closed()
    await stop(server)
    assert sock.fileno() == -1


async def test_several_addresses(loop: Any) -> None:
    keeper = Keeper()
    server = await loop.create_server(keeper, ["127.0.0.1", "127.0.0.2"], 0)
    assert len(server.sockets) == 2
    for number, sock in enumerate(server.sockets, 1):
        _, writer = await asyncio.open_connection(*sock.getsockname())
        await keeper.connected(number)
        await leave(writer)
    await keeper.closed()
    await stop(server)


async def test_duplicate_hosts_bind_once(loop: Any) -> None:
    server = await loop.create_server(Recorder, ["127.0.0.1", "127.0.0.1"], 0)
    assert len(server.sockets) == 1
    await stop(server)


async def test_options(loop: Any) -> None:
    kwargs: dict[str, Any] = {"reuse_address": True, "reuse_port": True}
    if PY >= (3, 13):
        kwargs["keep_alive"] = True
    server, _ = await serve(**kwargs)
    sock = server.sockets[0]
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) != 0
    if PY >= (3, 13):
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
    await stop(server)


async def test_wrong_arguments(loop: Any) -> None:
    with pytest.raises(ValueError, match="Neither host/port nor sock"):
        await loop.create_server(Recorder)
    with (
        socket.socket() as sock,
        pytest.raises(ValueError, match="host/port and sock can not"),
    ):
        await loop.create_server(Recorder, "127.0.0.1", 0, sock=sock)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        pytest.raises(ValueError, match="A Stream Socket was expected"),
    ):
        await loop.create_server(Recorder, sock=sock)
    with pytest.raises(TypeError, match="ssl argument must be an SSLContext"):
        await loop.create_server(Recorder, "127.0.0.1", 0, ssl=True)


async def test_address_in_use(loop: Any) -> None:
    server, address = await serve()
    with pytest.raises(OSError, match="error while attempting to bind on address"):
        await loop.create_server(Recorder, *address)
    await stop(server)


async def test_closed_inside_a_callback(loop: Any) -> None:
    closed = loop.create_future()

    class Closes(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            server.close()
            transport.close()
            closed.set_result(None)

    server, address = await serve(Closes)
    _, writer = await asyncio.open_connection(*address)
    await closed
    await leave(writer)
    await asyncio.wait_for(server.wait_closed(), 5)


async def test_closed_inside_the_factory(
    loop: Any, loop_kind: str, unraisable: Any
) -> None:
    def factory() -> Any:
        server.close()
        return Recorder(loop)

    server, address = await serve(factory)
    _reader, writer = await asyncio.open_connection(*address)
    await until(lambda: not server.is_serving())
    await leave(writer)
    await asyncio.sleep(0.01)
    await asyncio.wait_for(server.wait_closed(), 5)
    await settle()
    collect()
    # asyncio drops the connection on the floor.
    assert unraisable.take() == [] or loop_kind == "asyncio"


OUT_OF_DESCRIPTORS = """
import resource

async def main():
    loop = asyncio.get_running_loop()
    made, answered, reports = [], 0, []
    # Nothing that would open a file: logging may import.
    loop.set_exception_handler(lambda _, context: reports.append(context))

    class Hello(asyncio.Protocol):
        def connection_made(self, transport):
            made.append(transport)
            transport.write(b"hi")

    server = await loop.create_server(Hello, "127.0.0.1", 0, backlog=50)
    address = server.sockets[0].getsockname()
    clients = []
    for _ in range(20):
        sock = socket.socket()
        sock.setblocking(False)
        clients.append(sock)
    used = max(int(name) for name in os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 4, hard))
    for sock in clients:
        sock.connect_ex(address)
    while len(made) < 3:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    first = len(made)
    print("before", 0 < first < 20, flush=True)
    # The pause must not burn the processor.
    cpu = time.process_time()
    await asyncio.sleep(0.3)
    print("idle", time.process_time() - cpu < 0.2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for sock in clients:
        data = await asyncio.wait_for(loop.sock_recv(sock, 10), 10)
        answered += data == b"hi"
    print("answered", answered, len(made))
    for report in reports:
        print(report["message"], report["exception"])
    await asyncio.sleep(1.2)  # asyncio begins to listen as often as it stopped
    for transport in made:
        transport.close()
    for sock in clients:
        sock.close()
    server.close()
    await server.wait_closed()

run(main())
print("done")
"""


def test_running_out_of_descriptors(loop_kind: str) -> None:
    code, out, err = finish_script(start_script(loop_kind, OUT_OF_DESCRIPTORS))
    assert code == 0 and err == "", f"{out}\n{err}"
    lines = out.splitlines()
    assert "before True" in lines and "idle True" in lines
    assert "answered 20 20" in lines and lines[-1] == "done"
    assert any("socket.accept() out of system resource" in line for line in lines)
    assert any("Too many open files" in line for line in lines)


def test_server_closed_while_out_of_descriptors(loop_kind: str) -> None:
    script = """
    import logging, resource
    logging.disable()

    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        clients = [socket.socket() for _ in range(5)]
        used = max(int(name) for name in os.listdir("/proc/self/fd"))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
        for sock in clients:
            sock.setblocking(False)
            sock.connect_ex(address)
        await asyncio.sleep(0.1)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        server.close()
        await asyncio.wait_for(server.wait_closed(), 5)
        await asyncio.sleep(1.2)
        for sock in clients:
            sock.close()

    run(main())
    print("done")
    """
    code, out, err = finish_script(start_script(loop_kind, script))
    assert (code, out) == (0, "done\n"), err

"""Accepting: bursts, turns, backlogs, aborted connections, several processes."""

# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import subprocess
import sys
from typing import Any

import pytest

from hotloop._release import ACCEPTS_ONE_MORE
from servers import Echo, Keeper, serve, stop, visit
from support import (
    PRELUDE,
    PY,
    Recorder,
    connected,
    finish,
    finish_script,
    reset,
    run_script,
    script_env,
    settle,
    start_script,
    turns,
    until,
)

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="as Linux has it")


def connect_many(address: Any, count: int) -> list[socket.socket]:
    return [socket.create_connection(address) for _ in range(count)]


def close_all(socks: list[socket.socket]) -> None:
    for sock in socks:
        sock.close()


async def test_a_burst_is_accepted_within_four_turns(loop: Any) -> None:
    """As under asyncio; a loop that takes one connection a turn needs fifty."""
    keeper = Keeper()
    server, address = await serve(keeper)
    socks = connect_many(address, 50)
    count = 0
    while len(keeper.protocols) < 50 or not keeper.protocols[-1].events:
        await asyncio.sleep(0)
        count += 1
        assert count <= 4
    assert all(protocol.events == ["made"] for protocol in keeper.protocols)
    close_all(socks)
    await asyncio.gather(*(protocol.closed for protocol in keeper.protocols))
    await stop(server)


async def test_a_burst_of_handlers_starts_within_four_turns(loop: Any) -> None:
    started = 0

    async def handle(reader: Any, writer: Any) -> None:
        nonlocal started
        started += 1
        await reader.read()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    socks = connect_many(server.sockets[0].getsockname(), 50)
    count = 0
    while started < 50:
        await asyncio.sleep(0)
        count += 1
        assert count <= 5  # one more than connection_made(): the task's own
    close_all(socks)
    await settle()
    await stop(server)


@pytest.mark.parametrize("backlog", [1, 3, 10])
async def test_no_more_than_a_backlog_at_a_time(loop: Any, backlog: int) -> None:
    """What is waiting beyond the backlog is left to the next turns."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(100)
    made: list[int] = []
    turn = 0

    class Counts(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            made.append(turn)

    # The queue is as long as its server's backlog once that listens.
    socks = connect_many(sock.getsockname(), backlog + 1)
    server = await loop.create_server(Counts, sock=sock, backlog=backlog)
    while len(made) < backlog + 1:
        await asyncio.sleep(0)
        turn += 1
        assert turn < 100
    first = made.count(made[0])
    assert first == (backlog + 1 if ACCEPTS_ONE_MORE else backlog)
    close_all(socks)
    server.close()
    await turns(5)
    await asyncio.sleep(0.01)


@LINUX
async def test_backlog_is_given_to_the_kernel(loop: Any) -> None:
    server, address = await serve(Echo, backlog=2, start_serving=False)
    await server.start_serving()
    loop.remove_reader(server.sockets[0].fileno())
    socks = []
    for _ in range(8):
        sock = socket.socket()
        sock.settimeout(0.05)
        try:
            sock.connect(address)
        except TimeoutError:
            sock.close()
            break
        socks.append(sock)
    assert len(socks) == 3  # Linux takes one more
    close_all(socks)
    await stop(server)


async def test_connections_aborted_in_the_queue(loop: Any) -> None:
    """Peers that reset before they are accepted disturb nobody."""
    keeper = Keeper()
    server, address = await serve(keeper)
    socks = connect_many(address, 30)
    for sock in socks[::2]:
        reset(sock)
    await keeper.connected(30)
    await until(lambda: sum("lost" in p.events for p in keeper.protocols) == 15)
    for protocol in keeper.protocols:
        if "lost" in protocol.events:
            assert isinstance(protocol.error, ConnectionResetError)
    close_all(socks)
    await asyncio.gather(*(protocol.closed for protocol in keeper.protocols))
    await visit(address)
    await stop(server)


async def test_a_storm(loop: Any) -> None:
    """A thousand connections, all served, all told apart."""
    keeper = Keeper()
    server, address = await serve(keeper, backlog=1024)
    pairs = []
    for _ in range(10):
        pairs += await asyncio.gather(
            *(loop.create_connection(Recorder, *address) for _ in range(40))
        )
    await keeper.connected(400)
    names = {p.transport.get_extra_info("peername") for p in keeper.protocols}
    assert names == {t.get_extra_info("sockname") for t, _ in pairs}
    for transport, _ in pairs:
        transport.close()
    await asyncio.gather(*(protocol.closed for _, protocol in pairs))
    await asyncio.gather(*(protocol.closed for protocol in keeper.protocols))
    await stop(server)


WORKER = """
async def main():
    port = int(sys.argv[1])
    loop = asyncio.get_running_loop()

    class Tells(asyncio.Protocol):
        def connection_made(self, transport):
            transport.write(b"%d" % os.getpid())
            transport.close()

    server = await loop.create_server(Tells, "127.0.0.1", port, reuse_port=True)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()
    await server.wait_closed()

run(main())
"""


def start_worker(kind: str, port: int) -> Any:
    return start_script(kind, WORKER.replace("sys.argv[1]", str(port)), stdin=-1)


@LINUX
async def test_several_processes_share_a_port(loop: Any, loop_kind: str) -> None:
    """reuse_port: the kernel spreads connections, and all are answered."""
    workers = [start_worker(loop_kind, 0)]
    port = int(workers[0].stdout.readline())
    workers += [start_worker(loop_kind, port) for _ in range(2)]
    for worker in workers[1:]:
        assert int(worker.stdout.readline()) == port
    pids = set()
    for _ in range(100):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        pids.add(int(await reader.read()))
        writer.close()
        await writer.wait_closed()
    assert pids == {worker.pid for worker in workers}
    for worker in workers:
        code, _, err = finish_script(worker)
        assert (code, err) == (0, "")


async def test_port_in_use_without_reuse_port(loop: Any) -> None:
    server, (_, port) = await serve(Echo, reuse_port=True)
    with pytest.raises(OSError, match="address already in use"):
        await loop.create_server(Echo, "127.0.0.1", port)
    again = await loop.create_server(Echo, "127.0.0.1", port, reuse_port=True)
    await stop(again)
    await stop(server)


SYSTEMD = """
# As a service that systemd starts: its sockets are the descriptors from 3 on.
count = int(os.environ["LISTEN_FDS"])
assert int(os.environ["LISTEN_PID"]) == os.getpid()

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(data)

async def main():
    loop = asyncio.get_running_loop()
    servers = []
    for fd in range(3, 3 + count):
        sock = socket.socket(fileno=fd)
        if sock.family == socket.AF_UNIX:
            servers.append(await loop.create_unix_server(Echo, sock=sock))
        else:
            servers.append(await loop.create_server(Echo, sock=sock))
    print("serving", count, flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    for server in servers:
        server.close()
        await server.wait_closed()
    print("closed", [fd for fd in range(3, 3 + count) if is_open(fd)])

def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return stat.S_ISSOCK(os.fstat(fd).st_mode)

import stat
run(main())
"""

# Takes over the listening sockets, as systemd hands them over, and runs the script.
LAUNCHER = """
import os, sys
fds = [int(word) for word in sys.argv[1].split(",")]
for number, fd in enumerate(fds):
    os.dup2(fd, 3 + number)
    os.close(fd)
os.environ.update(LISTEN_FDS=str(len(fds)), LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-c", sys.argv[2]])
"""


@LINUX
async def test_sockets_handed_in_by_systemd(
    loop: Any, loop_kind: str, tmp_path: Any
) -> None:
    path = str(tmp_path / "s")
    listeners = [socket.socket(), socket.socket(socket.AF_UNIX)]
    listeners[0].bind(("127.0.0.1", 0))
    listeners[1].bind(path)
    high = []
    for sock in listeners:
        sock.listen(10)
        high.append(fcntl.fcntl(sock, fcntl.F_DUPFD, 50))
    address = listeners[0].getsockname()
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", LAUNCHER, ",".join(map(str, high))),
            PRELUDE + SYSTEMD,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=script_env(loop_kind),
        pass_fds=high,
    )
    close_all(listeners)
    for fd in high:
        os.close(fd)
    assert process.stdout is not None
    assert process.stdout.readline() == "serving 2\n"
    for opening in (
        asyncio.open_connection(*address),
        asyncio.open_unix_connection(path),
    ):
        reader, writer = await opening
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.close()
        await writer.wait_closed()
    code, out, err = finish_script(process)
    assert (code, out, err) == (0, "closed []\n", "")


def test_out_of_descriptors(loop_kind: str) -> None:
    script = """
    import logging, resource
    logging.disable()
    reports = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reports.append(context))
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        sock = server.sockets[0]
        clients = [socket.socket() for _ in range(3)]
        used = max(int(name) for name in os.listdir("/proc/self/fd"))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
        for client in clients:
            client.connect(sock.getsockname())
        await asyncio.sleep(0.1)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        report = reports[0]  # asyncio makes one for each of a backlog
        print(report["message"], report["exception"].errno == 24,
              report["socket"].fileno() == sock.fileno())
        for client in clients:
            client.close()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(1.1)

    run(main())
    """
    out, _ = run_script(loop_kind, script)
    assert out == "socket.accept() out of system resource True True\n"


async def test_keep_alive_and_options_are_inherited(loop: Any) -> None:
    keeper = Keeper()
    server, address = await serve(keeper)
    listening = server.sockets[0]
    _, writer = await asyncio.open_connection(*address)
    await keeper.connected()
    sock = keeper.protocols[0].transport.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    assert (sock.family, sock.type) == (listening.family, listening.type)
    if PY >= (3, 13):
        await stop_all(server, keeper, writer)
        keeper = Keeper()
        server, address = await serve(keeper, keep_alive=True)
        _, writer = await asyncio.open_connection(*address)
        await keeper.connected()
        sock = keeper.protocols[0].transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
    await stop_all(server, keeper, writer)


async def stop_all(server: Any, keeper: Keeper, writer: Any) -> None:
    writer.close()
    await writer.wait_closed()
    await keeper.closed()
    await stop(server)


async def test_closing_with_connections_in_the_queue(loop: Any) -> None:
    """Whoever was not accepted yet is reset; whoever was goes on."""
    keeper = Keeper()
    server, address = await serve(keeper, start_serving=False)
    await server.start_serving()
    socks = connect_many(address, 5)
    server.close()
    await server.wait_closed()
    await turns(5)
    await asyncio.sleep(0.01)
    assert keeper.protocols == []
    for sock in socks:
        sock.settimeout(5)
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    close_all(socks)


@pytest.mark.skipif(PY < (3, 13), reason="came with 3.13")
@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
async def test_ending_clients(loop: Any, method: str) -> None:
    keeper = Keeper()
    server, address = await serve(keeper)
    pairs = [await asyncio.open_connection(*address) for _ in range(3)]
    await keeper.connected(3)
    for protocol in keeper.protocols:
        protocol.transport.write(bytes(30_000_000))
    server.close()
    getattr(server, method)()
    for reader, writer in pairs:
        received = len(await reader.read())
        assert (received == 30_000_000) is (method == "close_clients")
        writer.close()
    await asyncio.wait_for(server.wait_closed(), 5)
    await asyncio.gather(*(protocol.closed for protocol in keeper.protocols))
    await turns(3)


async def test_a_transport_without_server_is_unaffected(loop: Any) -> None:
    server, _ = await serve(Echo)
    transport, protocol, peer = await connected()
    await stop(server)
    peer.send(b"still")
    await until(lambda: protocol.data == b"still")
    await finish(transport, peer)

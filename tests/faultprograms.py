"""The programs of test_faults.py, each for a process with faults.c preloaded.

`storm` moves data every way there is under calls that fail as a program never sees
it (interrupted, short, not ready after all), and prints what arrived. The others
print what a program sees of calls that really fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import socket
import ssl
import sys
import tempfile
from typing import Any

import faults
import support
from servers import Echo

SIZE = 200_000
PIECES = random.Random(3)
DATA = random.Random(4).randbytes(SIZE)
HOST = "127.0.0.1"


def loop_kind() -> str:
    return os.environ["HOTLOOP_TEST_KIND"]


def pieces() -> list[bytes]:
    """The data, cut at random."""
    found, at = [], 0
    while at < SIZE:
        size = PIECES.randrange(1, 20_000)
        found.append(DATA[at : at + size])
        at += size
    return found


def show(name: str, got: bytes) -> None:
    print(name, "whole" if got == DATA else f"BROKEN: {len(got)} bytes")


class Collector(asyncio.Protocol):
    """Sends the data under flow control, and collects what comes back."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.may_write = asyncio.Event()
        self.may_write.set()
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.set_write_buffer_limits(high=30_000)

    def pause_writing(self) -> None:
        self.may_write.clear()

    def resume_writing(self) -> None:
        self.may_write.set()

    def data_received(self, data: bytes) -> None:
        self.got += data
        if len(self.got) >= SIZE:
            self.transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(exc)

    async def send(self) -> bytes:
        for piece in pieces():
            await self.may_write.wait()
            self.transport.write(piece)
        assert await self.lost is None
        return bytes(self.got)


class BufferedCollector(Collector, asyncio.BufferedProtocol):
    def get_buffer(self, sizehint: int) -> memoryview:
        self.buffer = bytearray(5000)
        return memoryview(self.buffer)

    def buffer_updated(self, size: int) -> None:
        self.data_received(bytes(self.buffer[:size]))


async def protocols(context: Any) -> None:
    loop = asyncio.get_running_loop()
    for kind in (Collector, BufferedCollector):
        async with await loop.create_server(Echo, HOST, 0) as server:
            address = server.sockets[0].getsockname()
            _, client = await loop.create_connection(kind, *address)
            show(kind.__name__, await client.send())


async def unix_sockets(context: Any) -> None:
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "s")
        async with await loop.create_unix_server(Echo, path):
            _, client = await loop.create_unix_connection(Collector, path)
            show("unix", await client.send())


async def through_streams(
    name: str, start: Any, connect: Any, contexts: Any = (None, None)
) -> None:
    async def serve(reader: Any, writer: Any) -> None:
        while data := await reader.read(10_000):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def send(writer: Any) -> None:
        for piece in pieces():
            writer.write(piece)
            await writer.drain()

    async with await start(serve, HOST, 0, ssl=contexts[0]) as server:
        address = server.sockets[0].getsockname()
        reader, writer = await connect(*address, ssl=contexts[1])
        sending = asyncio.create_task(send(writer))
        show(name, await reader.readexactly(SIZE))
        await sending
        writer.close()
        await writer.wait_closed()


async def streams(contexts: Any) -> None:
    modules: list[Any] = [asyncio]
    if "hotloop" in sys.modules:
        modules.append(sys.modules["hotloop"])
    for module in modules:
        functions = module.start_server, module.open_connection
        await through_streams("stream", *functions)
        await through_streams("tls", *functions, contexts)


async def sockets(context: Any) -> None:
    loop = asyncio.get_running_loop()

    async def serve(listener: socket.socket) -> None:
        sock, _ = await loop.sock_accept(listener)
        buffer = bytearray(7000)
        while size := await loop.sock_recv_into(sock, buffer):
            await loop.sock_sendall(sock, buffer[:size])
        sock.close()

    with socket.create_server((HOST, 0)) as listener, socket.socket() as sock:
        listener.setblocking(False)
        sock.setblocking(False)
        serving = asyncio.create_task(serve(listener))
        await loop.sock_connect(sock, listener.getsockname())
        got, sent = b"", 0
        for piece in pieces():
            await loop.sock_sendall(sock, piece)
            sent += len(piece)
            while len(got) < sent:
                got += await loop.sock_recv(sock, 9000)
        sock.shutdown(socket.SHUT_WR)
        got += await loop.sock_recv(sock, 9000)
        await serving
    show("sock", got)


async def files(context: Any) -> None:
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryFile() as file:
        file.write(DATA)
        file.flush()

        class Sender(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                self.task = loop.create_task(self.send(transport))

            async def send(self, transport: Any) -> None:
                await loop.sendfile(transport, file)
                transport.close()

        async with await loop.create_server(Sender, HOST, 0) as server:
            address = server.sockets[0].getsockname()
            reader, writer = await asyncio.open_connection(*address)
            show("sendfile", await reader.read())
            writer.close()
            await writer.wait_closed()
        left, right = support.unix_pair()
        with left, right:
            file.seek(0)
            sending = asyncio.create_task(loop.sock_sendfile(left, file))
            show("sock_sendfile", await support.read_all(right, SIZE))
            await sending


class Mirror(asyncio.DatagramProtocol):
    """Sends each datagram back."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.transport.sendto(data, address)


async def datagrams(context: Any) -> None:
    loop = asyncio.get_running_loop()

    class Asker(asyncio.DatagramProtocol):
        def __init__(self) -> None:
            self.queue: asyncio.Queue[bytes] = asyncio.Queue()

        def datagram_received(self, data: bytes, address: Any) -> None:
            self.queue.put_nowait(data)

    mirror, _ = await loop.create_datagram_endpoint(Mirror, (HOST, 0))
    address = mirror.get_extra_info("sockname")
    asker, protocol = await loop.create_datagram_endpoint(Asker, remote_addr=address)
    got = b""
    for start in range(0, SIZE, 10_000):
        parts = [DATA[at : at + 1000] for at in range(start, start + 10_000, 1000)]
        for part in parts:
            asker.sendto(part)
        for _ in parts:
            got += await protocol.queue.get()
    show("datagrams", got)
    asker.close()
    mirror.close()


async def children(context: Any) -> None:
    child = await asyncio.create_subprocess_exec(
        "cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await child.communicate(DATA)
    show("child", output)


WAYS = (
    *(protocols, unix_sockets, streams, sockets, files, datagrams),
    *(children,),
)


def contexts(certificate: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    return server, ssl.create_default_context(cafile=certificate)


async def storm(certificate: str, kind: str, seed: str) -> None:
    """Everything, while calls are interrupted, short or not ready."""
    pair = contexts(certificate)
    rules = {
        "interrupted": [errno.EINTR],
        "short": [faults.SHORT],
        "not-ready": [errno.EAGAIN],
        "all": [errno.EINTR, faults.SHORT, errno.EAGAIN],
    }[kind]
    faults.clear(int(seed))
    for error in rules:
        for call in ("receive", "send", "sendfile", "accept", "connect", "wait"):
            if error == errno.EINTR or call not in ("connect", "wait"):
                faults.add(call, error, permille=250)
    for way in WAYS:
        async with asyncio.timeout(40):
            await way(pair)
    total = sum(map(faults.hits, faults.CALLS))
    faults.clear()
    print("hit" if total > 50 else f"only {total} hits")
    await support.settle()


class Log(asyncio.Protocol, asyncio.DatagramProtocol):
    """Prints what happens to it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[str] = []

    def say(self, text: str, exc: BaseException | None = None) -> None:
        number = getattr(exc, "errno", None)
        why = errno.errorcode[number] if number else exc
        self.seen.append(f"{text} {why}")
        print(self.name, text, why)

    def itself(self) -> Log:
        """The factory of the protocol."""
        return self

    async def events(self, count: int) -> None:
        """Wait until so much has happened."""
        await support.until(lambda: len(self.seen) >= count)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.say(f"got {data!r}")

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.say(f"got {data!r}")

    def error_received(self, exc: OSError) -> None:
        self.say("error", exc)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.say("lost", exc)


def numbers(names: str) -> list[int]:
    return [getattr(errno, name) for name in names.split()]


async def accepting() -> None:
    """Each error once: a report and a pause, or nothing; nobody is lost."""
    loop: Any = asyncio.get_running_loop()
    reports = asyncio.Queue[Any]()
    loop.set_exception_handler(lambda _, context: reports.put_nowait(context))
    servers = []
    for error in numbers("EMFILE ENFILE ENOBUFS ENOMEM"):
        servers.append(await loop.create_server(Echo, HOST, 0))
        faults.add("accept", error, times=1)
        left = socket.create_connection(servers[-1].sockets[0].getsockname())
        report = await reports.get()
        print(report["message"], errno.errorcode[report["exception"].errno])
        left.setblocking(False)
        servers.append(left)
    for error in numbers("ECONNABORTED EINTR EAGAIN"):
        faults.add("accept", error, times=1)
    silent = await loop.create_server(Echo, HOST, 0)
    servers += [silent, socket.create_connection(silent.sockets[0].getsockname())]
    servers[-1].setblocking(False)
    for client in servers[1::2]:
        await loop.sock_sendall(client, b"hello")
        print("served", (await loop.sock_recv(client, 10)).decode())
        client.close()
    for server in servers[0::2]:
        server.close()
        await server.wait_closed()
    print("hits", faults.hits("accept"), "reports", reports.qsize())


async def making() -> None:
    """No socket is to be had."""
    loop = asyncio.get_running_loop()
    attempts: dict[str, Any] = {
        "connection": lambda: loop.create_connection(Echo, HOST, 9),
        "server": lambda: loop.create_server(Echo, HOST, 0),
        "endpoint": lambda: loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, (HOST, 0)
        ),
        "unix": lambda: loop.create_unix_connection(Echo, "/nowhere"),
        "child": lambda: asyncio.create_subprocess_exec(
            "true", stdin=asyncio.subprocess.PIPE
        ),
    }
    before = support.open_fds()
    for name, attempt in attempts.items():
        for error in numbers("EMFILE ENFILE ENOBUFS ENOMEM"):
            faults.add("pipe" if name == "child" else "socket", error)
            try:
                await attempt()
            except OSError as exc:
                print(name, errno.errorcode.get(exc.errno or 0, str(exc)[:14]))
            else:
                print(name, "made")
            faults.clear()
    await asyncio.sleep(0.01)
    print("left", len(support.open_fds().keys() - before.keys()))


async def sending_and_receiving() -> None:
    """Errors of established connections: each ends its own, and no other."""
    for call in ("send", "receive"):
        for error in numbers("ENOBUFS ENOMEM ECONNRESET EPIPE ETIMEDOUT EHOSTUNREACH"):
            log = Log(f"{call} {errno.errorcode[error]}")
            transport, _, right = await support.connected(log)
            faults.add(call, error, times=1)
            if call == "send":
                transport.write(b"hello")
            else:
                right.send(b"x")
            await log.events(1)
            faults.clear()
            transport.close()
            right.close()
            await support.turns(3)


async def datagram_errors() -> None:
    """Errors of datagrams: the protocol is told, and the endpoint lives."""
    loop = asyncio.get_running_loop()
    for call in ("send", "receive"):
        for error in numbers("ENOBUFS ENOMEM ECONNREFUSED EHOSTUNREACH EPERM"):
            log = Log(f"{call} {errno.errorcode[error]}")
            transport, _ = await loop.create_datagram_endpoint(log.itself, (HOST, 0))
            address = transport.get_extra_info("sockname")
            faults.add(call, error, times=1)
            transport.sendto(b"first", address)
            await log.events(1)
            faults.clear()
            if call == "send":
                transport.sendto(b"second", address)
            await log.events(2)
            transport.close()
            await support.turns(3)


async def watching() -> None:
    """The kernel watches no more descriptors: fs.epoll.max_user_watches.

    The numbers were those of other connections before, which a loop may know.
    """
    loop: Any = asyncio.get_running_loop()
    reports: list[Any] = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    for error in numbers("ENOSPC ENOMEM"):
        for is_full in (False, True):
            log = Log("connection")
            left, right = support.tcp_pair()
            if is_full:
                faults.add("watch", error)
            transport, _ = await loop.connect_accepted_socket(log.itself, left)
            right.send(b"hello")
            if is_full:
                await support.until(lambda: reports)
                print("reported", errno.errorcode[reports.pop()["exception"].errno])
            faults.clear()
            if not is_full or loop_kind() == "hotloop":  # asyncio tries once
                await log.events(1)
            transport.abort()
            right.close()
            await support.turns(3)
    left, right = support.tcp_pair()
    right.send(b"hello")
    faults.add("watch", errno.ENOSPC)
    seen = asyncio.Event()
    try:
        loop.add_reader(left, seen.set)
    except OSError as exc:
        reports.append({"exception": exc})
    await support.until(lambda: reports)
    print("reader", errno.errorcode[reports.pop()["exception"].errno])
    faults.clear()
    if loop_kind() == "hotloop":
        await seen.wait()
    loop.remove_reader(left)
    left.close()
    right.close()
    print("reports", len(reports))


async def wall_clock() -> None:
    """The wall clock is set while the loop waits: nothing is early or late."""
    loop = asyncio.get_running_loop()
    for jump in (10**8, -(10**8), 3600, -3600):
        began = loop.time()
        sleeping = asyncio.create_task(asyncio.sleep(0.05))
        await asyncio.sleep(0.01)
        faults.move_wall_clock(jump)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await loop.create_future()
        await sleeping
        await loop.run_in_executor(None, int)
        print("early" if loop.time() - began < 0.05 else "on time")
        faults.move_wall_clock(0)


PROGRAMS: dict[str, Any] = {
    "storm": storm,
    "accepting": accepting,
    "making": making,
    "sending-and-receiving": sending_and_receiving,
    "datagram-errors": datagram_errors,
    "watching": watching,
    "wall-clock": wall_clock,
}


async def main(name: str, *args: str) -> None:
    loop: Any = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: print("reported", context))
    await PROGRAMS[name](*args)


if __name__ == "__main__":
    factory = support.loop_factory(loop_kind())
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main(*sys.argv[1:]))

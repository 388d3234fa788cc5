"""No source keeps the others waiting: what one may do between two turns of another.

The victim is always ready: each time it is served it asks for the next time. So what
the aggressor does between two services is a number, not a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import support

READ = 256 * 1024  # of one recv()
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own")


class Victim(asyncio.Protocol):
    """A connection that always has a byte to read; it counts what others do."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self.served = 0
        self.others = 0  # since it was served
        self.worst = 0
        peer.send(b"x")

    def data_received(self, data: bytes) -> None:
        self.served += 1
        if self.served > 1:
            self.worst = max(self.worst, self.others)
        self.others = 0
        self.peer.send(b"x")


@contextlib.asynccontextmanager
async def victim() -> Any:
    loop = asyncio.get_running_loop()
    near, far = support.unix_pair()
    protocol = Victim(far)
    transport, _ = await loop.create_connection(lambda: protocol, sock=near)
    try:
        yield protocol
    finally:
        transport.abort()
        far.close()
        await support.turns(3)


@contextlib.contextmanager
def flood(send: Callable[[], object]) -> Iterator[None]:
    """A thread that sends until the socket ends."""

    def run() -> None:
        with contextlib.suppress(OSError):
            while not ended.is_set():
                send()

    ended = threading.Event()
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("buffered", [False, True])
async def test_a_connection_at_full_speed(loop: Any, buffered: bool) -> None:
    """One read of at most 256 KiB, as in asyncio."""
    near, far = socket.socketpair()
    near.setblocking(False)
    for sock in (near, far):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * READ)
    block = bytes(READ)
    sizes: list[int] = []

    class Reads(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            sizes.append(len(data))
            other.others += 1

    class Buffered(asyncio.BufferedProtocol):
        room = bytearray(READ)

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.room

        def buffer_updated(self, nbytes: int) -> None:
            sizes.append(nbytes)
            other.others += 1

    async with victim() as other:
        kind: Any = Buffered if buffered else Reads
        transport, _ = await loop.create_connection(kind, sock=near)
        with flood(lambda: far.sendall(block)):
            await support.until(lambda: sum(sizes) > 20 * READ, 30)
            transport.abort()
            await support.turns(3)
        far.close()
        assert other.worst <= 2 and max(sizes) <= READ


async def test_a_tls_connection_at_full_speed(
    loop: Any, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    got = 0

    class Reads(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            transports.append(transport)

        def data_received(self, data: bytes) -> None:
            nonlocal got
            got += len(data)
            other.others += len(data)

    transports: list[Any] = []
    server = await loop.create_server(Reads, "127.0.0.1", 0, ssl=tls[0])
    address = server.sockets[0].getsockname()

    def connect() -> ssl.SSLSocket:
        plain = socket.create_connection(address)
        return tls[1].wrap_socket(plain, server_hostname="localhost")

    client = await asyncio.to_thread(connect)
    block = bytes(READ)
    async with victim() as other:
        with flood(lambda: client.sendall(block)):
            await support.until(lambda: got > 20 * READ, 30)
            transports[0].abort()
            await support.turns(3)
        client.close()
        # What one read brings completes a record that an earlier one began.
        assert other.worst <= 2 * READ + (1 << 14)
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("count", [1, 1000])
async def test_callbacks_without_end(loop: Any, count: int) -> None:
    """One turn passes until an event is seen, and one until it is served."""
    going = True

    def again() -> None:
        other.others += 1
        if going:
            loop.call_soon(again)

    async with victim() as other:
        for _ in range(count):
            again()
        await support.until(lambda: other.served > 20)
        # A turn of few callbacks may go without its poll.
        assert other.worst <= (2 * count if count > 1 else 20_000)
        going = False


async def test_timers_among_callbacks_without_end(loop: Any) -> None:
    going, since, worst = True, 0, 0

    def again() -> None:
        nonlocal since
        since += 1
        if going:
            loop.call_soon(again)

    def tick() -> None:
        nonlocal since, worst
        worst, since = max(worst, since), 0
        if going:
            loop.call_later(0, tick)

    for _ in range(1000):
        again()
    since = 0
    tick()
    await support.turns(50)
    going = False
    await support.turns(3)
    assert worst <= 2000


# ---- hotloop's own ----

if "hotloop" in support.wanted_kinds():

    @pytest.mark.parametrize("loop_kind", ["hotloop"])
    @pytest.mark.parametrize("budget", [None, 7])
    async def test_accepts(loop: Any, budget: int | None) -> None:
        """A long backlog is taken in parts."""
        count = 300 if budget is None else 30
        if budget is not None:
            loop.set_budget(accepts=budget)
        made = 0

        class Counts(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                nonlocal made
                made += 1
                other.others += 1
                transport.abort()

        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        sock.listen(count)
        clients = [socket.create_connection(sock.getsockname()) for _ in range(count)]
        async with victim() as other:
            server = await loop.create_server(Counts, sock=sock, backlog=1000)
            await support.until(lambda: made == count)
            assert other.worst <= (256 if budget is None else budget)
        for client in clients:
            client.close()
        server.close()
        await server.wait_closed()

    class Datagrams(asyncio.DatagramProtocol):
        def __init__(self, other: Victim) -> None:
            self.other = other
            self.got: list[bytes] = []

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.got.append(data)
            self.other.others += 1

    @pytest.mark.parametrize("loop_kind", ["hotloop"])
    @pytest.mark.parametrize("budget", [1, 5])
    async def test_datagrams(loop: Any, budget: int) -> None:
        """None is lost, and their order is kept."""
        loop.set_budget(datagrams=budget)
        sent = [b"%d" % number for number in range(100)]
        async with victim() as other:
            transport, protocol = await loop.create_datagram_endpoint(
                lambda: Datagrams(other), ("127.0.0.1", 0)
            )
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.connect(transport.get_extra_info("sockname"))
                for data in sent:
                    sender.send(data)
                await support.until(lambda: len(protocol.got) == len(sent))
            assert protocol.got == sent
            assert other.worst <= 2 * budget
            transport.close()
            await support.turns(2)

    @LINUX
    @pytest.mark.parametrize("loop_kind", ["hotloop"])
    async def test_datagrams_that_the_kernel_joined(loop: Any) -> None:
        """One system call may bring thousands."""
        udp_segment = 103
        loop.set_budget(datagrams=20)
        parts = bytes(40) * 60
        async with victim() as other:
            transport, protocol = await loop.create_datagram_endpoint(
                lambda: Datagrams(other), ("127.0.0.1", 0)
            )
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.connect(transport.get_extra_info("sockname"))
                sender.setsockopt(socket.SOL_UDP, udp_segment, 40)
                for _ in range(20):
                    sender.send(parts)
                await support.until(lambda: len(protocol.got) == 1200)
            assert other.worst <= 40
            transport.close()
            await support.turns(2)

    # Operations of which none has to wait, given the loop, the socket and a buffer.
    WAYS: dict[str, Callable[[Any, Any, Any], Any]] = {
        "sock_recv": lambda loop, near, _: loop.sock_recv(near, 1),
        "sock_recv_into": lambda loop, near, room: loop.sock_recv_into(near, room),
        "sock_recvfrom": lambda loop, near, _: loop.sock_recvfrom(near, 1),
        "sock_recvfrom_into": lambda loop, near, room: loop.sock_recvfrom_into(
            near, room
        ),
        "sock_sendall": lambda loop, near, _: loop.sock_sendall(near, b"x"),
        "sock_sendto": lambda loop, near, _: loop.sock_sendto(
            near, b"x", near.getsockname()
        ),
    }

    async def endless(loop: Any, name: str, near: Any, count: Any) -> None:
        room = bytearray(1)
        while True:
            await WAYS[name](loop, near, room)
            count()

    @pytest.mark.parametrize("loop_kind", ["hotloop"])
    @pytest.mark.parametrize("name", WAYS)
    async def test_operations_that_do_not_wait(loop: Any, name: str) -> None:
        """asyncio's would never end: nothing else would run."""
        loop.set_budget(operations=20)
        far: Any = None
        if "from" in name or "to" in name:
            near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            near.bind(("127.0.0.1", 0))
            near.setblocking(False)
            if "recv" in name:
                for _ in range(150):
                    near.sendto(b"x", near.getsockname())
        else:
            near, far = support.unix_pair()
            far.send(bytes(5000))
        since, worst, total = 0, 0, 0

        def count() -> None:
            nonlocal since, total
            since += 1
            total += 1

        async def other() -> None:
            nonlocal since, worst
            while total < 100:
                worst, since = max(worst, since), 0
                await asyncio.sleep(0)

        task = asyncio.create_task(endless(loop, name, near, count))
        await other()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert 0 < worst <= 40
        near.close()
        if far is not None:
            far.close()

    @pytest.fixture
    def pair() -> Iterator[Any]:
        near, far = support.unix_pair()
        yield near, far
        near.close()
        far.close()

    @pytest.mark.parametrize("loop_kind", ["hotloop"])
    async def test_sending_waits_before_it_sends(loop: Any, pair: Any) -> None:
        """So a cancellation does not come after everything has gone."""
        near, far = pair
        loop.set_budget(operations=1)
        await loop.sock_sendall(near, b"first")
        tasks = [
            asyncio.create_task(loop.sock_sendall(near, data))
            for data in (b"second", b"third", b"fourth")
        ]
        loop.call_soon(tasks[1].cancel)
        await asyncio.wait(tasks)
        assert tasks[1].cancelled()
        assert [task.result() for task in tasks[::2]] == [None, None]
        assert far.recv(100) == b"firstsecondfourth"

    @pytest.mark.parametrize("loop_kind", ["hotloop"])
    async def test_sending_much_after_a_wait(loop: Any, pair: Any) -> None:
        """More than the kernel takes, and a socket that is closed meanwhile."""
        near, far = pair
        loop.set_budget(operations=1)
        data = random.Random(1).randbytes(3_000_000)
        first = asyncio.create_task(loop.sock_sendall(near, b""))
        task = asyncio.create_task(loop.sock_sendall(near, data))
        got = bytearray()
        while len(got) < len(data):
            got += await loop.sock_recv(far, 1_000_000)
        assert got == data
        await asyncio.gather(first, task)
        loop.set_budget(operations=1)
        first = asyncio.create_task(loop.sock_sendall(near, b""))
        task = asyncio.create_task(loop.sock_sendall(near, data))
        loop.call_soon(near.close)
        with pytest.raises(OSError, match="Bad file descriptor"):
            await task
        await first

    @pytest.mark.parametrize("how", ["close", "throw"])
    @pytest.mark.parametrize("loop_kind", ["hotloop"])
    async def test_what_waits_to_send_is_given_up(
        loop: Any, pair: Any, how: str
    ) -> None:
        near, far = pair
        loop.set_budget(operations=1)
        data = bytearray(b"data")
        await loop.sock_sendall(near, b"")
        coro = loop.sock_sendall(near, data)
        coro.send(None)
        with pytest.raises(BufferError):
            data.clear()
        if how == "close":
            coro.close()
        else:
            with pytest.raises(KeyError):
                coro.throw(KeyError("thrown"))
        data.clear()
        await support.turns(3)
        with pytest.raises(BlockingIOError):
            far.recv(1)

    @pytest.mark.parametrize("loop_kind", ["hotloop"])
    async def test_accepting_without_a_wait(loop: Any) -> None:
        loop.set_budget(operations=5)
        with socket.create_server(("127.0.0.1", 0), backlog=50) as server:
            server.setblocking(False)
            address = server.getsockname()
            clients = [socket.create_connection(address) for _ in range(40)]
            accepted: list[Any] = []

            async def serve() -> None:
                while True:
                    accepted.append(await loop.sock_accept(server))

            task = asyncio.create_task(serve())
            seen = [0]
            while seen[-1] < 40:
                await asyncio.sleep(0)
                seen.append(len(accepted))
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            steps = [seen[i + 1] - seen[i] for i in range(len(seen) - 1)]
            assert max(steps) <= 10
            for sock in [*clients, *(pair[0] for pair in accepted)]:
                sock.close()

    @pytest.mark.parametrize("loop_kind", ["hotloop"])
    async def test_budgets(loop: Any) -> None:
        usual = {"accepts": 256, "datagrams": 256, "operations": 1024}
        assert loop.get_budget() == usual
        loop.set_budget()
        loop.set_budget(accepts=None)
        assert loop.get_budget() == usual
        loop.set_budget(accepts=1, operations=7)
        assert loop.get_budget() == {"accepts": 1, "datagrams": 256, "operations": 7}
        for wrong in (0, -1, 10**9 + 1, 10**30, -(10**30)):
            with pytest.raises(ValueError, match="datagrams must be between 1 and"):
                loop.set_budget(accepts=5, datagrams=wrong)
        for wrong in (True, 1.0, "1", []):
            with pytest.raises(TypeError, match="operations must be an int"):
                loop.set_budget(operations=wrong)
        with pytest.raises(TypeError):
            loop.set_budget(5)
        with pytest.raises(TypeError, match="reads"):
            loop.set_budget(reads=5)
        assert loop.get_budget() == {"accepts": 1, "datagrams": 256, "operations": 7}

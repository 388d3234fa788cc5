"""Worker of suite *fairness*: what an aggressor does between two services of a victim.

``python -m benchmarks.workers.fairness LOOP AGGRESSOR VICTIM SECONDS [CHAIN KEY]``

The victim is always ready: as soon as it is served it asks for the next time. So what
the aggressor does in between (callbacks, bytes, connections, datagrams) is a number
that a busy machine does not change; the time that passes is told beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from ..child import ROOT, answer, die_with_parent, module_command
from ..limits import raise_descriptor_limit
from ..loops import loop_factory

HOST = "127.0.0.1"
CALLBACKS = 10_000
BUSY_CONNECTIONS = 10
BACKLOG = 2048
CHUNK = 10_000
START_SECONDS = 20.0  # until the other process floods


class Meter:
    """Counts the aggressor's work, and notes the worst between two services."""

    def __init__(self) -> None:
        self.work = 0
        self.total = 0
        self.worst_work = 0
        self.worst_seconds = 0.0
        self.served = 0
        self._since = time.perf_counter()

    def did(self, amount: int) -> None:
        """Count work of the aggressor."""
        self.work += amount
        self.total += amount

    def serve(self) -> None:
        """Note that the victim is served."""
        now = time.perf_counter()
        self.served += 1
        if self.work:
            self.worst_work = max(self.worst_work, self.work)
            self.worst_seconds = max(self.worst_seconds, now - self._since)
        self.work, self._since = 0, now


# ---- victims ----


class Echo(asyncio.Protocol):
    """A connection with always one byte to read."""

    def __init__(self, meter: Meter, peer: socket.socket) -> None:
        self._meter, self._peer = meter, peer
        peer.send(b"x")

    def data_received(self, data: bytes) -> None:
        self._meter.serve()
        self._peer.send(b"x")


async def begin_echo(meter: Meter) -> None:
    """Serve a connection."""
    near, far = socket.socketpair()
    near.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: Echo(meter, far), sock=near)


async def begin_timer(meter: Meter) -> None:
    """Run a timer that is due already."""
    loop = asyncio.get_running_loop()

    def tick() -> None:
        meter.serve()
        loop.call_later(0, tick)

    tick()


async def begin_priority(meter: Meter) -> None:
    """Serve a connection with high priority: hotloop only."""
    loop: Any = asyncio.get_running_loop()
    await loop.create_priority_task(begin_echo(meter))


VICTIMS = {"echo": begin_echo, "timer": begin_timer, "priority": begin_priority}


# ---- aggressors ----


def start_flood(kind: str, port: int) -> subprocess.Popen[bytes]:
    """Start the process at the other end."""
    return subprocess.Popen(module_command("workers.flood", kind, port), cwd=ROOT)


class Sink(asyncio.Protocol):
    """Receives as fast as it can."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def data_received(self, data: bytes) -> None:
        self._meter.did(len(data))


class Comer(asyncio.Protocol):
    """A connection that is over when it begins."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._meter.did(1)
        cast(asyncio.Transport, transport).abort()


class Datagrams(asyncio.DatagramProtocol):
    """Counts datagrams."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._meter.did(1)


@asynccontextmanager
async def callbacks(meter: Meter) -> AsyncIterator[None]:
    """Callbacks that schedule themselves again."""
    loop = asyncio.get_running_loop()

    def again() -> None:
        meter.did(1)
        loop.call_soon(again)

    for _ in range(CALLBACKS):
        loop.call_soon(again)
    yield


@asynccontextmanager
async def served(
    kind: str, factory: Callable[[], asyncio.Protocol], **options: Any
) -> AsyncIterator[None]:
    """A server, and a process that floods it."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(factory, HOST, 0, backlog=BACKLOG, **options)
    flood = start_flood(kind, server.sockets[0].getsockname()[1])
    try:
        yield
    finally:
        flood.kill()
        flood.wait()
        server.close()


def connection(meter: Meter) -> Any:
    """One connection at full speed."""
    return served("stream", lambda: Sink(meter))


def connections(meter: Meter) -> Any:
    """Several connections at full speed."""
    return served(f"stream{BUSY_CONNECTIONS}", lambda: Sink(meter))


def tls(meter: Meter) -> Any:
    """A TLS connection at full speed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*sys.argv[5:7])
    return served("tls", lambda: Sink(meter), ssl=context)


def accepts(meter: Meter) -> Any:
    """Connections without end."""
    return served("connect", lambda: Comer(meter))


@asynccontextmanager
async def datagrams(meter: Meter) -> AsyncIterator[None]:
    """Datagrams without end."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: Datagrams(meter), (HOST, 0)
    )
    flood = start_flood("datagram", transport.get_extra_info("sockname")[1])
    try:
        yield
    finally:
        flood.kill()
        flood.wait()
        transport.close()


@asynccontextmanager
async def operations(meter: Meter) -> AsyncIterator[None]:
    """A task whose sock_recv() never has to wait."""
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    near.setblocking(False)
    # Other loops do nothing else until it ends.
    deadline = time.perf_counter() + float(sys.argv[4])

    async def receive() -> None:
        while time.perf_counter() < deadline:
            far.send(bytes(CHUNK))
            for _ in range(CHUNK):
                await loop.sock_recv(near, 1)
                meter.did(1)

    task = asyncio.create_task(receive())
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    near.close()
    far.close()


AGGRESSORS: dict[str, Callable[[Meter], Any]] = {
    "callbacks": callbacks,
    "connection": connection,
    "connections": connections,
    "tls": tls,
    "accepts": accepts,
    "datagrams": datagrams,
    "operations": operations,
}


async def measure(aggressor: str, victim: str, seconds: float) -> None:
    """Measure and answer; the parent ends this process after that."""
    meter = Meter()
    await VICTIMS[victim](meter)
    async with AGGRESSORS[aggressor](meter):
        start = time.perf_counter()
        while not meter.total and time.perf_counter() < start + START_SECONDS:
            await asyncio.sleep(0.01)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            await asyncio.sleep(0.05)
    answer(
        {
            "work": meter.worst_work,
            "ms": meter.worst_seconds * 1e3,
            "served": meter.served,
            "total": meter.total,
        }
    )


def main() -> None:
    """Measure one pair under one loop."""
    die_with_parent()
    raise_descriptor_limit()
    loop, aggressor, victim, seconds = sys.argv[1:5]
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(measure(aggressor, victim, float(seconds)))


if __name__ == "__main__":
    main()

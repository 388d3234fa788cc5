"""Random traffic over real sockets: what must hold, whatever the two ends do.

A script is a list of steps for one connection. Each end is a protocol that
writes a counted stream of bytes and may pause, half-close, close, abort, reset
or raise when it pleases. Nothing of what arrives may be out of order, and
nothing may be left over.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import select
import socket
from typing import Any

from hypothesis import strategies as st

Step = tuple[Any, ...]
SIZES = st.sampled_from([1, 7, 1000, 65536, 300_000])
END = st.integers(0, 1)
STEPS = st.one_of(
    st.tuples(st.just("write"), END, SIZES),
    st.tuples(st.just("write"), END, SIZES),
    st.tuples(st.just("writelines"), END, SIZES),
    st.tuples(
        st.sampled_from(["pause", "resume", "eof", "close", "abort", "reset"]), END
    ),
    st.tuples(st.just("raise"), END, st.sampled_from(["data", "eof", "lost"])),
    st.tuples(st.just("on_data"), END, st.sampled_from(["close", "abort", "echo"])),
    st.tuples(st.just("keep_open"), END),
    st.tuples(st.just("limits"), END, st.sampled_from([0, 1000])),
    st.tuples(st.just("turns"), st.just(0), st.integers(1, 4)),
)
CONNECTIONS = st.lists(
    st.tuples(st.sampled_from(["tcp", "unix", "pair"]), st.lists(STEPS, max_size=12)),
    min_size=1,
    max_size=3,
)
PATTERN = bytes(range(251)) * 1300  # a byte tells where it belongs
LIMIT = 20.0  # seconds until something is taken to be lost
STUCK = 1.0  # seconds after which two ends may wait for each other


class ProvokedError(Exception):
    """Raised by a protocol because its script says so."""


class End(asyncio.Protocol):
    """One end of a connection; it checks the order of its own calls."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.transport: Any = None
        self.state = "new"
        self.sent = self.got = 0
        self.peer: End | None = None
        self.paused = False
        self.rough = False  # bytes may be lost: aborted, reset, or raised
        self.closed = False  # by close(), so it does not read any more
        self.error: Exception | None = None
        self.raising: set[str] = set()
        self.reaction = ""
        self.keep_open = False  # after the other one's end
        self.eof_again = False  # who resumes reading then is told once more
        self.heard = asyncio.get_running_loop().create_future()
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        assert self.state == "new", self.state
        self.state, self.transport = "open", transport

    def data_received(self, data: bytes) -> None:
        assert self.state == "open" and data, self.state
        at = self.got % 251
        assert data == PATTERN[at : at + len(data)], f"{self.name}: out of order"
        self.got += len(data)
        if self.reaction == "echo" and not self.transport.is_closing():
            self.write(min(len(data), 100), False)
        elif self.reaction in ("close", "abort"):
            self.end(self.reaction)
        self.maybe_raise("data")

    def eof_received(self) -> bool:
        if self.eof_again and self.state == "eof":
            self.eof_again = False
        else:
            assert self.state == "open", self.state
            self.state = "eof"
            self.heard.set_result(None)
        self.maybe_raise("eof")
        return self.keep_open

    def connection_lost(self, error: Exception | None) -> None:
        assert self.state in ("open", "eof"), self.state
        self.error = error
        if self.state != "eof":
            self.heard.set_result(None)
        self.state = "lost"
        self.lost.set_result(None)
        self.maybe_raise("lost")

    def pause_writing(self) -> None:
        assert not self.paused and self.state != "lost"
        self.paused = True

    def resume_writing(self) -> None:
        assert self.paused and self.state != "lost"
        self.paused = False

    def maybe_raise(self, where: str) -> None:
        if where in self.raising:
            self.raising.discard(where)
            self.rough = self.rough or where != "lost"
            raise ProvokedError(where)

    def write(self, size: int, lines: bool) -> None:
        transport = self.transport
        if transport.is_closing() or self.state == "lost" or self.ended:
            return
        at = self.sent % 251
        data = PATTERN[at : at + size]
        self.sent += len(data)
        if lines:
            transport.writelines([data[: size // 2], data[size // 2 :]])
        else:
            transport.write(data)
            limit = transport.get_write_buffer_limits()[1]
            if transport.get_write_buffer_size() > limit:
                assert self.paused or transport.is_closing(), "not paused"

    ended = False

    def resume(self) -> None:
        self.eof_again = self.state == "eof"
        self.transport.resume_reading()

    def end(self, how: str) -> None:
        """Close, abort, reset or half-close."""
        if how == "eof":
            if not self.transport.is_closing() and not self.ended:
                self.ended = True
                # The connection may be gone, and nobody noticed yet.
                with contextlib.suppress(OSError):
                    self.transport.write_eof()
            return
        if how == "close":
            self.closed = True
            self.transport.close()
            return
        self.rough = True
        if how == "reset" and self.state != "lost":
            sock = self.transport.get_extra_info("socket")
            if sock.family != socket.AF_UNIX and sock.fileno() >= 0:
                option = b"\x01\x00\x00\x00\x00\x00\x00\x00"
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
        self.transport.abort()


class Traffic:
    """A loop, its servers and connections."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.reports: list[dict[str, Any]] = []
        self.ends: list[End] = []

    def on_report(self, loop: Any, context: dict[str, Any]) -> None:
        self.reports.append(context)

    async def connect(self, kind: str) -> tuple[End, End]:
        loop = asyncio.get_running_loop()
        near, far = End("client"), End("server")
        near.peer, far.peer = far, near
        self.ends += [near, far]
        if kind == "pair":
            one, two = socket.socketpair()
            for sock, end in ((one, near), (two, far)):
                sock.setblocking(False)
                await loop.connect_accepted_socket(lambda end=end: end, sock)
            return near, far
        server: Any
        if kind == "tcp":
            server = await loop.create_server(lambda: far, "127.0.0.1", 0)
            host, port = server.sockets[0].getsockname()[:2]
            await loop.create_connection(lambda: near, host, port)
        else:
            path = os.path.join(self.folder, f"socket-{len(self.ends)}")
            server = await loop.create_unix_server(lambda: far, path)
            await loop.create_unix_connection(lambda: near, path)
        while far.state == "new":
            await asyncio.sleep(0)
        server.close()
        return near, far

    async def play(self, kind: str, steps: list[Step]) -> None:
        ends = await self.connect(kind)
        for name, number, *args in steps:
            await self.step(ends[number], name, *args)
        await self.finish(*ends)

    async def step(self, end: End, name: str, *args: Any) -> None:
        transport = end.transport
        if name in ("write", "writelines"):
            end.write(args[0], name == "writelines")
        elif name == "raise":
            end.raising.add(args[0])
        elif name == "on_data":
            end.reaction = args[0]
        elif name == "keep_open":
            end.keep_open = True
        elif name == "limits":
            transport.set_write_buffer_limits(high=args[0])
        elif name == "turns":
            for _ in range(args[0]):
                await asyncio.sleep(0)
        elif name == "pause":
            transport.pause_reading()
        elif name == "resume":
            end.resume()
        elif end.state != "lost":
            end.end(name)

    async def finish(self, near: End, far: End) -> None:
        """Let both ends read all, and say that they are done."""
        for end in (near, far):
            end.resume()
            end.end("eof")
        async with asyncio.timeout(LIMIT):
            while waiting := [one for one in (near.heard, far.heard) if not one.done()]:
                await asyncio.wait(waiting, timeout=STUCK)
                if is_tied(near) and is_tied(far):
                    near.end("abort")
                    far.end("abort")
            for end in (near, far):
                end.transport.close()  # if its protocol wanted it open
            await asyncio.gather(near.lost, far.lost)
        for end, peer in ((near, far), (far, near)):
            check_complete(end, peer)

    async def main(self, connections: list[Any]) -> None:
        await asyncio.gather(*(self.play(*one) for one in connections))
        for _ in range(3):
            await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1, asyncio.all_tasks()


def is_tied(end: End) -> bool:
    """Whether it is closed, and waits for its peer to read what it wrote.

    Who is closed reads no more. So two such ends wait for each other for ever, on
    every loop; it is for the program to abort them. What the system would take
    now, though, the loop must have sent.
    """
    if not end.closed or end.state == "lost":
        return False
    if not end.transport.get_write_buffer_size():
        return False
    poller = select.poll()
    poller.register(end.transport.get_extra_info("socket").fileno(), select.POLLOUT)
    assert not poller.poll(0), f"{end.name}: the system would take more"
    return True


def check_complete(reader: End, writer: End) -> None:
    """What was written before a close() or write_eof() arrives."""
    assert reader.got <= writer.sent, "more than was sent"
    if reader.rough or writer.rough or reader.closed:
        return
    if writer.closed and writer.got < reader.sent:
        return  # the system resets what is closed with bytes unread
    said = f"{reader.name} got {reader.got} of {writer.sent}: {reader.error!r}"
    assert reader.got == writer.sent and reader.error is None, said
    assert not writer.paused, f"{writer.name} stays paused"


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def run_traffic(loop: Any, connections: list[Any], folder: str) -> None:
    """Play all scripts at once on the loop; AssertionError where one fails."""
    before = descriptors()
    traffic = Traffic(folder)
    loop.set_exception_handler(traffic.on_report)
    loop.run_until_complete(traffic.main(connections))
    for end in traffic.ends:
        end.transport = end.peer = None
    gc.collect()
    assert descriptors() == before, "descriptors are left over"
    for report in traffic.reports:
        error = report.get("exception")
        assert isinstance(error, ProvokedError), report

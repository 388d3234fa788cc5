"""What protocols may do inside their callbacks; which protocol gets what."""

# mypy: disable-error-code="comparison-overlap"

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from support import BufferedRecorder, Recorder, connected, finish, read_all, until


async def test_close_inside_every_callback(loop: Any) -> None:
    class Closes(Recorder):
        where = ""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if self.where == "made":
                transport.close()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.abort()

        def eof_received(self) -> bool:
            self.transport.close()
            return True

    for where in ("made", "data", "eof"):
        protocol = Closes()
        protocol.where = where
        _, _, peer = await connected(protocol)
        if where == "data":
            peer.send(b"x")
        elif where == "eof":
            peer.shutdown(socket.SHUT_WR)
        assert await protocol.closed is None
        peer.close()


async def test_writes_inside_every_callback(loop: Any) -> None:
    class Writes(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.write(b"made ")

        def data_received(self, data: bytes) -> None:
            self.transport.write(b"data ")

        def eof_received(self) -> bool:
            self.transport.write(b"eof")
            return False

    _, protocol, peer = await connected(Writes())
    assert await read_all(peer, 5) == b"made "
    peer.send(b"x")
    assert await read_all(peer, 5) == b"data "
    peer.shutdown(socket.SHUT_WR)
    assert await read_all(peer, 100) == b"eof"
    await protocol.closed
    peer.close()


async def test_set_protocol(loop: Any) -> None:
    transport, first, peer = await connected()
    peer.send(b"first")
    await until(lambda: first.data == b"first")
    second = BufferedRecorder()
    assert transport.set_protocol(second) is None
    assert transport.get_protocol() is second
    peer.send(b"second")
    await until(lambda: second.data == b"second")
    third = Recorder(loop)
    third.events.append("set")
    transport.set_protocol(third)
    peer.send(b"third")
    await until(lambda: third.data == b"third")
    peer.close()
    await third.closed
    assert first.data == b"first" and first.events == ["made", "data"]
    assert third.events == ["set", "data", "eof", "lost"]
    assert second.events == []


@pytest.mark.parametrize("to", [Recorder, BufferedRecorder])
async def test_set_protocol_inside_a_read(loop: Any, to: Any) -> None:
    class Switches(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.set_protocol(after)

    after = to()
    after.events.append("set")
    transport, first, peer = await connected(Switches())
    peer.send(b"head")
    await until(lambda: first.data)
    peer.send(b"body")
    await until(lambda: after.data)
    assert (first.data, after.data) == (b"head", b"body")
    await finish(transport, peer)


async def test_set_protocol_inside_a_buffered_read(loop: Any) -> None:
    class Switches(BufferedRecorder):
        def buffer_updated(self, nbytes: int) -> None:
            super().buffer_updated(nbytes)
            self.transport.set_protocol(after)

    after = Recorder(loop)
    after.events.append("set")
    transport, first, peer = await connected(Switches(4))
    peer.send(b"headbody")
    await until(lambda: after.data)
    assert (first.data, after.data) == (b"head", b"body")
    await finish(transport, peer)


async def test_set_protocol_while_paused(loop: Any) -> None:
    transport, _, peer = await connected()
    transport.pause_reading()
    after = Recorder(loop)
    after.events.append("set")
    transport.set_protocol(after)
    peer.send(b"x")
    await asyncio.sleep(0.005)
    assert after.data == b""
    transport.resume_reading()
    await until(lambda: after.data)
    await finish(transport, peer)


async def test_replaced_method_of_a_live_protocol(loop: Any) -> None:
    transport, protocol, peer = await connected()
    peer.send(b"one")
    await until(lambda: protocol.data)
    seen: list[bytes] = []
    protocol.data_received = seen.append
    peer.send(b"two")
    await until(lambda: seen)
    assert seen == [b"two"] and protocol.data == b"one"
    await finish(transport, peer)


async def test_protocol_without_base_class(loop: Any) -> None:
    class Duck:
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def connection_made(self, transport: Any) -> None:
            self.seen.append("made")

        def data_received(self, data: bytes) -> None:
            self.seen.append(data)

        def eof_received(self) -> None:
            self.seen.append("eof")

        def connection_lost(self, exc: Any) -> None:
            self.seen.append(exc)

    _, duck, peer = await connected(Duck())
    peer.send(b"quack")
    await until(lambda: len(duck.seen) == 2)
    peer.close()
    await until(lambda: len(duck.seen) == 4)
    assert duck.seen == ["made", b"quack", "eof", None]


async def test_both_kinds_of_protocol_at_once(loop: Any) -> None:
    class Both(asyncio.Protocol, asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.data = bytearray()
            self.buffer = bytearray(100)

        def data_received(self, data: bytes) -> None:
            raise AssertionError("asyncio prefers the buffered way")

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            self.data += self.buffer[:nbytes]

    transport, protocol, peer = await connected(Both())
    peer.send(b"x")
    await until(lambda: protocol.data == b"x")
    await finish(transport, peer)


async def test_buffered_methods_need_the_base_class(loop: Any) -> None:
    class Duck:
        def __init__(self) -> None:
            self.data = bytearray()

        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.data += data

        def get_buffer(self, sizehint: int) -> Any:
            raise AssertionError("not a BufferedProtocol")

        def buffer_updated(self, nbytes: int) -> None:
            raise AssertionError("not a BufferedProtocol")

        def connection_lost(self, exc: Any) -> None:
            """Nothing to do."""

    transport, duck, peer = await connected(Duck())
    peer.send(b"plain")
    await until(lambda: duck.data == b"plain")
    await finish(transport, peer)


class Answers:
    """Not a subclass of anything, and with every attribute one could ask for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.closed = asyncio.get_running_loop().create_future()

    def __getattr__(self, name: str) -> Any:
        self.asked.append(name)
        if name == "connection_lost":
            return self.closed.set_result
        if name == "fds_received":
            raise AssertionError("asked for what asyncio does not know")
        return lambda *args: None


async def test_a_protocol_is_asked_for_what_is_called(loop: Any) -> None:
    """__getattr__ hears of callbacks when they are due, and of nothing else."""
    near, peer = socket.socketpair()
    near.setblocking(False)
    protocol = Answers()
    transport, _ = await loop.create_connection(lambda: protocol, sock=near)
    assert protocol.asked == ["connection_made"]
    peer.send(b"x")
    await until(lambda: "data_received" in protocol.asked)
    transport.set_protocol(protocol)
    transport.close()
    await protocol.closed
    assert set(protocol.asked) <= {
        "connection_made",
        "data_received",
        "connection_lost",
    }
    peer.close()


async def test_what_getattr_raises_is_told(loop: Any, reports: Any) -> None:
    class Raises(Answers):
        def __getattr__(self, name: str) -> Any:
            if name == "data_received":
                raise LookupError(name)
            return super().__getattr__(name)

    near, peer = socket.socketpair()
    near.setblocking(False)
    protocol = Raises()
    await loop.create_connection(lambda: protocol, sock=near)
    peer.send(b"x")
    assert isinstance(await protocol.closed, LookupError)
    (report,) = reports
    assert report["message"].startswith("Fatal error: protocol.data_received()")
    reports.clear()
    peer.close()


async def test_get_buffer_that_sets_another_protocol(loop: Any) -> None:
    """The bytes in the old one's buffer are announced to the new one."""

    class Switches(BufferedRecorder):
        heard = 0

        def get_buffer(self, hint: int) -> Any:
            if self is not after:
                self.transport.set_protocol(after)
            return bytearray(16)

        def buffer_updated(self, count: int) -> None:
            self.heard += count

    after = Switches()
    transport, before, peer = await connected(Switches())
    peer.send(b"hello")
    await until(lambda: after.heard or before.heard)
    assert (before.heard, after.heard) == (0, 5)
    transport.abort()
    await after.closed
    peer.close()

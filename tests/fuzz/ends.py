"""The two ends of a connection; each checks its own calls."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import gc
import os
import socket
import ssl
import tempfile
from typing import TYPE_CHECKING, Any

from . import tls

if TYPE_CHECKING:
    from .protocols import Sequence

PATTERN = bytes(range(251)) * 1300  # a byte tells where it belongs
FEW = 2000  # bytes

Program = dict[str, Any]


def pattern(at: int, size: int) -> bytes:
    """The bytes that belong at a place of the stream."""
    at %= 251
    times = (at + size) // len(PATTERN) + 1
    return (PATTERN if times == 1 else PATTERN * times)[at : at + size]


class ProvokedError(Exception):
    """Raised by a protocol because its program says so."""


class FailedError(AssertionError):
    """What must hold did not."""


class Side:
    """One end, whatever protocol it has at the moment; it checks its own calls."""

    def __init__(self, number: int, program: Program, run: Sequence) -> None:
        self.number = number
        self.sequence = run
        self.peer: Side
        self.keep_open = program["keep_open"][number]
        self.buffered = program["buffered"][number]
        self.todo: dict[str, collections.deque[tuple[Any, ...]]]
        self.todo = collections.defaultdict(collections.deque)
        for end, callback, *action in program["actions"]:
            if end == number:
                self.todo[callback].append(tuple(action))
        self.transport: Any = None
        self.state = "new"
        self.sent = self.got = 0
        self.paused = False
        self.rough = False  # bytes may be lost: aborted, reset, or raised
        self.closed = self.ended = self.sending = False
        self.wild = False  # not the plain stream any more: TLS was begun
        self.eof_again = self.resume_again = False
        self.error: BaseException | None = None
        self.lost = asyncio.get_running_loop().create_future()

    def check(self, condition: Any, what: str) -> None:
        if not condition:
            self.sequence.fail(f"end {self.number}: {what}")

    # What the protocol is told.

    def made(self, transport: Any) -> None:
        again = self.wild and self.state == "open"
        self.check(self.state == "new" or again, f"made when {self.state}")
        self.state, self.transport = "open", transport
        self.act("made")

    def data(self, data: bytes | bytearray | memoryview) -> None:
        self.check(self.state == "open", f"data when {self.state}")
        self.check(len(data) > 0, "no data")
        if not self.wild:
            self.check(pattern(self.got, len(data)) == data, "out of order")
            self.got += len(data)
            self.check(self.got <= self.peer.sent, "more than was sent")
        self.act("data")

    def eof(self) -> bool:
        again = self.eof_again and self.state == "eof"
        self.check(self.state == "open" or again, f"eof when {self.state}")
        self.state = "eof"
        self.eof_again = False
        self.act("eof")
        return bool(self.keep_open)

    def connection_lost(self, error: BaseException | None) -> None:
        if self.wild and self.state == "lost":
            return  # given up by the end itself, when TLS failed
        self.check(self.state in ("open", "eof"), f"lost when {self.state}")
        self.state, self.error = "lost", error
        self.lost.set_result(None)
        self.act("lost")

    def pause(self) -> None:
        self.check(not self.paused, "paused twice")
        self.check(self.state in ("open", "eof"), f"paused when {self.state}")
        self.paused = True
        self.act("pause")

    def resume(self) -> None:
        self.check(self.paused or self.resume_again, "resumed twice")
        self.resume_again = self.resume_again and self.paused
        # A sendfile() gives back what it took, even after the end.
        fine = self.state in ("open", "eof") or self.sending
        self.check(fine, f"resumed when {self.state}")
        self.paused = False
        self.act("resume")

    # What it does.

    def act(self, callback: str) -> None:
        if self.todo[callback]:
            self.do(self.todo[callback].popleft())

    def do(self, action: tuple[Any, ...]) -> None:
        name, *args = action
        if self.transport is None:
            return
        with contextlib.suppress(NotImplementedError):  # of a pipe
            getattr(self, f"do_{name}")(*args)

    def may_write(self) -> bool:
        closing = self.transport.is_closing() or self.state == "lost"
        return not (closing or self.ended or self.sending)

    def do_write(self, size: int) -> None:
        if not self.may_write() or not hasattr(self.transport, "write"):
            return
        data = self.take(size)
        if size % 2:
            data = memoryview(data)  # type: ignore[assignment]
        self.transport.write(data)
        self.check_buffer()

    def take(self, size: int) -> bytes:
        data = pattern(self.sent, size)
        self.sent += len(data)
        return data

    def do_writelines(self, size: int) -> None:
        if self.may_write() and hasattr(self.transport, "writelines"):
            data = self.take(size)
            third = size // 3
            parts = [data[:third], bytearray(data[third : 2 * third])]
            self.transport.writelines([*parts, data[2 * third :]])
            self.check_buffer()

    def check_buffer(self) -> None:
        if self.wild or self.sequence.program["kind"] == "tls":
            return
        waits = self.transport.get_write_buffer_size()
        self.check(0 <= waits <= self.sent, f"{waits} of {self.sent} wait")
        over = waits > self.transport.get_write_buffer_limits()[1]
        open_still = not self.transport.is_closing() and self.state != "lost"
        self.check(self.paused or not (over and open_still), "not paused")

    def do_eof(self) -> None:
        if not hasattr(self.transport, "write_eof") or not self.may_write():
            return
        if self.transport.can_write_eof():
            self.ended = True
            with contextlib.suppress(OSError):  # gone, and nobody noticed yet
                self.transport.write_eof()

    def do_pause(self) -> None:
        if hasattr(self.transport, "pause_reading"):
            self.transport.pause_reading()

    def do_resume(self) -> None:
        if hasattr(self.transport, "resume_reading"):
            self.eof_again = self.state == "eof"  # asyncio tells it once more
            self.transport.resume_reading()

    def do_limits(self, high: int | None, low: int | None) -> None:
        if hasattr(self.transport, "set_write_buffer_limits") and self.state != "lost":
            with contextlib.suppress(ValueError):
                self.transport.set_write_buffer_limits(high, low)

    def do_swap(self) -> None:
        self.transport.set_protocol(self.protocol())
        self.check(self.transport.get_protocol() is not None, "no protocol")

    def do_close(self) -> None:
        self.closed = True
        self.transport.close()
        self.check(self.transport.is_closing(), "not closing")

    def do_abort(self) -> None:
        if hasattr(self.transport, "abort"):
            self.rough = self.peer.rough = True
            self.transport.abort()

    def do_reset(self) -> None:
        sock = self.transport.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0 and sock.family == socket.AF_INET:
            option = b"\x01\0\0\0\0\0\0\0"
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
        self.do_abort()

    def do_shut(self) -> None:
        """Somebody has a copy of the socket, and shuts it down."""
        sock = self.transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return
        self.rough = self.peer.rough = True
        copy = socket.socket(fileno=os.dup(sock.fileno()))
        with copy, contextlib.suppress(OSError):
            copy.shutdown(socket.SHUT_RDWR)

    def do_look(self) -> None:
        transport = self.transport
        repr(transport)
        transport.is_closing()
        for name in ("get_write_buffer_size", "get_write_buffer_limits", "is_reading"):
            getattr(transport, name, int)()
        for name in ("peername", "sockname", "socket", "cipher", "pipe", "nonsense"):
            transport.get_extra_info(name)

    def do_raise(self) -> None:
        self.rough = self.peer.rough = True
        raise ProvokedError

    def do_stop(self) -> None:
        asyncio.get_running_loop().stop()

    def do_collect(self) -> None:
        gc.collect(1)

    def do_turns(self, count: int) -> None:
        """Waited for by main() only."""

    def do_later(self, action: tuple[Any, ...]) -> None:
        asyncio.get_running_loop().call_soon(self.do, action)

    def do_task(self) -> None:
        async def waits() -> None:
            try:
                await asyncio.sleep(0)
                await self.lost
            finally:
                self.do_look()

        task = self.sequence.start(waits())
        asyncio.get_running_loop().call_soon(task.cancel)

    def do_sendfile(self, size: int) -> None:
        kind = self.sequence.program["kind"]
        if kind in ("pipe", "udp") or not self.may_write() or self.wild:
            return
        file = tempfile.TemporaryFile()  # noqa: SIM115  # send() closes it
        file.write(self.take(size))
        file.seek(0)
        self.sending = True
        whole: list[bool] = []

        async def send() -> None:
            # Over TLS another protocol is told of a pause, this one of its end.
            self.resume_again = kind == "tls"
            try:
                loop = asyncio.get_running_loop()
                # Its end may come in the middle of it.
                with contextlib.suppress(OSError, RuntimeError):
                    await loop.sendfile(self.transport, file)
                    whole.append(True)
            finally:
                if not whole:
                    self.rough = self.peer.rough = True
                self.sending = False
                self.eof_again = self.state == "eof"  # it read on, as do_resume()
                file.close()

        self.sequence.start(send())

    def do_start_tls(self) -> None:
        """One end alone, or both: garbage, or a handshake; it must come to an end."""
        kind = self.sequence.program["kind"]
        if kind not in ("tcp", "unix", "pair") or not self.may_write() or self.wild:
            return
        self.wild = self.peer.wild = True
        self.rough = self.peer.rough = True

        async def begin() -> None:
            loop = asyncio.get_running_loop()
            context = tls.contexts(ssl.TLSVersion.TLSv1_3)[1 - self.number]
            protocol = self.transport.get_protocol()
            name = None if self.number == 1 else "localhost"
            # Taken to be closing, or closed, or the other one says nothing of TLS.
            errors = (
                OSError,
                TypeError,
                RuntimeError,
                AttributeError,
                asyncio.TimeoutError,
            )
            with contextlib.suppress(*errors):
                made = await loop.start_tls(
                    self.transport,
                    protocol,
                    context,
                    server_side=self.number == 1,
                    server_hostname=name,
                    ssl_handshake_timeout=1,
                    ssl_shutdown_timeout=1,
                )
                # Of a connection that is gone asyncio returns None, hotloop one
                # that is closed.
                if made is not None and not made.is_closing() and self.state != "lost":
                    self.transport = made
                    return
            self.transport.abort()
            self.state = "lost"  # whoever was the protocol by then was told
            if not self.lost.done():
                self.lost.set_result(None)

        self.sequence.start(begin())

    def protocol(self) -> Any:
        if self.sequence.program["kind"] == "udp":
            return Datagrams(self)
        return Buffered(self) if self.buffered else Plain(self)


class Base:
    """All protocols of one side tell it."""

    def __init__(self, side: Side) -> None:
        self.side = side

    def connection_made(self, transport: Any) -> None:
        self.side.made(transport)

    def eof_received(self) -> bool:
        return self.side.eof()

    def connection_lost(self, error: Exception | None) -> None:
        self.side.connection_lost(error)

    def pause_writing(self) -> None:
        self.side.pause()

    def resume_writing(self) -> None:
        self.side.resume()


class Plain(Base, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self.side.data(data)


class Buffered(Base, asyncio.BufferedProtocol):
    def get_buffer(self, sizehint: int) -> bytearray:
        side = self.side
        again = side.eof_again and side.state == "eof"
        fine = side.state == "open" or again or side.wild
        side.check(fine, f"asked when {side.state}")
        # Much data by single bytes would only take time.
        size = side.buffered if side.got < FEW else max(side.buffered, 5000)
        self.buffer = bytearray(size)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.side.check(0 < nbytes <= len(self.buffer), f"{nbytes} updated")
        self.side.data(memoryview(self.buffer)[:nbytes])


class Datagrams(Base, asyncio.DatagramProtocol):
    def datagram_received(self, data: bytes, addr: Any) -> None:
        side = self.side
        side.check(side.state == "open", f"datagram when {side.state}")
        number = int.from_bytes(data[:4], "big") if len(data) >= 4 else -1
        side.check(side.got < number + 1 <= side.peer.sent, f"datagram {number}")
        side.got = number + 1
        side.act("data")

    def error_received(self, exc: Exception) -> None:
        self.side.check(self.side.state == "open", f"error when {self.side.state}")
        self.side.act("eof")


class DatagramSide(Side):
    """Datagrams are numbered; some may be lost."""

    def do_write(self, size: int) -> None:
        if self.transport.is_closing() or self.state == "lost":
            return
        number = self.sent
        self.sent += 1
        self.transport.sendto(number.to_bytes(4, "big") + bytes(min(size, 60_000)))

    def do_writelines(self, size: int) -> None:
        for _ in range(3):
            self.do_write(size)

    do_reset = Side.do_abort

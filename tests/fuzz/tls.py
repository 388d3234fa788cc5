"""Broken TLS: what must hold, whatever arrives and whatever the protocol does.

A case is the seed of one connection. One end is a transport of the loop, whose
protocol writes, pauses, closes and aborts as it pleases; the other is an SSLObject
of the standard library, and what it says passes through hands that flip bits, cut,
split, repeat, reorder and forge. What arrives is a prefix of what was sent, the
end comes once and soon, and every error is an OSError.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import random
import socket
import ssl
import struct
from typing import Any

PATTERN = bytes(range(251)) * 12000  # a byte tells where it belongs
HANDSHAKE = SHUTDOWN = 0.3  # seconds: the timeouts of the transport
LIMIT = 5.0  # seconds until a case is taken to hang
ALERT, HANDSHAKES, DATA = 21, 22, 23
CHANGES = ["flip", "header", "cut", "twice", "swap", "drop", "garbage", "http"]
CHANGES += ["alert", "oversized", "empties", "ccs", "length", "hello", "again"]
ENDS = ["notify", "fin", "reset", "silence", "stream"]


@functools.cache
def contexts(version: ssl.TLSVersion) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    import trustme

    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    for context in (server, client):
        context.minimum_version = context.maximum_version = version
    return server, client


def record(kind: int, body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return struct.pack("!BHH", kind, 0x0303, size) + body


def records(data: bytes) -> list[bytes]:
    """The records in what an SSLObject said; it says whole ones."""
    found = []
    while data:
        size = 5 + int.from_bytes(data[3:5], "big")
        found.append(data[:size])
        data = data[size:]
    return found


class Middle:
    """What stands between: it changes records, and says whether it did."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        # Some cases are not touched at all, in some it is late that they are.
        self.rate = rng.choice([0.0, 0.0, 0.05, 0.2, 0.6])
        self.spared = rng.choice([0, 0, 1, 3, 6])  # records
        self.splits = rng.choice(["whole", "whole", "bytes", "pieces"])
        self.touched = False
        self.seen: list[bytes] = []

    def change(self, one: bytes) -> list[bytes]:
        rng = self.rng
        self.touched = True
        how = rng.choice(CHANGES)
        broken = bytearray(one)
        if how == "flip":
            at = rng.randrange(len(broken))
            broken[at] ^= 1 << rng.randrange(8)
        elif how == "header":
            broken[rng.randrange(5)] = rng.randrange(256)
        elif how == "cut":
            del broken[rng.randrange(len(broken)) :]
        elif how == "length":
            broken[3:5] = struct.pack("!H", rng.choice([0, 1, len(one), 0xFFFF]))
        elif how == "oversized":
            return [record(DATA, rng.randbytes(100), 0x4801 + rng.randrange(100)), one]
        elif how == "twice":
            return [one, one]
        elif how == "drop":
            return []
        elif how == "garbage":
            return [rng.randbytes(rng.choice([1, 5, 40, 20000])), one]
        elif how == "http":
            return [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", one]
        elif how == "alert":
            level, what = rng.choice([1, 2, 3]), rng.choice([0, 10, 40, 90, 100, 200])
            return [record(ALERT, bytes([level, what])), one]
        elif how == "empties":
            return [record(rng.choice([ALERT, DATA, HANDSHAKES]), b"") * 40, one]
        elif how == "ccs":
            return [record(20, b"\1") * rng.choice([1, 2, 40]), one]
        elif how == "hello":  # HelloRequest: begin anew
            return [record(HANDSHAKES, b"\0\0\0\0"), one]
        elif how == "again":
            return [rng.choice(self.seen), one]
        elif how == "swap":
            return [b"swap", one]
        return [bytes(broken)]

    def pass_on(self, data: bytes) -> list[bytes]:
        """The pieces to be sent for these bytes."""
        out: list[bytes] = []
        for one in records(data):
            self.seen.append(one)
            self.spared -= 1
            if self.spared < 0 and self.rng.random() < self.rate:
                out += self.change(one)
            else:
                out.append(one)
        while b"swap" in out:
            at = out.index(b"swap")
            out[at : at + 3] = out[at + 1 : at + 3][::-1]
        whole = b"".join(out)
        if self.splits == "bytes" and len(whole) < 3000:
            return [whole[at : at + 1] for at in range(len(whole))]
        if self.splits == "pieces" and whole:
            step = self.rng.randrange(1, len(whole) + 1)
            return [whole[at : at + step] for at in range(0, len(whole), step)]
        return [whole] if whole else []


class Near:
    """The protocol of the transport; it checks the order of its calls."""

    def __init__(self, rng: random.Random, early: bool) -> None:
        self.rng = rng
        self.early = early  # told before there is TLS: start_tls()
        self.state = "new"
        self.transport: Any = None
        self.got = 0
        self.sent = 0
        self.rough = False
        self.closed = False
        self.paused = False
        self.calm = False
        self.activity = rng.choice([0.0, 0.0, 0.1, 0.5])
        self.lost = asyncio.get_running_loop().create_future()
        self.error: BaseException | None = None

    def connection_made(self, transport: Any) -> None:
        assert self.state == "new", self.state
        self.state, self.transport = "open", transport
        if not self.early:
            self.act()

    def take(self, data: bytes) -> None:
        assert self.state == "open" and data, (self.state, len(data))
        at = self.got % 251
        assert data == PATTERN[at : at + len(data)], "not what was sent"
        self.got += len(data)
        self.act()

    def eof_received(self) -> None:
        assert self.state == "open", self.state
        self.state = "eof"
        self.act()

    def connection_lost(self, error: BaseException | None) -> None:
        assert self.state in ("open", "eof"), self.state
        assert error is None or isinstance(error, OSError), repr(error)
        self.state, self.error = "lost", error
        self.lost.set_result(None)
        self.act()

    def pause_writing(self) -> None:
        assert not self.paused
        self.paused = True
        self.act()

    def resume_writing(self) -> None:
        assert self.paused
        self.paused = False
        self.act()

    def write(self, size: int) -> None:
        transport = self.transport
        if transport.is_closing() or self.closed or self.state == "lost":
            return
        at = self.sent % 251
        data = PATTERN[at : at + size]
        self.sent += len(data)
        if self.rng.random() < 0.5:
            transport.write(data)
        else:
            cut = self.rng.randrange(len(data) + 1)
            transport.writelines([data[:cut], data[cut:]])

    def act(self) -> None:
        """Sometimes do something, whatever callback this is."""
        rng, loop = self.rng, asyncio.get_running_loop()
        if self.calm or self.transport is None or rng.random() >= self.activity:
            return
        what = rng.choice(["write", "write", "big", "pause", "limits", "end"])
        if what == "write":
            self.write(rng.choice([1, 100, 20000]))
        elif what == "big":
            self.calm = True  # not once more from within pause_writing()
            self.write(700_000)
            self.calm = False
        elif self.closed or self.state == "lost":
            return
        elif what == "pause":
            self.transport.pause_reading()
            if self.state != "eof":
                loop.call_later(0.005, self.transport.resume_reading)
        elif what == "limits":
            self.calm = True
            self.transport.set_write_buffer_limits(high=rng.choice([0, 1000, 10**6]))
            self.calm = False
        elif rng.random() < 0.3:
            self.end(rng.choice(["close", "close", "abort"]))

    def end(self, how: str) -> None:
        self.closed = True
        self.rough = self.rough or how == "abort"
        getattr(self.transport, how)()


class Plain(Near, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self.take(data)


class Buffered(Near, asyncio.BufferedProtocol):
    def get_buffer(self, sizehint: int) -> memoryview:
        # Of a bytearray, asyncio fills copies: it slices what it is given.
        self.buffer = memoryview(bytearray(self.rng.choice([1, 100, 70000])))
        return self.buffer

    def buffer_updated(self, count: int) -> None:
        assert 0 < count <= len(self.buffer)
        self.take(bytes(self.buffer[:count]))


class Far:
    """The other end: an SSLObject, a socket, and what is between."""

    def __init__(
        self, sock: socket.socket, tls: Any, server_side: bool, rng: random.Random
    ) -> None:
        self.sock = sock
        self.rng = rng
        self.middle = Middle(rng)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if server_side else "localhost"
        self.tls = tls[0 if server_side else 1].wrap_bio(
            self.incoming, self.outgoing, server_side, name
        )
        self.sent = self.got = 0
        self.mouth = asyncio.Lock()  # one speaks at a time
        self.shaken = False
        self.ended = ""  # how

    async def flush(self) -> None:
        loop = asyncio.get_running_loop()
        async with self.mouth:
            for piece in self.middle.pass_on(self.outgoing.read()):
                await loop.sock_sendall(self.sock, piece)
                if self.middle.splits != "whole" and self.rng.random() < 0.3:
                    await asyncio.sleep(0)

    async def hear(self) -> bool:
        """Read from the socket; False where the other one has ended."""
        data = await asyncio.get_running_loop().sock_recv(self.sock, 65536)
        self.incoming.write(data) if data else self.incoming.write_eof()
        return bool(data)

    async def shake(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.flush()
                await self.hear()
            except ssl.SSLError:
                await self.flush()  # the alert
                raise
            else:
                self.shaken = True
                return await self.flush()

    async def listen(self) -> None:
        """Take all that comes, until there is no more."""
        while True:
            try:
                data = self.tls.read(65536)
            except ssl.SSLWantReadError:
                await self.flush()
                await self.hear()
                continue
            if not data:
                return
            at = self.got % 251
            assert data == PATTERN[at : at + len(data)], "not what was written"
            self.got += len(data)

    async def speak(self) -> None:
        rng = self.rng
        for _ in range(rng.randrange(6)):
            at = self.sent % 251
            size = rng.choice([1, 1, 100, 16384, 16385, 150_000])
            self.sent += self.tls.write(PATTERN[at : at + size])
            await self.flush()
            if rng.random() < 0.5:
                await asyncio.sleep(0)
        how = rng.choice(ENDS)
        self.ended = how
        if how == "notify":
            with contextlib.suppress(ssl.SSLError):
                self.tls.unwrap()
            await self.flush()
        elif how == "fin":
            self.sock.shutdown(socket.SHUT_WR)
        elif how == "reset":
            option = struct.pack("ii", 1, 0)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
        elif how == "stream":
            for _ in range(30):
                at = self.sent % 251
                self.sent += self.tls.write(PATTERN[at : at + 50_000])
                await self.flush()

    async def run(self) -> None:
        """The whole part of this end; the socket is closed by it."""
        try:
            await self.shake()
            listening = asyncio.create_task(self.listen())
            try:
                await self.speak()
                seconds = 0.0 if self.ended == "reset" else 0.1
                await asyncio.wait([listening], timeout=seconds)
            finally:
                listening.cancel()
                heard = (await asyncio.gather(listening, return_exceptions=True))[0]
            if isinstance(heard, AssertionError):
                raise heard
        except OSError:
            return
        finally:
            for _ in range(3):  # until the loop has let go of what was cancelled
                await asyncio.sleep(0)
            self.sock.close()


def pair(rng: random.Random) -> tuple[socket.socket, socket.socket]:
    if rng.random() < 0.3:
        near, far = socket.socketpair()
    else:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            far = socket.create_connection(listener.getsockname())
            near, _ = listener.accept()
    near.setblocking(False)
    far.setblocking(False)
    return near, far


async def open_near(sock: Any, near: Near, tls: Any, server_side: bool) -> None:
    loop = asyncio.get_running_loop()
    kwargs: dict[str, Any] = {}
    if not server_side:
        kwargs["server_hostname"] = "localhost"
    kwargs["ssl_handshake_timeout"] = HANDSHAKE
    kwargs["ssl_shutdown_timeout"] = SHUTDOWN
    context = tls[0 if server_side else 1]
    if near.early:
        transport, _ = await loop.connect_accepted_socket(lambda: near, sock)
        near.transport = await loop.start_tls(
            transport, near, context, server_side=server_side, **kwargs
        )
    elif server_side:
        await loop.connect_accepted_socket(lambda: near, sock, ssl=context, **kwargs)
    else:
        await loop.create_connection(lambda: near, sock=sock, ssl=context, **kwargs)


async def play(seed: int) -> str:
    """One connection; returns how it went."""
    rng = random.Random(seed)
    version = rng.choice([ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    server_side = rng.random() < 0.5
    near_sock, far_sock = pair(rng)
    kind = rng.choice([Plain, Plain, Buffered])
    near = kind(rng, early=rng.random() < 0.3)
    tls = contexts(version)
    far = Far(far_sock, tls, not server_side, rng)
    meeting = asyncio.create_task(far.run())
    try:
        await open_near(near_sock, near, tls, server_side)
    except OSError:
        # One that is told of the connection is told of its end, unless that was
        # before start_tls() was done.
        if near.state != "new" and not near.early:
            await near.lost
        await meeting
        return "refused"
    for _ in range(rng.randrange(4)):
        near.act()
        await asyncio.sleep(0)
    # Some wait for the end, some make one.
    if rng.random() < 0.5 and not near.closed:
        near.end(rng.choice(["close", "close", "abort"]))
    await meeting
    await near.lost
    assert far.got <= near.sent and near.got <= far.sent
    polite = not far.middle.touched and far.ended == "notify" and far.shaken
    # asyncio loses what a buffer had no room for when the other one's FIN came.
    if polite and not near.closed and near.error is None and kind is Plain:
        assert near.got == far.sent, f"got {near.got} of {far.sent}"
    near.transport = None
    return "lost"


def is_known(report: dict[str, Any]) -> bool:
    """Whether asyncio itself reports this, of what is over already.

    Its socket transport may call connection_lost() again, after an abort() while it
    is to be closed; its TLS calls pause_writing() of None when limits are changed
    after the end, and flushes what failed to be read. A loop that reports none of it
    does well.
    """
    error = report.get("exception")
    names = "close", "pause_writing", "resume_writing"
    texts = [f"'NoneType' object has no attribute {name!r}" for name in names]
    texts += ["cannot switch state from SSLProtocolState.UNWRAPPED to SSLProtocolState"]
    texts[-1] += ".SHUTDOWN"
    return isinstance(error, (AttributeError, RuntimeError)) and str(error) in texts


def run_tls(loop: Any, seed: int) -> str:
    """Play the case of this seed; AssertionError where something does not hold."""
    before = set(os.listdir("/proc/self/fd"))
    reports: list[Any] = []
    loop.set_exception_handler(lambda _, context: reports.append(context))

    async def main() -> str:
        async with asyncio.timeout(LIMIT):
            found = await play(seed)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1, asyncio.all_tasks()
        return found

    try:
        found = loop.run_until_complete(main())
        gc.collect()
        assert set(os.listdir("/proc/self/fd")) == before, "descriptors left over"
        assert all(map(is_known, reports)), reports
    except BaseException as error:
        raise AssertionError(f"TLS case of seed {seed}: {error!r} {reports}") from error
    return found

"""How TLS connections end: by either side, politely or not, at every stage."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
import shutil
import socket
import ssl
import subprocess
import threading
from typing import Any

import pytest

from servers import serve, stop
from support import (
    BufferedRecorder,
    Recorder,
    collect,
    reset,
    settle,
    tcp_pair,
    turns,
    unix_pair,
    until,
)
from tlspeers import (
    SECONDS,
    WAYS,
    Peer,
    describe,
    drain,
    echo,
    notify,
    open_tls,
    recv_exactly,
    with_peer,
    without_delay,
)

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
ENDINGS = ["notify and fin", "fin", "reset"]
STAGES = ["silent", "half", "hello", "idle", "written", "paused", "shutdown"]


class Ending:
    """The work of a peer that goes so far, and then ends in one of the ENDINGS."""

    def __init__(self, contexts: Any, way: str, stage: str, ending: str) -> None:
        self.contexts = contexts
        self.client = way.endswith("server")  # it is what the transport is not
        self.stage = stage
        self.ending = ending
        self.let = threading.Event()
        self.ready = threading.Event()

    def __call__(self, sock: Any) -> None:
        with sock.dup() as raw:
            without_delay(raw)
            tls = self.begin(sock)
            self.ready.set()
            self.let.wait(SECONDS)
            if self.stage == "written":
                assert tls is not None
                tls.sendall(b"last words" * 1000)
            elif self.stage == "paused":
                assert tls is not None
                tls.sendall(b"unread" * 1000)
            if self.ending.startswith("notify") and tls is not None:
                with contextlib.suppress(OSError):
                    notify(tls)
            if tls is not None:
                sock = tls
            if self.ending == "reset":
                raw.close()
                reset(sock)
                return
            drain(raw)
            sock.close()

    def begin(self, sock: Any) -> Any:
        server, client = self.contexts
        if self.stage not in ("silent", "half", "hello"):
            if self.client:
                return client.wrap_socket(sock, server_hostname="localhost")
            return server.wrap_socket(sock, server_side=True)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        if self.client:
            half = client.wrap_bio(incoming, outgoing, server_hostname="localhost")
        else:
            half = server.wrap_bio(incoming, outgoing, server_side=True)
            incoming.write(sock.recv(65536))
        if self.stage == "silent":
            return None
        with contextlib.suppress(ssl.SSLWantReadError):
            half.do_handshake()
        data = outgoing.read()
        sock.sendall(data[: len(data) // 2] if self.stage == "half" else data)
        if self.client and self.stage == "hello":
            sock.recv(65536)
        return None


async def play(contexts: Any, way: str, stage: str, ending: str) -> Any:
    """One ending; returns the calls, the error, and what was reported."""
    loop = asyncio.get_running_loop()
    reports: list[Any] = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    near, far = tcp_pair()
    protocol = Recorder()
    work = Ending(contexts, way, stage, ending)
    peer = Peer(far, work)
    opening = asyncio.ensure_future(open_tls(near, contexts, way, protocol))
    opened: Any = None
    if stage in ("silent", "half", "hello"):
        await until(work.ready.is_set)
        await turns(5)
        work.let.set()
        try:
            await opening
        except OSError as error:
            opened = describe(error.with_traceback(None))
        else:  # for a client, TLS 1.3 is complete by what the server says first
            await asyncio.wait_for(protocol.closed, 10)
    else:
        transport = await opening
        await until(work.ready.is_set)
        await turns(5)
        if stage == "paused":
            transport.pause_reading()
        elif stage == "shutdown":
            transport.close()
            await turns(3)
        work.let.set()
        if stage == "paused":
            # Nothing of it is seen but by who reads; a reset ends all at once.
            await until(lambda: peer.future.done() or ending != "reset")
            await asyncio.wait([protocol.closed], timeout=0.03)
            transport.resume_reading()
        await asyncio.wait_for(protocol.closed, 10)
    await peer.ended()
    await turns(3)
    near.close()
    loop.set_exception_handler(None)
    error = describe(protocol.error) if protocol.error else None
    seen = [(sorted(one), one["message"]) for one in reports]
    data = bytes(protocol.data)
    if ending == "reset":
        # How much came before it, and whether it was read or written into, is up
        # to the system.
        data = b""
        protocol.events = [one for one in protocol.events if one != "data"]
        error = issubclass(error["type"], ConnectionError) if error else None
    return protocol.events, error, opened, seen, hashlib.md5(data).hexdigest()


PLAYED: dict[Any, Any] = {}


def on_asyncio(scene: Any, version: Any) -> Any:
    name = (version, *scene[1:])
    if name not in PLAYED:
        loop = asyncio.SelectorEventLoop()
        try:
            PLAYED[name] = loop.run_until_complete(play(*scene))
        finally:
            loop.close()
    return PLAYED[name]


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stage", STAGES)
def test_peer_ends(loop: Any, tls: Any, version: Any, way: str, stage: str) -> None:
    """The calls, their order and the error are those on asyncio."""
    for context in tls:
        context.maximum_version = version
    for ending in ENDINGS:
        scene = (tls, way, stage, ending)
        expected = on_asyncio(scene, version)
        found = loop.run_until_complete(play(*scene))
        assert found == expected, ending
        events, error, opened, reports, _ = found
        assert reports == []
        if stage == "hello" and version is TLS13 and not way.endswith("server"):
            assert opened is None and events[-1] == "lost"
        elif stage in ("silent", "half", "hello"):
            assert opened is not None
            assert issubclass(opened["type"], (ConnectionError, ssl.SSLError))
        elif ending != "reset" and stage != "shutdown":
            # asyncio does not tell a truncated stream from a whole one.
            assert error is None
            assert events[-2:] == ["eof", "lost"] and events.count("eof") == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["TLSv1.2", "TLSv1.3"])
async def test_all_is_sent_before_the_end(
    loop: Any, tls: Any, way: str, version: Any
) -> None:
    """close() right after megabytes: all arrive, then close_notify, then the end."""
    for context in tls:
        context.maximum_version = version
    total = 6 << 20

    def work(sock: Any) -> Any:
        digest = hashlib.sha256()
        count = 0
        sock.suppress_ragged_eofs = False  # a missing close_notify is an error
        while data := sock.recv(1 << 16):
            digest.update(data)
            count += len(data)
        return count, digest.hexdigest()

    transport, protocol, peer = await with_peer(tls, work, way)
    data = bytes(range(256)) * (total >> 8)
    for at in range(0, total, 1 << 20):
        transport.write(data[at : at + (1 << 20)])
    transport.close()
    assert transport.is_closing()
    assert await peer.result() == (total, hashlib.sha256(data).hexdigest())
    assert await protocol.closed is None
    assert [one for one in protocol.events if one in ("eof", "lost")] == ["eof", "lost"]


@pytest.mark.parametrize("how", ["close", "abort", "close+close", "close+abort"])
@pytest.mark.parametrize("way", ["client", "server"])
async def test_we_end(loop: Any, tls: Any, way: str, how: str) -> None:
    transport, protocol, peer = await with_peer(tls, lambda sock: sock.recv(1), way)
    for one in how.split("+"):
        getattr(transport, one)()
    assert transport.is_closing()
    assert protocol.events == ["made"]  # not from within
    assert await protocol.closed is None
    expected = ["made", "lost"] if "abort" in how else ["made", "eof", "lost"]
    assert protocol.events == expected
    await peer.ended()


@pytest.mark.parametrize("way", ["client", "server"])
async def test_peer_streams_while_we_close(loop: Any, tls: Any, way: str) -> None:
    """What comes after our close_notify is an error, and no reason to go on."""

    def work(sock: Any) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock.sendall(bytes(65536))

    transport, protocol, peer = await with_peer(tls, work, way)
    await until(lambda: len(protocol.data) > 1 << 20)
    started = loop.time()
    transport.close()
    had = len(protocol.data)
    error = await asyncio.wait_for(protocol.closed, 10)
    assert loop.time() - started < 5
    assert len(protocol.data) - had < 64 << 20
    assert isinstance(error, ssl.SSLError)
    assert error.reason == "APPLICATION_DATA_AFTER_CLOSE_NOTIFY"
    assert protocol.events.count("eof") == 0
    await peer.ended()


async def test_peer_does_not_read_while_we_close(loop: Any, tls: Any) -> None:
    ended = threading.Event()
    transport, protocol, peer = await with_peer(
        tls, lambda sock: ended.wait(SECONDS), ssl_shutdown_timeout=0.1
    )
    transport.write(bytes(16 << 20))
    transport.close()
    error = await asyncio.wait_for(protocol.closed, 10)
    assert type(error) is TimeoutError and str(error) == "SSL shutdown timed out"
    ended.set()
    await peer.ended()


@pytest.mark.parametrize("way", ["client", "server"])
async def test_small_and_large_records(loop: Any, tls: Any, way: str) -> None:
    sizes = [1] * 1500 + [16384, 16385, 1, 300_000, 1, 2]

    def work(sock: Any) -> bytes:
        for number, size in enumerate(sizes):
            sock.sendall(bytes([number & 255]) * size)
        return recv_exactly(sock, sum(sizes))

    transport, protocol, peer = await with_peer(tls, work, way)
    expected = b"".join(bytes([n & 255]) * size for n, size in enumerate(sizes))
    await until(lambda: len(protocol.data) == len(expected))
    assert protocol.data == expected
    for number, size in enumerate(sizes):
        transport.write(bytes([number & 255]) * size)
    assert await peer.result() == expected
    assert await protocol.closed is None


async def test_buffer_smaller_than_what_came(loop: Any, tls: Any) -> None:
    """A view is filled as often as it takes.

    Of a bytearray asyncio fills copies, so that what does not fit at once is lost;
    and when FIN comes, it gives up what a small buffer had no room for.
    """
    transport, protocol, peer = await with_peer(tls, echo, protocol=BufferedRecorder())
    protocol.buffer = memoryview(bytearray(7))
    data = bytes(range(256)) * 300
    transport.write(data)
    await until(lambda: len(protocol.data) == len(data))
    assert protocol.data == data
    transport.close()
    await protocol.closed
    await peer.result()


@pytest.mark.parametrize("way", ["client", "server"])
async def test_cancelled_in_the_handshake(loop: Any, tls: Any, way: str) -> None:
    near, far = tcp_pair()
    protocol = Recorder()
    opening = asyncio.ensure_future(open_tls(near, tls, way, protocol))
    await turns(5)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await turns(5)
    assert protocol.events == [] and near.fileno() == -1
    far.settimeout(SECONDS)
    drain(far)  # ends
    far.close()


@pytest.mark.parametrize("way", ["start_tls client", "start_tls server"])
async def test_start_tls_cancelled(loop: Any, tls: Any, way: str) -> None:
    near, far = tcp_pair()
    protocol = Recorder()
    opening = asyncio.ensure_future(open_tls(near, tls, way, protocol))
    await protocol.connected
    await turns(5)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await turns(5)
    assert protocol.transport.is_closing() and near.fileno() == -1
    assert protocol.events == ["made"]  # asyncio does not tell it of the end
    far.settimeout(SECONDS)
    drain(far)
    far.close()


async def test_start_tls_refuses(loop: Any, tls: Any) -> None:
    near, far = tcp_pair()
    transport, protocol = await loop.connect_accepted_socket(Recorder, near)
    for context in (None, True, object()):
        with pytest.raises(TypeError) as caught:
            await loop.start_tls(transport, protocol, context)
        expected = "sslcontext is expected to be an instance of ssl.SSLContext, got "
        assert str(caught.value) == f"{expected}{context!r}"
    for other in (None, object(), asyncio.Transport()):
        with pytest.raises(TypeError) as caught:
            await loop.start_tls(other, protocol, tls[1])
        assert (
            str(caught.value) == f"transport {other!r} is not supported by start_tls()"
        )
    transport.write(b"plain")  # unharmed
    far.setblocking(True)
    assert far.recv(100) == b"plain"
    far.close()
    await protocol.closed


@pytest.mark.parametrize("way", WAYS)
async def test_over_unix_sockets(loop: Any, tls: Any, way: str) -> None:
    transport, protocol, peer = await with_peer(tls, echo, way, pair=unix_pair)
    transport.write(bytes(100_000))
    await until(lambda: len(protocol.data) == 100_000)
    transport.close()
    assert await protocol.closed is None
    assert await peer.result() == 100_000


async def test_tls_over_tls(loop: Any, tls: Any) -> None:
    near, far = unix_pair()
    ends: list[Any] = [Recorder(), Recorder()]
    sockets = (near, far)
    ways = ("client", "server")
    outer = await asyncio.gather(
        *(open_tls(s, tls, w, p) for s, w, p in zip(sockets, ways, ends, strict=True))
    )
    inner = await asyncio.gather(
        loop.start_tls(outer[0], ends[0], tls[1], server_hostname="localhost"),
        loop.start_tls(outer[1], ends[1], tls[0], server_side=True),
    )
    below = outer[0].get_extra_info("ssl_object")
    assert inner[0].get_extra_info("ssl_object") is not below
    assert inner[0].get_protocol() is ends[0]
    data = bytes(range(256)) * 4000
    inner[0].write(data)
    inner[1].write(data[::-1])
    await until(lambda: len(ends[0].data) == len(ends[1].data) == len(data))
    assert ends[1].data == data and ends[0].data == data[::-1]
    inner[0].close()
    for protocol in ends:
        assert await asyncio.wait_for(protocol.closed, 10) is None
    await turns(3)
    outer[0].close()
    outer[1].close()
    assert ends[1].events[-2:] == ["eof", "lost"]


def eager_client(context: Any, before: bytes) -> Any:
    """The work of a client that sends ClientHello in one piece with plain bytes."""

    def work(sock: Any) -> Any:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        sock.sendall(before + outgoing.read())
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                data = sock.recv(65536)
                if not data:
                    return None
                incoming.write(data)
        tls.write(b"secret")
        sock.sendall(outgoing.read())
        drain(sock)
        return "shaken"

    return work


async def test_hello_together_with_plain_bytes(
    loop: Any, loop_kind: str, tls: Any
) -> None:
    """hotloop and newer Pythons give what a StreamReader holds to TLS."""
    moves = loop_kind == "hotloop" or "_stream_reader" in inspect.getsource(
        asyncio.BaseEventLoop.start_tls
    )
    found = loop.create_future()

    async def serve_one(reader: Any, writer: Any) -> None:
        assert await reader.readline() == b"STARTTLS\n"
        try:
            await writer.start_tls(tls[0], ssl_handshake_timeout=0.2)
            found.set_result(await reader.readexactly(6))
        except OSError as error:
            found.set_result(error)
            writer.close()
            return  # for asyncio's wait_closed() would wait for ever
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    sock = await loop.run_in_executor(None, socket.create_connection, address)
    peer = Peer(sock, eager_client(tls[1], b"STARTTLS\n"))
    result = await found
    if moves:
        assert result == b"secret" and await peer.result() == "shaken"
    else:
        assert isinstance(result, ConnectionAbortedError)
        assert await peer.ended() is None
    await settle()
    await stop(server)


@pytest.mark.parametrize("stage", ["handshake", "open"])
def test_loop_closed_over_it(
    new_loop: Any, tls: Any, stage: str, no_warnings: Any
) -> None:
    """Nothing but ResourceWarnings: no crash, no callback, no report."""
    loop = new_loop()
    near, far = tcp_pair()
    kept = [Recorder(loop)]

    async def begin() -> Any:
        opening = asyncio.ensure_future(open_tls(near, tls, "client", kept[0]))
        if stage == "handshake":
            await turns(5)
            return opening
        return await opening

    if stage == "open":

        def work(sock: Any) -> None:
            secure = tls[0].wrap_socket(sock, server_side=True)
            with secure, contextlib.suppress(OSError):
                secure.recv(1)

        peer = Peer(far, work)
    held = loop.run_until_complete(begin())
    if stage == "handshake":
        held.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(held)
    loop.close()
    events = kept[0].events[:]
    kept.clear()
    del held
    near.close()
    if stage == "open":
        peer.wait()
    else:
        far.close()
    collect()
    warned = no_warnings()
    assert all(one.startswith("ResourceWarning") for one in warned), warned
    if stage == "open":
        assert events == ["made"]
        assert any("unclosed transport" in one for one in warned)
    else:
        assert events == []


class OpenSSL:
    """`openssl s_client` against a server of the loop."""

    def __init__(self, address: Any, *flags: str) -> None:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{address[1]}"]
        self.process = subprocess.Popen(
            [*command, *flags, "-servername", "localhost"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def say(self, line: bytes) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line)
            self.process.stdin.flush()

    async def end(self) -> bytes:
        loop = asyncio.get_running_loop()
        out, _ = await loop.run_in_executor(None, self.process.communicate, None, 20)
        return bytes(out)


needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="needs the openssl command"
)


@needs_openssl
async def test_renegotiation_is_refused(loop: Any, tls: Any) -> None:
    protocol = Recorder()
    server, address = await serve(lambda: protocol, ssl=tls[0])
    client = OpenSSL(address, "-tls1_2")
    await protocol.connected
    client.say(b"before\n")
    await until(lambda: protocol.data == b"before\n")
    client.say(b"R\n")
    error = await asyncio.wait_for(protocol.closed, 10)
    assert error is None or isinstance(error, OSError)
    assert protocol.data == b"before\n"
    said = await client.end()
    assert b"RENEGOTIATING" in said and b"no renegotiation" in said
    assert client.process.returncode != 0
    await stop(server)


@needs_openssl
async def test_key_updates(loop: Any, tls: Any) -> None:
    """The peer changes its keys, and asks for ours to be changed."""
    tls[0].options &= ~8  # OP_ENABLE_KTLS: the kernel cannot have new ones

    class Answering(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.write(b"heard " + data)

    protocol = Answering()
    server, address = await serve(lambda: protocol, ssl=tls[0])
    client = OpenSSL(address, "-tls1_3")
    await protocol.connected
    assert client.process.stdout is not None
    expected = b""
    for line in (b"one\n", b"K\n", b"two\n", b"k\n", b"three\n", b"K\n", b"four\n"):
        client.say(line)
        if line in (b"K\n", b"k\n"):  # it takes one command a read
            out = client.process.stdout
            await loop.run_in_executor(None, wait_for, out, b"KEYUPDATE")
            continue
        expected += line
        await until(lambda expected=expected: protocol.data == expected)  # type: ignore[misc]
    client.say(b"Q\n")
    assert await asyncio.wait_for(protocol.closed, 10) is None
    said = await client.end()
    assert b"heard four" in said
    await stop(server)


def wait_for(file: Any, text: bytes) -> None:
    while text not in (line := file.readline()):
        assert line, "it ended"

"""TLS whose sending side the kernel encrypts, and sendfile() through it.

Most of it needs a kernel with the "tls" protocol: `make ktls` brings one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import socket
import ssl
import threading
from typing import Any

import pytest

from kerneltls import (
    CIPHERS,
    OP_ENABLE_KTLS,
    Gate,
    Goodbye,
    ask,
    kernel_has,
    key_update,
    missing,
    over,
    restrict,
    small_pair,
    take_all,
)
from support import PY, Recorder, reset, tcp_pair, turns, unix_pair, until
from tlspeers import SECONDS, both_ends, recv_exactly, with_peer

SIZE = 3_000_000
REASON = missing()
in_kernel = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture(autouse=True)
def only_hotloop(loop_kind: str) -> None:
    if loop_kind != "hotloop":
        pytest.skip("asyncio leaves nothing to the kernel")


@pytest.fixture(scope="module")
def content() -> bytes:
    return os.urandom(SIZE)


@pytest.fixture
def path(tmp_path: pathlib.Path, content: bytes) -> pathlib.Path:
    path = tmp_path / "file"
    path.write_bytes(content)
    return path


@pytest.fixture(params=CIPHERS)
def cipher(request: Any, tls: Any) -> str:
    restrict(tls, request.param)
    return str(request.param)


@pytest.fixture
def kernel_cipher(cipher: str) -> str:
    if not kernel_has(cipher):
        pytest.skip(f"this kernel has no {cipher}")
    return cipher


@pytest.fixture(params=["client", "server", "start_tls server"])
def way(request: Any, tls: Any) -> str:
    ask(tls, request.param)
    return str(request.param)


@in_kernel
async def test_data(loop: Any, tls: Any, way: str, kernel_cipher: str) -> None:
    """Both directions, in pieces of all sizes, and the goodbye."""
    data = os.urandom(700_000)

    def work(sock: Any) -> Any:
        got = recv_exactly(sock, len(data))
        sock.sendall(got)
        return got, take_all(sock), sock.version(), sock.cipher()[0]

    transport, protocol, peer = await with_peer(tls, work, way)
    assert transport.get_extra_info("ktls_send") is True
    assert transport._engine == "direct"
    position = 0
    for size in (1, 10, 16384, 16385, 100_000, 3, 50_000, len(data)):
        transport.write(data[position : position + size])
        position += size
        await turns(1)
    await until(lambda: protocol.data == data)
    transport.writelines([b"the", b"", b" end"])
    got, rest, version, name = await over(transport, protocol, peer)
    assert got == data and rest == b"the end"
    assert version == (kernel_cipher if kernel_cipher == "TLSv1.3" else "TLSv1.2")
    assert kernel_cipher == "TLSv1.3" or kernel_cipher in name


@in_kernel
async def test_a_peer_that_reads_late(loop: Any, tls: Any, kernel_cipher: str) -> None:
    """What the socket does not take waits: data, and the goodbye after it."""
    ask(tls, "server")
    gate = Gate()
    transport, protocol, peer = await with_peer(tls, gate, "server", pair=small_pair)
    data = os.urandom(5_000_000)
    transport.write(data)
    transport.write(b"and more")
    await turns(5)
    assert "pause" in protocol.events
    transport.close()
    await turns(5)
    assert not protocol.closed.done()
    gate.open.set()
    assert await protocol.closed is None
    assert await peer.result() == data + b"and more"


@in_kernel
@pytest.mark.parametrize(
    ("offset", "count"),
    [(0, None), (0, 10), (1000, 100_000), (7, None), (SIZE - 1, None), (SIZE, None)],
)
async def test_sendfile_parts(
    loop: Any, tls: Any, path: Any, content: bytes, offset: int, count: Any
) -> None:
    ask(tls, "server")
    wanted = content[offset:] if count is None else content[offset : offset + count]
    transport, protocol, peer = await with_peer(tls, take_all, "server")
    with open(path, "rb") as file:
        sent = await loop.sendfile(transport, file, offset, count, fallback=False)
        assert sent == len(wanted)
        assert file.tell() == (offset + sent if sent or PY >= (3, 14) else 0)
    assert await over(transport, protocol, peer) == wanted


@in_kernel
async def test_sendfile_between_writes(
    loop: Any, tls: Any, way: str, kernel_cipher: str, path: Any, content: bytes
) -> None:
    transport, protocol, peer = await with_peer(tls, take_all, way, pair=small_pair)
    before = os.urandom(1_000_000)
    transport.write(before)
    transport.write(b"head ")
    with open(path, "rb") as file:
        assert await loop.sendfile(transport, file, fallback=False) == SIZE
        transport.write(b" between ")
        assert await loop.sendfile(transport, file, 5, 10, fallback=False) == 10
        assert file.tell() == 15
    transport.write(b" tail")
    assert transport.is_reading()
    assert await over(transport, protocol, peer) == (
        before + b"head " + content + b" between " + content[5:15] + b" tail"
    )


@in_kernel
async def test_written_while_a_file_is_sent(
    loop: Any, tls: Any, path: Any, content: bytes
) -> None:
    """It follows the file, and counts against the limits meanwhile."""
    ask(tls, "server")
    gate = Gate()
    transport, protocol, peer = await with_peer(tls, gate, "server", pair=small_pair)
    with open(path, "rb") as file:
        sending = asyncio.create_task(loop.sendfile(transport, file, fallback=False))
        await turns(5)
        assert not sending.done() and not transport.is_reading()
        transport.write(b"small")
        transport.write(bytes(600_000))
        assert transport.get_write_buffer_size() == 600_005
        assert protocol.events[-1] == "pause"
        with pytest.raises(RuntimeError, match="already"):
            await loop.sendfile(transport, file, fallback=False)
        gate.open.set()
        assert await sending == SIZE
    await until(lambda: protocol.events[-1] == "resume")
    assert transport.is_reading()
    assert await over(transport, protocol, peer) == content + b"small" + bytes(600_000)


@in_kernel
async def test_reading_rests_while_a_file_is_sent(
    loop: Any, tls: Any, path: Any, content: bytes
) -> None:
    ask(tls, "client")
    gate = Gate()

    def work(sock: Any) -> bytes:
        sock.sendall(b"question")
        assert gate.open.wait(SECONDS)
        return recv_exactly(sock, SIZE)

    transport, protocol, peer = await with_peer(tls, work, pair=small_pair)
    await until(lambda: protocol.data == b"question")
    protocol.data.clear()
    with open(path, "rb") as file:
        sending = asyncio.create_task(loop.sendfile(transport, file, fallback=False))
        await turns(5)
        gate.open.set()
        assert await sending == SIZE
    assert protocol.data == b""
    assert await over(transport, protocol, peer) == content


@in_kernel
@pytest.mark.parametrize("when", ["sending", "waiting"])
async def test_cancelled(
    loop: Any, tls: Any, path: Any, content: bytes, when: str
) -> None:
    ask(tls, "server")
    gate = Gate()
    transport, protocol, peer = await with_peer(tls, gate, "server", pair=small_pair)
    before = bytes(2_000_000 if when == "waiting" else 5)
    transport.write(before)
    with open(path, "rb") as file:
        sending = asyncio.create_task(loop.sendfile(transport, file, fallback=False))
        await turns(5)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        assert sending.cancelled()
        assert file.tell() == 0
    assert transport.is_reading() and not transport.is_closing()
    transport.write(b"go on")
    gate.open.set()
    got = await over(transport, protocol, peer)
    assert got.startswith(before) and got.endswith(b"go on")
    part = got[len(before) : -len(b"go on")]
    assert content.startswith(part) and len(part) < SIZE
    assert (part == b"") is (when == "waiting")


@in_kernel
@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("when", ["sending", "waiting"])
async def test_the_transport_ends_meanwhile(
    loop: Any, tls: Any, path: Any, content: bytes, how: str, when: str
) -> None:
    """sendfile() says so; after close() what was sent is whole."""
    ask(tls, "server")
    gate = Gate()
    transport, protocol, peer = await with_peer(tls, gate, "server", pair=small_pair)
    before = bytes(2_000_000 if when == "waiting" else 5)
    transport.write(before)
    with open(path, "rb") as file:
        sending = asyncio.create_task(loop.sendfile(transport, file, fallback=False))
        await turns(5)
        getattr(transport, how)()
        transport.write(b"too late")
        with pytest.raises(ConnectionError, match="Connection closed by peer"):
            await sending
    assert transport.is_closing()
    gate.open.set()
    if how == "abort":
        assert await protocol.closed is None
        assert isinstance(await peer.ended(), (ssl.SSLError, ConnectionError))
        return
    assert await protocol.closed is None
    got = await peer.result()
    assert got.startswith(before)
    part = got[len(before) :]
    assert content.startswith(part) and len(part) < SIZE
    assert (part == b"") is (when == "waiting")


@in_kernel
async def test_both_cancelled_and_closed(loop: Any, tls: Any, path: Any) -> None:
    ask(tls, "server")
    gate = Gate()
    transport, protocol, peer = await with_peer(tls, gate, "server", pair=small_pair)
    with open(path, "rb") as file:
        sending = asyncio.create_task(loop.sendfile(transport, file, fallback=False))
        await turns(5)
        sending.cancel()
        transport.close()
        await asyncio.gather(sending, return_exceptions=True)
        assert sending.cancelled()
    gate.open.set()
    assert await protocol.closed is None
    assert len(await peer.result()) < SIZE


@in_kernel
async def test_the_peer_goes_meanwhile(loop: Any, tls: Any, path: Any) -> None:
    ask(tls, "server")
    gone = threading.Event()

    def work(sock: Any) -> None:
        assert gone.wait(SECONDS)
        reset(sock)

    transport, protocol, peer = await with_peer(tls, work, "server", pair=small_pair)
    with open(path, "rb") as file:
        sending = asyncio.create_task(loop.sendfile(transport, file, fallback=False))
        await turns(5)
        gone.set()
        with pytest.raises(ConnectionError):
            await sending
        assert 0 < file.tell() < SIZE
    transport.abort()
    await protocol.closed
    await peer.ended()


class HalfClosing(Goodbye):
    """With less ceremony: notify() would look at what has come."""

    def leave(self, tls: Any) -> None:
        socket.socket.shutdown(tls, socket.SHUT_WR)

    def __call__(self, tls: Any) -> bytes:
        self.say(tls)
        return recv_exactly(tls, SIZE)


@in_kernel
@pytest.mark.parametrize("read", [False, True])
async def test_the_peer_says_goodbye_meanwhile(
    loop: Any, tls: Any, path: Any, content: bytes, read: bool
) -> None:
    """Unless a program reads that, the file is sent whole."""
    ask(tls, "server")
    goodbye = (Goodbye if read else HalfClosing)(b"last words")
    transport, protocol, peer = await with_peer(tls, goodbye, "server", pair=small_pair)
    transport.pause_reading()
    if read:
        goodbye.begin.set()
        await until(goodbye.said.is_set)
        await until(lambda: transport.get_read_buffer_size() > 0)
        await turns(5)
    with open(path, "rb") as file:
        sending = asyncio.create_task(loop.sendfile(transport, file, fallback=False))
        await turns(5)
        goodbye.begin.set()
        await until(goodbye.said.is_set)
        if read:
            transport.resume_reading()
            with pytest.raises(ConnectionError, match="Connection closed by peer"):
                await sending
            goodbye.open.set()
        else:
            assert await sending == SIZE
            transport.resume_reading()
    assert await protocol.closed is None
    got = await peer.result()
    assert content.startswith(got) and (got == content) is not read
    assert protocol.data == b"last words"


@in_kernel
@pytest.mark.parametrize("size", [20_000, 50_000, 100_000, 300_000, 1_000_000])
async def test_a_peer_that_reads_after_its_goodbye(
    loop: Any, tls: Any, kernel_cipher: str, content: bytes, size: int
) -> None:
    """All of it arrives, though the connection is closed by then."""
    ask(tls, "server")
    goodbye = Goodbye()

    def pair() -> Any:
        near, far = small_pair()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 10_000)
        return near, far

    transport, protocol, peer = await with_peer(tls, goodbye, "server", pair=pair)
    transport.pause_reading()
    goodbye.begin.set()
    await until(goodbye.said.is_set)
    transport.write(content[:size])
    await turns(5)
    transport.resume_reading()
    await until(lambda: "eof" in protocol.events)
    goodbye.open.set()
    assert await protocol.closed is None
    assert await peer.result() == content[:size]


@in_kernel
async def test_new_keys_of_the_peer(loop: Any, tls: Any, content: bytes) -> None:
    restrict(tls, "TLSv1.3")
    ask(tls, "server")
    tls[1].options &= ~OP_ENABLE_KTLS  # or OpenSSL itself would fail

    def work(sock: Any) -> bytes:
        key_update(sock, requested=False)
        return take_all(sock)

    transport, protocol, peer = await with_peer(tls, work, "server")
    await until(lambda: protocol.data == b"with new keys")
    transport.write(content)
    assert await over(transport, protocol, peer) == content


@in_kernel
async def test_new_keys_for_both(loop: Any, tls: Any) -> None:
    """The kernel cannot have them: the connection ends, and both are told why."""
    restrict(tls, "TLSv1.3")
    ask(tls, "server")
    tls[1].options &= ~OP_ENABLE_KTLS  # or OpenSSL itself would fail

    def work(sock: Any) -> Any:
        got = recv_exactly(sock, 6)
        key_update(sock, requested=True)
        with pytest.raises(ssl.SSLError) as caught:
            recv_exactly(sock, 1)
        return got, caught.value.reason

    transport, protocol, peer = await with_peer(tls, work, "server")
    transport.write(b"before")
    await until(lambda: protocol.data == b"with new keys")
    transport.write(b"this needs new keys, too")
    error = await protocol.closed
    assert isinstance(error, ssl.SSLError) and "new keys" in str(error)
    assert await peer.ended() == (b"before", "TLSV1_ALERT_INTERNAL_ERROR")


@in_kernel
async def test_the_object_after_the_end(
    loop: Any, tls: Any, kernel_cipher: str
) -> None:
    ask(tls, "server")
    transport, protocol, peer = await with_peer(tls, take_all, "server")
    ssl_object = transport.get_extra_info("ssl_object")
    transport.write(b"x" * 20_000)
    assert await over(transport, protocol, peer) == b"x" * 20_000
    assert transport.get_extra_info("ktls_send") is False
    for call in (lambda: ssl_object.write(b"y" * 20_000), ssl_object.unwrap):
        with contextlib.suppress(ssl.SSLError, ValueError):
            call()


@in_kernel
async def test_both_ends_in_the_loop(
    loop: Any, tls: Any, path: Any, content: bytes
) -> None:
    for context in tls:
        context.options |= OP_ENABLE_KTLS
    client, server = await both_ends(tls, pair=small_pair)
    left, right = client.get_protocol(), server.get_protocol()
    for transport, protocol in ((client, right), (server, left)):
        with open(path, "rb") as file:
            assert await loop.sendfile(transport, file, fallback=False) == SIZE
        await until(lambda protocol=protocol: len(protocol.data) == SIZE)
        assert protocol.data == content
    client.close()
    await asyncio.gather(left.closed, right.closed)


@in_kernel
async def test_tls_in_tls(loop: Any, tls: Any, content: bytes) -> None:
    """The inner connection cannot be the kernel's, the outer one is."""
    for context in tls:
        context.options |= OP_ENABLE_KTLS
    client, server = await both_ends(tls)
    ends = Recorder(), Recorder()
    for end in ends:
        end.events.append("made")  # start_tls() does not say so
    inner = await asyncio.gather(
        loop.start_tls(client, ends[0], tls[1], server_hostname="localhost"),
        loop.start_tls(server, ends[1], tls[0], server_side=True),
    )
    assert client.get_extra_info("ktls_send") is True
    assert inner[0].get_extra_info("ktls_send") is False
    inner[0].write(content)
    await until(lambda: len(ends[1].data) == SIZE)
    assert ends[1].data == content
    inner[0].abort()
    inner[1].abort()
    await until(lambda: client.is_closing() and server.is_closing())
    await turns(5)


# What follows must hold with every kernel.


async def check_without(
    loop: Any, tls: Any, path: Any, content: bytes, way: str, pair: Any = tcp_pair
) -> None:
    transport, protocol, peer = await with_peer(tls, take_all, way, pair=pair)
    assert transport.get_extra_info("ktls_send") is False
    transport.write(b"head ")
    with open(path, "rb") as file:
        with pytest.raises(RuntimeError, match="fallback is disabled"):
            await loop.sendfile(transport, file, fallback=False)
        assert await loop.sendfile(transport, file, 0, 100_000) == 100_000
    transport.write(b" tail")
    assert await over(transport, protocol, peer) == (
        b"head " + content[:100_000] + b" tail"
    )


async def test_a_socket_that_cannot(
    loop: Any, tls: Any, way: str, cipher: str, path: Any, content: bytes
) -> None:
    await check_without(loop, tls, path, content, way, unix_pair)


@pytest.mark.skipif(REASON is None, reason="this kernel has TLS")
async def test_a_kernel_that_cannot(
    loop: Any, tls: Any, way: str, cipher: str, path: Any, content: bytes
) -> None:
    await check_without(loop, tls, path, content, way)


async def test_a_cipher_that_the_kernel_has_not(
    loop: Any, tls: Any, way: str, path: Any, content: bytes
) -> None:
    restrict(tls, "AES128-SHA")
    await check_without(loop, tls, path, content, way)


async def test_nobody_asks(loop: Any, tls: Any, path: Any, content: bytes) -> None:
    for context in tls:
        context.options &= ~OP_ENABLE_KTLS
    await check_without(loop, tls, path, content, "server")

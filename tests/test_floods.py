"""What a server holds of peers that are slow, silent or too many.

Each test has a peer that would take memory, descriptors or time without bound, and
the setting that bounds it: SECURITY.md names them.
"""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import socket
import textwrap
from typing import Any

import pytest

from support import connected, finish, run_script, turns, until

HOST = "127.0.0.1"
MOST_IN_A_TURN = 64  # datagrams of one endpoint


# How much malloc() has handed out, and Python's allocator.
IN_USE = """
import ctypes
class MallInfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks",
        "uordblks", "fordblks", "keepcost")]
def in_use():
    for _ in range(3):
        gc.collect()
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = MallInfo
    info = mallinfo()
    return info.uordblks + info.hblkhd, sys.getallocatedblocks()
"""


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])
def test_unfinished_handshakes(
    loop_kind: str, certificate: pathlib.Path, said: bytes
) -> None:
    """ssl_handshake_timeout: silent clients are closed, and cost nothing then."""
    if not hasattr(__import__("ctypes").CDLL(None), "mallinfo2"):
        pytest.skip("needs glibc 2.33")
    script = f"""
    import ssl
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain({str(certificate)!r})
    CLIENTS = 300

    async def flood(address):
        clients = []
        for _ in range(CLIENTS):
            reader, writer = await asyncio.open_connection(*address)
            writer.write({said!r})
            clients.append((reader, writer))
        for reader, writer in clients:
            try:
                while await reader.read():
                    pass
            except ConnectionError:
                pass
            writer.close()
            try:
                await writer.wait_closed()
            except ConnectionError:
                pass

    async def main():
        loop = asyncio.get_running_loop()
        made = []
        server = await loop.create_server(
            lambda: made.append(1), "127.0.0.1", 0, ssl=context,
            ssl_handshake_timeout=0.2, backlog=512)
        address = server.sockets[0].getsockname()
        before = None
        for round in range(4):
            await flood(address)
            await asyncio.sleep(0.01)
            used, fds = in_use(), len(os.listdir("/proc/self/fd"))
            if round == 1:  # free lists and the like are filled
                before = used, fds
        (memory, blocks), fds_before = before
        print("served", len(made), "descriptors", fds - fds_before)
        print(used[0] - memory < CLIENTS * 1000, used[1] - blocks < CLIENTS)
        server.close()
        await server.wait_closed()

    run(main())
    """
    out, _ = run_script(loop_kind, IN_USE + textwrap.dedent(script), timeout=50)
    assert out == "served 1200 descriptors 0\nTrue True\n"


async def fill(drain: Any, write: Any, size: int) -> None:
    """Write for as long as flow control lets this go on."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.2):
            while True:
                write(bytes(size))
                await drain()


@pytest.mark.parametrize("with_tls", [False, True])
async def test_a_peer_that_never_reads(loop: Any, tls: Any, with_tls: bool) -> None:
    """The write buffer: its high-water mark and one write, no more."""
    high, size = 50_000, 20_000
    held: list[int] = []
    served = asyncio.Event()

    async def serve(reader: Any, writer: Any) -> None:
        transport = writer.transport
        transport.set_write_buffer_limits(high=high)
        await fill(writer.drain, writer.write, size)
        held.append(transport.get_write_buffer_size())
        transport.abort()
        served.set()

    contexts = tls if with_tls else (None, None)
    server = await asyncio.start_server(serve, HOST, 0, ssl=contexts[0])
    address = server.sockets[0].getsockname()
    _, writer = await asyncio.open_connection(
        *address, ssl=contexts[1], server_hostname="localhost" if with_tls else None
    )
    writer.transport.pause_reading()
    await served.wait()
    assert high <= held[0] <= high + size
    writer.transport.abort()
    server.close()
    await server.wait_closed()
    await turns(3)


@pytest.mark.parametrize("limit", [100, 10_000])
async def test_a_line_without_an_end(loop: Any, limit: int) -> None:
    """StreamReader's limit: the line is refused, and the peer has to wait."""
    reader = asyncio.StreamReader(limit=limit)
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _, peer = await connected(protocol)
    await sent_until_full(peer)
    await until(lambda: not transport.is_reading())
    with pytest.raises(ValueError, match="limit"):
        await reader.readline()
    await until(lambda: not transport.is_reading())
    buffer: Any = reader
    assert len(buffer._buffer) <= 2 * limit + (256 << 10)  # and one recv()
    await finish(transport, peer)


async def sent_until_full(peer: socket.socket) -> int:
    """Send until neither kernel nor loop take more; returns how much."""
    total, refused = 0, 0
    while refused < 20:
        try:
            total += peer.send(b"x" * 65536)
            refused = 0
        except BlockingIOError:
            refused += 1
            await asyncio.sleep(0.005)
    return total


async def test_nobody_reads(loop: Any) -> None:
    """A handler that is busy elsewhere holds twice its reader's limit."""
    reader = asyncio.StreamReader(limit=5000)
    transport, _, peer = await connected(asyncio.StreamReaderProtocol(reader))
    sent = await sent_until_full(peer)
    buffer: Any = reader
    assert 10_000 < len(buffer._buffer) <= 10_000 + (256 << 10)
    assert sent > len(buffer._buffer)  # the rest is the kernel's to hold
    await finish(transport, peer)


def test_more_connections_than_descriptors(loop_kind: str) -> None:
    """The server rests instead of spinning, and serves everybody in the end."""
    script = """
    import logging, resource
    logging.disable()
    FLOOD = 30

    async def main():
        loop = asyncio.get_running_loop()
        reports = []
        loop.set_exception_handler(lambda _, context: reports.append(context))
        served = []
        class Server(asyncio.Protocol):
            def connection_made(self, transport):
                served.append(transport)
        server = await loop.create_server(Server, "127.0.0.1", 0, backlog=200)
        address = server.sockets[0].getsockname()
        clients = [socket.socket() for _ in range(FLOOD)]
        used = max(int(name) for name in os.listdir("/proc/self/fd"))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 10, hard))
        for client in clients:
            client.connect(address)
        while not reports:
            await asyncio.sleep(0.001)
        for _ in range(10):  # those that were accepted begin
            await asyncio.sleep(0)
        some = len(served)
        cpu, began = time.process_time(), time.monotonic()
        while time.monotonic() - began < 0.8:
            await asyncio.sleep(0.1)
        print(0 < some < 20, some == len(served),
              "rests" if time.process_time() - cpu < 0.4 else "spins")
        while len(served) < FLOOD:
            for transport in served:
                transport.close()
            await asyncio.sleep(0.01)
        print("served", len(served))
        for client in clients:
            client.close()
        for transport in served:
            transport.abort()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(1.1)

    run(main())
    """
    out, _ = run_script(loop_kind, script)
    assert out == "True True rests\nserved 30\n"


SLOW_LORIS = """
async def serve(reader, writer):
    try:
        async with asyncio.timeout(0.3):
            head = await reader.readuntil(b"\\r\\n\\r\\n")
        writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
        await writer.drain()
    except (TimeoutError, asyncio.LimitOverrunError, EOFError):
        pass
    finally:
        writer.close()
"""


async def test_slow_loris(loop: Any) -> None:
    """A deadline for the whole head: bytes now and then do not put it off."""
    names: dict[str, Any] = {"asyncio": asyncio}
    exec(SLOW_LORIS, names)
    server = await asyncio.start_server(names["serve"], HOST, 0, backlog=512)
    address = server.sockets[0].getsockname()

    async def dribble() -> str:
        reader, writer = await asyncio.open_connection(*address)
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(b"x")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await reader.read(1)
        writer.transport.abort()
        return "closed"

    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    slow = [asyncio.create_task(dribble()) for _ in range(100)]
    assert b"200 OK" in await ask()
    assert await asyncio.gather(*slow) == ["closed"] * 100
    server.close()
    await server.wait_closed()


async def test_a_flood_of_datagrams(loop: Any) -> None:
    """The kernel drops what its buffer does not hold; the loop goes on between."""
    turns_made = 0
    most = got = since = 0

    class Counter(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, address: Any) -> None:
            nonlocal got, since, most
            got += 1
            since += 1
            most = max(most, since)

    def turn() -> None:
        nonlocal turns_made, since
        turns_made += 1
        since = 0
        if got < sent:
            loop.call_soon(turn)

    transport, _ = await loop.create_datagram_endpoint(Counter, (HOST, 0))
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000)
    sent = 5000
    with socket.socket(type=socket.SOCK_DGRAM) as flood:
        for _ in range(sent):
            flood.sendto(bytes(100), sock.getsockname())
    loop.call_soon(turn)
    last = -1
    while last != got:
        last = got
        await asyncio.sleep(0.02)
    assert 100 < got < sent  # what fitted into the buffer of the kernel
    assert most <= MOST_IN_A_TURN and turns_made > 1
    sent = 0  # `turn` ends
    transport.close()
    await turns(3)

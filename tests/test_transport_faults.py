"""Callbacks that raise, resets, odd protocols, switched protocols, leaks."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import warnings
import weakref
from typing import Any

import pytest

from support import (
    BufferedRecorder,
    Recorder,
    collect,
    connected,
    fd_is_open,
    finish,
    read_all,
    reset,
    run_script,
    settle,
    tcp_pair,
    turns,
    unix_pair,
    until,
)


def check_fatal(report: Any, transport: Any, protocol: Any, message: str) -> None:
    assert report["message"] == message
    assert report["transport"] is transport
    assert report["protocol"] is protocol


async def test_data_received_raises(loop: Any, reports: Any) -> None:
    class Bad(Recorder):
        def data_received(self, data: bytes) -> None:
            raise LookupError("data")

    transport, protocol, peer = await connected(Bad())
    peer.send(b"x")
    error = await protocol.closed
    assert isinstance(error, LookupError)
    report = reports.one()
    check_fatal(
        report,
        transport,
        protocol,
        "Fatal error: protocol.data_received() call failed.",
    )
    assert report["exception"] is error
    assert await read_all(peer, 1) == b""
    peer.close()


async def test_buffer_updated_raises(loop: Any, reports: Any) -> None:
    class Bad(BufferedRecorder):
        def buffer_updated(self, nbytes: int) -> None:
            raise LookupError("updated")

    transport, protocol, peer = await connected(Bad())
    peer.send(b"x")
    assert isinstance(await protocol.closed, LookupError)
    message = "Fatal error: protocol.buffer_updated() call failed."
    check_fatal(reports.one(), transport, protocol, message)
    peer.close()


async def get_buffer_fails(reports: Any, answer: Any) -> tuple[Any, BaseException]:
    class Bad(BufferedRecorder):
        def get_buffer(self, sizehint: int) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

    transport, protocol, peer = await connected(Bad())
    peer.send(b"x")
    error = await protocol.closed
    report = reports.one()
    message = "Fatal error: protocol.get_buffer() call failed."
    check_fatal(report, transport, protocol, message)
    assert report["exception"] is error
    assert protocol.data == b""
    peer.close()
    return report, error


async def test_get_buffer_raises(loop: Any, reports: Any) -> None:
    _, error = await get_buffer_fails(reports, LookupError("buffer"))
    assert str(error) == "buffer"


@pytest.mark.parametrize("answer", [bytearray(), b"", memoryview(b"")])
async def test_get_buffer_gives_nothing(loop: Any, reports: Any, answer: Any) -> None:
    _, error = await get_buffer_fails(reports, answer)
    assert isinstance(error, RuntimeError)
    assert str(error) == "get_buffer() returned an empty buffer"


@pytest.mark.parametrize("answer", [None, 5])
async def test_get_buffer_gives_no_buffer(loop: Any, reports: Any, answer: Any) -> None:
    _, error = await get_buffer_fails(reports, answer)
    assert isinstance(error, TypeError)


async def test_get_buffer_gives_a_read_only_one(loop: Any, reports: Any) -> None:
    class Bad(BufferedRecorder):
        def get_buffer(self, sizehint: int) -> Any:
            return b"read only"

    _transport, protocol, peer = await connected(Bad())
    peer.send(b"x")
    assert isinstance(await protocol.closed, (TypeError, BufferError))
    report = reports.one()
    assert report["message"] == "Fatal read error on socket transport"
    peer.close()


async def test_eof_received_raises(loop: Any, reports: Any) -> None:
    class Bad(Recorder):
        def eof_received(self) -> bool:
            raise LookupError("eof")

    transport, protocol, peer = await connected(Bad())
    peer.close()
    assert isinstance(await protocol.closed, LookupError)
    message = "Fatal error: protocol.eof_received() call failed."
    check_fatal(reports.one(), transport, protocol, message)


async def test_connection_made_raises(loop: Any, reports: Any) -> None:
    class Bad(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            raise LookupError("made")

    transport, protocol, peer = await connected(Bad())
    await until(lambda: reports)
    report = reports.one()
    assert str(report["exception"]) == "'made'" or "made" in str(report["exception"])
    assert report["message"].startswith("Exception in callback ")
    # The connection itself goes on, as in asyncio.
    peer.send(b"data")
    await until(lambda: protocol.data == b"data")
    await finish(transport, peer)


async def test_connection_lost_raises(loop: Any, reports: Any) -> None:
    class Bad(Recorder):
        def connection_lost(self, exc: Any) -> None:
            super().connection_lost(exc)
            raise LookupError("lost")

    transport, protocol, peer = await connected(Bad())
    fd = transport.get_extra_info("socket").fileno()
    transport.close()
    await protocol.closed
    await turns(2)
    assert reports.one()["message"].startswith("Exception in callback ")
    assert transport.get_extra_info("socket").fileno() == -1
    assert not fd_is_open(fd) or fd == peer.fileno()
    peer.close()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["data_received", "eof_received"])
def test_exit_out_of_a_callback(loop: Any, kind: Any, where: str) -> None:
    class Bad(Recorder):
        pass

    def leave(self: Any, data: bytes = b"") -> None:
        raise kind("leave")

    setattr(Bad, where, leave)
    transport, protocol, peer = loop.run_until_complete(connected_on(loop, Bad))
    peer.send(b"x")
    if where == "eof_received":
        protocol.data_received = lambda data: None
        type(protocol).data_received = lambda self, data: None
        peer.shutdown(socket.SHUT_WR)
    with pytest.raises(kind, match="leave"):
        loop.run_until_complete(asyncio.sleep(1))
    loop.run_until_complete(finish(transport, peer))
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(turns(2))


async def connected_on(loop: Any, kind: Any) -> Any:
    return await connected(kind(loop))


async def test_one_bad_connection_hurts_no_other(loop: Any, reports: Any) -> None:
    class Sometimes(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            if b"bad" in data:
                raise LookupError("bad")
            self.transport.write(data)

    server = await loop.create_server(Sometimes, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    good = [await asyncio.open_connection(*address) for _ in range(10)]
    bad = [await asyncio.open_connection(*address) for _ in range(10)]
    for _, writer in bad:
        writer.write(b"bad")
    for reader, _ in bad:
        assert await reader.read() == b""
    for reader, writer in good:
        writer.write(b"good")
        assert await reader.readexactly(4) == b"good"
    assert len(reports.take()) == 10
    for _, writer in good + bad:
        writer.close()
        await writer.wait_closed()
    server.close()
    await server.wait_closed()


def left_to_the_collector(unraisable: Any) -> bool:
    """Whether a socket that nobody took was left to be collected."""
    collect()
    found = unraisable.take()
    assert all(text.startswith("ResourceWarning: unclosed") for text in found)
    return bool(found)


@pytest.mark.parametrize("count", [1, 5])
async def test_protocol_factory_that_raises(
    loop: Any, reports: Any, count: int, loop_kind: str, unraisable: Any
) -> None:
    calls = 0

    def factory() -> Any:
        nonlocal calls
        calls += 1
        if calls <= count:
            raise LookupError("factory")
        return Recorder(loop)

    server = await loop.create_server(factory, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    for _ in range(count):
        reader, writer = await asyncio.open_connection(*address)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        await writer.wait_closed()
    reader, writer = await asyncio.open_connection(*address)
    await until(lambda: calls == count + 1)
    writer.write(b"fine")
    writer.close()
    await writer.wait_closed()
    found = reports.take()
    # asyncio says so in debug mode only.
    assert all("factory" in str(r["exception"]) for r in found)
    await settle()
    server.close()
    await server.wait_closed()
    # asyncio leaves it to the collector.
    assert not left_to_the_collector(unraisable) or loop_kind == "asyncio"


async def test_factory_that_raises_for_a_client(loop: Any, unraisable: Any) -> None:
    def factory() -> Any:
        raise LookupError("factory")

    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    with pytest.raises(LookupError, match="factory"):
        await loop.create_connection(factory, *address)
    left_to_the_collector(unraisable)
    await asyncio.sleep(0.01)
    await settle()
    server.close()
    await server.wait_closed()


async def test_reset_while_writing(loop: Any) -> None:
    transport, protocol, peer = await connected()
    reset(peer)
    for _ in range(200):
        transport.write(b"x" * 1000)
        await turns(1)
        if transport.is_closing():
            break
    error = await protocol.closed
    assert isinstance(error, (ConnectionResetError, BrokenPipeError))
    assert protocol.events[-1] == "lost"


async def test_reset_with_data_waiting(loop: Any) -> None:
    transport, protocol, peer = await connected()
    while transport.get_write_buffer_size() < 100_000:
        transport.write(b"x" * 65536)
        await turns(1)
    reset(peer)
    error = await protocol.closed
    assert isinstance(error, (ConnectionResetError, BrokenPipeError))
    assert transport.get_write_buffer_size() == 0


async def test_reset_while_reading_is_paused(loop: Any) -> None:
    transport, protocol, peer = await connected()
    transport.pause_reading()
    reset(peer)
    await asyncio.sleep(0.01)
    assert protocol.events == ["made"]
    transport.resume_reading()
    assert isinstance(await protocol.closed, ConnectionResetError)


async def test_unix_peer_gone_while_writing(loop: Any) -> None:
    transport, protocol, peer = await connected(pair=unix_pair)
    transport.pause_reading()
    peer.close()
    transport.write(b"x")
    assert isinstance(await protocol.closed, (BrokenPipeError, ConnectionResetError))


async def test_debug_mode_logs_lost_connections(loop: Any) -> None:
    _transport, protocol, peer = await connected()
    loop.set_debug(True)
    loop.slow_callback_duration = 100
    reset(peer)
    assert isinstance(await protocol.closed, ConnectionResetError)
    loop.set_debug(False)


def test_unclosed_transport(loop: Any) -> None:
    near, far = tcp_pair()
    fd = near.fileno()

    async def main(sock: Any) -> str:
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, sock)
        transport.pause_reading()
        await turns(2)
        return repr(transport)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.run_until_complete(main(near))
        del near
        gc.collect()
    texts = [str(w.message) for w in caught if w.category is ResourceWarning]
    assert any(text.startswith("unclosed transport <") for text in texts)
    assert not fd_is_open(fd)
    assert far.recv(1) == b""
    far.close()


def test_loop_closed_under_a_transport(loop_kind: str) -> None:
    out, _ = run_script(
        loop_kind,
        """
        import warnings
        warnings.simplefilter("ignore")
        a, b = socket.socketpair()
        async def main():
            loop = asyncio.get_running_loop()
            a.setblocking(False)
            return (await loop.connect_accepted_socket(asyncio.Protocol, a))[0]
        loop = new_loop()
        transport = loop.run_until_complete(main())
        loop.close()
        for name in ("close", "abort"):
            try:
                getattr(transport, name)()
            except RuntimeError as error:
                print(error)
        transport = None
        gc.collect()
        print("alive")
        """,
        quiet=False,
    )
    assert out.splitlines()[-1] == "alive"


async def test_descriptor_closed_behind_the_transport(
    loop: Any, reports: Any, unraisable: Any
) -> None:
    transport, protocol, peer = await connected()
    transport.pause_reading()
    fd = transport.get_extra_info("socket").fileno()
    os.close(fd)
    transport.write(b"x")
    error = await protocol.closed
    assert isinstance(error, OSError) and error.errno == 9
    await turns(2)
    # Closing the socket object fails once more, and that is reported.
    assert [r["exception"].errno for r in reports.take()] == [9]
    peer.close()
    del transport, protocol, error
    collect()
    # asyncio never gets to the end of its clean-up then.
    assert all("unclosed" in text for text in unraisable.take())


async def test_transport_made_while_peer_is_gone(loop: Any) -> None:
    near, far = tcp_pair()
    reset(far)
    protocol = Recorder(loop)
    await loop.connect_accepted_socket(lambda: protocol, near)
    assert isinstance(await protocol.closed, ConnectionResetError)


@pytest.mark.parametrize("kind", [Recorder, BufferedRecorder])
async def test_collected_in_a_cycle_after_close(loop: Any, kind: Any) -> None:
    transport, protocol, peer = await connected(kind())
    protocol.cycle = transport
    transport.close()
    await protocol.closed
    peer.close()
    ref = weakref.ref(protocol)
    del transport, protocol
    await turns(3)
    gc.collect()
    assert ref() is None

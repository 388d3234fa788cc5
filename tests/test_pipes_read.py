"""Read pipes: what asyncio's own do, on pipes, FIFOs, sockets and terminals."""

# mypy: disable-error-code="misc"

from __future__ import annotations

import asyncio
import errno
import gc
import io
import logging
import os
import socket
import weakref
from typing import Any

import pytest

from support import BufferedRecorder, Recorder, terminal, turns, until


class Source:
    """The writing end of a pipe whose reading end a transport has."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def write(self, data: bytes) -> None:
        os.write(self.fd, data)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


async def read_pipe(loop: Any, protocol: Any = None) -> tuple[Any, Any, Source]:
    reading, writing = os.pipe()
    protocol = Recorder(loop) if protocol is None else protocol
    transport, _ = await loop.connect_read_pipe(
        lambda: protocol, io.FileIO(reading, "r")
    )
    return transport, protocol, Source(writing)


async def end(transport: Any, source: Source) -> None:
    transport.close()
    source.close()
    await turns(3)


async def test_data_then_end(loop: Any) -> None:
    transport, protocol, source = await read_pipe(loop)
    assert isinstance(transport, asyncio.ReadTransport)
    assert not isinstance(transport, asyncio.WriteTransport)
    source.write(b"one")
    await until(lambda: protocol.data == b"one")
    source.write(b"two")
    source.close()
    assert await protocol.closed is None
    assert protocol.data == b"onetwo"
    assert protocol.events == ["made", "data", "eof", "lost"]
    assert transport.is_closing()
    assert transport.get_protocol() is None


async def test_what_eof_received_returns_is_nothing(loop: Any) -> None:
    _transport, protocol, source = await read_pipe(loop)
    protocol.keep_open = True
    source.close()
    assert await protocol.closed is None
    assert protocol.events == ["made", "eof", "lost"]


async def test_end_in_eof_received(loop: Any) -> None:
    class Closing(Recorder):
        def eof_received(self) -> bool:
            self.transport.close()
            return super().eof_received()

    _transport, protocol, source = await read_pipe(loop, Closing(loop))
    source.close()
    await protocol.closed
    assert protocol.events == ["made", "eof", "lost"]


async def test_eof_received_that_raises(loop: Any, reports: Any) -> None:
    class Raising(Recorder):
        def eof_received(self) -> bool:
            raise ValueError("eof")

    _transport, protocol, source = await read_pipe(loop, Raising(loop))
    source.close()
    assert await protocol.closed is None
    report = reports.one()
    assert str(report["exception"]) == "eof"
    assert "eof_received" in report["message"]


async def test_data_received_that_raises(loop: Any, reports: Any) -> None:
    """It is reported, and the pipe goes on: not as with sockets."""

    class Raising(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if data == b"bad":
                raise ValueError("data")

    transport, protocol, source = await read_pipe(loop, Raising(loop))
    source.write(b"bad")
    await until(lambda: reports)
    report = reports.one()
    assert str(report["exception"]) == "data"
    assert "_read_ready" in report["message"]
    source.write(b"good")
    await until(lambda: protocol.data == b"badgood")
    assert not transport.is_closing()
    await end(transport, source)


async def test_pause_and_resume(loop: Any) -> None:
    transport, protocol, source = await read_pipe(loop)
    assert transport.is_reading()
    transport.resume_reading()
    transport.pause_reading()
    transport.pause_reading()
    assert not transport.is_reading()
    source.write(b"x" * 1000)
    await asyncio.sleep(0.01)
    assert protocol.data == b""
    transport.resume_reading()
    transport.resume_reading()
    assert transport.is_reading()
    await until(lambda: len(protocol.data) == 1000)
    transport.pause_reading()
    source.write(b"last")
    source.close()
    await asyncio.sleep(0.01)
    assert not protocol.closed.done()
    transport.resume_reading()
    await protocol.closed
    assert protocol.data[1000:] == b"last"
    transport.pause_reading()
    transport.resume_reading()
    assert not transport.is_reading()


async def test_pause_in_connection_made(loop: Any) -> None:
    class Pausing(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.pause_reading()

    transport, protocol, source = await read_pipe(loop, Pausing(loop))
    source.write(b"data")
    await asyncio.sleep(0.01)
    assert protocol.data == b""
    transport.resume_reading()
    await until(lambda: protocol.data == b"data")
    await end(transport, source)


async def test_close_in_connection_made(loop: Any) -> None:
    class Closing(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.close()

    _transport, protocol, source = await read_pipe(loop, Closing(loop))
    assert await protocol.closed is None
    assert protocol.events == ["made", "lost"]
    source.close()


async def test_close_is_once(loop: Any) -> None:
    transport, protocol, source = await read_pipe(loop)
    pipe = transport.get_extra_info("pipe")
    transport.close()
    transport.close()
    assert transport.is_closing()
    assert not pipe.closed
    await protocol.closed
    await turns(2)
    assert pipe.closed
    assert transport.get_extra_info("pipe") is pipe
    assert transport.get_extra_info("socket") is None
    assert transport.get_extra_info("other", 5) == 5
    transport.close()
    await turns(2)
    assert protocol.events == ["made", "lost"]
    source.close()


async def test_pipe_is_closed_though_connection_lost_raises(
    loop: Any, reports: Any
) -> None:
    class Raising(asyncio.Protocol):
        def connection_lost(self, exc: Any) -> None:
            raise ValueError("lost")

    transport, _, source = await read_pipe(loop, Raising())
    pipe = transport.get_extra_info("pipe")
    transport.close()
    await turns(3)
    assert pipe.closed
    assert str(reports.one()["exception"]) == "lost"
    source.close()


async def test_set_protocol(loop: Any) -> None:
    transport, first, source = await read_pipe(loop)
    second = Recorder(loop)
    second.events.append("made")
    source.write(b"1")
    await until(lambda: first.data == b"1")
    transport.set_protocol(second)
    assert transport.get_protocol() is second
    source.write(b"2")
    source.close()
    await second.closed
    assert (first.data, second.data) == (b"1", b"2")


async def test_names_in_repr(loop: Any) -> None:
    transport, protocol, source = await read_pipe(loop)
    fd = transport.get_extra_info("pipe").fileno()
    assert repr(transport).endswith(f"ReadPipeTransport fd={fd} polling>")
    transport.pause_reading()
    assert repr(transport).endswith(f"ReadPipeTransport fd={fd} idle>")
    transport.close()
    assert repr(transport).endswith(f"ReadPipeTransport closing fd={fd} idle>")
    await protocol.closed
    await turns(1)
    assert repr(transport).endswith(f"ReadPipeTransport closed fd={fd} closed>")
    source.close()


async def test_nonblocking_from_now_on(loop: Any) -> None:
    transport, _protocol, source = await read_pipe(loop)
    assert not os.get_blocking(transport.get_extra_info("pipe").fileno())
    await end(transport, source)


async def test_wrong_files(loop: Any, tmp_path: Any) -> None:
    text = r"^Pipe transport is for pipes/sockets only\.$"
    with open(tmp_path / "file", "w+b") as file:
        with pytest.raises(ValueError, match=text):
            await loop.connect_read_pipe(lambda: Recorder(loop), file)
        assert not file.closed
        assert os.get_blocking(file.fileno())


async def test_what_is_no_file(loop: Any, loop_kind: str) -> None:
    if loop_kind == "asyncio":
        pytest.skip("asyncio's half-made transports die with noise")

    class Nothing:
        def fileno(self) -> int:
            return 1_000_000

    for connect in (loop.connect_read_pipe, loop.connect_write_pipe):
        with pytest.raises(AttributeError):
            await connect(lambda: Recorder(loop), 3)
        with pytest.raises(OSError) as info:
            await connect(lambda: Recorder(loop), Nothing())
        assert info.value.errno == errno.EBADF


async def test_named_fifo(loop: Any, tmp_path: Any) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    protocol = Recorder(loop)
    _transport, _ = await loop.connect_read_pipe(
        lambda: protocol, io.FileIO(reading, "r")
    )
    with open(path, "wb", buffering=0) as writer:
        writer.write(b"through the name")
        await until(lambda: protocol.data)
    assert await protocol.closed is None
    assert protocol.data == b"through the name"


@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM", "SOCK_SEQPACKET"])
async def test_sockets(loop: Any, kind: str) -> None:
    near, far = socket.socketpair(socket.AF_UNIX, getattr(socket, kind))
    protocol = Recorder(loop)
    chunks: list[bytes] = []
    protocol.data_received = chunks.append  # type: ignore[method-assign]
    transport, _ = await loop.connect_read_pipe(lambda: protocol, near)
    far.send(b"first")
    await until(lambda: chunks)
    far.send(b"second")
    await until(lambda: len(chunks) == 2)
    assert chunks == [b"first", b"second"]
    transport.close()
    await protocol.closed
    await turns(1)
    assert near.fileno() == -1
    far.close()


async def test_reset_is_reported(loop: Any, reports: Any) -> None:
    """Only the hanging up of a terminal is an end that nobody hears of."""
    listener = socket.create_server(("127.0.0.1", 0))
    far = socket.create_connection(listener.getsockname())
    near, _ = listener.accept()
    listener.close()
    protocol = Recorder(loop)
    transport, _ = await loop.connect_read_pipe(lambda: protocol, near)
    far.setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00"
    )
    far.close()
    error = await protocol.closed
    assert isinstance(error, ConnectionResetError)
    report = reports.one()
    assert report["message"] == "Fatal read error on pipe transport"
    assert report["exception"] is error
    assert report["transport"] is transport
    assert report["protocol"] is protocol


async def test_terminal_that_hangs_up(loop: Any) -> None:
    master, slave = terminal()
    protocol = Recorder(loop)
    _transport, _ = await loop.connect_read_pipe(
        lambda: protocol, io.FileIO(master, "r")
    )
    os.write(slave, b"typed")
    await until(lambda: protocol.data == b"typed")
    os.close(slave)
    error = await protocol.closed
    assert isinstance(error, OSError) and error.errno == errno.EIO
    assert protocol.events == ["made", "data", "lost"]


async def test_device_that_cannot_be_polled(loop: Any, reports: Any) -> None:
    protocol = Recorder(loop)
    device = open("/dev/null", "rb", buffering=0)  # noqa: SIM115
    transport, _ = await loop.connect_read_pipe(lambda: protocol, device)
    report = reports.one()
    assert isinstance(report["exception"], PermissionError)
    assert "_add_reader" in report["message"]
    assert not transport.is_closing()
    transport.close()
    assert await protocol.closed is None
    await turns(1)
    assert device.closed


async def test_device_in_the_place_of_a_pipe(loop: Any, reports: Any) -> None:
    """A descriptor that was polled becomes one that cannot be."""
    transport, _protocol, source = await read_pipe(loop)
    fd = transport.get_extra_info("pipe").fileno()
    await asyncio.sleep(0.001)
    await end(transport, source)
    device = os.open("/dev/null", os.O_RDONLY)
    if device != fd:
        os.dup2(device, fd)
        os.close(device)
    with pytest.raises(PermissionError):
        loop.add_reader(fd, print)
    second = Recorder(loop)
    transport, _ = await loop.connect_read_pipe(lambda: second, io.FileIO(fd, "r"))
    assert isinstance(reports.one()["exception"], PermissionError)
    await asyncio.sleep(0.001)
    transport.close()
    await second.closed
    await turns(1)


async def test_device_under_a_waiting_reader(loop: Any) -> None:
    """The same, behind the back of add_reader()."""
    reading, writing = os.pipe()
    loop.add_reader(reading, print)
    device = os.open("/dev/null", os.O_RDONLY)
    os.dup2(device, reading)
    os.close(device)
    await asyncio.sleep(0.001)
    loop.remove_reader(reading)
    os.close(reading)
    os.close(writing)


async def test_stream_reader(loop: Any) -> None:
    reading, writing = os.pipe()
    reader = asyncio.StreamReader(limit=1000)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), io.FileIO(reading, "r")
    )
    os.write(writing, b"line\nrest")
    assert await reader.readline() == b"line\n"
    os.write(writing, b"y" * 5000)
    await asyncio.sleep(0.01)
    assert not transport.is_reading()
    assert await reader.readexactly(4 + 5000) == b"rest" + b"y" * 5000
    os.close(writing)
    assert await reader.read() == b""
    await turns(2)


async def test_much_data(loop: Any) -> None:
    _transport, protocol, source = await read_pipe(loop)
    data = os.urandom(3_000_000)

    def pour() -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(source.fd, view) :]
        source.close()

    await asyncio.gather(asyncio.to_thread(pour), protocol.closed)
    assert protocol.data == data


async def test_protocol_without_data_received(loop: Any, loop_kind: str) -> None:
    if loop_kind == "asyncio":
        pytest.skip("asyncio's pipes know no buffered protocols")
    _transport, protocol, source = await read_pipe(loop, BufferedRecorder(16))
    source.write(b"z" * 100)
    await until(lambda: len(protocol.data) == 100)
    source.close()
    await protocol.closed
    assert protocol.events == ["made", "eof", "lost"]


async def test_forgotten_while_reading(loop: Any) -> None:
    """The loop holds what it watches, as a selector does."""
    transport, protocol, source = await read_pipe(loop)
    ref = weakref.ref(transport)
    protocol.transport = protocol.connected = None
    del transport
    gc.collect()
    assert ref() is not None
    source.close()
    await protocol.closed


async def test_forgotten_while_paused(loop: Any, no_warnings: Any) -> None:
    class Bare(asyncio.Protocol):
        pass

    transport, _, source = await read_pipe(loop, Bare())
    pipe = transport.get_extra_info("pipe")
    await turns(1)
    transport.pause_reading()
    name = repr(transport)
    del transport, _
    gc.collect()
    assert no_warnings() == [f"ResourceWarning: unclosed transport {name}"]
    assert pipe.closed
    source.close()


async def test_pipe_that_is_taken_away(loop: Any) -> None:
    transport, protocol, source = await read_pipe(loop)
    pipe = transport._pipe
    assert pipe is transport.get_extra_info("pipe")
    transport.pause_reading()
    transport._pipe = None
    protocol.transport = protocol.connected = None
    del transport
    gc.collect()
    source.write(b"still open")
    assert pipe.read(100) == b"still open"
    pipe.close()
    source.close()


async def test_waiter_that_gives_up(loop: Any) -> None:
    reading, writing = os.pipe()
    pipe = io.FileIO(reading, "r")
    protocol = Recorder(loop)
    task = asyncio.ensure_future(loop.connect_read_pipe(lambda: protocol, pipe))
    await turns(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await protocol.closed
    await turns(1)
    assert pipe.closed
    os.close(writing)


async def test_debug_log(loop: Any, caplog: Any) -> None:
    loop.set_debug(True)
    caplog.set_level(logging.DEBUG, "asyncio")
    transport, protocol, source = await read_pipe(loop)
    transport.pause_reading()
    transport.resume_reading()
    source.close()
    await protocol.closed
    texts = [record.getMessage() for record in caplog.records]
    assert any(text.startswith("Read pipe ") for text in texts), texts
    assert any(text.endswith(" pauses reading") for text in texts), texts
    assert any(text.endswith(" resumes reading") for text in texts), texts
    closed = [r for r in caplog.records if "was closed by peer" in r.getMessage()]
    assert [r.levelno for r in closed] == [logging.INFO]


def test_loop_closed_under_a_pipe(new_loop: Any, no_warnings: Any) -> None:
    loop = new_loop()
    transport, protocol, source = loop.run_until_complete(read_pipe(loop))
    loop.close()
    assert " open>" in repr(transport)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        transport.close()
    protocol.transport = protocol.connected = None
    del transport
    gc.collect()
    assert [text.split()[:3] for text in no_warnings()] == [
        ["ResourceWarning:", "unclosed", "transport"]
    ]
    source.close()

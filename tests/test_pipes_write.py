"""Write pipes: what asyncio's own do, on pipes, FIFOs, sockets and terminals."""

# mypy: disable-error-code="misc"

from __future__ import annotations

import asyncio
import collections
import contextlib
import fcntl
import gc
import io
import logging
import os
import select
import socket
import threading
import weakref
from typing import Any

import pytest

from support import Recorder, run_script, terminal, turns, until

SIZE = 1 << 20


async def write_pipe(loop: Any, protocol: Any = None) -> tuple[Any, Any, int]:
    """(transport, protocol, the reading end)."""
    reading, writing = os.pipe()
    protocol = Recorder(loop) if protocol is None else protocol
    transport, _ = await loop.connect_write_pipe(
        lambda: protocol, io.FileIO(writing, "w")
    )
    await turns(1)
    return transport, protocol, reading


def drain(fd: int) -> bytes:
    """What there is to read now."""
    os.set_blocking(fd, False)
    found = bytearray()
    while True:
        try:
            data = os.read(fd, 1 << 20)
        except BlockingIOError:
            return bytes(found)
        if not data:
            return bytes(found)
        found += data


async def drain_until(fd: int, size: int) -> bytes:
    found = bytearray()

    def more() -> bool:
        found.extend(drain(fd))
        return len(found) >= size

    await until(more)
    return bytes(found)


async def test_each_write_leaves_at_once(loop: Any) -> None:
    transport, protocol, reading = await write_pipe(loop)
    assert isinstance(transport, asyncio.WriteTransport)
    assert isinstance(transport, asyncio.transports._FlowControlMixin)
    transport.write(b"one")
    assert drain(reading) == b"one"
    transport.write(bytearray(b"two"))
    transport.write(memoryview(b"three"))
    transport.write(b"")
    assert drain(reading) == b"twothree"
    transport.writelines([b"a", b"b", bytearray(b"c")])
    transport.writelines((b"d", b""))
    transport.writelines(iter([b"e"]))
    transport.writelines([])
    assert drain(reading) == b"abcde"
    assert transport.get_write_buffer_size() == 0
    transport.close()
    assert await protocol.closed is None
    assert protocol.events == ["made", "lost"]
    assert os.read(reading, 1) == b""
    os.close(reading)


@pytest.mark.parametrize("data", ["text", None, 5, [b"list"]])
async def test_wrong_data(loop: Any, data: Any) -> None:
    transport, protocol, reading = await write_pipe(loop)
    with pytest.raises(AssertionError) as info:
        transport.write(data)
    assert str(info.value) == repr(data)
    with pytest.raises(TypeError):
        transport.writelines(data if data is None or data == 5 else ["text"])
    transport.close()
    await protocol.closed
    os.close(reading)


async def test_full_pipe(loop: Any) -> None:
    transport, protocol, reading = await write_pipe(loop)
    data = os.urandom(SIZE)
    transport.write(data)
    assert protocol.events[-1] == "pause"
    waiting = transport.get_write_buffer_size()
    assert 0 < waiting < SIZE
    transport.write(b"more")
    transport.writelines([b"lines", b"too"])
    assert transport.get_write_buffer_size() == waiting + 12
    got = await drain_until(reading, SIZE + 12)
    assert got == data + b"morelinestoo"
    await until(lambda: protocol.events[-1] == "resume")
    assert transport.get_write_buffer_size() == 0
    transport.close()
    await protocol.closed
    os.close(reading)


async def test_what_the_caller_changes_later(loop: Any) -> None:
    transport, protocol, reading = await write_pipe(loop)
    transport.write(b"x" * SIZE)
    data = bytearray(b"before")
    transport.write(data)
    transport.write(memoryview(data))
    data[:] = b"AFTER!"
    big = bytearray(b"y" * SIZE)
    got = await drain_until(reading, SIZE + 12)
    assert got[SIZE:] == b"beforebefore"
    transport.write(big)
    big[:] = b"z" * SIZE
    got = await drain_until(reading, SIZE)
    assert got == b"y" * SIZE
    transport.close()
    await protocol.closed
    os.close(reading)


async def test_limits(loop: Any) -> None:
    transport, protocol, reading = await write_pipe(loop)
    assert transport.get_write_buffer_limits() == (16384, 65536)
    transport.set_write_buffer_limits(high=100, low=10)
    assert transport.get_write_buffer_limits() == (10, 100)
    with pytest.raises(ValueError, match="must be >= low"):
        transport.set_write_buffer_limits(high=1, low=2)
    size = fcntl.fcntl(reading, getattr(fcntl, "F_GETPIPE_SZ", 1032))
    transport.write(b"x" * (size + 100))
    assert protocol.events == ["made"]
    transport.write(b"x")
    assert protocol.events == ["made", "pause"]
    await drain_until(reading, size + 101)
    assert protocol.events == ["made", "pause", "resume"]
    transport.close()
    await protocol.closed
    os.close(reading)


async def test_close_sends_the_rest(loop: Any) -> None:
    transport, protocol, reading = await write_pipe(loop)
    pipe = transport.get_extra_info("pipe")
    transport.write(b"x" * SIZE)
    assert transport.can_write_eof()
    transport.write_eof()
    transport.write_eof()
    transport.close()
    assert transport.is_closing()
    transport.write(b"dropped")
    await asyncio.sleep(0.01)
    assert not protocol.closed.done()
    assert await drain_until(reading, SIZE) == b"x" * SIZE
    assert await protocol.closed is None
    await turns(1)
    assert pipe.closed
    assert os.read(reading, 10) == b""
    os.close(reading)


async def test_abort_drops_the_rest(loop: Any) -> None:
    transport, protocol, reading = await write_pipe(loop)
    transport.write(b"x" * SIZE)
    transport.abort()
    assert transport.get_write_buffer_size() == 0
    assert await protocol.closed is None
    await turns(1)
    assert 0 < len(drain(reading)) < SIZE
    os.close(reading)


async def test_abort_after_close(loop: Any) -> None:
    transport, protocol, reading = await write_pipe(loop)
    transport.write(b"x" * SIZE)
    transport.close()
    transport.abort()
    assert await protocol.closed is None
    os.close(reading)


async def test_reader_leaves_an_idle_pipe(loop: Any) -> None:
    transport, protocol, reading = await write_pipe(loop)
    os.close(reading)
    assert await protocol.closed is None
    assert transport.is_closing()
    transport.write(b"dropped")


async def test_reader_leaves_a_full_pipe(loop: Any) -> None:
    transport, protocol, reading = await write_pipe(loop)
    transport.write(b"x" * SIZE)
    os.close(reading)
    assert type(await protocol.closed) is BrokenPipeError
    assert transport.get_write_buffer_size() == 0


async def test_reader_leaves_a_closing_pipe(loop: Any) -> None:
    transport, protocol, reading = await write_pipe(loop)
    transport.write(b"x" * SIZE)
    transport.close()
    await turns(2)
    os.close(reading)
    assert type(await protocol.closed) is BrokenPipeError


async def test_write_after_the_reader_left(loop: Any, caplog: Any) -> None:
    transport, protocol, reading = await write_pipe(loop)
    os.close(reading)
    transport.write(b"nobody")
    assert transport.is_closing()
    error = await protocol.closed
    assert type(error) is BrokenPipeError and error.errno


async def test_warned_of_writes_to_a_lost_pipe(loop: Any, log: Any) -> None:
    transport, protocol, reading = await write_pipe(loop)
    transport.close()
    for _ in range(5):
        transport.write(b"dropped")
    assert log == []
    transport.write(b"dropped")
    text = "pipe closed by peer or os.write(pipe, data) raised exception."
    assert log.one() == text
    await protocol.closed
    os.close(reading)


async def test_memory_that_cannot_be_written(loop: Any, reports: Any) -> None:
    transport, protocol, reading = await write_pipe(loop)
    transport.write(memoryview(bytearray(8))[::2])
    report = reports.one()
    assert report["message"] == "Fatal write error on pipe transport"
    assert isinstance(report["exception"], BufferError)
    assert await protocol.closed is report["exception"]
    os.close(reading)


async def test_wrong_files(loop: Any, tmp_path: Any) -> None:
    text = r"^Pipe transport is only for pipes, sockets and character devices$"
    with open(tmp_path / "file", "w+b") as file:
        with pytest.raises(ValueError, match=text):
            await loop.connect_write_pipe(lambda: Recorder(loop), file)
        assert not file.closed


async def test_names_in_repr(loop: Any) -> None:
    transport, protocol, reading = await write_pipe(loop)
    fd = transport.get_extra_info("pipe").fileno()
    name = f"WritePipeTransport fd={fd}"
    assert repr(transport).endswith(f"{name} idle bufsize=0>")
    transport.write(b"x" * SIZE)
    size = transport.get_write_buffer_size()
    assert repr(transport).endswith(f"{name} polling bufsize={size}>")
    transport.close()
    assert f"WritePipeTransport closing fd={fd} polling" in repr(transport)
    transport.abort()
    await protocol.closed
    await turns(1)
    assert repr(transport).endswith(f"WritePipeTransport closed fd={fd} closed>")
    os.close(reading)


@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM", "SOCK_SEQPACKET"])
async def test_sockets(loop: Any, kind: str) -> None:
    near, far = socket.socketpair(socket.AF_UNIX, getattr(socket, kind))
    protocol = Recorder(loop)
    transport, _ = await loop.connect_write_pipe(lambda: protocol, near)
    await turns(1)
    transport.write(b"first")
    if kind == "SOCK_STREAM":
        assert far.recv(100) == b"first"
    transport.write(b"second")
    if kind != "SOCK_STREAM":
        assert far.recv(100) == b"first"
    assert far.recv(100) == b"second"
    if kind == "SOCK_STREAM":
        far.close()
    else:
        transport.close()
    assert await protocol.closed is None
    await turns(1)
    assert near.fileno() == -1
    far.close()


async def test_packets_of_a_pipe(loop: Any) -> None:
    """In packet mode the reader sees each write by itself."""
    reading, writing = os.pipe2(os.O_DIRECT)
    protocol = Recorder(loop)
    transport, _ = await loop.connect_write_pipe(
        lambda: protocol, io.FileIO(writing, "w")
    )
    transport.write(b"one")
    transport.write(b"two")
    assert [os.read(reading, 100), os.read(reading, 100)] == [b"one", b"two"]
    transport.close()
    await protocol.closed
    os.close(reading)


async def test_order_with_other_writers(loop: Any) -> None:
    transport, protocol, reading = await write_pipe(loop)
    fd = transport.get_extra_info("pipe").fileno()
    transport.write(b"1")
    os.write(fd, b"2")
    transport.write(b"3")
    assert drain(reading) == b"123"
    transport.close()
    await protocol.closed
    os.close(reading)


async def test_device_that_cannot_be_polled(loop: Any) -> None:
    device = open("/dev/null", "wb", buffering=0)  # noqa: SIM115
    protocol = Recorder(loop)
    transport, _ = await loop.connect_write_pipe(lambda: protocol, device)
    await turns(2)
    transport.write(b"x" * SIZE)
    assert transport.get_write_buffer_size() == 0
    transport.close()
    assert await protocol.closed is None
    await turns(1)
    assert device.closed


async def test_full_device(loop: Any) -> None:
    device = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    protocol = Recorder(loop)
    transport, _ = await loop.connect_write_pipe(lambda: protocol, device)
    transport.write(b"x")
    error = await protocol.closed
    assert isinstance(error, OSError) and error.errno == 28
    assert transport.is_closing()


async def test_buffered_file(loop: Any) -> None:
    """What the pipe object has in a buffer of its own leaves as it closes."""
    reading, writing = os.pipe()
    pipe = os.fdopen(writing, "wb")
    pipe.write(b" of the file")
    protocol = Recorder(loop)
    transport, _ = await loop.connect_write_pipe(lambda: protocol, pipe)
    transport.write(b"of the transport")
    transport.close()
    await protocol.closed
    await turns(1)
    assert drain(reading) == b"of the transport of the file"
    os.close(reading)


async def test_forgotten(loop: Any, no_warnings: Any) -> None:
    class Bare(asyncio.BaseProtocol):
        pass

    transport, _, reading = await write_pipe(loop, Bare())
    ref = weakref.ref(transport)
    del transport, _
    gc.collect()
    transport = ref()  # the loop watches for the reader's leaving
    assert transport is not None
    transport.close()
    await turns(2)
    assert no_warnings() == []
    device = open("/dev/null", "wb", buffering=0)  # noqa: SIM115
    transport, _ = await loop.connect_write_pipe(Bare, device)
    await turns(1)
    name = repr(transport)
    del transport, _
    gc.collect()
    assert no_warnings() == [f"ResourceWarning: unclosed transport {name}"]
    assert device.closed
    os.close(reading)


async def test_debug_log(loop: Any, caplog: Any) -> None:
    loop.set_debug(True)
    caplog.set_level(logging.DEBUG, "asyncio")
    transport, protocol, reading = await write_pipe(loop)
    os.close(reading)
    transport.write(b"fails")
    await protocol.closed
    transport, protocol, reading = await write_pipe(loop)
    os.close(reading)
    await protocol.closed
    texts = [record.getMessage() for record in caplog.records]
    assert any(text.startswith("Write pipe ") for text in texts), texts
    text = "Fatal write error on pipe transport"
    assert any(text in found for found in texts), texts
    closed = [r for r in caplog.records if "was closed by peer" in r.getMessage()]
    assert [r.levelno for r in closed] == [logging.INFO]


async def test_one_terminal_both_ways(loop: Any) -> None:
    """Two transports on the two sides of a terminal, as asyncio tests it."""
    master, slave = terminal()
    reader, writer = Recorder(loop), Recorder(loop)
    read_side, _ = await loop.connect_read_pipe(
        lambda: reader, io.FileIO(slave, "r", closefd=False)
    )
    write_side, _ = await loop.connect_write_pipe(
        lambda: writer, io.FileIO(os.dup(slave), "w")
    )
    os.write(master, b"typed")
    await until(lambda: reader.data == b"typed")
    write_side.write(b"shown")
    assert await drain_until(master, 5) == b"shown"
    write_side.close()
    await writer.closed
    os.write(master, b" more")
    await until(lambda: reader.data == b"typed more")
    read_side.close()
    await reader.closed
    os.close(slave)
    os.close(master)


@pytest.mark.parametrize("read_first", [True, False])
async def test_one_descriptor_both_ways(loop: Any, read_first: bool) -> None:
    """Of a terminal one transport has the reading half, one the writing."""
    master, slave = terminal()
    device = io.FileIO(slave, "r+", closefd=False)
    reader, writer = Recorder(loop), Recorder(loop)
    if read_first:
        read_side, _ = await loop.connect_read_pipe(lambda: reader, device)
    write_side, _ = await loop.connect_write_pipe(lambda: writer, device)
    if not read_first:
        read_side, _ = await loop.connect_read_pipe(lambda: reader, device)
    # More than the terminal holds: both halves are waited for at once.
    data = bytes(range(256)) * 400
    write_side.write(data)
    assert write_side.get_write_buffer_size() > 0
    os.write(master, b"typed")
    await until(lambda: reader.data == b"typed")
    read_side.pause_reading()
    assert write_side.get_write_buffer_size() > 0
    os.write(master, b" and typed")
    got = await drain_until(master, len(data))
    assert got == data
    assert reader.data == b"typed"
    read_side.resume_reading()
    await until(lambda: reader.data == b"typed and typed")
    write_side.write(b"again")
    assert await drain_until(master, 5) == b"again"
    read_side.close()
    write_side.close()
    await reader.closed
    await writer.closed
    await turns(1)
    os.close(slave)
    os.close(master)


async def test_reader_handle_beside_a_write_pipe(loop: Any) -> None:
    master, slave = terminal()
    writer = Recorder(loop)
    write_side, _ = await loop.connect_write_pipe(
        lambda: writer, io.FileIO(slave, "w", closefd=False)
    )
    seen: list[bytes] = []
    loop.add_reader(slave, lambda: seen.append(os.read(slave, 100)))
    write_side.write(b"x" * 100_000)
    os.write(master, b"typed")
    await until(lambda: seen == [b"typed"])
    assert len(await drain_until(master, 100_000)) == 100_000
    assert loop.remove_reader(slave)
    write_side.close()
    await writer.closed
    os.close(slave)
    os.close(master)


async def test_shared_pipe(loop: Any) -> None:
    """Short writes of several writers are never torn."""
    transport, protocol, reading = await write_pipe(loop)
    other = os.dup(transport.get_extra_info("pipe").fileno())
    lines = 300
    found = bytearray()

    def read() -> None:
        while found.count(b"\n") < 2 * lines:
            if not select.select([reading], [], [], 20)[0]:
                break
            found.extend(os.read(reading, 65536))

    def write() -> None:
        for _ in range(lines):
            written = 0
            while not written:  # the transport may fill it after select()
                select.select([], [other], [], 5)
                with contextlib.suppress(BlockingIOError):
                    written = os.write(other, b"t" * 500 + b"\n")

    os.set_blocking(reading, True)
    threads = [threading.Thread(target=read), threading.Thread(target=write)]
    for thread in threads:
        thread.start()
    for _ in range(lines):
        transport.write(b"m" * 500 + b"\n")
        if transport.get_write_buffer_size():
            await until(lambda: not transport.get_write_buffer_size())
        await asyncio.sleep(0)
    await asyncio.to_thread(threads[0].join)
    threads[1].join()
    counts = collections.Counter(bytes(found).splitlines())
    assert counts == {b"t" * 500: lines, b"m" * 500: lines}
    transport.close()
    await protocol.closed
    os.close(other)
    os.close(reading)


async def test_stream_writer(loop: Any) -> None:
    reading, writing = os.pipe()
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.streams.FlowControlMixin(loop=loop), io.FileIO(writing, "w")
    )
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    writer.write(b"x" * SIZE)
    task = asyncio.ensure_future(writer.drain())
    await turns(2)
    assert not task.done()
    assert len(await drain_until(reading, SIZE)) == SIZE
    await task
    assert writer.can_write_eof()
    writer.write_eof()
    await turns(3)
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_reader_of_its_own_output(loop_kind: str) -> None:
    """A program on its standard streams, which are pipes."""
    out, _ = run_script(
        loop_kind,
        """
        async def main():
            loop = asyncio.get_running_loop()
            transport, protocol = await loop.connect_write_pipe(
                asyncio.BaseProtocol, sys.stdout)
            transport.write(b"by the transport\\n")
            os.write(1, b"by the program\\n")
            transport.write(b"and then no more")
            os._exit(0)
        run(main())
        """,
    )
    assert out == "by the transport\nby the program\nand then no more"


async def test_abort_within_pause_writing(loop: Any) -> None:
    class Aborting(Recorder):
        def pause_writing(self) -> None:
            super().pause_writing()
            self.transport.abort()

    transport, protocol, reading = await write_pipe(loop, Aborting(loop))
    transport.write(b"x" * SIZE)
    assert await protocol.closed is None
    os.close(reading)


async def test_write_within_resume_writing(
    loop: Any, loop_kind: str, reports: Any
) -> None:
    class Writing(Recorder):
        def resume_writing(self) -> None:
            super().resume_writing()
            if self.events.count("resume") == 1:
                self.transport.write(b"y" * SIZE)
            else:
                self.transport.close()

    transport, protocol, reading = await write_pipe(loop, Writing(loop))
    transport.write(b"x" * SIZE)
    got = await drain_until(reading, 2 * SIZE)
    assert got == b"x" * SIZE + b"y" * SIZE
    assert await protocol.closed is None
    os.close(reading)
    if loop_kind == "asyncio":  # which calls connection_lost() twice then
        await turns(2)
        reports.clear()

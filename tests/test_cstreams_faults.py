"""Streams in C where something odd happens in between."""

from __future__ import annotations

import asyncio
import gc
import ssl
import weakref
from typing import Any

import pytest

from support import turns, wanted_kinds

if "hotloop" not in wanted_kinds():
    pytest.skip("hotloop is not wanted", allow_module_level=True)

import hotloop

READERS = [asyncio.StreamReader, hotloop.StreamReader]


@pytest.fixture(params=READERS, ids=["asyncio's", "hotloop's"])
def reader_class(request: pytest.FixtureRequest) -> Any:
    return request.param


class Feeding(asyncio.Transport):
    """Delivers inside of resume_reading(), as transports of others may."""

    def __init__(self, reader: Any, data: bytes) -> None:
        super().__init__()
        self.reader = reader
        self.data = data

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        self.reader.feed_data(self.data)


async def test_more_than_asked_for_while_resuming(loop: Any, reader_class: Any) -> None:
    reader = reader_class(limit=1000)
    reader.set_transport(Feeding(reader, b"B" * 4_000_000))
    reader.feed_data(b"A" * 3000)
    task = asyncio.ensure_future(reader.readexactly(4000))
    await turns(2)
    reader.feed_data(b"C")
    assert await task == b"A" * 3000 + b"B" * 1000
    assert await reader.readexactly(3_999_000) == b"B" * 3_999_000
    assert await reader.readexactly(1) == b"C"


async def test_what_another_reader_took(loop: Any, reader_class: Any) -> None:
    """A readline() that waits does not know what a read() took from before it."""
    reader = reader_class()
    reader.feed_data(b"abc")
    waiting = asyncio.ensure_future(reader.readline())
    await turns(1)
    assert await reader.read(3) == b"abc"
    reader.feed_data(b"l1\nc")
    await turns(2)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    reader.feed_data(b"d\n")
    reader.feed_eof()
    assert [await reader.readline(), await reader.readline()] == [b"l1\n", b"cd\n"]


async def test_error_after_the_end(loop: Any, reader_class: Any) -> None:
    reader = reader_class()
    task = asyncio.ensure_future(reader.read())
    await turns(1)
    reader.feed_data(b"abc")
    await turns(2)
    reader.feed_eof()
    reader.set_exception(ConnectionResetError("late"))
    assert await task == b"abc"


async def test_error_with_the_data(loop: Any, reader_class: Any) -> None:
    reader = reader_class()
    task = asyncio.ensure_future(reader.read())
    await turns(1)
    reader.feed_data(b"abc")
    reader.set_exception(ConnectionResetError("at once"))
    with pytest.raises(ConnectionResetError):
        await task
    assert bytes(reader._buffer) == b""


async def test_a_subclass_with_its_own_attributes(loop: Any, reader_class: Any) -> None:
    class Limited(reader_class):  # type: ignore[misc]
        _limit = 10

    reader = Limited(limit=500)
    assert reader._limit == 500


async def test_nothing_is_kept_of_who_drives(loop: Any, reader_class: Any) -> None:
    """send() by hand: neither the frame nor the result live on."""

    class Local:
        pass

    reader = reader_class()
    reader.feed_data(b"xyz")

    def drive() -> Any:
        local = Local()
        with pytest.raises(StopIteration):
            reader.read(1).send(None)
        return weakref.ref(local)

    kept = drive()
    gc.collect()
    assert kept() is None


async def serve_nothing(reader: Any, writer: Any) -> None:
    writer.close()


def test_connection_made_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that wraps asyncio's method is called, with the switch on as well."""
    stock = asyncio.StreamReaderProtocol.connection_made
    made: list[Any] = []

    def wrapper(self: Any, transport: Any) -> None:
        made.append(self)
        stock(self, transport)

    monkeypatch.setattr(asyncio.StreamReaderProtocol, "connection_made", wrapper)

    async def main() -> None:
        server = await asyncio.start_server(serve_nothing, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        server.close()

    for streams in (False, True):
        made.clear()
        hotloop.run(main(), streams=streams)
        assert len(made) == 2


def test_another_base_with_a_new_of_its_own() -> None:
    class Counted:
        made = 0

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            cls.made += 1
            return super().__new__(cls)

    class Both(asyncio.StreamReader, Counted):
        pass

    async def main() -> None:
        Both(limit=5)

    for streams in (False, True, False):
        hotloop.run(main(), streams=streams)
    assert Both.made == 3


async def test_start_tls_that_cannot_begin(loop: Any, loop_kind: str) -> None:
    """The buffer is in use: an error, after which all is as it was."""
    if loop_kind == "asyncio":
        pytest.skip("asyncio's does not look at what a client has buffered")
    go = asyncio.Event()

    async def serve(reader: Any, writer: Any) -> None:
        writer.write(b"plain ")
        await go.wait()
        writer.write(b"more\n")
        writer.close()

    server = await hotloop.start_server(serve, "127.0.0.1", 0)
    reader, writer = await hotloop.open_connection(*server.sockets[0].getsockname())
    while not reader._buffer:
        await asyncio.sleep(0.002)
    with memoryview(reader._buffer), pytest.raises(BufferError):
        await writer.start_tls(ssl.create_default_context(), server_hostname="x")
    assert writer.transport.is_reading()
    go.set()
    assert await reader.readline() == b"plain more\n"
    writer.close()
    await writer.wait_closed()
    server.close()

"""asyncio's streams are fed past its methods only as long as nobody could tell."""

# mypy: disable-error-code="attr-defined,method-assign"

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest

from support import Recorder, connected, finish, run_script, turns, until

Reader = asyncio.StreamReader
Protocol = asyncio.StreamReaderProtocol

METHODS = [
    (Reader, "feed_data"),
    (Reader, "_wakeup_waiter"),
    (Protocol, "data_received"),
]


class Stream:
    """asyncio's reader and protocol on a connection, and its far end."""

    def __init__(self, reader: Any, protocol: Any, transport: Any, peer: Any) -> None:
        self.reader = reader
        self.protocol = protocol
        self.transport = transport
        self.peer: socket.socket = peer

    async def get(self, data: bytes) -> bytes:
        """Have the peer send this, and read as much."""
        self.peer.send(data)
        got: bytes = await self.reader.readexactly(len(data))
        return got

    async def buffered(self, data: bytes) -> bytes:
        """Have the peer send this, and wait until it is in the buffer."""
        expected = len(self.reader._buffer) + len(data)
        self.peer.send(data)
        await until(lambda: len(self.reader._buffer) == expected)
        return bytes(self.reader._buffer)

    async def end(self) -> None:
        await finish(self.transport, self.peer)


async def stream(
    reader: Any = None, protocol: type[Any] = Protocol, limit: int = 65536
) -> Stream:
    reader = Reader(limit=limit) if reader is None else reader
    transport, made, peer = await connected(protocol(reader))
    return Stream(reader, made, transport, peer)


class Pausing:
    """A transport for readers, which notes who pauses it."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.callers: list[str] = []
        self.error = error

    def pause_reading(self) -> None:
        self.callers.append(sys._getframe(1).f_code.co_name)
        if self.error is not None:
            raise self.error

    def resume_reading(self) -> None:
        """Nothing was paused."""


async def is_passed_by(made: Stream) -> bool:
    """Whether data comes into the reader without feed_data()."""
    reader, pausing = made.reader, Pausing()
    before = reader._transport, reader._limit
    reader._transport, reader._limit = pausing, 1
    await made.get(b"ping")
    reader._transport, reader._limit = before
    (caller,) = pausing.callers
    return caller != "feed_data"


async def lost(made: Stream, reports: Any, error: type[BaseException]) -> None:
    """Wait until an error of the protocol has ended the connection."""
    await until(lambda: reports)
    assert made.transport.is_closing()
    await made.end()
    report = reports.pop(0)
    assert report["message"] == "Fatal error: protocol.data_received() call failed."
    assert isinstance(report["exception"], error)


async def until_the_end(made: Stream) -> None:
    """Have the peer end its side, and wait until the transport is closing."""
    made.protocol._over_ssl = True  # or the protocol keeps it open
    made.peer.shutdown(socket.SHUT_WR)
    await until(made.transport.is_closing)
    await made.end()


async def test_methods_are_passed_by(loop: Any, loop_kind: str) -> None:
    made = await stream()
    assert await is_passed_by(made) == (loop_kind == "hotloop")
    assert await made.get(b"data") == b"data"
    await made.end()


def counting(function: Callable[..., Any], calls: list[str]) -> Callable[..., Any]:
    def wrapper(*args: Any) -> Any:
        calls.append(function.__name__)
        return function(*args)

    return wrapper


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("owner", "name"), METHODS)
async def test_replaced_on_the_class(
    loop: Any, loop_kind: str, monkeypatch: Any, owner: Any, name: str, when: str
) -> None:
    calls: list[str] = []
    replacement = counting(getattr(owner, name), calls)
    if when == "before":
        monkeypatch.setattr(owner, name, replacement)
    made = await stream()
    if when == "after":
        assert await made.get(b"not yet") == b"not yet"
        monkeypatch.setattr(owner, name, replacement)
    assert await made.get(b"seen") == b"seen"
    assert calls == [name]
    monkeypatch.undo()
    assert await made.get(b"not any more") == b"not any more"
    assert calls == [name]
    assert await is_passed_by(made) == (loop_kind == "hotloop")
    await made.end()


async def test_replaced_property(loop: Any, monkeypatch: Any) -> None:
    made = await stream()
    other = Reader()
    monkeypatch.setattr(Protocol, "_stream_reader", property(lambda self: other))
    made.peer.send(b"turned aside")
    assert await other.readexactly(12) == b"turned aside"
    assert not made.reader._buffer
    await made.end()


@pytest.mark.parametrize("way", ["attribute", "dict", "new dict"])
@pytest.mark.parametrize(("owner", "name"), METHODS)
async def test_replaced_on_the_object(
    loop: Any, owner: Any, name: str, way: str
) -> None:
    made = await stream()
    assert await made.get(b"not yet") == b"not yet"
    calls: list[str] = []
    target = made.reader if owner is Reader else made.protocol
    replacement = counting(getattr(target, name), calls)
    if way == "attribute":
        setattr(target, name, replacement)
    elif way == "dict":
        vars(target)[name] = replacement
    else:
        target.__dict__ = {**vars(target), name: replacement}
    assert await made.get(b"seen") == b"seen"
    assert calls == [name]
    delattr(target, name)
    assert await made.get(b"not any more") == b"not any more"
    assert calls == [name]
    await made.end()


async def test_other_attributes_on_the_objects(loop: Any) -> None:
    made = await stream()
    made.reader.note = made.protocol.note = "the program's"
    assert await made.get(b"one") == b"one"
    assert vars(made.reader)["note"] == vars(made.protocol)["note"]
    assert await made.get(b"two") == b"two"
    del made.reader.note, made.protocol.note
    assert await made.get(b"three") == b"three"
    await made.end()


@pytest.mark.parametrize("name", ["feed_data", "_wakeup_waiter"])
async def test_subclass_of_the_reader(loop: Any, name: str) -> None:
    calls: list[str] = []
    method = counting(getattr(Reader, name), calls)
    subclass = type("Subclass", (Reader,), {name: method})
    made = await stream(subclass())
    assert await made.get(b"seen") == b"seen"
    assert calls == [name]
    await made.end()


async def test_subclasses_that_change_nothing(loop: Any) -> None:
    class Same(Reader):
        pass

    class AsWell(Protocol):
        pass

    made = await stream(Same(), AsWell)
    assert await made.get(b"data") == b"data"
    await made.end()


async def test_class_of_the_object_changed(loop: Any) -> None:
    class Loud(Reader):
        def feed_data(self, data: Any) -> None:
            super().feed_data(data.upper())

    made = await stream()
    assert await made.get(b"quiet") == b"quiet"
    made.reader.__class__ = Loud
    made.peer.send(b"loud")
    assert await made.reader.readexactly(4) == b"LOUD"
    made.reader.__class__ = Reader
    assert await made.get(b"quiet") == b"quiet"
    await made.end()


@pytest.mark.parametrize("name", ["_eof", "_buffer", "_waiter", "_limit"])
async def test_descriptor_in_the_place_of_an_attribute(
    loop: Any, monkeypatch: Any, name: str
) -> None:
    made = await stream()
    asked: list[Any] = []

    def get(self: Any) -> Any:
        asked.append(self)
        return vars(self)[name]

    def put(self: Any, value: Any) -> None:
        vars(self)[name] = value

    monkeypatch.setattr(Reader, name, property(get, put), raising=False)
    asked.clear()
    made.peer.send(b"seen")
    await until(lambda: asked)
    assert asked[0] is made.reader
    assert await made.reader.readexactly(4) == b"seen"
    monkeypatch.undo()
    assert await made.get(b"data") == b"data"
    await made.end()


async def test_lookup_replaced_on_the_class(loop: Any, monkeypatch: Any) -> None:
    made = await stream()
    names: list[str] = []

    def lookup(self: Any, name: str) -> Any:
        names.append(name)
        return object.__getattribute__(self, name)

    monkeypatch.setattr(Reader, "__getattribute__", lookup)
    made.peer.send(b"seen")
    await until(lambda: "feed_data" in names)
    monkeypatch.undo()
    assert await made.reader.readexactly(4) == b"seen"
    await made.end()


class Shouting(bytearray):
    def extend(self, data: Any) -> None:
        super().extend(bytes(data).upper())


async def test_buffer_of_another_kind(loop: Any) -> None:
    made = await stream()
    made.reader._buffer = Shouting()
    made.peer.send(b"loud")
    assert await made.reader.readexactly(4) == b"LOUD"
    mine = made.reader._buffer = bytearray(b"mine ")
    assert await made.buffered(b"and yours") == b"mine and yours"
    assert made.reader._buffer is mine
    made.reader._buffer = list[int]()
    made.peer.send(b"ab")
    await until(lambda: made.reader._buffer == [97, 98])
    await made.end()


async def test_buffer_in_use(loop: Any, reports: Any) -> None:
    made = await stream()
    await made.buffered(b"held")
    with memoryview(made.reader._buffer) as view:
        made.peer.send(b"more")
        await lost(made, reports, BufferError)
        assert view == b"held"


class Number(int):
    pass


@pytest.mark.parametrize(
    "limit", [1, 4, 0, -3, 2.5, True, Number(3), 10**30, sys.maxsize, -(10**30)]
)
async def test_pauses_beyond_twice_the_limit(loop: Any, limit: Any) -> None:
    made = await stream()
    for size in range(1, 12):
        pausing = Pausing()
        made.reader._buffer.clear()
        made.reader._transport = pausing
        made.reader._limit, made.reader._paused = limit, False
        await made.buffered(bytes(size))
        paused = size > 2 * limit
        assert (len(pausing.callers), made.reader._paused) == (paused, paused)
        assert made.reader._transport is pausing
    await made.end()


async def test_pause_and_resume_at_the_exact_byte(loop: Any) -> None:
    made = await stream(limit=8)
    await made.buffered(bytes(16))
    assert made.transport.is_reading() and not made.reader._paused
    await made.buffered(bytes(1))
    assert not made.transport.is_reading() and made.reader._paused
    made.peer.send(b"later")
    await made.reader.readexactly(8)
    assert not made.transport.is_reading()
    await made.reader.readexactly(1)
    assert made.transport.is_reading() and not made.reader._paused
    assert await made.reader.readexactly(13) == bytes(8) + b"later"
    await made.end()


async def test_no_pause_without_a_transport_or_twice(loop: Any) -> None:
    made = await stream(limit=1)
    made.reader._transport = None
    await made.buffered(bytes(10))
    assert made.transport.is_reading() and made.reader._paused is False
    pausing = made.reader._transport = Pausing()
    made.reader._paused = "yes"
    await made.buffered(bytes(10))
    assert not pausing.callers and made.reader._paused == "yes"
    made.reader._paused = False
    await made.end()


async def test_transport_that_cannot_pause(loop: Any) -> None:
    made = await stream(limit=1)
    pausing = made.reader._transport = Pausing(NotImplementedError())
    await made.buffered(bytes(10))
    assert len(pausing.callers) == 1
    assert made.reader._transport is None and made.reader._paused is False
    assert await made.get(bytes(10)) == bytes(10)
    await made.end()


async def test_pausing_fails(loop: Any, reports: Any) -> None:
    made = await stream(limit=1)
    pausing = made.reader._transport = Pausing(LookupError("expected"))
    made.peer.send(b"1234")
    await lost(made, reports, LookupError)
    assert len(pausing.callers) == 1
    assert made.reader._transport is pausing and made.reader._paused is False
    assert made.reader._buffer == b"1234"


async def test_waiter_that_was_cancelled(loop: Any) -> None:
    made = await stream()
    waiter = made.reader._waiter = loop.create_future()
    waiter.cancel()
    assert await made.buffered(b"data") == b"data"
    assert made.reader._waiter is None and waiter.cancelled()
    await made.end()


async def test_waiter_that_is_done(loop: Any, reports: Any) -> None:
    made = await stream()
    waiter = made.reader._waiter = loop.create_future()
    waiter.set_result("early")
    made.peer.send(b"data")
    await lost(made, reports, asyncio.InvalidStateError)
    assert made.reader._waiter is None and made.reader._buffer == b"data"


class Waiter:
    """As much of a future as a reader needs."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def cancelled(self) -> bool:
        self.calls.append("cancelled")
        return False

    def set_result(self, result: Any) -> None:
        self.calls.append(result)


async def test_waiter_of_another_kind(loop: Any) -> None:
    made = await stream()
    waiter = made.reader._waiter = Waiter()
    await made.buffered(b"data")
    assert waiter.calls == ["cancelled", None] and made.reader._waiter is None
    stock = made.reader._waiter = asyncio.Future()
    await made.buffered(b"data")
    assert stock.result() is None and made.reader._waiter is None
    await made.end()


async def test_waiter_is_woken_by_the_next_turn(loop: Any) -> None:
    made = await stream()
    order: list[str] = []
    waiter = made.reader._waiter = loop.create_future()
    waiter.add_done_callback(lambda _: order.append("woken"))
    made.reader._limit = 1
    made.reader._transport = Pausing()
    made.reader._transport.pause_reading = lambda: order.append("paused")
    await made.buffered(b"data")
    await until(lambda: len(order) == 2)
    assert order == ["paused", "woken"]
    await made.end()


async def test_data_after_the_end(loop: Any, reports: Any) -> None:
    made = await stream()
    await made.buffered(b"data")
    made.reader.feed_eof()
    made.peer.send(b"more")
    await lost(made, reports, AssertionError)
    assert made.reader._buffer == b"data"


@pytest.mark.parametrize("name", ["_eof", "_buffer", "_waiter", "_limit"])
async def test_attribute_deleted(loop: Any, reports: Any, name: str) -> None:
    made = await stream()
    delattr(made.reader, name)
    made.peer.send(b"data")
    await lost(made, reports, AttributeError)
    if name == "_waiter":  # connection_lost() asks for it again
        assert isinstance(reports.one()["exception"], AttributeError)


async def test_reader_that_is_gone(loop: Any) -> None:
    made = await stream()
    dropped, made.reader = made.reader, None
    del dropped
    made.peer.send(b"for nobody")
    await until_the_end(made)


async def test_another_reader_behind_the_protocol(loop: Any) -> None:
    made = await stream()
    other = Reader()
    made.protocol._stream_reader_wr = lambda: other
    made.peer.send(b"turned aside")
    assert await other.readexactly(12) == b"turned aside"
    made.protocol._stream_reader_wr = None
    made.peer.send(b"dropped")
    await until_the_end(made)
    assert not made.reader._buffer and not other._buffer


async def test_set_protocol_in_between(loop: Any) -> None:
    made = await stream()
    assert await made.get(b"mine") == b"mine"
    other: Any = Recorder(loop)
    other.connection_made(made.transport)
    made.transport.set_protocol(other)
    made.peer.send(b"other")
    await until(lambda: other.data == b"other")
    made.transport.set_protocol(made.protocol)
    assert await made.get(b"mine again") == b"mine again"
    assert other.data == b"other"
    await made.end()


async def test_debug_mode(loop: Any) -> None:
    loop.set_debug(True)
    made = await stream()
    assert made.reader._source_traceback
    assert await made.get(b"data") == b"data"
    await made.end()
    loop.set_debug(False)


@pytest.mark.parametrize("install", ["settrace", "setprofile"])
async def test_tools_see_the_calls(loop: Any, install: str) -> None:
    made = await stream()
    assert await made.get(b"before") == b"before"
    names: list[str] = []

    def note(frame: Any, event: str, arg: Any) -> None:
        if event == "call" and frame.f_code.co_filename == asyncio.streams.__file__:
            names.append(frame.f_code.co_name)

    reading = asyncio.create_task(made.get(b"data"))
    await turns(1)
    before = getattr(sys, install.replace("set", "get"))()
    getattr(sys, install)(note)
    try:
        await reading
    finally:
        getattr(sys, install)(before)
    called = ["data_received", "_stream_reader", "feed_data", "_wakeup_waiter"]
    assert [name for name in names if name in called] == called
    assert await made.get(b"after") == b"after"
    await made.end()


def test_patched_before_the_import(loop_kind: str) -> None:
    run_script(
        loop_kind,
        """
        import asyncio, os, socket

        stock = asyncio.StreamReader.feed_data
        calls = []

        def feed_data(self, data):
            calls.append(data)
            stock(self, data)

        asyncio.StreamReader.feed_data = feed_data

        async def main():
            near, far = socket.socketpair()
            reader, writer = await asyncio.open_connection(sock=near)
            far.send(b"seen")
            assert await reader.readexactly(4) == b"seen"
            assert calls == [b"seen"]
            far.close()
            writer.close()
            await writer.wait_closed()

        if os.environ["HOTLOOP_TEST_KIND"] == "hotloop":
            from hotloop import new_event_loop
        else:
            from asyncio import new_event_loop
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(main())
        """,
        prelude=False,
    )


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("name", ["reader", "protocol"])
async def test_attributes_that_were_taken_away(
    loop: Any, name: str, kept: bool
) -> None:
    made = await stream()
    target = getattr(made, name)
    values = dict(vars(target))
    held = vars(target) if kept else None
    del target.__dict__
    for attribute, value in values.items():
        setattr(target, attribute, value)
    assert await made.get(b"data") == b"data"
    assert held is None or held.keys() == values.keys()
    await made.end()

"""hotloop's streams: what their coroutines are, and what may be done to them."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import weakref
from collections.abc import Coroutine
from typing import Any

import pytest

from servers import stop
from support import collect, settle, tcp_pair, turns, until, wanted_kinds

if "hotloop" not in wanted_kinds():
    pytest.skip("hotloop is not wanted", allow_module_level=True)

import hotloop

READS = ("read", "readline", "readexactly", "readuntil", "__anext__")


def start(reader: Any, name: str) -> Any:
    return getattr(reader, name)(*([3] if name == "readexactly" else []))


async def pair(limit: int = 65536) -> tuple[Any, Any, Any]:
    """(reader, writer, plain socket at the far end)."""
    near, far = tcp_pair()
    reader, writer = await hotloop.open_connection(sock=near, limit=limit)
    return reader, writer, far


async def end(writer: Any, peer: Any) -> None:
    writer.close()
    await writer.wait_closed()
    peer.close()


async def lines(reader: Any, writer: Any) -> None:
    async for line in reader:
        writer.write(line)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


# ---- the functions ----


async def test_classes(loop: Any) -> None:
    made: list[Any] = []

    async def handler(reader: Any, writer: Any) -> None:
        made.extend((reader, writer))
        await lines(reader, writer)

    server = await hotloop.start_server(handler, "127.0.0.1", 0, limit=123)
    reader, writer = await hotloop.open_connection(*server.sockets[0].getsockname())
    writer.write(b"one\ntwo")
    writer.write_eof()
    assert await reader.read() == b"one\ntwo"
    for one in (reader, made[0]):
        assert type(one) is hotloop.StreamReader and isinstance(
            one, asyncio.StreamReader
        )
    for one in (writer, made[1]):
        assert type(one) is hotloop.StreamWriter and isinstance(
            one, asyncio.StreamWriter
        )
    assert isinstance(writer.transport.get_protocol(), asyncio.StreamReaderProtocol)
    assert made[0]._limit == 123 and reader._limit == 65536
    writer.close()
    await writer.wait_closed()
    await settle()
    await stop(server)


async def test_unix(loop: Any, tmp_path: Any) -> None:
    path = str(tmp_path / "socket")
    server = await hotloop.start_unix_server(lines, path, limit=50)
    reader, writer = await hotloop.open_unix_connection(path, limit=60)
    assert type(reader) is hotloop.StreamReader and reader._limit == 60
    writer.writelines([b"a", b"b\n"])
    assert await reader.readline() == b"ab\n"
    writer.close()
    await writer.wait_closed()
    await settle()
    await stop(server)


@pytest.mark.parametrize(
    "name",
    ["open_connection", "start_server", "open_unix_connection", "start_unix_server"],
)
def test_signatures(name: str) -> None:
    ours = inspect.signature(getattr(hotloop, name))
    stock = inspect.signature(getattr(asyncio, name))
    plain = [(p.name, p.kind, p.default) for p in ours.parameters.values()]
    assert plain == [(p.name, p.kind, p.default) for p in stock.parameters.values()]
    assert inspect.iscoroutinefunction(getattr(hotloop, name))


async def test_the_callback_fails(loop: Any, reports: Any) -> None:
    stock = inspect.getsource(asyncio.StreamReaderProtocol.connection_made)
    if "Unhandled exception" not in stock:
        pytest.skip("this asyncio does not look after the task")

    async def handler(reader: Any, writer: Any) -> None:
        raise LookupError("handler")

    server = await hotloop.start_server(handler, "127.0.0.1", 0)
    reader, writer = await hotloop.open_connection(*server.sockets[0].getsockname())
    assert await reader.read() == b""
    report = reports.one()
    assert report["message"] == "Unhandled exception in client_connected_cb"
    assert str(report["exception"]) == "handler"
    writer.close()
    await writer.wait_closed()
    await stop(server)


# ---- the coroutines ----


@pytest.mark.parametrize("name", READS)
async def test_is_a_coroutine(name: str, loop: Any) -> None:
    reader = hotloop.StreamReader(loop=loop)
    coroutine = start(reader, name)
    assert asyncio.iscoroutine(coroutine) and inspect.isawaitable(coroutine)
    assert isinstance(coroutine, Coroutine)
    assert coroutine.__name__ == name
    assert coroutine.__qualname__ == f"StreamReader.{name}"
    assert f"<coroutine object StreamReader.{name} at 0x" in repr(coroutine)
    assert not coroutine.cr_running and not coroutine.cr_suspended
    with pytest.raises(TypeError, match="can't send non-None value to a just-started"):
        coroutine.send(1)
    future = coroutine.send(None)
    assert future is reader._waiter and coroutine.cr_suspended
    with pytest.raises(RuntimeError, match="coroutine is being awaited already"):
        await coroutine
    coroutine.close()
    assert reader._waiter is None and not coroutine.cr_suspended
    for again in (coroutine, coroutine):
        with pytest.raises(
            RuntimeError, match="cannot reuse already awaited coroutine"
        ):
            await again
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        coroutine.throw(ValueError)
    coroutine.close()


@pytest.mark.parametrize("name", READS)
async def test_nothing_happens_before_it_is_awaited(name: str, loop: Any) -> None:
    reader = hotloop.StreamReader(loop=loop)
    reader.feed_data(b"ab\n")
    coroutine = start(reader, name)
    assert bytes(reader._buffer) == b"ab\n"
    reader.feed_eof()
    assert await coroutine == b"ab\n"
    started = start(reader, name)
    with pytest.raises(LookupError):
        started.throw(LookupError)
    with pytest.raises(RuntimeError, match="cannot reuse"):
        await started


@pytest.mark.parametrize("name", READS)
async def test_never_awaited(name: str, loop: Any) -> None:
    reader = hotloop.StreamReader(loop=loop)
    text = rf"coroutine 'StreamReader.{name}' was never awaited"
    with pytest.warns(RuntimeWarning, match=text):
        start(reader, name)
    start(reader, name).close()


async def test_dropped_while_it_waits(loop: Any) -> None:
    reader = hotloop.StreamReader(loop=loop)
    coroutine: Any = reader.readline()
    coroutine.send(None)
    assert reader._waiter is not None  # type: ignore[attr-defined]
    del coroutine
    assert reader._waiter is None  # type: ignore[attr-defined]
    reader.feed_data(b"line\n")
    assert await reader.readline() == b"line\n"


@pytest.mark.parametrize("name", READS)
async def test_already_waiting(name: str, loop: Any) -> None:
    reader = hotloop.StreamReader(loop=loop)
    task = loop.create_task(reader.read(1))
    await turns(1)
    called = name if name in ("read", "readexactly") else "readuntil"
    text = rf"{called}\(\) called while another coroutine is already waiting"
    with pytest.raises(RuntimeError, match=text):
        await start(reader, name)
    reader.feed_data(b"x")
    assert await task == b"x"


async def test_what_is_there_needs_no_future(loop: Any) -> None:
    reader, writer, peer = await pair()
    reader.feed_data(b"line\nuntil;exactly" + b"x" * 10)

    def result(coroutine: Any) -> Any:
        with pytest.raises(StopIteration) as caught:
            coroutine.send(None)
        return caught.value.value

    assert result(reader.readline()) == b"line\n"
    assert result(reader.readuntil(b";")) == b"until;"
    assert result(reader.readexactly(7)) == b"exactly"
    assert result(reader.read(4)) == b"xxxx"
    assert result(writer.drain()) is None
    await end(writer, peer)


@pytest.mark.parametrize("task_class", [asyncio.Task, hotloop.Task])
async def test_in_tasks_and_timeouts(task_class: Any, loop: Any) -> None:
    reader = hotloop.StreamReader(loop=loop)
    task = task_class(reader.readexactly(4), loop=loop)
    await turns(2)
    assert "StreamReader.readexactly" in repr(task)
    reader.feed_data(b"abcdef")
    assert await task == b"abcd"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.readexactly(3), 0.01)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await reader.readline()
    assert await asyncio.gather(reader.read(1), reader.read(1)) == [b"e", b"f"]


async def test_awaited_by_hand(loop: Any) -> None:
    class Awaitable:
        def __init__(self, reader: Any) -> None:
            self.reader = reader

        def __await__(self) -> Any:
            line = yield from self.reader.readline().__await__()
            return line, (yield from self.reader.readline())

    reader = hotloop.StreamReader(loop=loop)
    reader.feed_data(b"one\n")
    loop.call_soon(reader.feed_data, b"two\n")
    assert await Awaitable(reader) == (b"one\n", b"two\n")


async def test_results_are_not_kept(loop: Any) -> None:
    class Line(bytes):
        pass

    reader = hotloop.StreamReader(loop=loop)
    reader.set_exception(asyncio.IncompleteReadError(Line(b"partial"), None))
    line: Any = await reader.readline()
    assert type(line) is Line
    before = sys.getrefcount(line)
    reader.feed_data(b"x\n")
    for _ in range(3):
        assert await reader.readline() is line
    assert sys.getrefcount(line) == before


async def test_a_stop_iteration_that_somebody_keeps(loop: Any) -> None:
    reader = hotloop.StreamReader(loop=loop)
    reader.feed_data(b"one\ntwo\n")
    kept = []
    for _ in range(2):
        with pytest.raises(StopIteration) as caught:
            reader.readline().send(None)
        kept.append(caught.value)
    assert [stop.value for stop in kept] == [b"one\n", b"two\n"]
    assert [stop.args for stop in kept] == [(b"one\n",), (b"two\n",)]


async def test_stop_iteration_is_no_result(loop: Any) -> None:
    reader = hotloop.StreamReader(loop=loop)
    reader._exception = StopIteration("set")  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="coroutine raised StopIteration") as caught:
        await reader.read(1)
    assert isinstance(caught.value.__cause__, StopIteration)


# ---- subclasses, replaced methods, other loops ----


async def test_a_subclass_in_python(loop: Any) -> None:
    seen: list[Any] = []

    class Reader(hotloop.StreamReader):
        def feed_data(self, data: Any) -> None:
            seen.append(data)
            super().feed_data(data.upper())

        async def readuntil(self, separator: Any = b"\n") -> bytes:
            seen.append(separator)
            return await super().readuntil(separator)

    reader = Reader(loop=loop)
    reader.note = "in the dict"  # type: ignore[attr-defined]
    reader.feed_data(b"line\n")
    assert await reader.readline() == b"LINE\n"
    assert seen == [b"line\n", b"\n"]
    ref = weakref.ref(reader)
    del reader
    collect()
    assert ref() is None


@pytest.mark.parametrize("where", ["instance", "class", "base"])
async def test_a_replaced_method(where: str, loop: Any, monkeypatch: Any) -> None:
    reader, writer, peer = await pair()
    peer.send(b"before\n")
    assert await reader.readline() == b"before\n"
    seen: list[bytes] = []
    if where == "instance":
        reader.feed_data = seen.append
    else:
        cls = hotloop.StreamReader if where == "class" else asyncio.StreamReader
        monkeypatch.setattr(cls, "feed_data", lambda self, data: seen.append(data))
    peer.send(b"after")
    await until(lambda: seen)
    assert seen == [b"after"]
    await end(writer, peer)


async def test_replaced_writing(loop: Any, monkeypatch: Any) -> None:
    _, writer, peer = await pair()
    seen: list[bytes] = []
    writer.transport.write = seen.append
    writer.write(b"one")
    del writer.transport.write
    core = type(writer.transport)
    with monkeypatch.context() as patch:
        patch.setattr(core, "write", lambda self, data: seen.append(data))
        writer.write(b"two")
    writer.write(b"three")
    assert seen == [b"one", b"two"] and await loop.sock_recv(peer, 9) == b"three"
    await end(writer, peer)


async def test_replaced_drain_helper(loop: Any) -> None:
    _, writer, peer = await pair()
    called: list[int] = []

    async def helper() -> None:
        called.append(1)
        await asyncio.sleep(0)

    writer._protocol._drain_helper = helper
    await writer.drain()
    assert called == [1]
    await end(writer, peer)


async def test_drain(loop: Any) -> None:
    reader, writer, peer = await pair()
    protocol = writer._protocol
    protocol.pause_writing()
    tasks = [loop.create_task(writer.drain()) for _ in range(3)]
    await turns(2)
    assert not any(task.done() for task in tasks)
    tasks[0].cancel()
    await turns(2)
    protocol.resume_writing()
    assert await asyncio.gather(*tasks[1:]) == [None, None]
    assert tasks[0].cancelled()
    reader.set_exception(LookupError("set"))
    with pytest.raises(LookupError, match="set"):
        await writer.drain()
    reader._exception = None
    await end(writer, peer)
    with pytest.raises(ConnectionResetError, match="Connection lost"):
        await writer.drain()


async def test_drain_yields_once_while_closing(loop: Any) -> None:
    _, writer, peer = await pair()
    writer.write(b"x" * (1 << 24))
    writer.close()
    coroutine = writer.drain()
    assert coroutine.send(None) is None
    coroutine.close()
    writer.transport.abort()
    await end(writer, peer)


async def test_limits_that_are_no_sizes(loop: Any) -> None:
    with pytest.raises(ValueError, match="Limit cannot be <= 0"):
        hotloop.StreamReader(limit=0, loop=loop)
    with pytest.raises(TypeError):
        hotloop.StreamReader(nonsense=1)  # type: ignore[call-arg]
    for limit in (2**70, 5.5, float("inf")):
        reader: Any = hotloop.StreamReader(limit=limit, loop=loop)  # type: ignore[arg-type]
        assert reader._limit == limit
        reader.feed_data(b"abc\n")
        assert await reader.readline() == b"abc\n"
    reader = hotloop.StreamReader(limit=5.5, loop=loop)  # type: ignore[arg-type]
    reader.feed_data(b"x" * 6 + b"\n")
    with pytest.raises(ValueError, match="longer than limit"):
        await reader.readline()


async def test_bytes_like_data(loop: Any) -> None:
    reader: Any = hotloop.StreamReader(loop=loop)
    for data in (bytearray(b"a"), memoryview(b"b"), [99], b""):
        reader.feed_data(data)
    reader.feed_data(reader._buffer)
    with pytest.raises(TypeError):
        reader.feed_data("text")
    reader.feed_eof()
    with pytest.raises(AssertionError, match="feed_data after feed_eof"):
        reader.feed_data(b"late")
    assert await reader.read() == b"abcabc"


async def test_without_what_init_sets(loop: Any) -> None:
    bare: Any = hotloop.StreamReader.__new__(hotloop.StreamReader)
    for name in READS:
        with pytest.raises(AttributeError):
            await start(bare, name)
    bare._limit = 10
    for name in READS:
        with pytest.raises(AttributeError):
            await start(bare, name)
    bare.feed_data(b"x" * 100 + b"\n")
    assert await bare.read(200) == b"x" * 100 + b"\n"
    reader, writer, peer = await pair()
    del reader._loop, reader._transport, reader._exception
    with pytest.raises(AttributeError):
        await reader.read(1)
    protocol = writer._protocol
    transport = writer.transport
    del writer._protocol
    with pytest.raises(AttributeError):
        await writer.drain()
    del writer._transport
    for method in (writer.close, writer.is_closing):
        with pytest.raises(AttributeError):
            method()
    with pytest.raises(AttributeError):
        writer.write(b"x")
    writer._transport, writer._protocol = transport, protocol
    del protocol._stream_reader_wr
    protocol._stream_reader_wr = None
    peer.send(b"to nobody")
    await turns(3)
    await end(writer, peer)


async def test_garbage(loop: Any) -> None:
    reader: Any = hotloop.StreamReader(loop=loop)
    reader.cycle = reader
    task = loop.create_task(reader.readline())
    await turns(1)
    ref = weakref.ref(reader)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del reader, task
    gc.collect()
    assert ref() is None


def test_on_a_loop_of_another_kind() -> None:
    async def main() -> None:
        server = await hotloop.start_server(lines, "127.0.0.1", 0)
        reader, writer = await hotloop.open_connection(*server.sockets[0].getsockname())
        assert type(reader) is hotloop.StreamReader
        for number in range(10):
            writer.write(b"%d\n" % number)
            await writer.drain()
            assert await reader.readline() == b"%d\n" % number
        writer.close()
        await writer.wait_closed()
        await settle()
        await stop(server)

    for loop_class in (asyncio.SelectorEventLoop, hotloop.new_event_loop):
        with asyncio.Runner(loop_factory=loop_class) as runner:
            runner.run(main())

"""The switch that has asyncio's stream functions make hotloop's classes."""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
from asyncio import open_connection as imported_before
from collections.abc import Iterator
from typing import Any

import pytest

from servers import stop
from support import settle, wanted_kinds

if "hotloop" not in wanted_kinds():
    pytest.skip("hotloop is not wanted", allow_module_level=True)

import hotloop

STOCK = (asyncio.StreamReader, asyncio.StreamWriter, asyncio.StreamReaderProtocol)


@pytest.fixture
def switched() -> Iterator[None]:
    hotloop.install_streams()
    yield
    hotloop.uninstall_streams()


async def lines(reader: Any, writer: Any) -> None:
    async for line in reader:
        writer.write(line)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def classes(connect: Any = imported_before, **kwds: Any) -> set[Any]:
    """The classes of the ends of a connection that has worked."""
    made: set[Any] = set()

    async def handler(reader: Any, writer: Any) -> None:
        made.update((type(reader), type(writer)))
        await lines(reader, writer)

    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    reader, writer = await connect(*server.sockets[0].getsockname(), **kwds)
    made.update((type(reader), type(writer)))
    writer.write(b"line\n")
    await writer.drain()
    assert await reader.readline() == b"line\n"
    writer.close()
    await writer.wait_closed()
    await settle()
    await stop(server)
    return made


OURS = {hotloop.StreamReader, hotloop.StreamWriter}
ASYNCIOS = {asyncio.StreamReader, asyncio.StreamWriter}


async def test_off_on_off(loop: Any, loop_kind: str) -> None:
    expected = OURS if loop_kind == "hotloop" else ASYNCIOS
    assert await classes() == ASYNCIOS
    hotloop.install_streams()
    hotloop.install_streams()
    assert await classes() == expected
    hotloop.uninstall_streams()
    assert await classes(asyncio.streams.open_connection) == expected
    hotloop.uninstall_streams()
    assert await classes() == ASYNCIOS
    with pytest.raises(RuntimeError, match="was not called"):
        hotloop.uninstall_streams()


def test_nothing_is_left() -> None:
    class Before(asyncio.StreamReader):
        pass

    hotloop.install_streams()

    class Within(asyncio.StreamReader):
        pass

    texts = [str(inspect.signature(cls)) for cls in STOCK]
    hotloop.uninstall_streams()
    assert [str(inspect.signature(cls)) for cls in STOCK] == texts
    for cls in STOCK:
        assert "__new__" not in vars(cls) and cls.__new__ is object.__new__
    loop = asyncio.SelectorEventLoop()
    for cls in (asyncio.StreamReader, Before, Within):
        reader: Any = cls(limit=5, loop=loop)
        assert type(reader) is cls and reader._limit == 5
        with pytest.raises(TypeError):
            cls(nonsense=5)
    loop.close()


def test_a_new_of_somebody_else(monkeypatch: Any) -> None:
    seen: list[Any] = []

    def new(cls: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs)
        return object.__new__(cls)

    loop = asyncio.SelectorEventLoop()
    asyncio.StreamReader.__new__ = new  # type: ignore[method-assign]
    try:
        hotloop.install_streams()
        asyncio.StreamReader(limit=7, loop=loop)
        hotloop.uninstall_streams()
        assert vars(asyncio.StreamReader)["__new__"] is new
        assert seen == [{"limit": 7, "loop": loop}]
    finally:
        del asyncio.StreamReader.__new__
        core: Any = sys.modules["hotloop._core"]
        core._restore_new(asyncio.StreamReader)
        loop.close()


async def test_subclasses_are_left_alone(loop: Any, switched: None) -> None:
    class Reader(asyncio.StreamReader):
        pass

    reader = Reader(limit=9, loop=loop)
    assert type(reader) is Reader
    reader.feed_data(b"line\n")
    assert await reader.readline() == b"line\n"


async def test_made_by_hand(loop: Any, loop_kind: str, switched: None) -> None:
    reader = asyncio.StreamReader(7)
    assert isinstance(reader, asyncio.StreamReader) and reader._limit == 7  # type: ignore[attr-defined]
    assert isinstance(reader, hotloop.StreamReader) == (loop_kind == "hotloop")
    with pytest.raises(TypeError):
        asyncio.StreamReader(7, loop, "too many")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        asyncio.StreamReaderProtocol()  # type: ignore[call-arg]


def test_run() -> None:
    async def main() -> set[Any]:
        found = await classes()
        elsewhere: list[set[Any]] = []
        thread = threading.Thread(
            target=lambda: elsewhere.append(asyncio.run(classes()))
        )
        thread.start()
        await asyncio.to_thread(thread.join)
        assert elsewhere == [ASYNCIOS]
        return found

    assert hotloop.run(main(), streams=True) == OURS
    assert hotloop.run(classes()) == ASYNCIOS
    with pytest.raises(ZeroDivisionError):
        hotloop.run(fail(), streams=True)
    assert "__new__" not in vars(asyncio.StreamReader)


async def fail() -> None:
    raise ZeroDivisionError


async def test_tls(loop: Any, loop_kind: str, tls: Any, switched: None) -> None:
    server_side, client_side = tls
    server = await hotloop.start_server(lines, "127.0.0.1", 0, ssl=server_side)
    reader, writer = await asyncio.open_connection(
        *server.sockets[0].getsockname(), ssl=client_side, server_hostname="localhost"
    )
    assert isinstance(reader, hotloop.StreamReader) == (loop_kind == "hotloop")
    body = b"x" * 50_000 + b"\n"
    for _ in range(20):
        writer.write(body)
        await writer.drain()
        assert await reader.readline() == body
    writer.close()
    await writer.wait_closed()
    await settle()
    await stop(server)


async def test_start_tls(loop: Any, tls: Any) -> None:
    server_side, client_side = tls

    async def handler(reader: Any, writer: Any) -> None:
        assert await reader.readline() == b"starttls\n"
        writer.write(b"go\n")
        await writer.start_tls(server_side)
        await lines(reader, writer)

    server = await hotloop.start_server(handler, "127.0.0.1", 0)
    reader, writer = await hotloop.open_connection(*server.sockets[0].getsockname())
    writer.write(b"starttls\n")
    assert await reader.readline() == b"go\n"
    await writer.start_tls(client_side, server_hostname="localhost")
    assert writer.get_extra_info("ssl_object") is not None
    writer.write(b"secret\n")
    assert await reader.readline() == b"secret\n"
    writer.close()
    await writer.wait_closed()
    await settle()
    await stop(server)


async def test_subprocess(loop: Any, loop_kind: str, switched: None) -> None:
    code = "import sys\nfor line in sys.stdin: sys.stdout.write(line.upper()); "
    code += "sys.stdout.flush()\nsys.stderr.write('bye')"
    process: Any = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code), stdin=-1, stdout=-1, stderr=-1
    )
    ours = loop_kind == "hotloop"
    for reader in (process.stdout, process.stderr):
        assert isinstance(reader, hotloop.StreamReader) == ours
    assert isinstance(process.stdin, hotloop.StreamWriter) == ours
    process.stdin.write(b"line\n")
    await process.stdin.drain()
    assert await process.stdout.readline() == b"LINE\n"
    big = b"x" * 300_000 + b"\n"
    assert await process.communicate(big) == (big.upper(), b"bye")
    assert await process.wait() == 0

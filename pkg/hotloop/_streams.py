"""Streams in C: asyncio's open_connection() and start_server() with our classes.

The classes are subclasses of asyncio's and keep what is hot in C. The functions
differ from asyncio's in the classes alone. What makes a new connection known to
the program, ``connection_made()``, is the running asyncio's own code, with our
StreamWriter in the place of its.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from asyncio import streams as _stock
from collections.abc import Callable
from types import FunctionType
from typing import Any

from . import _core
from ._core import StreamReader, StreamWriter
from ._loop import Loop

DEFAULT_LIMIT = 2**16
Connected = Callable[[StreamReader, StreamWriter], Any]

_connection_made: Any = _stock.StreamReaderProtocol.connection_made


def _with_our_writer(stock: Any) -> Any:
    """asyncio's method with StreamWriter in C; itself where that cannot be."""
    if (
        type(stock) is not FunctionType
        or stock.__closure__ is not None
        or stock.__globals__ is not vars(_stock)
    ):
        return stock
    return FunctionType(
        stock.__code__, {**vars(_stock), "StreamWriter": StreamWriter}, stock.__name__
    )


_made: Any = _with_our_writer(_connection_made)


class StreamProtocol(_core.StreamReaderProtocol):
    """What stands between a transport and a reader and writer in C."""

    def connection_made(self, transport: Any) -> None:
        """Do what asyncio does, or what a program has put in its place."""
        if _stock.StreamReaderProtocol.connection_made is _connection_made:
            _made(self, transport)
        else:
            super().connection_made(transport)


async def open_connection(
    host: str | None = None,
    port: int | str | None = None,
    *,
    limit: int = DEFAULT_LIMIT,
    **kwds: Any,
) -> tuple[StreamReader, StreamWriter]:
    """Connect, and return a reader and a writer in C.

    As ``asyncio.open_connection()``: further arguments are those of
    ``loop.create_connection()``.
    """
    loop: Any = asyncio.get_running_loop()
    reader = StreamReader(limit=limit, loop=loop)
    protocol = StreamProtocol(reader, loop=loop)
    transport, _ = await loop.create_connection(lambda: protocol, host, port, **kwds)
    return reader, StreamWriter(transport, protocol, reader, loop)


async def start_server(
    client_connected_cb: Connected,
    host: Any = None,
    port: int | str | None = None,
    *,
    limit: int = DEFAULT_LIMIT,
    **kwds: Any,
) -> asyncio.Server:
    """Listen, and call back with a reader and a writer in C for each client.

    As ``asyncio.start_server()``: further arguments are those of
    ``loop.create_server()``.
    """
    loop: Any = asyncio.get_running_loop()

    def factory() -> StreamProtocol:
        reader = StreamReader(limit=limit, loop=loop)
        return StreamProtocol(reader, client_connected_cb, loop=loop)

    server: asyncio.Server = await loop.create_server(factory, host, port, **kwds)
    return server


async def open_unix_connection(
    path: Any = None, *, limit: int = DEFAULT_LIMIT, **kwds: Any
) -> tuple[StreamReader, StreamWriter]:
    """Do what ``open_connection()`` does, for a Unix socket."""
    loop: Any = asyncio.get_running_loop()
    reader = StreamReader(limit=limit, loop=loop)
    protocol = StreamProtocol(reader, loop=loop)
    transport, _ = await loop.create_unix_connection(lambda: protocol, path, **kwds)
    return reader, StreamWriter(transport, protocol, reader, loop)


async def start_unix_server(
    client_connected_cb: Connected,
    path: Any = None,
    *,
    limit: int = DEFAULT_LIMIT,
    **kwds: Any,
) -> asyncio.Server:
    """Do what ``start_server()`` does, for a Unix socket."""
    loop: Any = asyncio.get_running_loop()

    def factory() -> StreamProtocol:
        reader = StreamReader(limit=limit, loop=loop)
        return StreamProtocol(reader, client_connected_cb, loop=loop)

    server: asyncio.Server = await loop.create_unix_server(factory, path, **kwds)
    return server


# ---- the switch ----

# asyncio's class, ours, and where the loop is among the arguments.
_CLASSES: list[tuple[Any, Any, int]] = [
    (_stock.StreamReader, StreamReader, 1),
    (_stock.StreamWriter, StreamWriter, 3),
    (_stock.StreamReaderProtocol, StreamProtocol, 2),
]
_lock = threading.Lock()
_installed = 0
_replaced: list[Any] = []  # what the classes had as __new__ of their own, or None


def _divert(stock: Any, ours: Any, position: int) -> None:
    """Have calls of the class make ours when the loop is one of hotloop's."""
    before = stock.__new__
    plain = before is object.__new__

    def __new__(cls: Any, /, *args: Any, **kwargs: Any) -> Any:
        if cls is stock:
            loop = kwargs.get("loop")
            if loop is None and len(args) > position:
                loop = args[position]
            if loop is None:
                loop = asyncio._get_running_loop()
            if isinstance(loop, Loop):
                return ours.__new__(ours)
        if not plain:
            return before(cls, *args, **kwargs)
        following = super(stock, cls).__new__  # of another base, perhaps
        if following is object.__new__:
            return following(cls)
        return following(cls, *args, **kwargs)

    _replaced.append(vars(stock).get("__new__"))
    made: Any = __new__
    made.__signature__ = inspect.signature(stock.__init__)
    stock.__new__ = made


def install_streams() -> None:
    """Have asyncio's own stream functions make hotloop's readers and writers.

    From now on ``asyncio.open_connection()``, ``start_server()``, their Unix forms
    and the pipes of ``asyncio.create_subprocess_exec()`` do, wherever they were
    imported from, if the loop is one of hotloop's; others are not concerned. Until
    ``uninstall_streams()`` was called as often.
    """
    global _installed
    with _lock:
        _installed += 1
        if _installed == 1:
            for stock, ours, position in _CLASSES:
                _divert(stock, ours, position)


def uninstall_streams() -> None:
    """Undo one ``install_streams()``; what was made stays as it is."""
    global _installed
    with _lock:
        if _installed == 0:
            raise RuntimeError("install_streams() was not called")
        _installed -= 1
        if _installed == 0:
            for (stock, _, _), own in zip(_CLASSES, _replaced, strict=True):
                if own is None:
                    del stock.__new__
                    _core._restore_new(stock)
                else:
                    stock.__new__ = own
            _replaced.clear()

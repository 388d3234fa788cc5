"""Every class and function of hotloop, and how an instance is come by.

What there is to call is found by looking, so new things are called as well; a test
fails where no instance of a class can be made.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import os
import socket
import ssl
import traceback
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import hotloop
from hotloop import _core

from .hostile import Arena

MODULES: list[ModuleType] = [hotloop, _core]
# Made by the interpreter's machinery alone: nothing of them can be called.
INTERNAL = {"AioState", "Packet", "TaskRef"}


def classes() -> dict[str, type]:
    """By name, also those that are no attribute of the modules."""
    found = {}
    for module in MODULES:
        for name, thing in vars(module).items():
            if isinstance(thing, type) and is_ours(thing):
                found[name] = thing
    for base in [object, *found.values()]:
        for thing in type.__subclasses__(base):
            if is_ours(thing) and thing.__module__ == _core.__name__:
                found.setdefault(thing.__name__, thing)
    found["Loop"] = hotloop.Loop
    return {name: found[name] for name in sorted(found) if name not in INTERNAL}


def is_ours(thing: Any) -> bool:
    return str(getattr(thing, "__module__", "")).split(".")[0] == "hotloop"


def functions() -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of policies
        found = {name: getattr(hotloop, name) for name in hotloop.__all__}
    for module in MODULES:
        found.update(vars(module))
    return {
        name: found[name]
        for name in sorted(found)
        if callable(found[name]) and is_ours(found[name]) and name not in classes()
    }


def names_of(thing: Any) -> list[str]:
    """What can be called or read of an instance."""
    left_out = {"__class__", "__subclasshook__", "__init_subclass__", "__new__"}
    left_out |= {"__getattribute__", "__dir__", "__sizeof__", "__doc__"}
    return sorted(set(dir(thing)) - left_out)


async def connected(arena: Arena, protocol: Any = None) -> Any:
    one, two = socket.socketpair()
    one.setblocking(False)
    arena.kept.append(two)
    loop = asyncio.get_running_loop()
    protocol = protocol or asyncio.Protocol()
    return (await loop.connect_accepted_socket(lambda: protocol, one))[0]


async def a_stream(arena: Arena) -> tuple[Any, Any]:
    loop = asyncio.get_running_loop()
    ours = isinstance(loop, hotloop.Loop)
    space: Any = _core if ours else asyncio
    reader = space.StreamReader(loop=loop)
    protocol = space.StreamReaderProtocol(reader, loop=loop)
    transport = await connected(arena, protocol)
    return reader, space.StreamWriter(transport, protocol, reader, loop)


async def a_datagram(arena: Arena) -> Any:
    loop = asyncio.get_running_loop()
    made = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    return made[0]


async def a_pipe(arena: Arena, writing: bool) -> Any:
    loop: Any = asyncio.get_running_loop()
    ends = os.pipe()
    files = os.fdopen(ends[0], "rb", 0), os.fdopen(ends[1], "wb", 0)
    arena.kept += files
    connect = loop.connect_write_pipe if writing else loop.connect_read_pipe
    return (await connect(asyncio.Protocol, files[writing]))[0]


async def a_tls(arena: Arena) -> Any:
    """One whose handshake does not come to an end."""
    loop = asyncio.get_running_loop()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    plain = await connected(arena)
    starting = loop.create_task(
        loop.start_tls(plain, asyncio.Protocol(), context, server_hostname="x")
    )
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    transports = [one for one in gc.get_objects() if type(one) is _core.SSLTransport]
    mine = [one for one in transports if one.get_extra_info("peername") is not None]
    starting.cancel()
    return (mine or transports)[-1]


async def never() -> None:
    await asyncio.get_running_loop().create_future()


async def an_operation(arena: Arena) -> Any:
    reader, _ = await a_stream(arena)
    made = reader.read(1)
    arena.kept.append(made)
    return made


async def a_sock_wait(arena: Arena) -> Any:
    loop: Any = asyncio.get_running_loop()
    one, two = socket.socketpair()
    one.setblocking(False)
    arena.kept += [one, two]
    return through_coroutine(loop.sock_recv(one, 10), _core.SockWait)


def through_coroutine(made: Any, wanted: type) -> Any:
    """What a coroutine awaits within, once it waits."""
    if isinstance(made, wanted):
        return made
    with contextlib.suppress(StopIteration):
        made.send(None)
    inner = made
    while inner is not None and not isinstance(inner, wanted):
        inner = getattr(inner, "cr_await", None) or getattr(inner, "gi_yieldfrom", None)
    return inner


async def by_type(name: str, start: Callable[[], Any]) -> Any:
    """An object that nobody hands out, while what needs it is going on."""
    wanted = classes()[name]
    keeps = start()
    if inspect.isawaitable(keeps):
        keeps = asyncio.ensure_future(keeps)
        await asyncio.sleep(0)
    for one in gc.get_objects():
        if type(one) is wanted:
            return one
    with contextlib.suppress(Exception):
        keeps.close()
    return None


async def make(name: str, arena: Arena) -> Any:
    """A living instance of the class of this name, or asyncio's of the same use."""
    loop: Any = asyncio.get_running_loop()
    match name:
        case "Loop":
            return loop
        case "Future":
            return loop.create_future()
        case "Task":
            return loop.create_task(never())
        case "Handle":
            return loop.call_soon(len, ())
        case "TimerHandle":
            return loop.call_later(arena.rng.choice([0.001, 1e6]), len, ())
        case "SocketTransport":
            return await connected(arena)
        case "DatagramTransport":
            return await a_datagram(arena)
        case "ReadPipeTransport":
            return await a_pipe(arena, False)
        case "WritePipeTransport":
            return await a_pipe(arena, True)
        case "SSLTransport":
            return await a_tls(arena)
        case "StreamReader":
            return (await a_stream(arena))[0]
        case "StreamWriter":
            return (await a_stream(arena))[1]
        case "StreamReaderProtocol":
            return (await a_stream(arena))[1].transport.get_protocol()
        case "FutureIter":
            return loop.create_future().__await__()
        case "StreamOperation":
            return await an_operation(arena)
        case "SockWait":
            return await a_sock_wait(arena)
    return await make_hidden(name, arena)


async def make_hidden(name: str, arena: Arena) -> Any:
    loop: Any = asyncio.get_running_loop()
    if name == "WorkItem":
        return loop._work(len, ((),))
    if name == "Listener":
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        arena.kept.append(server)
        return await by_type(name, lambda: server)
    if name == "Connector":
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        arena.kept.append(listener)
        family, kind = socket.AF_INET, socket.SOCK_STREAM
        return loop._connect(family, kind, 0, listener.getsockname())
    if name == "TaskStepMethWrapper":
        return a_step(loop)
    return make_told(name, loop)


def make_told(name: str, loop: Any) -> Any:
    """What a loop tells of itself."""
    match name:
        case "Metrics":
            return loop.metrics()
        case "Histogram":
            return loop.metrics().lag
        case "ProfileEntry":
            return hotloop.ProfileEntry("len", "callback", "", 0, 2, 0.5, 0.25)
        case "BlockedCallback":
            stack = traceback.extract_stack()
            return hotloop.BlockedCallback(
                loop, "len", 1.0, 0.5, 1, "one", stack, 0.0, False
            )
    return None


def a_step(loop: Any) -> Any:
    """What a loop whose call_soon() is somebody else's is given to call."""
    steps: list[Any] = []
    real = loop.call_soon

    def call_soon(callback: Any, *args: Any, context: Any = None) -> Any:
        steps.append(callback)
        return real(callback, *args, context=context)

    loop.call_soon = call_soon
    try:
        loop.create_task(never())
    finally:
        del loop.call_soon
    return steps[0] if steps else None

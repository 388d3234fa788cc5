"""Values that no function wants: wrong types, odd numbers, objects that bite.

A value is made for an Arena, whose things a hostile object may break while it is
used: from __eq__(), __hash__(), __index__(), __del__() and the like it closes the
loop, cancels, calls the object under test again, or raises.
"""

from __future__ import annotations

import array
import asyncio
import contextvars
import gc
import random
import socket
from collections.abc import Callable
from typing import Any


class HostileError(Exception):
    """Raised by hostile objects."""


class Arena:
    """What one case works on: a loop, and the object under test."""

    def __init__(self, loop: Any, rng: random.Random) -> None:
        self.loop = loop
        self.rng = rng
        self.target: Any = None
        self.plain = True  # nothing hostile was made: outcomes can be compared
        self.depth = 0
        self.kept: list[Any] = []  # what is to be closed

    def mischief(self) -> None:
        """Break something; it may raise, too."""
        if self.depth > 2:
            return
        self.depth += 1
        try:
            self.rng.choice(MISCHIEF)(self)
        finally:
            self.depth -= 1


def call_again(arena: Arena) -> None:
    """Use the object under test while it is used."""
    names = [name for name in dir(arena.target) if not name.startswith("__")]
    if names:
        value = getattr(arena.target, arena.rng.choice(names))
        if callable(value) and value.__name__ not in BLOCKING:
            value(*[simple(arena) for _ in range(arena.rng.randrange(3))])


def begin_again(arena: Arena) -> None:
    arena.target.__init__(*[simple(arena) for _ in range(arena.rng.randrange(3))])


def delete(arena: Arena) -> None:
    names = list(getattr(arena.target, "__dict__", ()))
    names += [name for name in dir(arena.target) if name.startswith("_")][-20:]
    delattr(arena.target, arena.rng.choice(names))


def raise_error(arena: Arena) -> None:
    raise HostileError


def cancel_all(arena: Arena) -> None:
    for task in asyncio.all_tasks(arena.loop):
        task.cancel()


def close_loop(arena: Arena) -> None:
    if not arena.loop.is_running():
        arena.loop.close()


# What waits for something that may never come.
BLOCKING = {
    "run_forever",
    "run_until_complete",
    "run",
    "_run_once",
    "_run_forever_setup",
    "_run_forever_cleanup",
}
MISCHIEF: list[Callable[[Arena], Any]] = [
    call_again,
    call_again,
    begin_again,
    delete,
    raise_error,
    cancel_all,
    close_loop,
    lambda arena: arena.loop.stop(),
    lambda arena: arena.loop.call_soon(arena.mischief),
    lambda arena: arena.target.__dict__.clear(),
    lambda arena: arena.target.close(),
    lambda arena: arena.target.cancel(),
    lambda arena: gc.collect(0),
]


def biting(arena: Arena, value: Any) -> Callable[..., Any]:
    """A method that breaks something and then returns the value."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        arena.mischief()
        return value

    return method


def hostile_object(arena: Arena, base: type = object) -> Any:
    """An object with a handful of methods that bite."""
    arena.plain = False
    rng = arena.rng
    returns: dict[str, list[Any]] = {
        "__eq__": [True, False, NotImplemented],
        "__hash__": [0, -1, 2**70, "no"],
        "__index__": [0, 7, -1, 2**40, 1.5],
        "__float__": [0.0, float("nan"), 1, "x"],
        "__bool__": [True, False, 2],
        "__len__": [0, 3, -1, 2**62],
        "__iter__": [iter(()), iter([1, b"x"]), 5],
        "__next__": [1, None],
        "__await__": [iter(()), iter([None]), iter([1]), 5, None],
        "__call__": [None, 5],
        "__repr__": ["x", 5, "\udc80"],
        "__str__": ["x", None],
        "__fspath__": ["/nowhere", 5],
        "fileno": [-1, 10**6, "x", 2**70],
        "__getattr__": [None, 5, lambda *args, **kwargs: None],
        "__buffer__": [memoryview(b"abc"), 5],
        "__get__": [None],
        "__lt__": [True, False],
        "__add__": [1, None],
        "__radd__": [1.0, None],
        "__enter__": [None],
        "__del__": [None],
        "get_loop": [arena.loop, None],
        "add_done_callback": [None],
        "send": [None],
        "throw": [None],
        "close": [None],
        "result": [None],
    }
    if base is not object:
        for name in ("__getattr__", "__len__", "__get__", "__repr__"):
            del returns[name]
    names = rng.sample(sorted(returns), rng.randrange(1, 9))
    body = {name: biting(arena, rng.choice(returns[name])) for name in names}
    if "__eq__" in body and "__hash__" not in body:
        body["__hash__"] = lambda self: 1
    if rng.random() < 0.1:
        body["_asyncio_future_blocking"] = rng.choice([True, False, None, 5])
    if rng.random() < 0.1:
        body["__class__"] = property(biting(arena, asyncio.Future))
    made = type("Hostile", (base,), body)
    if base is str:
        return made(rng.choice(["", "x", "localhost"]))
    if base is bytes:
        return made(rng.choice([b"", b"x", b"\n" * 70000]))
    if base is int:
        return made(rng.choice([0, 1, 5, -1, 2**40]))
    if base is float:
        return made(rng.choice([0.0, 0.01, -1.0]))
    if base is BaseException:
        return made()
    return made() if base is object else made(())


def released(arena: Arena) -> memoryview:
    view = memoryview(bytearray(b"gone"))
    view.release()
    return view


async def coroutine() -> int:
    await asyncio.sleep(0)
    return 1


def make_coroutine(arena: Arena) -> Any:
    made = coroutine()
    arena.kept.append(made)
    return made


def make_socket(arena: Arena) -> socket.socket:
    one, two = socket.socketpair()
    one.setblocking(False)
    arena.kept += [one, two]
    return one


def closed_socket(arena: Arena) -> socket.socket:
    made = socket.socket()
    made.close()
    return made


def foreign_future(arena: Arena) -> Any:
    loop = asyncio.SelectorEventLoop()
    arena.kept.append(loop)
    return asyncio.Future(loop=loop)


NUMBERS: list[Any] = [0, 1, -1, 2, 255, 65536, 2**31 - 1, 2**31, -(2**31) - 1]
NUMBERS += [2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**100, True, 0.0, -0.0, 0.001]
NUMBERS += [float("nan"), float("inf"), -float("inf"), 1e308, 5e-324, -1.5, 1j]
TEXTS: list[Any] = ["", "a", "\0", "a\0b", "\udc80", "x" * 100000, "127.0.0.1", "::1"]
TEXTS += [b"", b"\n", b"abc", b"\0" * 70000, bytearray(b"abc"), memoryview(b"abcdef")]
TEXTS += [memoryview(b"abcdef")[::2], memoryview(array.array("d", [1.0, 2.0]))]
OTHERS: list[Any] = [None, None, ..., NotImplemented, (), (1,), [], [b"x", b"y"], {}]
OTHERS += [{"a": 1}, object, int, len, lambda *args: None, lambda: 1, print.__self__]
OTHERS += [ValueError, ValueError("x"), StopIteration(1), KeyboardInterrupt, asyncio]
OTHERS += [("127.0.0.1", 0), ("127.0.0.1", 1, 2, 3), ("::1", 0), [("h", 1)]]
OTHERS += [asyncio.Protocol, asyncio.Protocol(), asyncio.BufferedProtocol()]
OTHERS += [asyncio.CancelledError(), slice(1), range(3), frozenset(), iter(())]

MAKERS: list[Callable[[Arena], Any]] = [
    make_coroutine,
    make_socket,
    closed_socket,
    foreign_future,
    released,
    lambda arena: arena.loop,
    lambda arena: arena.target,
    lambda arena: contextvars.copy_context(),
    lambda arena: arena.loop.create_future(),
    lambda arena: bytearray(b"x" * 1000),
]


def simple(arena: Arena) -> Any:
    """A value of the wrong kind, most of the time."""
    rng = arena.rng
    kind = rng.randrange(8)
    if kind < 2:
        return rng.choice(NUMBERS)
    if kind < 4:
        return rng.choice(TEXTS)
    if kind < 7:
        return rng.choice(OTHERS)
    return rng.choice(MAKERS)(arena)


BASES: list[type] = [object, object, object, str, bytes, int, float, tuple, list, dict]


def value(arena: Arena) -> Any:
    if arena.rng.random() < 0.3:
        return hostile_object(arena, arena.rng.choice(BASES))
    return simple(arena)

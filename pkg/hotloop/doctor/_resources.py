"""What nobody awaited, and what nobody closed."""

from __future__ import annotations

import asyncio
import functools
import os
import re
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from .._loop import Loop
from ._findings import Notes, Place
from ._patches import Patches
from ._places import Finder, function_name, is_loop, is_package

_ORIGINS = 8
_AWAIT = (
    "Write await in front of the call; asyncio.create_task() if it is to run beside "
    "what follows."
)
_warnings: Any = warnings
# Coroutines of streams in C do not say where they were made.
_IN_C = re.compile(r"coroutine '(Stream(?:Reader|Writer)\..+)' was never awaited")
_IGNORED = ("ignore", None, ResourceWarning, None, 0)
_SHOWN = ("always", None, ResourceWarning, None, 0)

# Methods of loops that take a function that makes protocols.
_OPENERS = (
    "connect_read_pipe",
    "connect_write_pipe",
    "create_connection",
    "create_datagram_endpoint",
    "create_server",
    "create_unix_connection",
    "create_unix_server",
    "connect_accepted_socket",
    "subprocess_exec",
    "subprocess_shell",
)


class Closable(NamedTuple):
    """A class whose objects have to be closed, and how."""

    module: str
    name: str
    closers: tuple[str, ...]
    change: str


_POOL = "Use it in a with statement, or call shutdown() when the work is done."
_CLOSABLES = [
    Closable("concurrent.futures.thread", "ThreadPoolExecutor", ("shutdown",), _POOL),
    Closable("concurrent.futures.process", "ProcessPoolExecutor", ("shutdown",), _POOL),
    Closable(
        "aiohttp.client",
        "ClientSession",
        ("close", "detach", "_detach"),
        "Use async with aiohttp.ClientSession(), or await session.close().",
    ),
    Closable(
        "httpx",
        "AsyncClient",
        ("aclose", "__aexit__"),
        "Use async with httpx.AsyncClient(), or await client.aclose().",
    ),
]


class Awaited:
    """Hears of coroutines that are dropped without having run."""

    def __init__(self, notes: Notes, finder: Finder) -> None:
        self._notes = notes
        self._finder = finder
        self._depths: dict[int, int] = {}

    def install(self, patches: Patches) -> None:
        """Have Python keep where coroutines are made, and tell of those dropped."""
        self.track()
        patches.wrap(warnings, "_warn_unawaited_coroutine", self._wrapped)

    def track(self) -> None:
        """Keep the places for this thread, too."""
        ident = threading.get_ident()
        if ident not in self._depths:
            depth = sys.get_coroutine_origin_tracking_depth()
            self._depths[ident] = depth
            sys.set_coroutine_origin_tracking_depth(max(depth, _ORIGINS))

    def stop(self) -> None:
        """Go back, in the thread that this is called in."""
        depth = self._depths.pop(threading.get_ident(), None)
        if depth is not None and sys.get_coroutine_origin_tracking_depth() == _ORIGINS:
            sys.set_coroutine_origin_tracking_depth(depth)

    def _wrapped(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def _warn_unawaited_coroutine(coro: Any) -> Any:
            self._hear(coro)
            if self._depths.get(threading.get_ident(), 1) > 0:
                return original(coro)
            # The text is to be as without us: it does not say where it was made.
            text = f"coroutine '{coro.__qualname__}' was never awaited"
            warnings.warn(text, RuntimeWarning, stacklevel=2, source=coro)
            return None

        return _warn_unawaited_coroutine

    def _hear(self, coro: Any) -> None:
        try:
            origin = getattr(coro, "cr_origin", None) or ()
            place = None
            for file, line, function in origin:
                if self._finder.is_program(file):
                    place = Place(file, line, function)
                    break
            code = coro.cr_code
            if not origin and self._finder.is_program(code.co_filename):
                name = function_name(code)
                place = Place(code.co_filename, code.co_firstlineno, name)
            self.note(place, coro.__qualname__)
        except Exception as error:
            self._notes.fail(error)

    def note(self, place: Place | None, name: str) -> None:
        """Report a coroutine function whose coroutine was dropped."""
        self._notes.add(
            "never-awaited",
            place,
            f"{name}() was called and its coroutine never awaited: it did nothing",
            _AWAIT,
        )


class Closed:
    """Hears of transports, sessions and executors that were not closed."""

    def __init__(self, notes: Notes, finder: Finder, awaited: Awaited) -> None:
        self._notes = notes
        self._finder = finder
        self._awaited = awaited
        self._swapped = False
        self._protocols: dict[int, tuple[Any, Place | None]] = {}
        # Of each open object: what it is, and where it was made.
        self._open: dict[int, tuple[Any, Closable, Place]] = {}
        self._wrapped: set[str] = set()
        self._patches: Patches | None = None

    # ---- warnings of what is collected without having been closed ----

    def install(self, patches: Patches) -> None:
        """Hear warnings, and learn where what they speak of was opened."""
        self._patches = patches
        filters: list[Any] = _warnings.filters
        if _IGNORED in filters:
            filters.remove(_IGNORED)
            warnings.simplefilter("always", ResourceWarning, append=True)
            self._swapped = True
        patches.wrap(warnings, "_showwarnmsg", self._show)
        for name in _OPENERS:
            for owner in (Loop, asyncio.SelectorEventLoop):
                patches.wrap(owner, name, functools.partial(self._opener, owner))
        self.wrap_classes()

    def stop(self) -> None:
        """Have warnings go their way again."""
        filters: list[Any] = _warnings.filters
        if self._swapped and _SHOWN in filters:
            filters.remove(_SHOWN)
            warnings.simplefilter("ignore", ResourceWarning, append=True)
        self._swapped = False

    def _show(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def _showwarnmsg(message: Any) -> Any:
            try:
                self._hear(message)
            except Exception as error:
                self._notes.fail(error)
            if self._is_ours(message):
                return None
            return original(message)

        return _showwarnmsg

    def _is_ours(self, message: Any) -> bool:
        """Whether Python would not have shown the warning without us."""
        if not self._swapped or not issubclass(message.category, ResourceWarning):
            return False
        text = str(message.message)
        for action, pattern, category, module, line in _warnings.filters:
            if (
                issubclass(message.category, category)
                and (pattern is None or pattern.match(text))
                and module is None
                and line in (0, message.lineno)
            ):
                return (action, pattern, category, module, line) == _SHOWN
        return False

    def _hear(self, message: Any) -> None:
        text = str(message.message)
        never = _IN_C.match(text)
        if never is not None and issubclass(message.category, RuntimeWarning):
            place = Place(message.filename, message.lineno, "")
            known = self._finder.is_program(message.filename)
            self._awaited.note(place if known else None, never[1])
        if not issubclass(message.category, ResourceWarning):
            return
        source = message.source
        if isinstance(source, asyncio.BaseTransport):
            self._unclosed(source)
        elif "unclosed <StreamWriter" in text or text == "loop is closed":
            writer = _finalized(sys._getframe(2))
            if writer is not None:
                self._unclosed(writer._transport)
        elif isinstance(source, asyncio.AbstractEventLoop):
            pass  # not closed by a program that is killed, say; Python tells itself

    def _unclosed(self, transport: Any) -> None:
        protocol = getattr(transport, "_protocol", None)
        get = getattr(transport, "get_protocol", None)
        if protocol is None and get is not None:
            protocol = get()
        known = self._protocols.get(id(protocol))
        peer = transport.get_extra_info("peername")
        with_peer = f", connected to {_address(peer)}," if peer else ""
        self._notes.add(
            "never-closed",
            known[1] if known is not None else None,
            f"a transport{with_peer} was collected without having been closed",
            "Close it when it is no longer needed, in a finally: writer.close() and "
            "await writer.wait_closed(), or transport.close().",
        )

    # ---- where transports are opened ----

    def _opener(self, owner: Any, original: Callable[..., Any]) -> Callable[..., Any]:
        def opener(
            self_: Any, factory: Any = None, /, *args: Any, **kwargs: Any
        ) -> Any:
            if isinstance(self_, Loop) is (owner is Loop):
                place = self._finder.above(sys._getframe(1))
                if factory is not None:
                    factory = self._noting(factory, place)
                elif "protocol_factory" in kwargs:
                    made = kwargs["protocol_factory"]
                    kwargs["protocol_factory"] = self._noting(made, place)
            if factory is None:
                return original(self_, *args, **kwargs)
            return original(self_, factory, *args, **kwargs)

        return opener

    def _noting(self, factory: Any, place: Place | None) -> Any:
        if not callable(factory):
            return factory

        def make() -> Any:
            protocol = factory()
            key = id(protocol)
            try:
                gone = weakref.ref(protocol, lambda _: self._protocols.pop(key, None))
            except TypeError:
                return protocol
            self._protocols[key] = gone, place
            return protocol

        return make

    # ---- sessions and executors ----

    def wrap_classes(self) -> None:
        """Watch the classes whose modules are loaded by now."""
        for each in _CLOSABLES:
            module = sys.modules.get(each.module)
            if module is None or each.module in self._wrapped or not self._patches:
                continue
            kind = getattr(module, each.name, None)
            if not isinstance(kind, type):
                continue
            self._wrapped.add(each.module)
            self._wrap_class(self._patches, kind, each)

    def _wrap_class(self, patches: Patches, kind: Any, each: Closable) -> None:
        def beginning(original: Callable[..., Any]) -> Callable[..., Any]:
            def __init__(self_: Any, /, *args: Any, **kwargs: Any) -> None:
                original(self_, *args, **kwargs)
                self._opened(self_, each, sys._getframe(1))

            return __init__

        def closing(original: Callable[..., Any]) -> Callable[..., Any]:
            def closer(self_: Any, /, *args: Any, **kwargs: Any) -> Any:
                self._open.pop(id(self_), None)
                return original(self_, *args, **kwargs)

            return closer

        patches.wrap(kind, "__init__", beginning)
        for name in each.closers:
            if hasattr(kind, name):
                patches.wrap(kind, name, closing)

    def _opened(self, made: Any, each: Closable, frame: Any) -> None:
        """Remember what a running loop's program has opened by itself."""
        if asyncio._get_running_loop() is None or id(made) in self._open:
            return
        caller = frame
        while caller is not None and caller.f_code.co_name == "__init__":
            caller = caller.f_back  # of subclasses
        file = caller.f_code.co_filename if caller is not None else ""
        if not self._finder.is_program(file) or is_loop(file) or is_package(file):
            return
        place = self._finder.above(caller)
        if place is None:
            return
        key = id(made)

        def collected(_: Any) -> None:
            if key in self._open:
                self._report(key, "was collected")

        self._open[key] = weakref.ref(made, collected), each, place

    def _report(self, key: int, what: str) -> None:
        _, each, place = self._open.pop(key)
        self._notes.add(
            "never-closed",
            place,
            f"{_article(each.name)} {what} without having been closed",
            each.change,
        )

    def finish(self) -> None:
        """Report what is open at the end of the run."""
        for key in list(self._open):
            self._report(key, "was there at the end")


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _address(peer: Any) -> str:
    if isinstance(peer, tuple) and len(peer) >= 2:
        return f"{peer[0]}:{peer[1]}"
    return os.fsdecode(peer) if isinstance(peer, str | bytes) else str(peer)


def _finalized(frame: Any) -> Any:
    """The StreamWriter whose __del__() gives a warning."""
    while frame is not None:
        if frame.f_code is _writer_del:
            return frame.f_locals.get("self")
        frame = frame.f_back
    return None


_del: Any = getattr(asyncio.StreamWriter, "__del__", None)
_writer_del = getattr(_del, "__code__", None)

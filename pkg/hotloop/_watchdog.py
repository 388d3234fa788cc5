"""The watchdog's report of a callback that blocks the loop."""

from __future__ import annotations

import asyncio
import asyncio.base_events
import atexit
import contextlib
import dataclasses
import os
import sys
import threading
import traceback
import weakref
from asyncio.log import logger
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_base_events: Any = asyncio.base_events
_threading: Any = threading

THREAD_NAME = "hotloop-watchdog"

# A limit of a year is none, and fits into the core's nanoseconds.
_FOREVER = 366 * 24 * 3600.0

# Below this, seconds of waiting for the GIL are nothing special.
_WORTH_TELLING = 0.05


@dataclasses.dataclass(frozen=True, slots=True)
class BlockedCallback:
    """A callback that keeps its loop from going on: what the watchdog reports.

    ``callback`` is the repr of the handle or task, ``seconds`` how long it has run at
    least, ``limit`` the one that was set. ``stack`` is the Python stack of the loop's
    thread from the callback on, the innermost call last. ``gil_wait`` is how many
    seconds the report had to wait for the GIL: code in C may keep it all the time.
    ``ended`` says that the callback had returned by then: there is no stack then.
    """

    loop: asyncio.AbstractEventLoop
    callback: str
    seconds: float
    limit: float
    thread_id: int
    thread_name: str
    stack: traceback.StackSummary
    gil_wait: float
    ended: bool

    def __str__(self) -> str:
        """Return the report as text, as it is logged."""
        verb = "blocked" if self.ended else "has blocked"
        lines = [
            f"{self.callback} {verb} the loop in thread {self.thread_name} for "
            f"{self.seconds:.3f} seconds (limit {self.limit:g})"
        ]
        if self.gil_wait >= _WORTH_TELLING:
            lines.append(f"The report waited {self.gil_wait:.3f} seconds for the GIL")
        if self.stack:
            lines.append("Stack (most recent call last):")
            lines += "".join(self.stack.format()).rstrip("\n").split("\n")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as what JSON knows; the stack is a list of strings."""
        return {
            "loop": repr(self.loop),
            "callback": self.callback,
            "seconds": self.seconds,
            "limit": self.limit,
            "thread_id": self.thread_id,
            "thread_name": self.thread_name,
            "stack": self.stack.format(),
            "gil_wait": self.gil_wait,
            "ended": self.ended,
        }


Report = Callable[[BlockedCallback], object]


def log_blocked(blocked: BlockedCallback) -> None:
    """Log the report as a warning of the ``asyncio`` logger."""
    logger.warning("%s", blocked)


# ---- between the core and a report ----

# The outermost Python frame that a callback has below it: the loop's own.
_RUN = asyncio.SelectorEventLoop.run_forever.__code__.co_name
_HERE = os.path.dirname(__file__)

# Loops with a watchdog, whose threads must end before the interpreter does.
_watched: weakref.WeakSet[Any] = weakref.WeakSet()
_over = False


def _callback_stack(frame: FrameType | None) -> traceback.StackSummary:
    """Return the part of a stack that the loop has called."""
    frames: list[tuple[FrameType, int]] = []
    if frame is None:
        return traceback.StackSummary()
    for above, line in traceback.walk_stack(frame):
        code = above.f_code
        if code.co_name == _RUN and code.co_filename.startswith(_HERE):
            break
        frames.append((above, line))
    return traceback.StackSummary.extract(reversed(frames))


def _thread_name(ident: int) -> str:
    names = (t.name for t in threading.enumerate() if t.ident == ident)
    return next(names, str(ident))


def _describe(obj: Any, is_handle: bool) -> str:
    if obj is None:
        return "A callback"
    try:
        return _base_events._format_handle(obj) if is_handle else repr(obj)
    except Exception as exc:
        return f"<{type(obj).__name__}, whose repr() raised {exc!r}>"


@contextlib.contextmanager
def _known_thread() -> Iterator[None]:
    """Give a thread of the core's a name while it runs Python.

    Before 3.13 threading would not forget such a thread.
    """
    thread = threading.current_thread()
    thread.name = THREAD_NAME
    try:
        yield
    finally:
        if sys.version_info < (3, 13):
            _threading._active.pop(thread.ident, None)


def _reporter(limit: float, report: Report) -> Callable[..., None]:
    def reporter(
        loop: Any,
        frame: FrameType | None,
        obj: Any,
        is_handle: bool,
        seconds: float,
        gil_wait: float,
        ended: bool,
    ) -> None:
        stack = _callback_stack(frame)  # first: the other thread goes on
        ident = loop._thread_id or 0
        blocked = BlockedCallback(
            loop=loop,
            callback=_describe(obj, is_handle),
            seconds=seconds,
            limit=limit,
            thread_id=ident,
            thread_name=_thread_name(ident),
            stack=stack,
            gil_wait=gil_wait,
            ended=ended,
        )
        if ended:  # in the loop's own thread
            report(blocked)
            return
        with _known_thread():
            report(blocked)

    return reporter


def _errors() -> int:
    """The descriptor of the standard error, or -1 if there is none."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return -1


def check_limit(limit: float) -> float:
    """Return the limit, or raise ValueError."""
    if not 0 < limit < _FOREVER:
        raise ValueError(f"the limit is a number of seconds above 0, not {limit!r}")
    return limit


def enable(loop: Any, limit: float | None, report: Report | None) -> None:
    """Do what Loop.enable_watchdog() says."""
    if limit is None:
        loop._unwatch(False)
        return
    check_limit(limit)
    if report is not None and not callable(report):
        raise TypeError(f"a callable or None is expected as report, got {report!r}")
    if _over:
        raise RuntimeError("can't start a watchdog at interpreter shutdown")
    loop._watch(limit, _reporter(limit, report or log_blocked), _errors())
    _watched.add(loop)


@atexit.register
def _end_all() -> None:
    global _over
    _over = True
    for loop in list(_watched):
        loop._unwatch(True)

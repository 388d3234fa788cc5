"""What can be said of tasks and stacks from a thread that is not the loop's.

Everything is read while the program runs on, and may be of different moments. Between
a few tasks the interpreter is given back to the loop.
"""

from __future__ import annotations

import asyncio
import collections
import os
import sys
import threading
import time
from types import CodeType, FrameType
from typing import Any

from .. import _core

MOST_TASKS = 10_000  # that are looked at
DEEPEST = 50  # frames
_AT_A_TIME = 50
_GROUP = ("coroutine", "file", "line", "function")

# Of coroutines, generators and asynchronous generators: (frame, what they wait for).
_PARTS = (
    ("cr_frame", "cr_await"),
    ("gi_frame", "gi_yieldfrom"),
    ("ag_frame", "ag_await"),
)


def _described(frame: FrameType) -> dict[str, Any]:
    code = frame.f_code
    return {
        "file": code.co_filename,
        "line": frame.f_lineno or code.co_firstlineno,
        "function": code.co_qualname,
    }


def stack(frame: FrameType | None, end: CodeType | None) -> list[dict[str, Any]]:
    """The innermost frames of a stack, after that of some code, the innermost last."""
    frames: list[dict[str, Any]] = []
    while frame is not None and frame.f_code is not end and len(frames) < DEEPEST:
        frames.append(_described(frame))
        frame = frame.f_back
    return frames[::-1]


def _inner(awaited: Any) -> tuple[FrameType | None, Any]:
    for frame, inner in _PARTS:
        if hasattr(awaited, frame):
            return getattr(awaited, frame), getattr(awaited, inner)
    return None, None


def awaits(coroutine: Any) -> tuple[list[dict[str, Any]], str]:
    """Where a coroutine stands, the innermost frame last, and what it waits for.

    That is the name of a coroutine without a frame in Python, such as an operation of
    a stream, or nothing.
    """
    frames: list[dict[str, Any]] = []
    awaited = coroutine
    while awaited is not None and len(frames) < DEEPEST:
        frame, inner = _inner(awaited)
        if frame is None:
            break
        frames.append(_described(frame))
        awaited = inner
    named = awaited is not coroutine and hasattr(awaited, "__qualname__")
    return frames, str(awaited.__qualname__) if named else ""


# Where frames say how a program waits, and not where it does.
_LIBRARIES = tuple(
    os.path.join(os.path.dirname(module.__file__ or ""), "")
    for module in (asyncio, _core)
)


def place(frames: list[dict[str, Any]]) -> tuple[str, int, str]:
    """The file and line of a program's own that a stack is at, and the function there.

    If that has called asyncio or hotloop, the function is the one that it called.
    """
    if not frames:
        return "", 0, ""
    called = ""
    for frame in reversed(frames):
        if not frame["file"].startswith(_LIBRARIES):
            return frame["file"], frame["line"], called or frame["function"]
        called = frame["function"]
    return frames[-1]["file"], frames[-1]["line"], called


def _name_of(coroutine: Any) -> str:
    return str(getattr(coroutine, "__qualname__", type(coroutine).__qualname__))


def _waits_for(task: asyncio.Task[Any], operation: str) -> str:
    future = getattr(task, "_fut_waiter", None)
    if future is None:
        return ""
    if isinstance(future, asyncio.Task):
        return f"Task {future.get_name()}"
    return operation or type(future).__name__


def _task(task: asyncio.Task[Any], current: bool) -> dict[str, Any]:
    coroutine = task.get_coro()
    frames, operation = awaits(coroutine)
    waits_for = "" if current else _waits_for(task, operation)
    file, line, function = place(frames)
    state = "running" if current else "waiting" if waits_for else "ready"
    return {
        "id": id(task),
        "name": task.get_name(),
        "coroutine": _name_of(coroutine),
        "state": state,
        "waits_for": waits_for,
        "file": file,
        "line": line,
        "function": function,
        "stack": frames,
    }


def _group(task: asyncio.Task[Any]) -> tuple[str, str, int, str]:
    """The coroutine of a task and the place that it stands at."""
    coroutine = task.get_coro()
    return _name_of(coroutine), *place(awaits(coroutine)[0])


def tasks(loop: asyncio.AbstractEventLoop, limit: int) -> dict[str, Any]:
    """The tasks of a loop: how many stand where, and up to a limit each by itself.

    Names are asked only of those: a default name is made, and kept, when it is asked.
    """
    found = asyncio.all_tasks(loop)
    count = len(found)
    current = asyncio.current_task(loop)
    each: list[dict[str, Any]] = []
    groups: collections.Counter[tuple[str, str, int, str]] = collections.Counter()
    for number in range(min(count, MOST_TASKS)):
        task = found.pop()
        if number % _AT_A_TIME == _AT_A_TIME - 1:
            time.sleep(1e-4)  # less, and we have it again before the loop wakes
        groups[_group(task)] += 1
        if len(each) < limit:
            each.append(_task(task, task is current))
    each.sort(key=lambda task: (task["coroutine"], len(task["name"]), task["name"]))
    return {
        "count": count,
        "seen": min(count, MOST_TASKS),
        "groups": [
            {"count": number, **dict(zip(_GROUP, group, strict=True))}
            for group, number in groups.most_common(limit)
        ],
        "tasks": each,
    }


def stacks(loop_thread: int | None, run: CodeType) -> list[dict[str, Any]]:
    """The stack of each thread of the process, the loop's first.

    The loop's is what it calls at the moment, after the frame that runs it; nothing
    if it waits, or works by itself.
    """
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    found = []
    for ident, frame in sys._current_frames().items():
        if ident == threading.get_ident():
            continue
        ours = ident == loop_thread
        name = names.get(ident, str(ident))
        described = stack(frame, run if ours else None)
        found.append({"thread": name, "loop": ours, "stack": described})
    found.sort(key=lambda thread: (not thread["loop"], str(thread["thread"])))
    return found

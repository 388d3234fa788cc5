"""Which tasks something will stop in time: a timer, or who waits for them with one."""

from __future__ import annotations

import asyncio
import functools
import gc
import types
from collections.abc import Iterable
from typing import Any

from ._chain import chain_of
from ._places import is_library

_DEPTH = 5
_MOST = 5000
# From these one would get everywhere.
_DEAD_ENDS: tuple[type, ...] = (
    types.ModuleType,
    type,
    types.CodeType,
    types.FrameType,
    types.CoroutineType,
    types.GeneratorType,
    asyncio.AbstractEventLoop,
    str,
    bytes,
    int,
    float,
)


def _parts(each: Any) -> Iterable[Any]:
    if isinstance(each, types.FunctionType):
        return [cell.cell_contents for cell in each.__closure__ or () if _full(cell)]
    if isinstance(each, functools.partial):
        return [each.func, *each.args, *each.keywords.values()]
    return gc.get_referents(each)


def _full(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def tasks_within(roots: Iterable[Any], depth: int = _DEPTH) -> set[asyncio.Task[Any]]:
    """The tasks that can be reached from some objects in a few steps."""
    found: set[asyncio.Task[Any]] = set()
    seen: set[int] = set()
    level = list(roots)
    for _ in range(depth):
        following: list[Any] = []
        for each in level:
            if id(each) in seen or isinstance(each, _DEAD_ENDS):
                continue
            seen.add(id(each))
            if isinstance(each, asyncio.Task):
                found.add(each)
            elif len(seen) < _MOST:
                following.extend(_parts(each))
        level = following
    return found


def _awaited_by(task: asyncio.Task[Any]) -> set[asyncio.Task[Any]]:
    """The tasks that a task waits for, or at least has at hand while it waits."""
    found: set[asyncio.Task[Any]] = set()
    waiter: Any = getattr(task, "_fut_waiter", None)
    if isinstance(waiter, asyncio.Task):
        found.add(waiter)
    children = getattr(waiter, "_children", ())
    found.update(each for each in children if isinstance(each, asyncio.Task))
    for link in chain_of(task).links:
        held = gc.get_referents(link.coroutine)
        depth = _DEPTH if is_library(link.frame.f_code.co_filename) else 1
        found |= tasks_within([each for each in held if each is not task], depth)
    return found


def limited_tasks(loop: Any) -> set[asyncio.Task[Any]]:
    """All tasks of a loop that a timer would stop, or those who wait for them."""
    roots: list[Any] = []
    for handle in list(loop._scheduled):
        if not handle.cancelled():
            roots += (handle._callback, handle._args)
    found = tasks_within(roots)
    waiting = list(found)
    while waiting:
        for task in _awaited_by(waiting.pop()):
            if task not in found:
                found.add(task)
                waiting.append(task)
    return found

"""What a task is waiting in: its coroutine, what that awaits, and so on."""

from __future__ import annotations

import asyncio
import gc
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any, NamedTuple

from .. import _core

_DEEPEST = 100
_SUSPENDED: tuple[type, ...] = (CoroutineType, GeneratorType, AsyncGeneratorType)


class Link(NamedTuple):
    """A coroutine, or the like, that is suspended in a frame."""

    coroutine: Any
    frame: FrameType

    def holds(self, kind: Any) -> Any:
        """The first object of a type among its variables, or None.

        The variables are seen without frame.f_locals, which would keep them alive.
        """
        for each in gc.get_referents(self.coroutine):
            if isinstance(each, kind):
                return each
        return None


class Chain(NamedTuple):
    """The links from the outermost to the innermost, and what that one awaits."""

    links: list[Link]
    last: Any


def _next(link: Any) -> tuple[FrameType | None, Any]:
    if type(link) is CoroutineType:
        return link.cr_frame, link.cr_await
    if type(link) is GeneratorType:
        return link.gi_frame, link.gi_yieldfrom
    if type(link) is AsyncGeneratorType:
        return link.ag_frame, link.ag_await
    return None, None


def _behind(link: Any) -> Any:
    """What an object that stands before a coroutine stands for."""
    if isinstance(link, asyncio.Future | _core.StreamOperation | _core.SockWait):
        return None
    for each in gc.get_referents(link):
        if isinstance(each, _SUSPENDED):
            return each
    return None


def chain_of(task: asyncio.Task[Any]) -> Chain:
    """Follow what a task awaits."""
    links: list[Link] = []
    link: Any = task.get_coro()
    last = None
    for _ in range(_DEEPEST):
        if link is None:
            break
        last = link
        if not isinstance(link, _SUSPENDED):
            link = _behind(link)
            continue
        frame, following = _next(link)
        if frame is None:
            break
        links.append(Link(link, frame))
        link = following
    return Chain(links, last)

"""The requests that a control socket answers."""

from __future__ import annotations

import os
import platform
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

from .._loop import Loop
from .._version import __version__
from . import _tasks
from ._server import RequestError, Session

PROTOCOL = 1
MOST_ROWS = 1000


def _thread_name(ident: int | None) -> str | None:
    for thread in threading.enumerate():
        if thread.ident == ident:
            return thread.name
    return None


class Watched:
    """A loop that is looked at, and how many clients have its profile on.

    It must not keep the loop alive.
    """

    def __init__(self, loop: Loop, path: str) -> None:
        self._loop = weakref.ref(loop)
        self.path = path
        self._profilers = 0

    @property
    def loop(self) -> Loop:
        """The loop; raise RequestError when it has gone."""
        loop = self._loop()
        if loop is None or loop.is_closed():
            raise RequestError("the loop is closed")
        return loop

    def add_profiler(self) -> bool:
        """Have the loop profile for one client more.

        Return False if the program does so by itself, and is left to it.
        """
        loop = self.loop
        if not self._profilers and loop.metrics().profiling:
            return False
        loop.enable_metrics(profile=True)
        self._profilers += 1
        return True

    def remove_profiler(self) -> None:
        """Stop it when the last client has gone."""
        self._profilers -= 1
        loop = self._loop()
        if not self._profilers and loop is not None:
            loop.enable_metrics(profile=False)


class Watcher(Session):
    """Answers one client."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._profiles = False

    def answer(self, request: dict[str, Any]) -> Any:
        """Answer ``{"request": NAME, ...}``."""
        arguments = dict(request)
        name = arguments.pop("request", None)
        method = _REQUESTS.get(name) if type(name) is str else None
        if method is None:
            known = ", ".join(sorted(_REQUESTS))
            raise RequestError(f"unknown request {str(name)[:40]!r}; known: {known}")
        return method(self, arguments)

    def close(self) -> None:
        """Switch off what the client switched on."""
        self._set_profile(False)

    # ---- the requests ----

    def _about(self, arguments: dict[str, Any]) -> Any:
        _take(arguments)
        loop = self._watched.loop
        return {
            "protocol": PROTOCOL,
            "hotloop": __version__,
            "python": platform.python_version(),
            "pid": os.getpid(),
            "path": self._watched.path,
            "command": sys.orig_argv,
            "running": loop.is_running(),
            "thread": _thread_name(loop._thread_id),
            "debug": loop.get_debug(),
        }

    def _metrics(self, arguments: dict[str, Any]) -> Any:
        _take(arguments)
        return self._watched.loop.metrics().as_dict()

    def _tasks(self, arguments: dict[str, Any]) -> Any:
        limit = _take(arguments, limit=100)
        return _tasks.tasks(self._watched.loop, limit)

    def _stacks(self, arguments: dict[str, Any]) -> Any:
        _take(arguments)
        loop = self._watched.loop
        return _tasks.stacks(loop._thread_id, Loop.run_forever.__code__)

    def _profile(self, arguments: dict[str, Any]) -> Any:
        limit = _take(arguments, limit=100)
        loop = self._watched.loop
        entries = loop.profile()
        return {
            "profiling": loop.metrics().profiling,
            "count": len(entries),
            "entries": [entry.as_dict() for entry in entries[:limit]],
        }

    def _enable_profile(self, arguments: dict[str, Any]) -> Any:
        on = arguments.pop("on", True)
        _take(arguments)
        if type(on) is not bool:
            raise RequestError("'on' must be true or false")
        self._set_profile(on)
        return self._watched.loop.metrics().profiling

    def _set_profile(self, on: bool) -> None:
        if on and not self._profiles:
            self._profiles = self._watched.add_profiler()
        elif self._profiles and not on:
            self._profiles = False
            self._watched.remove_profiler()


def _take(arguments: dict[str, Any], limit: int = 0) -> int:
    """Take the limit of an answer, if it has one; refuse what is left then."""
    wanted = arguments.pop("limit", limit) if limit else 0
    if arguments:
        raise RequestError(f"unknown argument {min(arguments)[:40]!r}")
    if type(wanted) is not int or not 0 <= wanted <= MOST_ROWS:
        raise RequestError(f"'limit' must be a number from 0 to {MOST_ROWS}")
    return wanted


_REQUESTS: dict[str, Callable[[Watcher, dict[str, Any]], Any]] = {
    "about": Watcher._about,
    "metrics": Watcher._metrics,
    "tasks": Watcher._tasks,
    "stacks": Watcher._stacks,
    "profile": Watcher._profile,
    "enable_profile": Watcher._enable_profile,
}

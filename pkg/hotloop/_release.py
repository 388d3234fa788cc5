"""What the running release of asyncio does, where those of one version differ.

Its maintainers take changes back into releases of older versions. What the core does
itself is asked of asyncio here, once, by calling what takes no loop or by looking at
it; where asyncio has been replaced, the version's first release is the answer.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import futures, selector_events, sslproto
from collections.abc import Callable
from typing import Any

from . import _core

_LATER = sys.version_info >= (3, 14)
_selector: Any = selector_events


def _ask(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except Exception:
        return _LATER


def _names_types() -> bool:
    try:
        _selector._SelectorSocketTransport.write(None, None)
    except TypeError as exc:
        return "memoryview" in str(exc)
    return _LATER


class _Clients:
    """A listening socket, and the loop that accepts from it."""

    _debug = False

    def __init__(self, aborted: bool) -> None:
        self.aborted = aborted
        self.accepted = 0

    def accept(self) -> tuple[_Clients, None]:
        self.accepted += 1
        if self.aborted:
            raise ConnectionAbortedError
        return self, None

    def setblocking(self, flag: bool) -> None: ...

    def create_task(self, *args: Any, **kwargs: Any) -> None: ...

    def _accept_connection2(self, *args: Any, **kwargs: Any) -> None: ...


def _accepts(aborted: bool) -> int:
    clients = _Clients(aborted)
    accept: Any = _selector.BaseSelectorEventLoop._accept_connection
    accept(clients, None, clients, backlog=2)
    return clients.accepted


def _moves_file() -> bool:
    update: Any = asyncio.SelectorEventLoop._sock_sendfile_update_filepos  # type: ignore[attr-defined]
    return "total_sent" not in update.__code__.co_varnames


def _chains_by_thread() -> bool:
    """Is an outcome that appears in the loop's own thread passed on at once?"""
    code: Any = futures._chain_future.__code__  # type: ignore[attr-defined]
    inner = [const for const in code.co_consts if hasattr(const, "co_names")]
    return any("_get_running_loop" in const.co_names for const in inner)


def _eager_takes_start() -> bool:
    factory: Any = getattr(asyncio, "eager_task_factory", None)
    return factory is not None and "eager_start" in factory.__code__.co_varnames


class _NoLoop:
    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return False

    def call_soon(self, *args: Any, **kwargs: Any) -> None: ...


async def _nothing() -> None: ...


def _checks_context() -> bool:
    coro, loop, context = _nothing(), _NoLoop(), object()
    try:
        task: Any = asyncio.Task(coro, loop=loop, context=context)  # type: ignore[arg-type]
    except TypeError:
        return True
    else:
        task._log_destroy_pending = False
        return False
    finally:
        coro.close()


NAMES_TYPES = _ask(_names_types)  # in the error of a wrong write()
ACCEPTS_ONE_MORE = _ask(lambda: _accepts(False) == 3)  # than the backlog
SKIPS_ABORTED = _ask(lambda: _accepts(True) > 1)  # and goes on accepting
MOVES_FILE = _ask(_moves_file)  # when sendfile() has sent nothing
CHAINS_BY_THREAD = _ask(_chains_by_thread)
EAGER_TAKES_START = _ask(_eager_takes_start)
CHECKS_CONTEXT = _ask(_checks_context)  # that a task is to run in
TLS_LOOKS_BELOW = hasattr(sslproto.SSLProtocol, "_is_transport_closing")

_core._set_release(
    NAMES_TYPES,
    ACCEPTS_ONE_MORE,
    SKIPS_ABORTED,
    MOVES_FILE,
    CHAINS_BY_THREAD,
    EAGER_TAKES_START,
    CHECKS_CONTEXT,
    TLS_LOOKS_BELOW,
)

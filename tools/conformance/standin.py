"""Putting hotloop where asyncio's own classes are.

CPython's tests ask asyncio for what they test: a policy or a class for a loop,
`asyncio.Task` and `asyncio.Future`, the `_CTask` and `_CFuture` that stand for the
implementation in C. After install() all these names mean hotloop's classes, in
every module of asyncio, for test modules that are imported later.
"""

from __future__ import annotations

import asyncio
import asyncio.unix_events
import importlib
import selectors
import sys
from typing import Any

import hotloop

# Suites that make loops of the abstract class and mock what is missing: it can be
# replaced by a whole one.
ABSTRACT_LOOP = ("test_base_events", "test_pep492", "test_runners")

STOCK_LOOP: Any = asyncio.unix_events._UnixSelectorEventLoop


class SelectorEventLoop(hotloop.Loop):
    """A hotloop loop that may be made as asyncio's selector loop is.

    Some tests choose asyncio's poller. There is one in hotloop: what was chosen
    is closed, unused.
    """

    __slots__ = ()

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        if selector is not None:
            selector.close()
        super().__init__()


# Suites whose readers and writers are asyncio's own, made as hotloop's are.
STREAMS = ("test_streams", "test_subprocess")


def replaced(suite: str) -> dict[Any, Any]:
    """The classes of asyncio that hotloop stands in for, with our classes."""
    ours: dict[Any, Any] = {
        STOCK_LOOP: SelectorEventLoop,
        asyncio.Task: hotloop.Task,
        asyncio.Future: hotloop.Future,
    }
    if suite in ABSTRACT_LOOP:
        ours[asyncio.BaseEventLoop] = SelectorEventLoop
    if suite == "test_graph":
        # asyncio.graph asks "is it a Future?" by this name, of tasks, too. Ours
        # are Futures of asyncio, which is what it must keep meaning there.
        del ours[asyncio.Future]
    return ours


def install(suite: str) -> None:
    """Make asyncio's names mean hotloop's classes in this process."""
    # Its test loop, with a clock of its own, is a subclass of the abstract class.
    importlib.import_module("test.test_asyncio.utils")
    if suite in STREAMS:
        hotloop.install_streams()
    ours = replaced(suite)
    modules = [
        module
        for name, module in sys.modules.items()
        if name == "asyncio" or name.startswith("asyncio.")
    ]
    for module in modules:
        for name, value in list(vars(module).items()):
            if isinstance(value, type) and value in ours:
                setattr(module, name, ours[value])
    policy: Any = asyncio.unix_events._UnixDefaultEventLoopPolicy
    policy._loop_factory = SelectorEventLoop

"""The event loops under test, by name."""

from __future__ import annotations

import importlib
import platform
from asyncio import AbstractEventLoop
from collections.abc import Callable

LoopFactory = Callable[[], AbstractEventLoop]

BASELINE = "uvloop"
CEILING = "libuv-c"
# No loops of Python: what the loops are measured against.
CEILINGS = ("libuv-c", "mmsg-c", "no-loop", "c")
SUBJECT = "hotloop"
DEFAULT_LOOPS = ("asyncio", "uvloop", "rloop", "hotloop")


def loop_factory(name: str) -> LoopFactory:
    """Return the function that makes a loop of this name.

    Raises ImportError when its package is missing.
    """
    factory: LoopFactory = importlib.import_module(name).new_event_loop
    return factory


def loop_version(name: str) -> str:
    """Return the version of the package that provides this loop."""
    if name == "asyncio":
        return platform.python_version()
    return str(getattr(importlib.import_module(name), "__version__", "unknown"))

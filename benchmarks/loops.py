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

    "NAME+LAYER" is a loop whose transports another package replaces. Raises
    ImportError when a package is missing.
    """
    base, _, layer = name.partition("+")
    factory: LoopFactory = importlib.import_module(base).new_event_loop
    if layer:
        factory = importlib.import_module(layer).loop_factory(factory)
    return factory


def loop_version(name: str) -> str:
    """Return the version of the package that provides this loop."""
    if name == "asyncio":
        return platform.python_version()
    modules = [importlib.import_module(part) for part in name.split("+")]
    return "+".join(getattr(module, "__version__", "unknown") for module in modules)

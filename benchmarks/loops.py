"""The event loops under test, by name."""

from __future__ import annotations

import functools
import importlib
import platform
from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import Any

LoopFactory = Callable[[], AbstractEventLoop]

BASELINE = "uvloop"
CEILING = "libuv-c"
# No loops of Python: what the loops are measured against.
CEILINGS = ("libuv-c", "mmsg-c", "no-loop", "c")
SUBJECT = "hotloop"
DEFAULT_LOOPS = ("asyncio", "uvloop", "rloop", "hotloop")


# What costs nothing when it is off: how much does it when it is on?
OBSERVED: dict[str, Callable[[Any], None]] = {
    "metrics": lambda loop: loop.enable_metrics(),
    "profile": lambda loop: loop.enable_metrics(profile=True),
    "watchdog": lambda loop: loop.enable_watchdog(1.0),
}


def _observed(
    factory: LoopFactory, observe: Callable[[Any], None]
) -> AbstractEventLoop:
    loop = factory()
    observe(loop)
    return loop


def loop_factory(name: str) -> LoopFactory:
    """Return the function that makes a loop of this name.

    "NAME+LAYER" is a loop whose transports another package replaces, or hotloop
    looked at in one of the ways of OBSERVED. Raises ImportError when a package is
    missing.
    """
    base, _, layer = name.partition("+")
    factory: LoopFactory = importlib.import_module(base).new_event_loop
    if layer in OBSERVED:
        factory = functools.partial(_observed, factory, OBSERVED[layer])
    elif layer:
        factory = importlib.import_module(layer).loop_factory(factory)
    return factory


def loop_version(name: str) -> str:
    """Return the version of the package that provides this loop."""
    if name == "asyncio":
        return platform.python_version()
    parts = [part for part in name.split("+") if part not in OBSERVED]
    modules = [importlib.import_module(part) for part in parts]
    return "+".join(getattr(module, "__version__", "unknown") for module in modules)

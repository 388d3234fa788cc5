"""The clock of the fuzzer: it moves only when a loop has nothing else to do.

See clock.c. The library must be preloaded, so programs run in a process that
`preloaded()` made the environment for.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

SOURCE = pathlib.Path(__file__).with_name("clock.c")
TICK = 1 / 16  # seconds, as in clock.c
START = 1000  # what the clock says when a program begins


def compiler() -> list[str]:
    return os.environ.get("CC", "cc").split()


def preloaded(folder: str) -> dict[str, str]:
    """The environment of a process with the clock; its library is in folder."""
    library = os.path.join(folder, "fuzz-clock.so")
    flags = ["-O2", "-shared", "-fPIC", "-o", library]
    subprocess.run([*compiler(), *flags, str(SOURCE), "-ldl"], check=True)
    # A sanitizer's library has to stay the first.
    before = os.environ.get("LD_PRELOAD", "")
    return dict(os.environ, LD_PRELOAD=f"{before} {library}".strip())


def is_preloaded() -> bool:
    return hasattr(ctypes.CDLL(None), "fuzz_clock_set")


@contextmanager
def standing() -> Iterator[None]:
    """While this is entered, time passes only in waits."""
    switch = ctypes.CDLL(None).fuzz_clock_set
    switch(START)
    try:
        yield
    finally:
        switch(0)

"""Programs whose system calls fail on demand: see faults.c.

A program of `faultprograms` runs in a process with the library preloaded, where
`add()` and its like make the rules.
"""

from __future__ import annotations

import ctypes
import functools
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import Any

import pytest

import support

SOURCE = pathlib.Path(__file__).with_name("faults.c")
# The groups of calls, in the order of the enum there.
CALLS = (
    *("accept", "connect", "receive", "send", "sendfile", "wait", "watch"),
    *("socket", "eventfd", "epoll", "pipe", "sockopt"),
)
SHORT = -1  # in place of an errno: less is moved than asked for
FOR_EVER = -1


def compiler() -> list[str]:
    return os.environ.get("CC", "cc").split()


@functools.cache
def library() -> str:
    """The library, built once for a run of the tests."""
    if sys.platform != "linux" or shutil.which(compiler()[0]) is None:
        pytest.skip("needs Linux and a C compiler")
    folder = tempfile.TemporaryDirectory(prefix="faults-")
    built.append(folder)
    path = os.path.join(folder.name, "faults.so")
    flags = ["-O2", "-shared", "-fPIC", "-o", path]
    command = [*compiler(), *flags, str(SOURCE), "-ldl", "-lpthread"]
    subprocess.run(command, check=True)
    return path


built: list[Any] = []  # the folder goes with the process


def run_program(kind: str, name: str, *args: object, timeout: float = 50) -> str:
    """Run a program of `faultprograms`; returns what it printed.

    Fails if it crashes, hangs, or says anything on standard error.
    """
    env = support.script_env(kind)
    # A sanitizer's library has to stay the first.
    env["LD_PRELOAD"] = f"{env.get('LD_PRELOAD', '')} {library()}".strip()
    script = pathlib.Path(__file__).with_name("faultprograms.py")
    command = [sys.executable, "-X", "faulthandler", str(script), name]
    process = subprocess.Popen(
        [*command, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )
    code, out, err = support.finish_script(process, timeout)
    assert (code, err) == (0, ""), f"exit {code}\n{out}\n{err}"
    return out


# Below: inside such a process.


@functools.cache
def shim() -> Any:
    found = ctypes.CDLL(None)
    found.faults_hits.restype = ctypes.c_long
    found.faults_add.argtypes = [ctypes.c_int] * 3 + [ctypes.c_long] * 2
    found.faults_clear.argtypes = [ctypes.c_ulong]
    found.faults_wall_clock.argtypes = [ctypes.c_long]
    return found


def clear(seed: int = 1) -> None:
    """All calls are the C library's own again."""
    shim().faults_clear(seed)


def add(
    call: str, error: int, permille: int = 1000, skip: int = 0, times: int = FOR_EVER
) -> None:
    """Have calls of a group fail: so often, after so many, for so long."""
    assert shim().faults_add(CALLS.index(call), error, permille, skip, times) == 0


def hits(call: str) -> int:
    """How many calls of a group have failed by a rule."""
    count: int = shim().faults_hits(CALLS.index(call))
    return count


def move_wall_clock(seconds: int) -> None:
    """Put the wall clock off; the monotonic one goes on as ever."""
    shim().faults_wall_clock(seconds)

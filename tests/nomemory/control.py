"""The switch of the calls that fail: faults.c, built and loaded."""

from __future__ import annotations

import ctypes
import functools
import os
import pathlib
import re
import subprocess
from collections import Counter
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
SOURCE = pathlib.Path(__file__).with_name("faults.c")

# (function, file, line): where in csrc/ a call stands.
Site = tuple[str, str, int]


def compiler() -> list[str]:
    return os.environ.get("CC", "cc").split()


def build(folder: str) -> str:
    """Compile faults.c into this folder; returns the library's path."""
    library = os.path.join(folder, "nomemory-faults.so")
    flags = ["-std=c11", "-O2", "-shared", "-fPIC", "-o", library]
    subprocess.run([*compiler(), *flags, str(SOURCE)], check=True)
    return library


class Control:
    """The loaded library; hotloop must not have been imported before."""

    def __init__(self, library: str) -> None:
        self.functions: Any = ctypes.CDLL(library, ctypes.RTLD_GLOBAL)
        self.functions.faults_arm.argtypes = [ctypes.c_long, ctypes.c_long]
        for name in ("count", "failures"):
            getattr(self.functions, f"faults_{name}").restype = ctypes.c_long
        for name in ("name", "file"):
            function = getattr(self.functions, f"faults_{name}")
            function.argtypes, function.restype = [ctypes.c_long], ctypes.c_char_p
        self.functions.faults_line.argtypes = [ctypes.c_long]

    def arm(self, first: int = 0, window: int = 1) -> None:
        """Let the calls number first to first + window - 1 fail; 0: none."""
        self.functions.faults_arm(first, first + window - 1 if first else 0)

    def disarm(self) -> None:
        self.functions.faults_disarm()

    @property
    def count(self) -> int:
        """How many calls there were while it was armed."""
        return int(self.functions.faults_count())

    @property
    def failures(self) -> int:
        """How many of them failed."""
        return int(self.functions.faults_failures())

    def site(self, number: int) -> Site:
        """Where the call of this number stands, counted from 1."""
        get = self.functions
        name, file = get.faults_name(number).decode(), get.faults_file(number).decode()
        return name, file, get.faults_line(number)


@functools.cache
def fallible_names() -> frozenset[str]:
    """The functions that csrc/base/faults.h makes fail."""
    text = (CSRC / "base" / "faults.h").read_text()
    return frozenset(re.findall(r"^# *define (\w+)\(\.\.\.\)", text, re.MULTILINE))


def count_sites() -> Counter[str]:
    """How often each file of csrc/ calls one of them."""
    found: Counter[str] = Counter()
    macros = {"PyObject_GC_New", "PyObject_New", "PyMem_New", "PyMem_Resize"}
    for path in sorted(CSRC.rglob("*.c")):
        text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
        names = re.findall(r"\b(\w+)\(", text)
        wanted = fallible_names() | macros
        found[f"csrc/{path.relative_to(CSRC)}"] = sum(name in wanted for name in names)
    return found

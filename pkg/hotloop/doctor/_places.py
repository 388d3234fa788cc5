"""Which lines are the program's, and what stands there."""

from __future__ import annotations

import ast
import asyncio
import asyncio.events
import functools
import itertools
import linecache
import os
import site
import sysconfig
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any

from .._loop import Loop
from ._findings import Place


def _library_folders() -> tuple[str, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {sysconfig.get_path(name) for name in names}
    folders |= {*site.getsitepackages(), site.getusersitepackages()}
    folders.add(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    found = {folder for folder in folders if folder}
    found |= {os.path.realpath(folder) for folder in found}
    return tuple(os.path.join(folder, "") for folder in found)


_LIBRARIES = _library_folders()
_STANDARD = tuple(
    os.path.join(os.path.realpath(sysconfig.get_path(name)), "")
    for name in ("stdlib", "platstdlib")
)
_OURS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")
_DOCTOR = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")
_ASYNCIO = os.path.join(os.path.dirname(os.path.abspath(os.__file__)), "asyncio", "")


@functools.cache
def is_library(file: str) -> bool:
    """Whether the file belongs to Python, to an installed package or to hotloop."""
    return file.startswith(("<frozen", *_LIBRARIES))


@functools.cache
def is_loop(file: str) -> bool:
    """Whether the file is of asyncio or hotloop, the doctor included."""
    return file.startswith((_ASYNCIO, _OURS))


def is_doctor(file: str) -> bool:
    """Whether the file is of the doctor."""
    return file.startswith(_DOCTOR)


@functools.cache
def is_package(file: str) -> bool:
    """Whether the file is of an installed package: neither Python's nor the program."""
    if not is_library(file) or is_loop(file) or file.startswith("<frozen"):
        return False
    real = os.path.realpath(file)
    return "site-packages" in real or not real.startswith(_STANDARD)


def function_name(code: CodeType) -> str:
    """The name of a function as it is known in its module."""
    return code.co_qualname.replace("<locals>.", "")


def place_of(frame: FrameType) -> Place:
    """Where a frame is."""
    code = frame.f_code
    line = frame.f_lineno or code.co_firstlineno
    return Place(code.co_filename, line, function_name(code))


_run_forever: Any = Loop.run_forever
_handle_run: Any = asyncio.events.Handle._run
_base: Any = asyncio.BaseEventLoop
# Above these frames is a callback; above the other ones is the loop itself.
# By address: to compare code is slow.
CALLS_BACK = {id(_run_forever.__code__), id(_handle_run.__code__)}
ITSELF = {id(_base.run_forever.__code__), id(_base._run_once.__code__)}
LOOPS = CALLS_BACK | ITSELF


class Finder:
    """Finds the program's line that is responsible for a frame."""

    def __init__(self, libraries: bool) -> None:
        self.libraries = libraries
        self._is_program = functools.cache(self.is_program)
        # With the function, whose address would be another's when it is gone.
        self._places: dict[tuple[int, int], tuple[Place, CodeType]] = {}

    def is_program(self, file: str) -> bool:
        """Whether the file is one whose mistakes are reported."""
        if self.libraries:
            return not is_loop(file) and not file.startswith("<frozen")
        return not is_library(file)

    def above(self, frame: FrameType | None) -> Place | None:
        """The innermost line of the program that led to a frame.

        What runs the loop did not: the frames below those of the loop do not count.
        """
        while frame is not None and id(frame.f_code) not in LOOPS:
            if self._is_program(frame.f_code.co_filename):
                return self._place(frame)
            frame = frame.f_back
        return None

    def _place(self, frame: FrameType) -> Place:
        code = frame.f_code
        key = id(code), frame.f_lasti
        known = self._places.get(key)
        if known is None:
            known = self._places[key] = place_of(frame), code
        return known[0]


# ---- the text of the program ----


@functools.lru_cache(maxsize=200)
def _tree(file: str) -> ast.Module | None:
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return None


_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@functools.lru_cache(maxsize=2000)
def function_node(code: CodeType) -> ast.AST | None:
    """The definition that the code was made from, if its text is there."""
    tree = _tree(code.co_filename)
    if tree is None or not tree.body:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            if node.name == code.co_name and first == code.co_firstlineno:
                return node
    return None


def nodes_of(function: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a function but those of functions defined in it."""
    waiting = list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, _Function | ast.ClassDef):
            waiting.extend(ast.iter_child_nodes(node))


def call_text(code: CodeType, offset: int) -> str:
    """The text of the expression that an instruction belongs to, one line of it."""
    positions = itertools.islice(code.co_positions(), max(0, offset // 2), None)
    line, end, column, last = next(positions, (None, None, None, None))
    if line is None or column is None or last is None:
        return ""
    text = linecache.getline(code.co_filename, line).encode()
    if end == line:
        text = text[column:last]
    return text.decode(errors="replace").strip()

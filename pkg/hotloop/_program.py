"""What ``python -m hotloop`` does: a program is run as Python itself would run it.

The program gets a ``__main__`` module of its own, its sys.argv and sys.path[0], and
the event loops that asyncio makes for it are hotloop's. What it chooses by itself, a
policy or a loop factory, is used as ever.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import importlib.machinery
import io
import linecache
import os
import pkgutil
import runpy
import sys
import textwrap
import types
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from ._inherit import switch_on
from ._version import __version__

_runpy: Any = runpy

HELP = """\
usage: python -m hotloop [--streams] [-c COMMAND | -m MODULE | FILE | -] [ARGUMENT ...]

Run a Python program, with no change to it, on hotloop's event loop. Without a
program there is asyncio's prompt, where "await" may be used directly.

  FILE          a script, or a folder or zip file with a __main__.py
  -m MODULE     a module, as "python -m"
  -c COMMAND    a program in an argument, as "python -c"
  -             a program from standard input
  ARGUMENT ...  sys.argv[1:] of the program

  top | record | plot ...
                watch a loop that runs, or draw what was recorded; each has --help
                (a file of such a name is run as "./top")

  --streams     have asyncio's stream functions make hotloop's streams in C
  -V, --version
  -h, --help

Options for the interpreter go before "-m hotloop". "python -m hotloop doctor" runs a
program, too, and reports its mistakes; it has a --help of its own.
"""

# Python 3.15 has filters of warnings that ask for the module.
_COMPILED: dict[str, Any] = (
    {"module": "__main__"} if sys.version_info >= (3, 15) else {}
)


# Commands of our own: the modules that have their main().
_COMMANDS = {
    "plot": "hotloop._watch.plot",
    "record": "hotloop._watch.record",
    "top": "hotloop._watch.top",
}


class Request(NamedTuple):
    """What the command line asks for: kind is an option, or "" for a file."""

    kind: str
    what: str
    arguments: list[str]
    streams: bool


def _refuse(message: str) -> NoReturn:
    print(f"python -m hotloop: {message}", file=sys.stderr)
    print(HELP.partition("\n")[0], file=sys.stderr)
    sys.exit(2)


def parse(words: list[str]) -> Request:
    """Read the command line; what follows the program is the program's."""
    streams = False
    for place, word in enumerate(words):
        rest = words[place + 1 :]
        if word == "--streams":
            streams = True
        elif word in ("-h", "--help"):
            print(HELP, end="")
            sys.exit()
        elif word in ("-V", "--version"):
            print(f"hotloop {__version__}")
            sys.exit()
        elif word[:2] in ("-c", "-m"):
            values = [word[2:], *rest] if word[2:] else rest
            if not values:
                _refuse(f"argument expected for the {word} option")
            return Request(word[:2], values[0], values[1:], streams)
        elif word == "-":
            return Request("-", "-", rest, streams)
        elif word.startswith("-"):
            _refuse(f"unknown option {word}")
        else:
            return Request("", word, rest, streams)
    return Request("-m", "asyncio", [], streams)


# ---- what Python does before it runs a program ----


def _new_main() -> dict[str, Any]:
    """Put a fresh ``__main__`` in place, as Python begins with; return its names."""
    module = types.ModuleType("__main__")
    names = vars(module)
    names["__loader__"] = importlib.machinery.BuiltinImporter
    if sys.version_info < (3, 14):
        names["__annotations__"] = {}
    names["__builtins__"] = builtins
    # multiprocessing, which is loaded already, has named the one before so.
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
    return names


def _set_first_path(folder: str) -> None:
    # With the option -P nobody has put the current folder there.
    if not sys.flags.safe_path:
        sys.path[0] = folder


def _absolute(path: str) -> str:
    """The path as Python makes it absolute, which is not normalized."""
    return os.path.join(os.getcwd(), path)


def _compile(source: str | bytes, filename: str) -> types.CodeType:
    code: types.CodeType = compile(
        source, filename, "exec", dont_inherit=True, **_COMPILED
    )
    return code


def _name_file(names: dict[str, Any], filename: str) -> None:
    names["__file__"] = filename
    if sys.version_info < (3, 15):
        names["__cached__"] = None


# ---- the kinds of programs: each returns what starts the program ----


def _module(name: str, names: dict[str, Any]) -> Callable[[], Any]:
    sys.audit("cpython.run_module", name)
    return functools.partial(_runpy._run_module_as_main, name)


def _command(source: str, names: dict[str, Any]) -> Callable[[], Any]:
    _set_first_path("")
    sys.audit("cpython.run_command", source)
    if sys.version_info >= (3, 14):
        source = textwrap.dedent(source)
    code = _compile(source, "<string>")
    if sys.version_info >= (3, 13):
        # From here tracebacks take the lines.
        lines = source.splitlines(keepends=True)
        linecache.cache["<string>"] = (len(source), None, lines, "<string>")
    return functools.partial(exec, code, names)


def _standard_input(_: str, names: dict[str, Any]) -> Callable[[], Any]:
    _set_first_path("")
    sys.audit("cpython.run_stdin")
    if sys.stdin is not None and sys.stdin.isatty():
        return functools.partial(_runpy._run_module_as_main, "asyncio")
    _name_file(names, "<stdin>")
    source = b"" if sys.stdin is None else sys.stdin.buffer.read()
    code = _compile(source, "<stdin>")
    return functools.partial(exec, code, names)


def _file(path: str, names: dict[str, Any]) -> Callable[[], Any]:
    filename = _absolute(path)
    sys.audit("cpython.run_file", filename)
    if pkgutil.get_importer(filename) is not None:  # a folder or a zip file
        if sys.flags.safe_path:
            sys.path.insert(0, filename)
        else:
            sys.path[0] = filename
        return functools.partial(_runpy._run_module_as_main, "__main__", False)
    try:
        with io.open_code(filename) as file:
            source = file.read()
    except OSError as error:
        reason = f"[Errno {error.errno}] {error.strerror}"
        name = sys.orig_argv[0]
        print(f"{name}: can't open file {filename!r}: {reason}", file=sys.stderr)
        sys.exit(2)
    _set_first_path(os.path.dirname(os.path.realpath(filename)))
    kind: Any = importlib.machinery.SourceFileLoader
    code = pkgutil.read_code(io.BytesIO(source))
    if code is not None:
        kind = importlib.machinery.SourcelessFileLoader
    names["__loader__"] = kind("__main__", filename)
    _name_file(names, filename)
    return functools.partial(exec, code or _compile(source, filename), names)


_KINDS: dict[str, Callable[[str, dict[str, Any]], Callable[[], Any]]] = {
    "-c": _command,
    "-m": _module,
    "-": _standard_input,
    "": _file,
}


# ---- running ----


def _show_without_us(error: BaseException) -> None:
    """Have the traceback of an exception begin where the program does.

    Python shows it when it has left every frame. Until then our frames are added.
    """
    kept = error.__traceback__
    while kept is not None and kept.tb_frame.f_globals is globals():
        kept = kept.tb_next
    try:
        hook = sys.excepthook
    except AttributeError:
        return  # the program took it away, and Python will say so

    def show(kind: Any, value: Any, traceback: Any) -> None:
        sys.excepthook = hook
        if value is error:
            traceback = sys.last_traceback = kept
            # Not by an assignment, which a frozen dataclass refuses.
            BaseException.with_traceback(value, kept)
        hook(kind, value, traceback)

    sys.excepthook = show


def main(words: list[str]) -> None:
    """Run what the command line asks for, and leave as the program does."""
    if words and words[0] in _COMMANDS:
        importlib.import_module(_COMMANDS[words[0]]).main(words[1:])
        return
    kind, what, arguments, streams = parse(words)
    switch_on(streams)
    sys.argv = [what if kind in ("", "-") else kind, *arguments]
    names = _new_main()
    try:
        _KINDS[kind](what, names)()
    except SystemExit:
        raise
    except BaseException as error:
        _show_without_us(error)
        raise

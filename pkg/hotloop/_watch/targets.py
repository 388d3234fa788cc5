"""From what is typed to a control socket."""

from __future__ import annotations

import argparse
import os
import re
import sys
from typing import NoReturn

from ..control import Client, ControlError, Place, find

HOW = """\
A program has a control socket if it was started with HOTLOOP_CONTROL=1 in its
environment, or if it asks for one: hotloop.run(main(), control=True).\
"""


class NoTarget(Exception):
    """There is nothing to look at; its text says why."""


def _of_process(pid: int, number: int | None) -> Place:
    places = [place for place in find(pid) if number in (None, place.number)]
    if len(places) == 1:
        return places[0]
    if places:
        names = ", ".join(f"{place.pid}-{place.number}" for place in places)
        raise NoTarget(f"process {pid} has several loops; choose one of {names}")
    if os.path.isdir("/proc/self") and not os.path.isdir(f"/proc/{pid}"):
        raise NoTarget(f"there is no process {pid}")
    what = "control socket" if number is None else f"control socket {number}"
    raise NoTarget(f"process {pid} has no {what}.\n{HOW}")


def connect(target: str) -> Client:
    """Connect to a loop by PID, PID-NUMBER or path; raise NoTarget if there is none."""
    match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", target)
    if match is None:
        path = target
    else:
        number = None if match[2] is None else int(match[2])
        path = _of_process(int(match[1]), number).path
    try:
        return Client(path)
    except OSError as error:
        raise NoTarget(f"{path}: {error.strerror or error}") from None


def seconds(text: str) -> float:
    """An interval of the command line."""
    value = float(text)
    if not 0.01 <= value <= 86400:
        raise argparse.ArgumentTypeError("must be from 0.01 to 86400 seconds")
    return value


def end(command: str, error: Exception) -> NoReturn:
    """Say on standard error what a command cannot do, and leave."""
    print(f"python -m hotloop {command}: {error}", file=sys.stderr)
    sys.exit(1)


__all__ = [
    "HOW",
    "Client",
    "ControlError",
    "NoTarget",
    "connect",
    "end",
    "find",
    "seconds",
]

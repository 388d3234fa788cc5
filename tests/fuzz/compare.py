"""A program on two loops, and the first place where the traces part."""

from __future__ import annotations

import asyncio
import gc
import pprint
from typing import Any

from .clock import START, standing
from .machine import Entry, run_program

CONTEXT = 6  # lines shown ahead of a difference


class DifferenceError(AssertionError):
    """The loops did not do the same."""


def new_loop(kind: str) -> Any:
    if kind == "asyncio":
        return asyncio.SelectorEventLoop()
    if kind == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    if kind == "testing":
        from hotloop.testing import Clock, TestLoop

        # Never on a tick, as clock.c's never is: times are shown rounded.
        return TestLoop(Clock(START + 1e-6, autojump=True))
    import hotloop

    return hotloop.new_event_loop()


def trace_of(kind: str, program: dict[str, Any]) -> list[Entry]:
    """Run a program on a loop of this kind, by the clock that stands."""
    gc.disable()
    gc.freeze()  # the collection after the program looks at its objects only
    try:
        with standing():
            return run_program(kind, new_loop(kind), program)
    finally:
        gc.enable()


def compare(program: dict[str, Any], kind: str = "hotloop") -> None:
    """Raise DifferenceError unless the loop does as asyncio does.

    A SystemError is a fault of the interpreter's own, and sets no standard.
    """
    expected = trace_of("asyncio", program)
    found = trace_of(kind, program)
    if expected != found and "SystemError" not in repr(expected):
        raise DifferenceError(difference(expected, found, kind))


def difference(expected: list[Entry], found: list[Entry], kind: str) -> str:
    """The lines up to where they part, and what each loop has there."""
    at = 0
    while at < min(len(expected), len(found)) and expected[at] == found[at]:
        at += 1
    lines = [f"event {at} differs; before it:"]
    lines += [f"  {entry}" for entry in expected[max(0, at - CONTEXT) : at]]
    for name, trace in (("asyncio", expected), (kind, found)):
        lines.append(f"{name}:")
        lines += [f"  {entry}" for entry in trace[at : at + 3]] or ["  (ended)"]
    return "\n".join(lines)


def show(program: dict[str, Any]) -> str:
    return pprint.pformat(program, width=78, sort_dicts=False)

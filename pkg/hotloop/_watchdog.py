"""The watchdog's report of a callback that blocks the loop."""

from __future__ import annotations

import asyncio
import dataclasses
import traceback
from collections.abc import Callable
from typing import Any

logger = asyncio.log.logger

# Below this, seconds of waiting for the GIL are nothing special.
_WORTH_TELLING = 0.05


@dataclasses.dataclass(frozen=True, slots=True)
class BlockedCallback:
    """A callback that keeps its loop from going on: what the watchdog reports.

    ``callback`` is the repr of the handle or task, ``seconds`` how long it has run at
    least, ``limit`` the one that was set. ``stack`` is the Python stack of the loop's
    thread from the callback on, the innermost call last. ``gil_wait`` is how many seconds
    the report had to wait for the GIL: code in C may keep it all the time. ``ended`` says
    that the callback had returned by then: there is no stack in that case.
    """

    loop: asyncio.AbstractEventLoop
    callback: str
    seconds: float
    limit: float
    thread_id: int
    thread_name: str
    stack: traceback.StackSummary
    gil_wait: float
    ended: bool

    def __str__(self) -> str:
        """Return the report as text, as it is logged."""
        verb = "blocked" if self.ended else "has blocked"
        lines = [
            f"{self.callback} {verb} the loop in thread {self.thread_name} for "
            f"{self.seconds:.3f} seconds (limit {self.limit:g})"
        ]
        if self.gil_wait >= _WORTH_TELLING:
            lines.append(f"The report waited {self.gil_wait:.3f} seconds for the GIL")
        if self.stack:
            lines.append("Stack (most recent call last):")
            lines += "".join(self.stack.format()).rstrip("\n").split("\n")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as what JSON knows; the stack is a list of strings."""
        return {
            "loop": repr(self.loop),
            "callback": self.callback,
            "seconds": self.seconds,
            "limit": self.limit,
            "thread_id": self.thread_id,
            "thread_name": self.thread_name,
            "stack": self.stack.format(),
            "gil_wait": self.gil_wait,
            "ended": self.ended,
        }


Report = Callable[[BlockedCallback], object]


def log_blocked(blocked: BlockedCallback) -> None:
    """Log the report as a warning of the ``asyncio`` logger."""
    logger.warning("%s", blocked)

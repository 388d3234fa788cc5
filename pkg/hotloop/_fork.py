"""What os.fork() does to the loops of a process.

A forked child has the parent's loops, and its descriptors are the parent's very
own: its epoll, its wake-up, its self-pipe. They are replaced before any other code
runs in the child, which may then use, close or forget those loops, and the parent
never notices.
"""

from __future__ import annotations

import contextlib
import os
import signal
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._loop import Loop

_loops: weakref.WeakSet[Loop] = weakref.WeakSet()


def track(loop: Loop) -> None:
    """Have this loop looked after when the process forks."""
    _loops.add(loop)


def _before() -> None:
    for loop in list(_loops):
        loop._before_fork()


def _forget_wakeup(loops: list[Loop]) -> None:
    # Python before 3.12 leaves the child with the parent's wake-up descriptor: a
    # signal to the child would be taken for one to the parent.
    ours = {loop._csock.fileno() for loop in loops if loop._csock is not None}
    with contextlib.suppress(ValueError):
        before = signal.set_wakeup_fd(-1)
        if before != -1 and before not in ours:
            signal.set_wakeup_fd(before)


def _after_in_child() -> None:
    loops = list(_loops)
    _forget_wakeup(loops)
    for loop in loops:
        loop._after_fork()


os.register_at_fork(before=_before, after_in_child=_after_in_child)

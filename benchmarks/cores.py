"""Which core runs what, and pinning to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Cores:
    """The cores of one run; None means: not pinned."""

    server: int | None
    client: int | None

    @property
    def note(self) -> str:
        """Say in words what is pinned where."""
        if self.server is None:
            return "not pinned: this needs two cores and sched_setaffinity"
        return f"server on core {self.server}, client on core {self.client}"


def choose_cores() -> Cores:
    """Take the first two cores this process may use."""
    if not hasattr(os, "sched_getaffinity"):
        return Cores(None, None)
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) == 1:
        return Cores(None, None)
    return Cores(allowed[0], allowed[1])


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Pin this process inside the block, so that children inherit the core."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)

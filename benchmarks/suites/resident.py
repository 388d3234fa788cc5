"""What the suites that measure resident memory have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..model import Row
from .base import Session, Settings, Unavailable


class ResidentSuite:
    """A suite on Linux, of rows that are each measured in processes of their own."""

    extra_loops: tuple[str, ...] = ()
    open_session: Callable[[Settings], Session]

    def rows(self) -> list[Row]:
        raise NotImplementedError

    def default_rows(self) -> list[Row]:
        return self.rows()

    def prepare(self) -> None:
        if sys.platform != "linux":
            raise Unavailable("resident memory is read from /proc, on Linux only")

    @contextmanager
    def session(self, settings: Settings) -> Iterator[Session]:
        yield self.open_session(settings)

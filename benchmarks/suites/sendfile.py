"""Suite *sendfile*: a file sent through a TCP connection."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ..child import Child, module_command
from ..model import Row, Sample
from .base import Settings, Unavailable

MIB = 1 << 20
ROWS = ("sendfile", "sock_sendfile", "write")
SIZE = 100
TIMES = 5
QUICK_TIMES = 2
TIMEOUT = 120.0


class SendfileSession:
    """Starts a process for every measurement."""

    def __init__(self, settings: Settings) -> None:
        self._times = QUICK_TIMES if settings.quick else TIMES

    def measure(self, row: Row, loop: str) -> Sample:
        """Have a process send the file, and say what it cost."""
        command = module_command("workers.sendfile", loop, row.name, SIZE, self._times)
        with Child(command) as worker:
            figures = worker.read(TIMEOUT)
        return Sample(figures.pop("ns"), figures)


class SendfileSuite:
    """CPU time of the sending process for one file of 100 MiB."""

    name = "sendfile"
    extra_loops: tuple[str, ...] = ()

    def rows(self) -> list[Row]:
        return [Row(self.name, name, "ns") for name in ROWS]

    def default_rows(self) -> list[Row]:
        return self.rows()

    def prepare(self) -> None:
        if sys.platform == "win32":
            raise Unavailable("sendfile needs a Unix system")

    @contextmanager
    def session(self, settings: Settings) -> Iterator[SendfileSession]:
        yield SendfileSession(settings)

"""Suite *subprocess*: wall time of child processes and of their pipes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..child import Child, module_command
from ..model import Row, Sample
from .base import Settings, Unavailable

ROWS = ("true", "true/1GiB", "true/10", "communicate", "lines", "output/MiB")
PROGRAMS = ("/bin/true", "/bin/cat", "/usr/bin/head")
ROUNDS = 400
QUICK_ROUNDS = 100
TIMEOUT = 120.0


class ProcessesSession:
    """Starts a process for every measurement, which starts the others."""

    def __init__(self, settings: Settings) -> None:
        self._rounds = QUICK_ROUNDS if settings.quick else ROUNDS

    def measure(self, row: Row, loop: str) -> Sample:
        """Measure one row under one loop."""
        command = module_command("workers.processes", loop, row.name, self._rounds)
        with Child(command) as worker:
            figures = worker.read(TIMEOUT)
        return Sample(figures["ns"], {"count": figures["count"]})


class ProcessesSuite:
    """Rows of `benchmarks.workers.processes`, in nanoseconds."""

    name = "subprocess"
    extra_loops: tuple[str, ...] = ()

    def rows(self) -> list[Row]:
        return [Row(self.name, name, "ns") for name in ROWS]

    def default_rows(self) -> list[Row]:
        return self.rows()

    def prepare(self) -> None:
        missing = [name for name in PROGRAMS if not Path(name).exists()]
        if missing:
            raise Unavailable(f"there is no {', '.join(missing)}")

    @contextmanager
    def session(self, settings: Settings) -> Iterator[ProcessesSession]:
        yield ProcessesSession(settings)

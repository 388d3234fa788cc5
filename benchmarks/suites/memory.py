"""Suite *memory*: resident bytes of one timer, connection or task."""

from __future__ import annotations

from ..child import Child, module_command
from ..model import Row, Sample
from .base import Settings
from .resident import ResidentSuite

ROWS = ("timer", "connection", "task")
COUNT = 50_000
QUICK_COUNT = 10_000
TIMEOUT = 120.0


class MemorySession:
    """Starts a process for every measurement."""

    def __init__(self, settings: Settings) -> None:
        self._count = QUICK_COUNT if settings.quick else COUNT

    def measure(self, row: Row, loop: str) -> Sample:
        """Measure one kind of object under one loop."""
        command = module_command("workers.memory", loop, row.name, self._count)
        with Child(command) as worker:
            figures = worker.read(TIMEOUT)
        return Sample(figures["bytes"], {"count": figures["count"]})


class MemorySuite(ResidentSuite):
    """Rows of `benchmarks.workers.memory`, in bytes each."""

    name = "memory"
    open_session = MemorySession

    def rows(self) -> list[Row]:
        return [Row(self.name, name, "bytes") for name in ROWS]

"""Suite *scale*: a million timers, a million tasks, and other crowds."""

from __future__ import annotations

from ..child import Child, module_command
from ..model import Row, Sample
from .base import Settings
from .resident import ResidentSuite

COUNTS = {"timers": 1_000_000, "tasks": 1_000_000, "futures": 100_000}
IDLE_CONNECTIONS = 10_000
QUICK_PART = 20
TIMEOUT = 300.0


class ScaleSession:
    """Starts a process for every measurement."""

    def __init__(self, settings: Settings) -> None:
        self._part = QUICK_PART if settings.quick else 1

    def measure(self, row: Row, loop: str) -> Sample:
        """Measure one crowd under one loop."""
        kind, _, figure = row.name.partition("/")
        if kind == "connections":
            count = IDLE_CONNECTIONS // self._part
            command = module_command("workers.memory", loop, "connection", count)
        else:
            count = COUNTS[kind] // self._part
            command = module_command("workers.scale", loop, kind, count)
        with Child(command) as worker:
            figures = worker.read(TIMEOUT)
        value = figures["bytes" if figure == "memory" else "ns"]
        return Sample(value, {"count": figures.get("count", count)})


class ScaleSuite(ResidentSuite):
    """Rows of `benchmarks.workers.scale`, each of one timer, task or future."""

    name = "scale"
    open_session = ScaleSession

    def rows(self) -> list[Row]:
        rows = [Row(self.name, kind, "ns") for kind in COUNTS]
        kinds = (*COUNTS, "connections")
        return rows + [Row(self.name, f"{kind}/memory", "bytes") for kind in kinds]

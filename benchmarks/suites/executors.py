"""Suite *exec*: CPU time of a call in a thread pool, all threads counted."""

from __future__ import annotations

from ..model import Row
from ..rows import EXEC_ROWS
from .tasks import TasksSuite


class ExecSuite(TasksSuite):
    """Rows of `benchmarks.rows.executors`, in nanoseconds per call."""

    name = "exec"

    def rows(self) -> list[Row]:
        return [Row(self.name, name, "ns") for name in EXEC_ROWS]

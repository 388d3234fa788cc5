"""Suite *tasks*: CPU time of one operation of asyncio, without sockets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..child import Child, ChildError, module_command
from ..model import Row, Sample
from ..rows import LOOPLESS, ROWS
from .base import Settings, Unavailable

TIMEOUT = 60.0

# The ceiling: no loop at all, a coroutine that is sent None by C as fast as the
# interpreter goes.
CEILING = "no-loop"


class TasksSession:
    """One worker process per loop, each running rows when asked to."""

    def __init__(self, settings: Settings) -> None:
        self._core = settings.cores.client
        self._quick = settings.quick
        self._workers: dict[str, Child] = {}

    def measure(self, row: Row, loop: str) -> Sample:
        """Have the worker of this loop measure one row."""
        if loop == CEILING and row.name not in LOOPLESS:
            raise Unavailable("needs an event loop")
        worker = self._workers.get(loop)
        if worker is None:
            worker_name = "loopless" if loop == CEILING else "tasks"
            command = module_command(f"workers.{worker_name}", loop)
            worker = self._workers[loop] = Child(command, self._core)
        request = {"row": row.name, "quick": self._quick}
        try:
            reply = worker.ask(request, TIMEOUT)
        except ChildError:
            self._workers.pop(loop).close()
            raise
        return Sample(reply["ns"], {"iterations": reply["iterations"]})

    def close(self) -> None:
        """Stop all workers."""
        for worker in self._workers.values():
            worker.close()


class TasksSuite:
    """Rows of `benchmarks.rows`, in nanoseconds per operation."""

    name = "tasks"
    extra_loops: tuple[str, ...] = (CEILING,)

    def rows(self) -> list[Row]:
        return [Row(self.name, name, "ns") for name in ROWS]

    def default_rows(self) -> list[Row]:
        return self.rows()

    def prepare(self) -> None:
        pass

    @contextmanager
    def session(self, settings: Settings) -> Iterator[TasksSession]:
        session = TasksSession(settings)
        try:
            yield session
        finally:
            session.close()

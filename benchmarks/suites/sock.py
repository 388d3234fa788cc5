"""Suite *sock*: programs of ``sock_*`` calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..child import module_command
from ..model import Row, Sample
from ..rows import SOCKET_ROWS
from .base import Settings
from .net import SIZES, NetSession, NetSuite
from .tasks import TasksSession

MODES = ("recv", "recv_into")
CONNECTIONS = (1, 50)


class EchoSession(NetSession):
    """Measures echo servers under the load generator of suite *net*."""

    def command(self, loop: str, mode: str, size: int) -> list[str]:
        return module_command("servers.sock", loop, mode)


class SockSession:
    """Measures rows of both kinds."""

    def __init__(self, settings: Settings) -> None:
        self._echo = EchoSession(settings)
        self._tasks = TasksSession(settings)

    def measure(self, row: Row, loop: str) -> Sample:
        """Measure one row under one loop."""
        if row.name in SOCKET_ROWS:
            return self._tasks.measure(row, loop)
        return self._echo.measure(row, loop)

    def close(self) -> None:
        """Stop all workers."""
        self._tasks.close()


class SockSuite:
    """Rows mode/connections/size in requests per second, others in time."""

    name = "sock"
    extra_loops: tuple[str, ...] = ()

    def rows(self) -> list[Row]:
        echo = [
            Row(self.name, f"{mode}/{connections}/{size}", "req/s", True)
            for mode in MODES
            for connections in CONNECTIONS
            for size in SIZES
        ]
        return echo + [Row(self.name, name, "ns") for name in SOCKET_ROWS]

    def default_rows(self) -> list[Row]:
        return [row for row in self.rows() if not row.name.endswith("/128B")]

    def prepare(self) -> None:
        NetSuite().prepare()

    @contextmanager
    def session(self, settings: Settings) -> Iterator[SockSession]:
        session = SockSession(settings)
        try:
            yield session
        finally:
            session.close()

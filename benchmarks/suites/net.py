"""Suite *net*: echo servers under our own load generator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase

from .. import cbuild
from ..child import Child, module_command
from ..loops import CEILING
from ..model import Row, Sample
from .base import Settings, Unavailable

MODES = (
    *("protocol", "buffered", "streams_read", "streams_readline", "two_writes"),
    # The streams of the loop itself, where it has some.
    *("cstreams_read", "cstreams_readline"),
)
CONNECTIONS = (1, 50, 1000)
SIZES = {"128B": 128, "1KiB": 1024, "64KiB": 65536}
DEFAULT = (
    "*/50/1KiB",
    "protocol/*/1KiB",
    "protocol/50/*",
    "buffered/50/64KiB",
    "streams_read/1000/1KiB",
    "streams_readline/50/128B",
    "cstreams_readline/50/128B",
)
CEILING_MODES = {"two_writes": "two_writes", "streams_readline": "fixed"}
CEILING_MODES["cstreams_readline"] = "fixed"

START_TIMEOUT = 20.0
LOAD_TIMEOUT = 60.0


@dataclass(frozen=True)
class Window:
    """Seconds of warm-up and of measuring."""

    warmup: float
    measured: float


NORMAL = Window(0.5, 2.0)
QUICK = Window(0.2, 0.6)


def server_command(loop: str, mode: str, size: int) -> list[str]:
    """Return the command of the server, in Python or in C."""
    if loop == CEILING:
        return [str(cbuild.uvecho()), CEILING_MODES.get(mode, "echo"), str(size)]
    return module_command("servers.echo", loop, mode, size)


class NetSession:
    """Starts a server and a load generator for every measurement."""

    def __init__(self, settings: Settings) -> None:
        self._cores = settings.cores
        self._window = QUICK if settings.quick else NORMAL

    def command(self, loop: str, mode: str, size: int) -> list[str]:
        """Return the command of the server."""
        return server_command(loop, mode, size)

    def measure(self, row: Row, loop: str) -> Sample:
        """Measure one server; both processes are new."""
        mode, connections, size_name = row.name.split("/")
        size = SIZES[size_name]
        try:
            command = self.command(loop, mode, size)
        except cbuild.BuildError as exc:
            raise Unavailable(str(exc)) from None
        with Child(command, self._cores.server) as server:
            port = server.read(START_TIMEOUT)["port"]
            return self._load(port, int(connections), size, server.pid)

    def _load(self, port: int, connections: int, size: int, server: int) -> Sample:
        window = self._window
        numbers = (port, connections, size, window.warmup, window.measured, server)
        command = [str(cbuild.loadgen()), *map(str, numbers)]
        with Child(command, self._cores.client) as client:
            figures = client.read(LOAD_TIMEOUT)
        return Sample(figures.pop("rps"), figures)


class NetSuite:
    """Rows named mode/connections/size, in requests per second."""

    name = "net"
    extra_loops: tuple[str, ...] = (CEILING,)

    def rows(self) -> list[Row]:
        return [
            Row(self.name, f"{mode}/{connections}/{size}", "req/s", True)
            for mode in MODES
            for connections in CONNECTIONS
            for size in SIZES
        ]

    def default_rows(self) -> list[Row]:
        return [
            row
            for row in self.rows()
            if any(fnmatchcase(row.name, pattern) for pattern in DEFAULT)
        ]

    def prepare(self) -> None:
        try:
            cbuild.loadgen()
        except cbuild.BuildError as exc:
            raise Unavailable(str(exc)) from None

    @contextmanager
    def session(self, settings: Settings) -> Iterator[NetSession]:
        yield NetSession(settings)

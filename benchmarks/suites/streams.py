"""Suite *streams*: servers of streams under our own load generator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .. import cbuild
from ..child import Child, module_command
from ..loops import CEILING
from ..model import USER_CPU, Row, Sample
from .base import Settings, Unavailable
from .net import LOAD_TIMEOUT, NORMAL, QUICK, START_TIMEOUT, NetSuite

MODES = ("readline", "length_prefixed", "read")
OWN = "c-"
CONNECTIONS = 50
# Bytes of a message; the length before the second kind is four of them.
SIZES = {"readline": 128, "length_prefixed": 4 + 1024, "read": 1024}
CEILING_MODES = {"readline": "fixed", "length_prefixed": "fixed", "read": "echo"}
FRAMING = {"length_prefixed": ["prefixed"]}


def server_command(loop: str, mode: str) -> list[str]:
    """Return the command of the server, in Python or in C."""
    if loop == CEILING:
        plain = mode.removeprefix(OWN)
        return [str(cbuild.uvecho()), CEILING_MODES[plain], str(SIZES[plain])]
    return module_command("servers.streams", loop, mode)


class StreamsSession:
    """Starts a server and a load generator for every measurement."""

    def __init__(self, settings: Settings) -> None:
        self._cores = settings.cores
        self._window = QUICK if settings.quick else NORMAL

    def measure(self, row: Row, loop: str) -> Sample:
        """Measure one server; both processes are new."""
        try:
            command = server_command(loop, row.name)
        except cbuild.BuildError as exc:
            raise Unavailable(str(exc)) from None
        with Child(command, self._cores.server) as server:
            port = server.read(START_TIMEOUT)["port"]
            return self._load(row.name.removeprefix(OWN), port, server.pid)

    def _load(self, mode: str, port: int, pid: int) -> Sample:
        window = self._window
        numbers = (port, CONNECTIONS, SIZES[mode], window.warmup, window.measured, pid)
        command = [str(cbuild.loadgen()), *map(str, numbers), *FRAMING.get(mode, [])]
        with Child(command, self._cores.client) as client:
            figures = client.read(LOAD_TIMEOUT)
        return Sample(figures.pop("rps"), figures)


class StreamsSuite:
    """Rows of asyncio's streams, then of those a loop brings itself."""

    name = "streams"
    extra_loops: tuple[str, ...] = (CEILING,)

    def rows(self) -> list[Row]:
        names = [*MODES, *(OWN + mode for mode in MODES)]
        return [Row(self.name, name, "req/s", True, USER_CPU) for name in names]

    def default_rows(self) -> list[Row]:
        return self.rows()

    def prepare(self) -> None:
        NetSuite().prepare()

    @contextmanager
    def session(self, settings: Settings) -> Iterator[StreamsSession]:
        yield StreamsSession(settings)

"""Suite *connect*: clients with a connection per request, and accept storms."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .. import cbuild
from ..child import Child, module_command
from ..cputime import CpuMeter
from ..model import Row, Sample
from .base import Settings, Unavailable

# Client mode -> mode of the C server that it talks to.
CLIENTS = {"protocol": "echo", "streams": "echo", "aiohttp": "http"}
STORM = "accept/1000"
STORM_CONNECTIONS = 1000
START_TIMEOUT = 20.0
TIMEOUT = 60.0
SECONDS, QUICK_SECONDS = 2.0, 0.6
STORMS, QUICK_STORMS = 30, 8
REQUEST = 128


class ConnectSession:
    """Starts a server and a client for every measurement."""

    def __init__(self, settings: Settings) -> None:
        self._cores = settings.cores
        self._seconds = QUICK_SECONDS if settings.quick else SECONDS
        self._storms = QUICK_STORMS if settings.quick else STORMS

    def measure(self, row: Row, loop: str) -> Sample:
        try:
            return self._storm(loop) if row.name == STORM else self._client(row, loop)
        except cbuild.BuildError as exc:
            raise Unavailable(str(exc)) from None

    def _client(self, row: Row, loop: str) -> Sample:
        """The loop under test connects to a server in C on the other core."""
        mode = CLIENTS[row.name]
        command = [str(cbuild.uvecho()), mode, str(REQUEST)]
        with Child(command, self._cores.server) as server:
            port = server.read(START_TIMEOUT)["port"]
            command = module_command(
                "workers.connects", loop, row.name, port, REQUEST, self._seconds
            )
            with Child(command, self._cores.client) as client:
                figures = client.read(TIMEOUT)
        return Sample(figures.pop("rate"), figures)

    def _storm(self, loop: str) -> Sample:
        """The loop under test accepts what a client in C connects all at once."""
        command = module_command("servers.greet", loop)
        with Child(command, self._cores.server) as server:
            port = server.read(START_TIMEOUT)["port"]
            numbers = (port, STORM_CONNECTIONS, self._storms)
            command = [str(cbuild.storm()), *map(str, numbers)]
            meter = CpuMeter(server.pid)
            meter.start()
            with Child(command, self._cores.client) as client:
                figures = client.read(TIMEOUT)
            connections = STORM_CONNECTIONS * (self._storms + 1)
            figures |= meter.stop(connections)
        return Sample(figures.pop("rate"), figures)


class ConnectSuite:
    """Rows of clients and one of a server, in connections per second."""

    name = "connect"
    extra_loops: tuple[str, ...] = ()

    def rows(self) -> list[Row]:
        return [Row(self.name, name, "conn/s", True) for name in (*CLIENTS, STORM)]

    def default_rows(self) -> list[Row]:
        return self.rows()

    def prepare(self) -> None:
        try:
            cbuild.uvecho()
            cbuild.storm()
        except cbuild.BuildError as exc:
            raise Unavailable(str(exc)) from None

    @contextmanager
    def session(self, settings: Settings) -> Iterator[ConnectSession]:
        yield ConnectSession(settings)

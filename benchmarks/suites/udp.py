"""Suite *udp*: datagram servers under our own load generator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase

from .. import cbuild
from ..child import Child, module_command
from ..model import Row, Sample
from .base import Settings, Unavailable
from .net import LOAD_TIMEOUT, NORMAL, QUICK, START_TIMEOUT

CEILING = "mmsg-c"
MODES = ("echo", "burst")
PEERS = {"echo": (1, 50, 500), "burst": (1,)}
SIZES = {"64B": 64, "512B": 512, "1200B": 1200}
DEFAULT = ("echo/1/512B", "echo/50/512B", "burst/1/512B")
CEILING_MODES = {"echo": "echo", "burst": "sink"}


def server_command(loop: str, mode: str) -> list[str]:
    """Return the command of the server, in Python or in C."""
    if loop == CEILING:
        return [str(cbuild.udpecho()), CEILING_MODES[mode]]
    return module_command("servers.udp", loop, mode)


class UdpSession:
    """Starts a server and a load generator for every measurement."""

    def __init__(self, settings: Settings) -> None:
        self._cores = settings.cores
        self._window = QUICK if settings.quick else NORMAL

    def measure(self, row: Row, loop: str) -> Sample:
        """Measure one server; both processes are new."""
        mode, peers, size_name = row.name.split("/")
        try:
            command = server_command(loop, mode)
        except cbuild.BuildError as exc:
            raise Unavailable(str(exc)) from None
        with Child(command, self._cores.server) as server:
            port = server.read(START_TIMEOUT)["port"]
            return self._load(mode, port, peers, SIZES[size_name], server.pid)

    def _load(self, mode: str, port: int, peers: str, size: int, pid: int) -> Sample:
        window = self._window
        numbers = (port, peers, size, window.warmup, window.measured, pid)
        command = [str(cbuild.udpload()), mode, *map(str, numbers)]
        with Child(command, self._cores.client) as client:
            figures = client.read(LOAD_TIMEOUT)
        return Sample(figures.pop("rps"), figures)


class UdpSuite:
    """Rows named mode/peers/size, in datagrams per second."""

    name = "udp"
    extra_loops: tuple[str, ...] = (CEILING,)

    def rows(self) -> list[Row]:
        return [
            Row(self.name, f"{mode}/{peers}/{size}", "dgram/s", True)
            for mode in MODES
            for peers in PEERS[mode]
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
            cbuild.udpload()
        except cbuild.BuildError as exc:
            raise Unavailable(str(exc)) from None

    @contextmanager
    def session(self, settings: Settings) -> Iterator[UdpSession]:
        yield UdpSession(settings)

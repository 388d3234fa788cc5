"""Suite *http*: web servers under ``wrk``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .. import wrk
from ..child import Child, module_command
from ..cputime import CpuMeter
from ..model import Row, Sample
from .base import Settings, Unavailable

SERVERS = {"aiohttp": "servers.hello_aiohttp", "uvicorn": "servers.hello_uvicorn"}
CONNECTIONS = 50
WARMUP_SECONDS = 1
SECONDS = 4
QUICK_SECONDS = 1
START_TIMEOUT = 30.0


class HttpSession:
    """Starts a server for every measurement, and loads it."""

    def __init__(self, settings: Settings) -> None:
        self._cores = settings.cores
        self._seconds = QUICK_SECONDS if settings.quick else SECONDS

    def measure(self, row: Row, loop: str) -> Sample:
        """Measure one server; it is a new process."""
        return self.load(module_command(SERVERS[row.name], loop), "http")

    def load(self, command: list[str], scheme: str) -> Sample:
        """Start a server with this command, and load it."""
        with Child(command, self._cores.server) as server:
            port = server.read(START_TIMEOUT)["port"]
            try:
                return self._load(f"{scheme}://127.0.0.1:{port}/", server.pid)
            except wrk.WrkError as exc:
                raise Unavailable(str(exc)) from None

    def _load(self, url: str, server: int) -> Sample:
        client = self._cores.client
        wrk.run_wrk(url, CONNECTIONS, WARMUP_SECONDS, client)
        meter = CpuMeter(server)
        meter.start()
        report = wrk.run_wrk(url, CONNECTIONS, self._seconds, client)
        figures = {
            "p50_us": report.p50_us,
            "p99_us": report.p99_us,
        }
        return Sample(report.rps, figures | meter.stop(report.requests))


class HttpSuite:
    """One row per web server, in requests per second."""

    name = "http"
    extra_loops: tuple[str, ...] = ()

    def rows(self) -> list[Row]:
        return [Row(self.name, name, "req/s", True) for name in SERVERS]

    def default_rows(self) -> list[Row]:
        return self.rows()

    def prepare(self) -> None:
        try:
            wrk.find_wrk()
        except wrk.WrkError as exc:
            raise Unavailable(str(exc)) from None

    @contextmanager
    def session(self, settings: Settings) -> Iterator[HttpSession]:
        yield HttpSession(settings)

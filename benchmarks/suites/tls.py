"""Suite *tls*: servers of TLS, and what it costs them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import cbuild
from ..certificates import Certificate, CertificateError, certificate
from ..child import Child, module_command
from ..cputime import CpuMeter
from ..model import SERVER_CPU, Row, Sample
from ..stime import TimeError, run_s_time
from .base import Settings, Unavailable
from .http import SERVERS, HttpSession
from .net import LOAD_TIMEOUT, NORMAL, QUICK, SIZES, START_TIMEOUT

CEILING = "c"
LAYERED = "uvloop+aiofastnet"
LOADS = ("echo/20/1KiB", "echo/20/64KiB", "buffered/20/64KiB", "streams/20/1KiB")
HANDSHAKES = ("handshakes/full", "handshakes/full/rsa", "handshakes/resumed")
CROSS_CHECK = "handshakes/s_time"
IN_FLIGHT = 20
# Row -> what the server does, and what the client does.
BULK = {"bulk/receive": ("sink", "send"), "bulk/send": ("source", "receive")}
MEMORY = "memory/idle"
CONNECTIONS, QUICK_CONNECTIONS = 2000, 500
MEMORY_TIMEOUT = 180.0
HTTPS = tuple(f"https/{name}" for name in SERVERS)
BLOCK = 256 * 1024


def server_command(loop: str, mode: str, files: Certificate) -> list[str]:
    """Return the command of the server, in Python or in C."""
    if loop == CEILING:
        plain = "echo" if mode in ("buffered", "streams") else mode
        return [str(cbuild.tlsserver()), plain, files.chain, files.key]
    return module_command("servers.tls", loop, mode, files.chain, files.key)


class TlsSession:
    """Starts a server, and most often a client, for every measurement."""

    def __init__(self, settings: Settings) -> None:
        self._cores = settings.cores
        self._window = QUICK if settings.quick else NORMAL
        self._connections = QUICK_CONNECTIONS if settings.quick else CONNECTIONS
        self._http = HttpSession(settings)

    def measure(self, row: Row, loop: str) -> Sample:
        """Measure one row under one loop; all processes are new."""
        try:
            return self._measure(row.name, loop)
        except (cbuild.BuildError, CertificateError, TimeError) as exc:
            raise Unavailable(str(exc)) from None

    def _measure(self, name: str, loop: str) -> Sample:
        kind, _, rest = name.partition("/")
        if kind == "handshakes":
            return self._handshakes(rest, loop)
        if name in BULK:
            server, client = BULK[name]
            return self._load(loop, server, [client, 1, BLOCK])
        if name in LOADS:
            connections, size = rest.split("/")
            return self._load(loop, kind, ["echo", connections, SIZES[size]])
        if loop == CEILING:
            raise Unavailable("the C program does not do this")
        return self._memory(loop) if name == MEMORY else self._https(rest, loop)

    def _load(self, loop: str, mode: str, client: list[object]) -> Sample:
        command = server_command(loop, mode, certificate("ecdsa"))
        with Child(command, self._cores.server) as server:
            port = server.read(START_TIMEOUT)["port"]
            what, *numbers = client
            return self._client(cbuild.tlsload(), server.pid, [what, port, *numbers])

    def _handshakes(self, kind: str, loop: str) -> Sample:
        files = certificate("rsa" if kind == "full/rsa" else "ecdsa")
        command = server_command(loop, "echo", files)
        with Child(command, self._cores.server) as server:
            port = server.read(START_TIMEOUT)["port"]
            if kind == "s_time":
                return self._s_time(port, server.pid)
            arguments = [kind.partition("/")[0], port, IN_FLIGHT]
            return self._client(cbuild.tlsstorm(), server.pid, arguments)

    def _client(self, program: Path, server: int, arguments: list[object]) -> Sample:
        """Run a load generator in C."""
        window = (self._window.warmup, self._window.measured, server)
        command = [str(program), *map(str, (*arguments, *window))]
        with Child(command, self._cores.client) as client:
            figures = client.read(LOAD_TIMEOUT)
        return Sample(figures.pop("rps"), figures)

    def _s_time(self, port: int, server: int) -> Sample:
        meter = CpuMeter(server)
        meter.start()
        start = time.monotonic()
        seconds = max(1, round(self._window.measured))
        count = run_s_time(port, seconds, self._cores.client)
        spent = time.monotonic() - start
        return Sample(count / spent, meter.stop(count))

    def _memory(self, loop: str) -> Sample:
        files, program = certificate("ecdsa"), cbuild.tlshold()
        arguments = (self._connections, files.chain, files.key, program)
        command = module_command("workers.tlsmemory", loop, *arguments)
        with Child(command) as worker:
            figures = worker.read(MEMORY_TIMEOUT)
        return Sample(figures.pop("bytes"), figures)

    def _https(self, name: str, loop: str) -> Sample:
        files = certificate("ecdsa")
        command = module_command(SERVERS[name], loop, files.chain, files.key)
        return self._http.load(command, "https")


class TlsSuite:
    """Rows of echoes, handshakes, streams of bytes, memory and HTTPS."""

    name = "tls"
    extra_loops: tuple[str, ...] = (LAYERED, CEILING)

    def rows(self) -> list[Row]:
        units = dict.fromkeys(LOADS, "req/s")
        units |= dict.fromkeys((*HANDSHAKES, CROSS_CHECK), "conn/s")
        units |= dict.fromkeys(BULK, "MiB/s")
        rates = [
            Row(self.name, name, unit, True, SERVER_CPU) for name, unit in units.items()
        ]
        https = [Row(self.name, name, "req/s", True, SERVER_CPU) for name in HTTPS]
        return [*rates, Row(self.name, MEMORY, "bytes"), *https]

    def default_rows(self) -> list[Row]:
        return [row for row in self.rows() if row.name != CROSS_CHECK]

    def prepare(self) -> None:
        try:
            cbuild.tlsload()
            cbuild.tlsstorm()
            certificate("ecdsa")
        except (cbuild.BuildError, CertificateError) as exc:
            raise Unavailable(str(exc)) from None

    @contextmanager
    def session(self, settings: Settings) -> Iterator[TlsSession]:
        yield TlsSession(settings)

"""Suite *apps*: frameworks, and clients of databases, as people use them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from .. import cbuild, wrk
from ..child import Child, module_command
from ..model import Row, Sample
from .base import Settings, Unavailable
from .http import HttpSession
from .net import LOAD_TIMEOUT, NORMAL, QUICK, START_TIMEOUT

SERVERS = {"sanic": "servers.hello_sanic", "fastapi": "servers.hello_fastapi"}
WEBSOCKETS = "websockets/50/1KiB"
CONNECTIONS, MESSAGE = 50, 1024
# Client -> the service it asks; the others ask a server in C.
SERVICES = {"asyncpg": "postgres", "redis": "redis", "redis-pipeline": "redis"}
# The variable that says where a service listens.
VARIABLES = {"postgres": "POSTGRES_DSN", "redis": "REDIS_URL"}
HTTP_CLIENTS = ("aiohttp-client", "httpx")
RESPONSE = 128
STARTER = "tests/integration/services.py"
SERVICES_TIMEOUT = 120.0
SECONDS, QUICK_SECONDS = 3.0, 1.0


class Services:
    """PostgreSQL and Redis: those of the environment, or started when first asked."""

    def __init__(self, core: int | None, stack: ExitStack) -> None:
        self._core = core
        self._stack = stack
        self._addresses: dict[str, str] = {}

    def address(self, name: str) -> str:
        """Return where a service listens."""
        variable = VARIABLES[name]
        if variable in os.environ:
            return os.environ[variable]
        if name not in self._addresses:
            inner = module_command("workers.addresses")
            command = [sys.executable, STARTER, name, "--", *inner]
            child = self._stack.enter_context(Child(command, self._core))
            self._addresses[name] = child.read(SERVICES_TIMEOUT)[variable]
        return self._addresses[name]


class AppsSession:
    """Starts a server, and a client, for every measurement."""

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        self._cores = settings.cores
        self._window = QUICK if settings.quick else NORMAL
        self._seconds = QUICK_SECONDS if settings.quick else SECONDS
        self._http = HttpSession(settings)
        self._services = Services(settings.cores.server, stack)

    def measure(self, row: Row, loop: str) -> Sample:
        """Measure one row under one loop."""
        try:
            if row.name in SERVERS:
                return self._http.load(module_command(SERVERS[row.name], loop), "http")
            if row.name == WEBSOCKETS:
                return self._websockets(loop)
            if row.name in SERVICES:
                address = self._services.address(SERVICES[row.name])
                return self._client(row.name, loop, address)
            return self._http_client(row.name, loop)
        except cbuild.BuildError as exc:
            raise Unavailable(str(exc)) from None

    def _websockets(self, loop: str) -> Sample:
        """A client in C sends messages, and awaits each one's echo."""
        command = module_command("servers.echo_websockets", loop)
        window = self._window
        with Child(command, self._cores.server) as server:
            port = server.read(START_TIMEOUT)["port"]
            numbers = (port, CONNECTIONS, MESSAGE, window.warmup, window.measured)
            command = [str(cbuild.loadgen()), *map(str, (*numbers, server.pid))]
            with Child([*command, "websocket"], self._cores.client) as client:
                figures = client.read(LOAD_TIMEOUT)
        return Sample(figures.pop("rps"), figures)

    def _http_client(self, what: str, loop: str) -> Sample:
        command = [str(cbuild.uvecho()), "http_keep", str(RESPONSE)]
        with Child(command, self._cores.server) as server:
            port = server.read(START_TIMEOUT)["port"]
            return self._client(what, loop, f"http://127.0.0.1:{port}/")

    def _client(self, what: str, loop: str, address: str) -> Sample:
        """The loop under test is the client's."""
        command = module_command("workers.clients", loop, what, address, self._seconds)
        with Child(command, self._cores.client) as client:
            figures = client.read(LOAD_TIMEOUT)
        return Sample(figures.pop("rate"), figures)


class AppsSuite:
    """Rows of servers, then of clients, in requests per second."""

    name = "apps"
    extra_loops: tuple[str, ...] = ()

    def rows(self) -> list[Row]:
        names = (*SERVERS, WEBSOCKETS, *SERVICES, *HTTP_CLIENTS)
        return [Row(self.name, name, "req/s", True) for name in names]

    def default_rows(self) -> list[Row]:
        return self.rows()

    def prepare(self) -> None:
        try:
            wrk.find_wrk()
            cbuild.loadgen()
            cbuild.uvecho()
        except (wrk.WrkError, cbuild.BuildError) as exc:
            raise Unavailable(str(exc)) from None

    @contextmanager
    def session(self, settings: Settings) -> Iterator[AppsSession]:
        with ExitStack() as stack:
            yield AppsSession(settings, stack)

"""Fixtures of the integration tests: real servers, started where they are needed.

Each library is used unchanged and as its users use it. The fixtures of
tests/conftest.py hold here as well: `loop` is a fresh loop, on which a coroutine
test runs, and nothing may be left behind: no descriptor, no report, no task.
"""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import services
from webpeers import Program

HERE = pathlib.Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            # What a library is about to lose is its own affair.
            for category in ("DeprecationWarning", "PendingDeprecationWarning"):
                mark = pytest.mark.filterwarnings(f"ignore::{category}")
                item.add_marker(mark)


@pytest.fixture(scope="session")
def postgres(certificate: pathlib.Path) -> Iterator[services.Postgres]:
    """A PostgreSQL server that offers TLS."""
    with services.Postgres(certificate) as server:
        yield server


@pytest.fixture(scope="session")
def plain_postgres() -> Iterator[services.Postgres]:
    """A PostgreSQL server without TLS."""
    with services.Postgres() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(certificate: pathlib.Path) -> Iterator[services.Redis]:
    """A Redis server, with a port for TLS."""
    with services.Redis(certificate) as server:
        yield server


@pytest.fixture(scope="session")
def nats_server(certificate: pathlib.Path) -> Iterator[services.Nats]:
    """A NATS server with JetStream that offers TLS."""
    with services.Nats(certificate) as server:
        yield server


@pytest.fixture(scope="session")
def mosquitto(certificate: pathlib.Path) -> Iterator[services.Mosquitto]:
    """An MQTT broker, with a port for TLS."""
    with services.Mosquitto(certificate) as server:
        yield server


@pytest.fixture
def start(loop_kind: str, tmp_path: pathlib.Path) -> Iterator[Callable[..., Program]]:
    """Starts programs in tmp_path; none may outlive the test."""
    programs: list[Program] = []

    def run(*command: Any, **options: Any) -> Program:
        programs.append(Program(loop_kind, command, tmp_path, **options))
        return programs[-1]

    yield run
    left = [program.command for program in programs if program.cleanup()]
    assert not left, f"still running: {left}"


@pytest.fixture
def socket_path() -> Iterator[pathlib.Path]:
    """The path of a Unix socket to be, as short as the system wants such paths."""
    with tempfile.TemporaryDirectory() as folder:
        yield pathlib.Path(folder) / "http.sock"

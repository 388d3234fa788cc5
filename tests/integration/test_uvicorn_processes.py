"""uvicorn by its command line: workers, reloading, signals, sockets, TLS."""

from __future__ import annotations

import itertools
import os
import pathlib
import signal
import socket
import ssl
import sys
import time
from typing import Any

import pytest

pytest.importorskip("uvicorn")
httpx = pytest.importorskip("httpx")

from asgiapps import WEBAPP  # noqa: E402
from servers import unused_port  # noqa: E402
from webpeers import (  # noqa: E402
    FACTORIES,
    START,
    ask,
    ended_well,
    get,
    processes,
    python_module,
    request,
    run_wrk,
    signal_while_busy,
)


class Command:
    """uvicorn's command line with the loop of the test."""

    def __init__(self, start: Any, kind: str, folder: pathlib.Path) -> None:
        self.start = start
        self.kind = kind
        self.folder = folder
        (folder / "webapp.py").write_text(WEBAPP)

    def __call__(self, *flags: Any, app: str = "webapp:app", **options: Any) -> Any:
        command = [*python_module("uvicorn"), "--loop", FACTORIES[self.kind]]
        return self.start(*command, *flags, app, **options)

    def on_port(self, *flags: Any, ready: str = "Application startup complete") -> Any:
        """Returns (program, port), once the program is ready."""
        port = unused_port()
        program = self("--port", port, *flags)
        program.wait_for(ready)
        program.wait_for_port(port)  # uvicorn listens only after that
        return program, port


@pytest.fixture
def uvicorn(start: Any, loop_kind: str, tmp_path: pathlib.Path) -> Command:
    return Command(start, loop_kind, tmp_path)


def ended(program: Any, code: int) -> None:
    """uvicorn dies of the signal again after it has shut down."""
    ended_well(program, code, -signal.SIGTERM, -signal.SIGINT)


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_one_process(uvicorn: Command, http: str) -> None:
    program, port = uvicorn.on_port("--http", http)
    name, pid, _ = get(port).split()
    assert name == uvicorn.kind and int(pid) == program.process.pid
    ended(program, program.stop())
    assert f"application shutdown in {pid}" in program.log()
    assert "Finished server process" in program.log()


def test_two_workers(uvicorn: Command) -> None:
    program, port = uvicorn.on_port("--workers", "2", "--no-access-log")
    program.wait_for("Application startup complete", 2)
    first = processes(port, 2, program)
    assert get(port).split()[0] == uvicorn.kind
    assert str(program.process.pid) not in first
    assert run_wrk(f"http://127.0.0.1:{port}/") > 0
    ended(program, program.stop())
    for pid in first:
        assert f"application shutdown in {pid}" in program.log()


def test_a_killed_worker_is_replaced(uvicorn: Command) -> None:
    program, port = uvicorn.on_port("--workers", "2")
    program.wait_for("Application startup complete", 2)
    first = processes(port, 2, program)
    victim, survivor = sorted(first)
    os.kill(int(victim), signal.SIGKILL)
    program.wait_for("Application startup complete", 3)
    second = processes(port, 2, program)
    assert survivor in second and victim not in second
    assert get(port).split()[0] == uvicorn.kind
    ended(program, program.stop())


def test_reload_when_a_file_changes(uvicorn: Command) -> None:
    program, port = uvicorn.on_port("--reload", "--reload-dir", uvicorn.folder)
    name, pid, text = get(port).split()
    assert (name, text) == (uvicorn.kind, "first")
    path = uvicorn.folder / "webapp.py"
    path.write_text(WEBAPP.replace("first", "second"))
    # uvicorn does not see a change before its first look, of which it says nothing.
    times = itertools.count(time.time() + 5, 5)
    touched = 0.0

    def restarted() -> bool:
        nonlocal touched
        if time.monotonic() - touched > 2:
            later, touched = next(times), time.monotonic()
            os.utime(path, (later, later))
        return program.log().count("Application startup complete") >= 2

    program.wait_until(restarted, "a restart")
    name, new_pid, text = get(port).split()
    assert (name, text) == (uvicorn.kind, "second") and new_pid != pid
    assert f"application shutdown in {pid}" in program.log()
    ended(program, program.stop())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_signal_lets_requests_finish(
    uvicorn: Command, number: int, workers: int
) -> None:
    program, port = uvicorn.on_port("--workers", workers)
    assert b"first" in signal_while_busy(program, port, number)
    ended(program, program.wait())
    assert "cancelled" not in program.log()


def test_the_limit_of_a_graceful_shutdown(uvicorn: Command) -> None:
    program, port = uvicorn.on_port("--timeout-graceful-shutdown", "1")
    with socket.create_connection(("127.0.0.1", port), START) as sock:
        sock.sendall(request("/forever"))
        program.wait_for("begun")
        program.send_signal()
        assert program.wait() in (0, -signal.SIGTERM)
    assert "Cancel 1 running task(s)" in program.log()
    assert "cancelled" in program.log()
    assert "application shutdown" in program.log()


def test_a_second_ctrl_c_forces_the_end(uvicorn: Command) -> None:
    """With the application still busy; from Python 3.12 on without its client."""
    program, port = uvicorn.on_port()
    with socket.create_connection(("127.0.0.1", port), START) as sock:
        sock.sendall(request("/forever"))
        program.wait_for("begun")
        program.send_signal(signal.SIGINT)
        program.wait_for("Waiting for connections to close")
        program.send_signal(signal.SIGINT)
    program.wait()
    assert "application shutdown" not in program.log()
    assert "cancelled" in program.log()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_an_inherited_socket(
    uvicorn: Command, family: int, socket_path: pathlib.Path
) -> None:
    """uvicorn takes any descriptor for a Unix socket, whatever it is."""
    address: Any = ("127.0.0.1", 0)
    if family == socket.AF_UNIX:
        address = str(socket_path)
    with socket.socket(family) as listener:
        listener.bind(address)
        listener.listen()
        program = uvicorn("--fd", listener.fileno(), pass_fds=[listener.fileno()])
        program.wait_for("Application startup complete")
        address = listener.getsockname()
        for _ in range(5):
            answer = ask(address, request("/", "Connection: close"), family)
            assert uvicorn.kind.encode() in answer
        ended(program, program.stop())


def test_a_unix_socket(uvicorn: Command, socket_path: pathlib.Path) -> None:
    program = uvicorn("--uds", socket_path)
    program.wait_for("Uvicorn running on unix socket")
    transport = httpx.HTTPTransport(uds=str(socket_path))
    with httpx.Client(transport=transport, trust_env=False, timeout=START) as client:
        assert client.get("http://any/").text.split()[0] == uvicorn.kind
    ended(program, program.stop())


@pytest.mark.parametrize("workers", [1, 2])
def test_tls(
    uvicorn: Command,
    certificate: pathlib.Path,
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
    workers: int,
) -> None:
    flags = ["--ssl-certfile", certificate, "--ssl-keyfile", certificate]
    program, port = uvicorn.on_port(*flags, "--workers", workers, "--no-access-log")
    url = f"https://localhost:{port}/"
    with httpx.Client(verify=tls[1], trust_env=False, timeout=START) as client:
        assert client.get(url).text.split()[0] == uvicorn.kind
    assert run_wrk(url) > 0
    ended(program, program.stop())


FAILING = """
async def app(scope, receive, send):
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})
"""


def test_a_failing_startup(uvicorn: Command) -> None:
    (uvicorn.folder / "failing.py").write_text(FAILING)
    program = uvicorn("--port", unused_port(), app="failing:app")
    assert program.wait() == 3
    assert "no database" in program.log()
    assert "Application startup failed. Exiting." in program.log()


def test_a_port_that_is_taken(uvicorn: Command) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        program = uvicorn("--port", port)
        assert program.wait() in (1, 3)
    wanted = f"error while attempting to bind on address ('127.0.0.1', {port})"
    assert wanted in program.log() and "address already in use" in program.log()
    assert "application shutdown" in program.log()


@pytest.mark.skipif(sys.version_info >= (3, 16), reason="there are no policies")
def test_what_the_application_installs(uvicorn: Command) -> None:
    """`--loop none` leaves the choice to asyncio, thus to hotloop.install()."""
    install = "import hotloop\nhotloop.install()\n"
    text = install + WEBAPP if uvicorn.kind == "hotloop" else WEBAPP
    (uvicorn.folder / "installed.py").write_text(text)
    port = unused_port()
    command = [*python_module("uvicorn"), "--loop", "none", "--port", port]
    program = uvicorn.start(*command, "installed:app")
    program.wait_for_port(port)
    assert get(port).split()[0] == uvicorn.kind
    ended(program, program.stop())

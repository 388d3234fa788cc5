"""gunicorn with uvicorn's worker, on the loop that a subclass of it names."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import ssl
from typing import Any

import pytest

pytest.importorskip("gunicorn")
pytest.importorskip("uvicorn_worker")
httpx = pytest.importorskip("httpx")

from asgiapps import WEBAPP  # noqa: E402
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

# What a user writes today.
WORKER = """
from uvicorn_worker import UvicornWorker

class Worker(UvicornWorker):
    CONFIG_KWARGS = {"loop": "FACTORY", "http": "auto"}
"""

CONFIG = """
worker_class = "workers.Worker"
workers = 2
bind = ["127.0.0.1:0"]
graceful_timeout = 30
timeout = 120
raw_env = ["GREETING=hello"]

def when_ready(server):
    for listener in server.LISTENERS:
        print("listening on", listener.sock.getsockname(), flush=True)
"""


class Gunicorn:
    """gunicorn with the files that its user has written."""

    def __init__(self, start: Any, kind: str, folder: pathlib.Path) -> None:
        self.start = start
        self.kind = kind
        self.folder = folder
        (folder / "webapp.py").write_text(WEBAPP)
        (folder / "workers.py").write_text(WORKER.replace("FACTORY", FACTORIES[kind]))
        (folder / "gunicorn.conf.py").write_text(CONFIG)

    def __call__(self, *flags: Any, workers: int = 2, **options: Any) -> Any:
        command = [*python_module("gunicorn"), "--workers", workers, *flags]
        program = self.start(*command, "webapp:app", **options)
        program.wait_for("listening on")
        program.wait_for("Application startup complete", workers)
        return program

    def on_port(self, *flags: Any, **options: Any) -> tuple[Any, int]:
        program = self(*flags, **options)
        line = program.log().split("listening on ('127.0.0.1', ")[1]
        return program, int(line.split(")")[0])


@pytest.fixture
def gunicorn(start: Any, loop_kind: str, tmp_path: pathlib.Path) -> Gunicorn:
    return Gunicorn(start, loop_kind, tmp_path)


def test_two_workers_under_load(gunicorn: Gunicorn) -> None:
    program, port = gunicorn.on_port()
    first = processes(port, 2, program)
    assert str(program.process.pid) not in first
    assert get(port).split()[::2] == [gunicorn.kind, "hello"]
    assert run_wrk(f"http://127.0.0.1:{port}/") > 0
    ended_well(program, program.stop())
    for pid in first:
        assert f"application shutdown in {pid}" in program.log()


def test_the_application_is_loaded_before_the_fork(gunicorn: Gunicorn) -> None:
    program, port = gunicorn.on_port("--preload")
    processes(port, 2, program)
    assert get(port).split()[0] == gunicorn.kind
    ended_well(program, program.stop())


def test_a_killed_worker_is_replaced(gunicorn: Gunicorn) -> None:
    program, port = gunicorn.on_port()
    first = processes(port, 2, program)
    victim, survivor = sorted(first)
    os.kill(int(victim), signal.SIGKILL)
    program.wait_for("Application startup complete", 3)
    second = processes(port, 2, program)
    assert survivor in second and victim not in second
    assert get(port).split()[0] == gunicorn.kind
    program.stop()


def test_hup_replaces_all_workers(gunicorn: Gunicorn) -> None:
    program, port = gunicorn.on_port()
    first = processes(port, 2, program)
    (gunicorn.folder / "gunicorn.conf.py").write_text(CONFIG.replace("hello", "again"))
    program.send_signal(signal.SIGHUP)
    program.wait_for("application shutdown", 2)
    second = processes(port, 2, program)
    assert not first & second
    assert get(port).split()[::2] == [gunicorn.kind, "again"]
    ended_well(program, program.stop())


def test_more_and_fewer_workers(gunicorn: Gunicorn) -> None:
    program, port = gunicorn.on_port(workers=1)
    program.send_signal(signal.SIGTTIN)
    program.wait_for("Application startup complete", 2)
    assert len(processes(port, 2, program)) == 2
    program.send_signal(signal.SIGTTOU)
    program.wait_for("application shutdown", 1)
    assert get(port).split()[0] == gunicorn.kind
    ended_well(program, program.stop())


def test_a_worker_retires_after_many_requests(gunicorn: Gunicorn) -> None:
    program, port = gunicorn.on_port("--max-requests", 20, workers=1)
    (first,) = processes(port, 1, program)
    for _ in range(19):
        get(port)
    program.wait_for("Application startup complete", 2)
    (second,) = processes(port, 1, program)
    assert first != second
    assert f"application shutdown in {first}" in program.log()
    ended_well(program, program.stop())


def test_term_lets_requests_finish(gunicorn: Gunicorn) -> None:
    program, port = gunicorn.on_port()
    assert gunicorn.kind.encode() in signal_while_busy(program, port)
    ended_well(program, program.wait())


def test_a_unix_socket(gunicorn: Gunicorn, socket_path: pathlib.Path) -> None:
    program = gunicorn("--bind", f"unix:{socket_path}", workers=1)
    answer = ask(str(socket_path), request("/", "Connection: close"), socket.AF_UNIX)
    assert gunicorn.kind.encode() in answer
    ended_well(program, program.stop())


def test_tls(
    gunicorn: Gunicorn,
    certificate: pathlib.Path,
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    flags = ["--certfile", certificate, "--keyfile", certificate]
    program, port = gunicorn.on_port(*flags)
    url = f"https://localhost:{port}/"
    with httpx.Client(verify=tls[1], trust_env=False, timeout=START) as client:
        assert client.get(url).text.split()[0] == gunicorn.kind
    assert run_wrk(url) > 0
    ended_well(program, program.stop())

"""gunicorn with hotloop's workers: requests, reload, the end, and a timeout."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

SECONDS = 60

ASGI = """
import asyncio, os, time

async def app(scope, receive, send):
    assert scope["type"] == "http"
    if scope["path"] == "/slow":
        open("slow", "w").close()
        while not os.path.exists("go on"):
            await asyncio.sleep(0.01)
    if scope["path"] == "/stuck":
        time.sleep(1000)
    loop = type(asyncio.get_running_loop())
    body = f"{os.getpid()} {loop.__module__}".encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""

AIOHTTP = """
import asyncio, os, time
from aiohttp import web

async def handle(request):
    if request.path == "/slow":
        open("slow", "w").close()
        while not os.path.exists("go on"):
            await asyncio.sleep(0.01)
    if request.path == "/stuck":
        time.sleep(1000)
    loop = type(asyncio.get_running_loop())
    return web.Response(text=f"{os.getpid()} {loop.__module__}")

app = web.Application()
app.router.add_get("/{path:.*}", handle)
"""

WORKERS = {"UvicornWorker": ASGI, "UvicornH11Worker": ASGI, "AiohttpWorker": AIOHTTP}


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)
    return value


class Gunicorn:
    """A master with its workers, in a folder of its own."""

    def __init__(self, folder: pathlib.Path, worker: str, *words: str) -> None:
        self.folder = folder
        self.log = folder / "log"
        (folder / "application.py").write_text(WORKERS[worker])
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "gunicorn", "application:app"),
                    *("--bind", "127.0.0.1:0", "--no-control-socket", *words),
                    *("--worker-class", f"hotloop.workers.{worker}"),
                ],
                cwd=folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.port = until(self.listening, "listening")

    def listening(self) -> int | None:
        assert self.process.poll() is None, self.log.read_text()
        text = self.log.read_text()
        _, _, rest = text.partition("Listening at: http://127.0.0.1:")
        return int(rest.split()[0]) if " " in rest else None

    def workers(self) -> set[int]:
        path = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        return set(map(int, pathlib.Path(path).read_text().split()))

    def send(self, path: str) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), SECONDS)
        request = f"GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
        sock.sendall(request.encode())
        return sock

    def receive(self, sock: socket.socket) -> tuple[int, str]:
        """The process that has answered, and the module of its loop."""
        with sock, sock.makefile("rb") as file:
            head, _, body = file.read().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), (head, self.log.read_text())
        pid, module = body.decode().split()
        return int(pid), module

    def get(self, path: str = "/") -> tuple[int, str]:
        return self.receive(self.send(path))

    def answering(self, count: int) -> set[int]:
        """Wait until so many workers have answered; they must be on hotloop."""
        seen: set[int] = set()

        def enough() -> bool:
            pid, module = self.get()
            assert module == "hotloop._loop"
            seen.add(pid)
            return len(seen) == count

        until(enough, f"{count} workers answer")
        return seen

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(SECONDS)


@pytest.fixture(params=WORKERS)
def start(request: Any, tmp_path: pathlib.Path) -> Iterator[Callable[..., Gunicorn]]:
    started = []

    def start(*words: str) -> Gunicorn:
        started.append(Gunicorn(tmp_path, request.param, *words))
        return started[-1]

    yield start
    for gunicorn in started:
        gunicorn.close()


def test_workers_answer_on_hotloop(start: Any) -> None:
    gunicorn = start("--workers", "2")
    assert gunicorn.answering(2) <= gunicorn.workers()


def test_reload_and_end(start: Any) -> None:
    gunicorn = start("--workers", "2")
    before = gunicorn.answering(2)
    gunicorn.process.send_signal(signal.SIGHUP)
    until(lambda: not before & gunicorn.workers(), "the old workers end")
    assert not gunicorn.answering(2) & before
    gunicorn.process.send_signal(signal.SIGTERM)
    assert gunicorn.process.wait(SECONDS) == 0


def test_a_slow_request_is_answered_before_the_end(start: Any) -> None:
    gunicorn = start("--graceful-timeout", "50")
    sock = gunicorn.send("/slow")
    until((gunicorn.folder / "slow").exists, "the request is there")
    gunicorn.process.send_signal(signal.SIGTERM)
    until(lambda: "Handling signal: term" in gunicorn.log.read_text(), "it has heard")
    (gunicorn.folder / "go on").touch()
    assert gunicorn.receive(sock)[1] == "hotloop._loop"
    assert gunicorn.process.wait(SECONDS) == 0


def test_a_worker_that_is_stuck_is_replaced(start: Any) -> None:
    gunicorn = start("--timeout", "4")
    (before,) = gunicorn.answering(1)
    with gunicorn.send("/stuck"):
        until(lambda: before not in gunicorn.workers(), "the worker is killed")
    assert "WORKER TIMEOUT" in gunicorn.log.read_text()
    assert gunicorn.answering(1) != {before}


def test_an_application_that_installs_uvloop(start: Any, tmp_path: Any) -> None:
    text = "import warnings, uvloop\nwarnings.simplefilter('ignore')\n"
    (tmp_path / "choice.py").write_text(text + "uvloop.install()\n")
    (tmp_path / "config.py").write_text("import choice\n")
    gunicorn = start("--preload", "--config", "config.py")
    assert gunicorn.answering(1)


def test_what_is_missing_is_named() -> None:
    code = """
import sys
for name in ("uvicorn_worker", "uvicorn", "uvicorn.workers", "aiohttp"):
    sys.modules[name] = None
import hotloop.workers
print(sorted(set(hotloop.workers.__all__) - set(dir(hotloop.workers))))
for name in hotloop.workers.__all__:
    try:
        getattr(hotloop.workers, name)
    except ImportError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "[]" and len(lines) == 4, done
    assert "needs the package aiohttp" in lines[1]
    assert "need the package uvicorn-worker" in lines[2] == lines[3]

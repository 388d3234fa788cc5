"""Servers that are told to use hotloop, each in the way that the page names."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import pytest

SECONDS = 60

ASGI = """
import asyncio, os

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": message["type"] + ".complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = type(asyncio.get_running_loop()).__module__.encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""

SANIC = """
import asyncio
from sanic import Sanic, text

app = Sanic("Probe")

@app.get("/")
async def handle(request):
    return text(type(asyncio.get_running_loop()).__module__)
"""

AIOHTTP = """
import asyncio, sys
from aiohttp import web
import hotloop

async def handle(request):
    return web.Response(text=type(asyncio.get_running_loop()).__module__)

app = web.Application()
app.router.add_get("/", handle)
if __name__ == "__main__":
    loop = hotloop.new_event_loop() if sys.argv[1:] else None
    web.run_app(app, path="socket", loop=loop)
"""

ON = "-m hotloop -m"
COMMANDS = {
    "aiohttp": "application.py loop",
    "aiohttp, unchanged": "-m hotloop application.py",
    "daphne": f"{ON} daphne -u socket application:app",
    "granian": f"{ON} granian --interface asgi --loop asyncio --uds socket "
    "application:app",
    "granian, workers": f"{ON} granian --interface asgi --loop asyncio --workers 2 "
    "--uds socket application:app",
    "hypercorn": f"{ON} hypercorn -b unix:socket application:app",
    "hypercorn, workers": f"{ON} hypercorn -w 2 -b unix:socket application:app",
    "sanic": f"{ON} sanic application:app --single-process --unix={{folder}}/socket",
    "sanic, workers": f"{ON} sanic application:app --workers=2 "
    "--unix={folder}/socket",
    "uvicorn": "-m uvicorn --loop hotloop:new_event_loop --uds socket application:app",
    "uvicorn, workers": "-m uvicorn --loop hotloop:new_event_loop --workers 2 "
    "--uds socket application:app",
    "uvicorn, unchanged": f"{ON} uvicorn --loop none --workers 2 --uds socket "
    "application:app",
}


def ask(path: pathlib.Path) -> str | None:
    """The body of an answer; None while there is none.

    A worker of Sanic that starts takes the path from the one before, and whoever has
    connected to that one gets no answer, on any loop.
    """
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        try:
            sock.connect(str(path))
            sock.sendall(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
            with sock.makefile("rb") as file:
                text = file.read().decode()
        except (FileNotFoundError, ConnectionError, TimeoutError):
            return None
    head, _, body = text.partition("\r\n\r\n")
    if "chunked" in head.lower():
        body = body.split("\r\n")[1]
    return body.strip()


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """A folder, now the current one, whose name leaves room for that of a socket."""
    with tempfile.TemporaryDirectory() as name:
        monkeypatch.chdir(name)
        yield pathlib.Path(name)


@pytest.mark.timeout(150)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_server_is_on_hotloop(name: str, folder: pathlib.Path) -> None:
    texts = {"sanic": SANIC, "aiohttp": AIOHTTP}
    text = texts.get(name.partition(",")[0], ASGI)
    pathlib.Path("application.py").write_text(text)
    log = pathlib.Path("log")
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, *COMMANDS[name].format(folder=folder).split()],
            stdout=file,
            stderr=file,
            env={**os.environ, "SANIC_USE_UVLOOP": "false"},
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + SECONDS
        while not (body := ask(folder / "socket")):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        assert body == "hotloop._loop", log.read_text()
    finally:
        # Not asked to end: Sanic's workers may not hear of it while they start.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

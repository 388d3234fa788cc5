"""Sanic: one process and several workers, by the policy that the program installs."""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import pathlib
import random
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from typing import Any

import pytest

sanic = pytest.importorskip("sanic")
httpx = pytest.importorskip("httpx")
pytest.importorskip("websockets")

from websockets.exceptions import ConnectionClosed  # noqa: E402
from websockets.sync.client import connect  # noqa: E402

from servers import unused_port  # noqa: E402
from support import reset, until  # noqa: E402
from webpeers import START, get, loop_name, request, run_wrk  # noqa: E402

PAYLOAD = random.Random(8).randbytes((4 << 20) + 3)
DIGEST = hashlib.sha256(PAYLOAD).hexdigest()

# Sanic makes its loops by asyncio.new_event_loop(): a policy says which.
PROGRAM = """
import asyncio, hashlib, os, sys

if os.environ["HOTLOOP_TEST_KIND"] == "hotloop":
    import hotloop
    hotloop.install()

from sanic import Sanic, text

app = Sanic("Test")
app.config.update(USE_UVLOOP=False, MOTD=False, ACCESS_LOG=False)
app.config.REQUEST_MAX_SIZE = 1 << 26
app.config.GRACEFUL_SHUTDOWN_TIMEOUT = 5
app.static("/file.bin", "file.bin")

def say(*words):
    print(*words, flush=True)

async def ticking():
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        say("background task cancelled")
        raise

@app.before_server_start
async def begin(app):
    app.add_task(ticking(), name="ticking")
    app.ctx.gate = asyncio.Event()
    say("listener begins in", os.getpid())

@app.after_server_stop
async def end(app):
    say("listener ends in", os.getpid())

@app.get("/")
async def index(request):
    name = type(asyncio.get_running_loop()).__module__.split(".")[0]
    return text(f"{name} {os.getpid()}")

@app.post("/digest", stream=True)
async def digest(request):
    found = hashlib.sha256()
    while (part := await request.stream.read()) is not None:
        found.update(part)
    return text(found.hexdigest())

@app.get("/payload")
async def payload(request):
    response = await request.respond()
    with open("file.bin", "rb") as file:
        while part := file.read(100_003):
            await response.send(part)
    await response.eof()

@app.get("/flood")
async def flood(request):
    response = await request.respond()
    say("flood begins")
    try:
        while True:
            await response.send(bytes(65536))
    except BaseException as error:
        say("flood ends by", type(error).__name__)
        raise

@app.post("/form")
async def form(request):
    file = request.files.get("file")
    return text(f"{file.name} {hashlib.sha256(file.body).hexdigest()}")

@app.get("/slow")
async def slow(request):
    say("slow begins")
    await asyncio.sleep(1)
    return text("slow is done")

@app.websocket("/ws")
async def ws(request, ws):
    try:
        async for message in ws:
            await ws.send(message)
    finally:
        say("websocket ends")

@app.websocket("/bye")
async def bye(request, ws):
    await ws.close(4000, "told")

@app.signal("work.done.<name>")
async def done(name, **context):
    say("signal for", name, context["value"])

@app.get("/task/<name>")
async def task(request, name):
    async def work():
        await asyncio.sleep(0)
        await request.app.dispatch(f"work.done.{name}", context={"value": 7})
    request.app.add_task(work())
    return text("begun")

if __name__ == "__main__":
    options = {"single_process": True}
    if os.environ["WORKERS"] != "1":
        options = {"workers": int(os.environ["WORKERS"])}
    if certificate := os.environ.get("CERTIFICATE"):
        options["ssl"] = {"cert": certificate, "key": certificate}
    if path := os.environ.get("UNIX"):
        options["unix"] = path
    else:
        options |= {"host": "127.0.0.1", "port": int(os.environ["PORT"])}
    app.run(**options)
"""


class Running:
    """Sanic in a process of its own."""

    def __init__(
        self, start: Any, folder: pathlib.Path, workers: int = 1, **env: str
    ) -> None:
        (folder / "program.py").write_text(PROGRAM)
        (folder / "file.bin").write_bytes(PAYLOAD)
        self.port = unused_port()
        settings = {"PORT": str(self.port), "WORKERS": str(workers)}
        self.program = start(sys.executable, "program.py", env=settings | env)
        self.program.wait_for("Worker ready", workers)
        scheme = "https" if "CERTIFICATE" in env else "http"
        self.url = f"{scheme}://localhost:{self.port}"

    def socket(self, data: bytes) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), START)
        sock.sendall(data)
        return sock

    def stop(self, number: int = signal.SIGTERM) -> None:
        assert self.program.stop(number) == 0, self.program.log()
        assert "Traceback" not in self.program.log()
        assert "listener ends" in self.program.log()


@pytest.fixture
def running(start: Any, tmp_path: pathlib.Path) -> Running:
    return Running(start, tmp_path)


def client(**options: Any) -> Any:
    return httpx.Client(trust_env=False, timeout=START, **options)


def test_bodies_both_ways(running: Running, loop_kind: str) -> None:
    assert get(running.port).split()[0] == loop_kind

    def use(path: str) -> str:
        with client(base_url=running.url) as session:
            if path == "/digest":
                found: str = session.post(path, content=PAYLOAD).text
                return found
            if path == "/form":
                files = {"file": ("file.bin", PAYLOAD)}
                return str(session.post(path, files=files).text.split()[1])
            return hashlib.sha256(session.get(path).content).hexdigest()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        paths = ["/digest", "/payload", "/file.bin", "/form"] * 3
        assert set(pool.map(use, paths)) == {DIGEST}
    running.stop()
    assert "background task cancelled" in running.program.log()


def test_under_load(running: Running) -> None:
    assert run_wrk(running.url + "/", connections=40) > 0
    running.stop()


def test_a_burst_of_pipelined_requests(running: Running, loop_kind: str) -> None:
    with running.socket(request("/") * 100) as sock, sock.makefile("rb") as file:
        for _ in range(100):
            assert file.readline() == b"HTTP/1.1 200 OK\r\n"
            length = 0
            while (line := file.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length"):
                    length = int(line.split()[1])
            assert file.read(length).startswith(loop_kind.encode())
    running.stop()


@pytest.mark.parametrize("end", ["reset", "close"])
def test_the_client_of_a_stream_vanishes(running: Running, end: str) -> None:
    sock = running.socket(request("/flood"))
    sock.recv(100_000)
    running.program.wait_for("flood begins")
    reset(sock) if end == "reset" else sock.close()
    running.program.wait_for("flood ends")
    reset(running.socket(request("/")[:-2]))
    assert get(running.port)
    running.stop()


def test_websockets(running: Running) -> None:
    url = running.url.replace("http", "ws")
    with connect(url + "/ws", proxy=None, max_size=1 << 23) as ws:
        for n in range(100):
            ws.send(f"message {n}")
        for n in range(100):
            assert ws.recv(START) == f"message {n}"
        ws.send(PAYLOAD[: 1 << 20])
        assert ws.recv(START) == PAYLOAD[: 1 << 20]
        assert ws.ping().wait(START)
    running.program.wait_for("websocket ends")
    with connect(url + "/bye", proxy=None) as ws:
        with pytest.raises(ConnectionClosed):
            ws.recv(START)
        assert (ws.close_code, ws.close_reason) == (4000, "told")
    ws = connect(url + "/ws", proxy=None)
    reset(ws.socket.dup())
    ws.socket.shutdown(socket.SHUT_RDWR)
    running.program.wait_for("websocket ends", 2)
    ws.close_socket()
    running.stop()


def test_background_tasks_and_signals(running: Running) -> None:
    for n in range(10):
        assert get(running.port, f"/task/n{n}") == "begun"
    for n in range(10):
        running.program.wait_for(f"signal for n{n} 7")
    running.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_requests_finish(running: Running, number: int) -> None:
    # Kept alive, the connection would keep Sanic until its keep-alive timeout.
    with running.socket(request("/slow", "Connection: close")) as sock:
        running.program.wait_for("slow begins")
        running.program.send_signal(number)
        answer = b""
        while part := sock.recv(1000):
            answer += part
    assert answer.endswith(b"slow is done")
    assert running.program.wait() == 0, running.program.log()
    assert "listener ends" in running.program.log()


def test_tls(
    start: Any,
    tmp_path: pathlib.Path,
    certificate: pathlib.Path,
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    running = Running(start, tmp_path, CERTIFICATE=str(certificate))
    with client(verify=tls[1]) as session:
        response = session.get(running.url + "/payload")
        assert hashlib.sha256(response.content).hexdigest() == DIGEST
    assert run_wrk(running.url + "/") > 0
    running.stop()


def test_a_unix_socket(
    start: Any, loop_kind: str, tmp_path: pathlib.Path, socket_path: pathlib.Path
) -> None:
    running = Running(start, tmp_path, UNIX=str(socket_path))
    transport = httpx.HTTPTransport(uds=str(socket_path))
    with client(transport=transport) as session:
        assert session.get("http://any/").text.split()[0] == loop_kind
    running.stop()
    assert not socket_path.exists()


def test_two_workers(start: Any, loop_kind: str, tmp_path: pathlib.Path) -> None:
    """Spawned, they import the program anew, and with it the policy."""
    running = Running(start, tmp_path, workers=2)
    found: set[str] = set()

    def both_answered() -> bool:
        name, pid = get(running.port).split()
        assert name == loop_kind
        found.add(pid)
        return len(found) == 2

    running.program.wait_until(both_answered, "answers of two workers")
    assert str(running.program.process.pid) not in found
    assert run_wrk(running.url + "/") > 0
    running.stop()
    assert running.program.log().count("listener ends") == 2


@pytest.fixture
def registry() -> Iterator[None]:
    """Sanic keeps applications by their names for good."""
    yield
    sanic.Sanic._app_registry.clear()


async def test_in_a_running_loop(loop: Any, loop_kind: str, registry: None) -> None:
    app = sanic.Sanic("Embedded", configure_logging=False)
    app.config.update(MOTD=False, ACCESS_LOG=False)
    app.config.TOUCHUP = False  # it cannot be done twice in a process
    app.get("/")(embedded)
    server = await app.create_server("127.0.0.1", 0, return_asyncio_server=True)
    await server.startup()
    await server.before_start()
    await server.after_start()
    await server.start_serving()
    url = f"http://127.0.0.1:{server.server.sockets[0].getsockname()[1]}/"
    async with httpx.AsyncClient(trust_env=False, timeout=START) as session:
        gets = [session.get(url) for _ in range(100)]
        texts = {response.text for response in await asyncio.gather(*gets)}
    assert texts == {loop_kind}
    await server.before_stop()
    await server.close()
    await server.after_stop()
    await until(lambda: not server.connections)


async def embedded(_: Any) -> Any:
    return sanic.text(loop_name())

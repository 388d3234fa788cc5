"""granian: a server in Rust whose Python part runs on the loop that it is given.

Its own choice of loops is a closed list, so hotloop comes in by three ways: the
embedded server runs on the running loop; a program registers a builder under one
of the known names; an application installs hotloop's policy, which `--loop asyncio`
asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import pathlib
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

granian = pytest.importorskip("granian")
httpx = pytest.importorskip("httpx")

from granian.constants import Interfaces  # noqa: E402
from granian.server.embed import Server  # noqa: E402

from asgiapps import WEBAPP, Application  # noqa: E402
from servers import unused_port  # noqa: E402
from support import collect, until  # noqa: E402
from webpeers import (  # noqa: E402
    ended_well,
    get,
    h2load,
    python_module,
    request,
    run_wrk,
    signal_while_busy,
    wrk,
)

PAYLOAD = random.Random(7).randbytes((4 << 20) + 3)
DIGEST = hashlib.sha256(PAYLOAD).hexdigest()


@pytest.fixture(autouse=True)
def guard(reports: Any, log: Any, unraisable: Any) -> Iterator[None]:
    """As everywhere, but for descriptors: an embedded server never closes its
    listening socket, nor its threads' epoll, whatever the loop."""
    yield
    collect()
    assert unraisable.take() == []
    assert reports.take() == [], "exception handler called"
    assert log.take() == [], "logged by asyncio"


class App(Application):
    payload = PAYLOAD

    async def on_loop(self, scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        await super().on_loop(scope, receive, send)

    async def on_gate(self, scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        self.seen.append("waiting")
        self.seen.append((await receive())["type"])

    async def on_ws(self, scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        self.seen.append(message["type"])


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[App, str]]:
    """granian's embedded server as a task of the running loop."""
    app, port = App(), unused_port()
    server = Server(app, port=port, interface=Interfaces.ASGI, log_enabled=False)
    task = asyncio.create_task(server.serve())
    await until(lambda: "startup" in app.seen or task.done())
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
            break
        await asyncio.sleep(0.01)
    try:
        yield app, f"http://127.0.0.1:{port}"
    finally:
        server.stop()
        await task


async def test_embedded(loop: Any, loop_kind: str) -> None:
    """Requests come in from Rust's threads, by call_soon_threadsafe()."""
    async with (
        serving() as (app, url),
        httpx.AsyncClient(trust_env=False, timeout=40) as client,
    ):
        gets = [client.get(url + "/loop") for _ in range(100)]
        texts = {response.text for response in await asyncio.gather(*gets)}
        assert texts == {f"{loop_kind} 1.1"}
        posts = [client.post(url + "/digest", content=PAYLOAD) for _ in "abcd"]
        for response in await asyncio.gather(*posts):
            assert response.text == DIGEST
        gets = [client.get(url + "/payload") for _ in "abcd"]
        for response in await asyncio.gather(*gets):
            assert hashlib.sha256(response.content).hexdigest() == DIGEST
    assert app.seen == ["startup", "shutdown"]


async def test_embedded_under_load(loop: Any) -> None:
    async with serving() as (app, url):
        count = await wrk(url + "/loop")
        assert count <= app.count <= count + 20
        await h2load(url + "/loop", "-p", "h2c", requests=500)


async def test_embedded_websocket(loop: Any) -> None:
    pytest.importorskip("websockets")
    from websockets.asyncio.client import connect

    async with serving() as (app, url):
        clients = [
            await connect(url.replace("http", "ws") + "/ws", proxy=None)
            for _ in range(10)
        ]
        for n, client in enumerate(clients):
            await client.send(str(n))
        assert [await client.recv() for client in clients] == list("0123456789")
        await asyncio.gather(*[client.close() for client in clients])
        await until(lambda: app.seen.count("websocket.disconnect") == 10)


async def test_embedded_sees_the_client_vanish(loop: Any) -> None:
    async with serving() as (app, url):
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        with socket.create_connection(address) as sock:
            sock.sendall(request("/gate"))
            await until(lambda: "waiting" in app.seen)
        await until(lambda: "http.disconnect" in app.seen)


MAIN = """
import os
from granian import Granian
from granian._loops import loops

if os.environ["HOTLOOP_TEST_KIND"] == "hotloop":
    @loops.register("asyncio", packages=["hotloop"])
    def build(hotloop):
        import asyncio
        loop = hotloop.new_event_loop()
        asyncio.set_event_loop(loop)
        return loop

if __name__ == "__main__":
    Granian("webapp:app", port=int(os.environ["PORT"]), interface="asgi",
            loop="asyncio", workers=2).serve()
"""


def check_workers(program: Any, port: int, kind: str) -> None:
    program.wait_for("application startup", 2)
    program.wait_for_port(port)
    assert get(port).split()[0] == kind
    assert run_wrk(f"http://127.0.0.1:{port}/") > 0
    answer = signal_while_busy(program, port, signal.SIGTERM, "Connection: close")
    assert kind.encode() in answer
    ended_well(program, program.wait())
    assert program.log().count("application shutdown") == 2


def test_two_workers_with_a_registered_loop(
    loop_kind: str, start: Any, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "webapp.py").write_text(WEBAPP)
    (tmp_path / "program.py").write_text(MAIN)
    port = unused_port()
    program = start(sys.executable, "program.py", env={"PORT": str(port)})
    check_workers(program, port, loop_kind)


@pytest.mark.skipif(sys.version_info >= (3, 16), reason="there are no policies")
def test_two_workers_of_the_command_line(
    loop_kind: str, start: Any, tmp_path: pathlib.Path
) -> None:
    """Its workers are spawned: sitecustomize installs the policy in each of them."""
    if loop_kind == "hotloop":
        text = "import hotloop\nhotloop.install()\n"
        (tmp_path / "sitecustomize.py").write_text(text)
    (tmp_path / "webapp.py").write_text(WEBAPP)
    port = unused_port()
    command = [*python_module("granian"), "--interface", "asgi", "--loop", "asyncio"]
    program = start(*command, "--workers", 2, "--port", port, "webapp:app")
    check_workers(program, port, loop_kind)

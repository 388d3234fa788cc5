"""hypercorn on the running loop: HTTP/2 over TLS and without, HTTP/1.1, WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import pathlib
import random
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

pytest.importorskip("hypercorn")
httpx = pytest.importorskip("httpx")
pytest.importorskip("h2")
wsproto = pytest.importorskip("wsproto")

import h2.config  # noqa: E402
import h2.connection  # noqa: E402
import h2.events  # noqa: E402
from hypercorn.asyncio import serve  # noqa: E402
from hypercorn.config import Config  # noqa: E402
from wsproto.connection import ConnectionType  # noqa: E402
from wsproto.events import CloseConnection, TextMessage  # noqa: E402

from asgiapps import WEBAPP, Application  # noqa: E402
from servers import leave, unused_port  # noqa: E402
from support import reset, until  # noqa: E402
from webpeers import (  # noqa: E402
    ended_well,
    h2load,
    read_response,
    request,
    signal_while_busy,
    wrk,
)

PAYLOAD = random.Random(6).randbytes((1 << 20) + 3)
DIGEST = hashlib.sha256(PAYLOAD).hexdigest()
WINDOW = 65_535  # what a stream of HTTP/2 may send unasked


class App(Application):
    payload = PAYLOAD

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def on_gate(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen.append("waiting")
        gone = asyncio.create_task(self.disconnect(receive))
        opened = asyncio.create_task(self.gate.wait())
        try:
            await asyncio.wait([gone, opened], return_when="FIRST_COMPLETED")
        finally:
            gone.cancel()
            opened.cancel()
            await asyncio.wait([gone, opened])
        if not gone.cancelled():
            self.seen.append("disconnect")
        else:
            await self.answer(send, "done")

    async def disconnect(self, receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async def on_ws(self, scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            text = f"{scope['http_version']} {message['text']}"
            await send({"type": "websocket.send", "text": text})
        self.seen.append(message.get("code"))


class Running:
    """hypercorn.asyncio.serve() as a task of the running loop."""

    def __init__(self, certificate: pathlib.Path | None = None, **options: Any) -> None:
        self.app = App()
        self.port = unused_port()
        self.config = Config()
        self.config.bind = [f"127.0.0.1:{self.port}"]
        self.config.errorlog = None
        if certificate is not None:
            self.config.certfile = self.config.keyfile = str(certificate)
        for key, value in options.items():
            setattr(self.config, key, value)
        scheme = "http" if certificate is None else "https"
        self.url = f"{scheme}://localhost:{self.port}"
        self.ending = asyncio.Event()

    async def start(self) -> None:
        serving = serve(self.app, self.config, shutdown_trigger=self.ending.wait)
        self.task = asyncio.create_task(serving)
        while True:
            assert not self.task.done(), self.task
            with contextlib.suppress(ConnectionRefusedError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.transport.abort()
                return
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self.ending.set()
        await self.task


@contextlib.asynccontextmanager
async def running(
    certificate: pathlib.Path | None = None, **options: Any
) -> AsyncIterator[Running]:
    server = Running(certificate, **options)
    await server.start()
    try:
        yield server
    finally:
        server.app.gate.set()
        await server.stop()


def client(tls: Any = None, **options: Any) -> Any:
    verify = True if tls is None else tls[1]
    limits = httpx.Limits(max_connections=20)
    options = {"timeout": 40, "limits": limits, "verify": verify} | options
    return httpx.AsyncClient(trust_env=False, **options)


async def test_http1(loop: Any, loop_kind: str) -> None:
    async with running() as server, client() as session:
        assert (await session.get(server.url + "/loop")).text == f"{loop_kind} 1.1"
        posts = [session.post(server.url + "/digest", content=PAYLOAD)]
        posts += [session.post(server.url + "/digest", content=PAYLOAD)]
        posts += [session.get(server.url + "/payload") for _ in range(2)]
        for n, response in enumerate(await asyncio.gather(*posts)):
            found = response.text if n < 2 else hashlib.sha256(response.content)
            assert (found if n < 2 else found.hexdigest()) == DIGEST
    assert server.app.seen == ["startup", "shutdown"]


async def test_http2_over_tls(
    loop: Any, loop_kind: str, certificate: pathlib.Path, tls: Any
) -> None:
    """Many streams of one connection, with the flow control of HTTP/2."""
    async with running(certificate) as server, client(tls, http2=True) as session:
        response = await session.get(server.url + "/loop")
        assert response.http_version == "HTTP/2"
        assert response.text == f"{loop_kind} 2"
        gets = [session.get(server.url + "/loop") for _ in range(60)]
        texts = {response.text for response in await asyncio.gather(*gets)}
        assert texts == {f"{loop_kind} 2"}
        posts = [session.post(server.url + "/digest", content=PAYLOAD) for _ in "abc"]
        gets = [session.get(server.url + "/payload") for _ in range(3)]
        for response in await asyncio.gather(*posts):
            assert response.text == DIGEST
        for response in await asyncio.gather(*gets):
            assert hashlib.sha256(response.content).hexdigest() == DIGEST


async def test_http1_over_tls(
    loop: Any, loop_kind: str, certificate: pathlib.Path, tls: Any
) -> None:
    """ALPN decides: a client that does not offer h2 gets HTTP/1.1."""
    async with running(certificate) as server, client(tls) as session:
        response = await session.get(server.url + "/loop")
        assert response.text == f"{loop_kind} 1.1"
        assert response.http_version == "HTTP/1.1"


async def test_http2_under_load(loop: Any, certificate: pathlib.Path) -> None:
    async with running(certificate) as server:
        await h2load(server.url + "/loop", requests=500)
        assert server.app.count == 500


async def test_http2_without_tls_under_load(loop: Any) -> None:
    """With prior knowledge, and by the upgrade of an HTTP/1.1 connection."""
    async with running() as server:
        await h2load(server.url + "/loop", "-p", "h2c", requests=500)
        assert server.app.count == 500


@pytest.mark.parametrize("secure", [False, True])
async def test_http1_under_load(
    loop: Any, certificate: pathlib.Path, secure: bool
) -> None:
    async with running(certificate if secure else None) as server:
        count = await wrk(server.url + "/loop")
        assert count <= server.app.count <= count + 20


async def test_vanishing_clients(
    loop: Any, certificate: pathlib.Path, tls: Any
) -> None:
    async with running(certificate) as server:
        for abrupt in (True, False):
            session = client(tls, http2=True)
            waits = [
                asyncio.create_task(session.get(server.url + "/gate")) for _ in "abcde"
            ]
            await until(lambda: server.app.seen.count("waiting") == 5)
            if abrupt:
                reset_all(session)
            await session.aclose()
            await asyncio.gather(*waits, return_exceptions=True)
            await until(lambda: server.app.seen.count("disconnect") == 5)
            server.app.seen.clear()
        reset(socket.create_connection(("127.0.0.1", server.port)))


def reset_all(session: Any) -> None:
    """Have the connections of a client end with a RST."""
    for connection in session._transport._pool.connections:
        stream = connection._connection._network_stream
        sock = stream.get_extra_info("socket")
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


async def test_websocket_over_http1(loop: Any) -> None:
    pytest.importorskip("websockets")
    from websockets.asyncio.client import connect

    async with running() as server:
        url = f"ws://localhost:{server.port}/ws"
        async with connect(url, proxy=None) as ws:
            await ws.send("hello")
            assert await ws.recv() == "1.1 hello"
            await ws.close(4001)
        await until(lambda: len(server.app.seen) == 2)
        async with connect(url, proxy=None) as ws:
            ws.transport.abort()
        await until(lambda: len(server.app.seen) == 3)
        # hypercorn does not pass the client's code on.
        assert server.app.seen == ["startup", 1006, 1006]


class Http2:
    """A client that sends each frame when the test says so."""

    def __init__(self, reader: Any, writer: Any) -> None:
        self.reader, self.writer = reader, writer
        config = h2.config.H2Configuration(client_side=True)
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.ws = wsproto.Connection(ConnectionType.CLIENT)
        self.events: list[Any] = []
        self.bodies: dict[int, bytes] = {}
        self.flush()

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    async def event(self, wanted: type) -> Any:
        """Read until there is an event of this type."""
        while True:
            while self.events:
                if isinstance(event := self.events.pop(0), wanted):
                    return event
            data = await self.reader.read(65536)
            assert data, "the server has gone"
            self.events += self.h2.receive_data(data)
            self.flush()

    async def body(self, stream: int, size: int) -> bytes:
        """Read until so much of the body of a stream is there."""
        while len(self.bodies.get(stream, b"")) < size:
            data = await self.event(h2.events.DataReceived)
            self.bodies[data.stream_id] = (
                self.bodies.get(data.stream_id, b"") + data.data
            )
        return self.bodies[stream]

    def send_headers(self, stream: int, *headers: tuple[str, str], end: bool) -> None:
        common = [(":scheme", "https"), (":authority", "localhost")]
        self.h2.send_headers(stream, [*headers[:1], *common, *headers[1:]], end)
        self.flush()

    async def open_websocket(self, path: str) -> None:
        """As RFC 8441 has it, in stream 1."""
        settings = await self.event(h2.events.RemoteSettingsChanged)
        assert 8 in settings.changed_settings  # ENABLE_CONNECT_PROTOCOL
        headers = [(":method", "CONNECT"), (":protocol", "websocket"), (":path", path)]
        self.send_headers(1, *headers, ("sec-websocket-version", "13"), end=False)
        response = await self.event(h2.events.ResponseReceived)
        assert dict(response.headers)[b":status"] == b"200"

    async def talk(self, text: str) -> Any:
        self.h2.send_data(1, self.ws.send(TextMessage(data=text)))
        self.flush()
        data = await self.event(h2.events.DataReceived)
        self.ws.receive_data(data.data)
        return next(self.ws.events()).data

    async def close_websocket(self) -> None:
        self.h2.send_data(1, self.ws.send(CloseConnection(code=1000)))
        self.flush()
        await self.event(h2.events.DataReceived)


@contextlib.asynccontextmanager
async def http2(port: int, certificate: pathlib.Path) -> AsyncIterator[Http2]:
    context = ssl.create_default_context(cafile=certificate)
    context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
    yield Http2(reader, writer)
    await leave(writer)


async def test_websocket_over_http2(loop: Any, certificate: pathlib.Path) -> None:
    async with (
        running(certificate) as server,
        http2(server.port, certificate) as peer,
    ):
        await peer.open_websocket("/ws")
        for n in range(20):
            assert await peer.talk(f"hello {n}") == f"2 hello {n}"
        await peer.close_websocket()
        await until(lambda: len(server.app.seen) == 2)


async def test_a_slow_reader_is_not_sent_more(
    loop: Any, certificate: pathlib.Path
) -> None:
    """Than the window of its stream; others get through meanwhile."""
    async with (
        running(certificate) as server,
        http2(server.port, certificate) as peer,
    ):
        peer.h2.increment_flow_control_window(1 << 22)  # of the whole connection
        peer.send_headers(1, (":method", "GET"), (":path", "/payload"), end=True)
        await peer.body(1, WINDOW)
        for stream in range(3, 23, 2):
            peer.send_headers(stream, (":method", "GET"), (":path", "/loop"), end=True)
            await peer.body(stream, 1)
        held = len(peer.bodies[1])
        peer.h2.increment_flow_control_window(1 << 22, 1)
        peer.flush()
        body = await peer.body(1, len(PAYLOAD))
        assert hashlib.sha256(body).hexdigest() == DIGEST
        assert held == WINDOW


async def test_a_stream_that_is_reset(loop: Any, certificate: pathlib.Path) -> None:
    """Its request ends, another one of the same connection goes on."""
    async with (
        running(certificate) as server,
        http2(server.port, certificate) as peer,
    ):
        for stream in (1, 3):
            headers = [(":method", "GET"), (":path", "/gate")]
            peer.send_headers(stream, *headers, end=True)
        await until(lambda: server.app.seen.count("waiting") == 2)
        peer.h2.reset_stream(1, 8)
        peer.flush()
        await until(lambda: "disconnect" in server.app.seen)
        server.app.gate.set()
        data = await peer.event(h2.events.DataReceived)
        assert (data.stream_id, data.data) == (3, b"done")


async def test_shutdown_waits_for_requests(loop: Any) -> None:
    server = Running()
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request("/gate", "Connection: close"))
    await until(lambda: "waiting" in server.app.seen)
    server.ending.set()
    await until(lambda: refused(server.port))
    assert not server.task.done()
    server.app.gate.set()
    assert (await read_response(reader))[2] == b"done"
    await leave(writer)
    await server.task
    assert server.app.seen == ["startup", "waiting", "shutdown"]


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    return False


PROGRAM = """
import asyncio, os
from webapp import app
from hypercorn.asyncio import serve
from hypercorn.config import Config

config = Config()
config.bind = ["127.0.0.1:" + os.environ["PORT"]]
if os.environ["HOTLOOP_TEST_KIND"] == "hotloop":
    import hotloop
    hotloop.run(serve(app, config))
else:
    asyncio.run(serve(app, config))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_program_that_serves(
    loop_kind: str, start: Any, tmp_path: pathlib.Path, number: int
) -> None:
    (tmp_path / "webapp.py").write_text(WEBAPP)
    (tmp_path / "program.py").write_text(PROGRAM)
    port = unused_port()
    program = start(sys.executable, "program.py", env={"PORT": str(port)})
    program.wait_for("Running on")
    answer = signal_while_busy(program, port, number, "Connection: close")
    assert loop_kind.encode() in answer
    ended_well(program, program.wait())
    assert "application shutdown" in program.log()

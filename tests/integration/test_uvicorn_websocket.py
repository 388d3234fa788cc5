"""uvicorn's three WebSocket implementations, with the client of `websockets`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("wsproto")
pytest.importorskip("websockets")

from websockets.asyncio.client import connect  # noqa: E402
from websockets.exceptions import ConnectionClosed, InvalidStatus  # noqa: E402

from support import reset, turns, until  # noqa: E402
from webpeers import loop_name  # noqa: E402

BIG = random.Random(4).randbytes(3 << 20)

# uvicorn keeps the old implementation, of which websockets warns.
pytestmark = pytest.mark.filterwarnings("ignore::Warning:uvicorn")


class App:
    """An ASGI application for WebSockets and what it has seen."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.count = 0
        self.members: set[Any] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "websocket"
        assert (await receive())["type"] == "websocket.connect"
        await getattr(self, "on_" + scope["path"][1:])(scope, receive, send)

    async def on_echo(self, scope: Any, receive: Any, send: Any) -> None:
        chosen = (scope["subprotocols"] or [None])[-1]
        await send({"type": "websocket.accept", "subprotocol": chosen})
        while (message := await receive())["type"] == "websocket.receive":
            found = {key: message.get(key) for key in ("bytes", "text")}
            await send({"type": "websocket.send"} | found)
        self.seen.append((message["code"], message.get("reason")))

    async def on_loop(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": loop_name()})
        await send({"type": "websocket.close", "code": 4000, "reason": "told"})

    async def on_refuse(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.close"})

    async def on_fail(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        raise LookupError("lost in the application")

    async def on_flood(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        try:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(65536)})
                self.count += 1
        except BaseException as error:
            self.seen.append(type(error).__name__)

    async def on_room(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        self.members.add(send)
        while (message := await receive())["type"] == "websocket.receive":
            text = {"type": "websocket.send", "text": message["text"]}
            await asyncio.gather(*[member(text) for member in self.members])
        self.members.discard(send)


class Running:
    def __init__(self, **options: Any) -> None:
        self.app = App()
        options = {"port": 0, "log_config": None, "lifespan": "off"} | options
        config = uvicorn.Config(self.app, access_log=False, **options)
        self.scheme = "wss" if config.is_ssl else "ws"
        self.server = uvicorn.Server(config)

    async def start(self) -> None:
        self.task = asyncio.create_task(self.server.serve())
        await until(lambda: self.server.started)
        self.address = self.server.servers[0].sockets[0].getsockname()
        self.url = f"{self.scheme}://localhost:{self.address[1]}"

    async def stop(self) -> None:
        self.server.should_exit = True
        await self.task


@contextlib.asynccontextmanager
async def running(**options: Any) -> AsyncIterator[Running]:
    server = Running(**options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.fixture(params=["websockets", "websockets-sansio", "wsproto"])
def ws(request: pytest.FixtureRequest) -> str:
    """The WebSocket implementation that uvicorn uses."""
    return str(request.param)


def dial(url: str, **options: Any) -> Any:
    return connect(url, max_size=1 << 24, proxy=None, open_timeout=40, **options)


async def test_echo(loop: Any, ws: str) -> None:
    async with running(ws=ws) as server:
        async with dial(server.url + "/echo", subprotocols=["one", "two"]) as client:
            assert client.subprotocol == "two"
            for n in range(200):
                await client.send(f"message {n}")
            for n in range(200):
                assert await client.recv() == f"message {n}"
            sending = asyncio.create_task(client.send(BIG))
            assert await client.recv() == BIG
            await sending
            await client.send("é" * 1000)
            assert await client.recv() == "é" * 1000
        await until(lambda: server.app.seen)
        assert server.app.seen[0][0] == 1000


async def test_tls(
    loop: Any, ws: str, certificate: Any, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    async with running(ws=ws, ssl_certfile=certificate) as server:
        clients = [dial(server.url + "/echo", ssl=tls[1]) for _ in range(2)]
        async with contextlib.AsyncExitStack() as stack:
            for client in clients:
                one = await stack.enter_async_context(client)
                sending = asyncio.create_task(one.send(BIG))
                assert await one.recv() == BIG
                await sending


async def test_the_server_closes_with_a_code(
    loop: Any, loop_kind: str, ws: str
) -> None:
    async with running(ws=ws) as server, dial(server.url + "/loop") as client:
        assert await client.recv() == loop_kind
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert (client.close_code, client.close_reason) == (4000, "told")


async def test_the_client_closes_with_a_code(loop: Any, ws: str) -> None:
    async with running(ws=ws) as server:
        client = await dial(server.url + "/echo")
        await client.close(4321, "enough")
        await until(lambda: server.app.seen)
        assert server.app.seen == [(4321, "enough")]


async def test_a_refused_handshake(loop: Any, ws: str) -> None:
    async with running(ws=ws) as server:
        with pytest.raises(InvalidStatus) as caught:
            await dial(server.url + "/refuse")
        assert caught.value.response.status_code == 403


async def test_a_failing_application(
    loop: Any, ws: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(ws=ws) as server, dial(server.url + "/fail") as client:
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code in (1006, 1011, 1012)
    assert "lost in the application" in caplog.text


async def test_pings_of_the_client_are_answered(loop: Any, ws: str) -> None:
    async with running(ws=ws) as server, dial(server.url + "/echo") as client:
        waiters = [await client.ping(str(n)) for n in range(10)]
        await asyncio.gather(*waiters)
        await client.send("alive")
        assert await client.recv() == "alive"


async def test_pings_of_the_server(loop: Any, ws: str) -> None:
    """The client's library answers them; the connection lives on."""
    frames: list[str] = []
    logger = logging.Logger("frames", logging.DEBUG)
    handler = logging.Handler()
    handler.emit = lambda record: frames.append(record.getMessage())  # type: ignore
    logger.addHandler(handler)
    async with (
        running(ws=ws, ws_ping_interval=0.05, ws_ping_timeout=30) as server,
        dial(server.url + "/echo", logger=logger) as client,
    ):
        await until(lambda: sum("< PING" in line for line in frames) >= 3)
        await client.send("alive")
        assert await client.recv() == "alive"


def raw_handshake(address: Any, path: str) -> socket.socket:
    sock = socket.create_connection(address)
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Upgrade: websocket"]
    lines += ["Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    lines += ["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "", ""]
    sock.sendall("\r\n".join(lines).encode())
    sock.setblocking(False)
    return sock


async def test_the_client_vanishes(loop: Any, ws: str) -> None:
    async with running(ws=ws) as server:
        for end in (reset, socket.socket.close):
            sock = raw_handshake(server.address, "/echo")
            assert b" 101 " in await loop.sock_recv(sock, 1000)
            await loop.sock_sendall(sock, b"\x81\xfe\x01\x00")  # begins a frame
            await turns(3)
            end(sock)
        await until(lambda: len(server.app.seen) == 2)
        # The three libraries tell it differently.
        assert {code for code, _ in server.app.seen} <= {1001, 1005, 1006}


# The third one, "websockets", lets the dead client 20 s of time to say goodbye.
@pytest.mark.parametrize("library", ["websockets-sansio", "wsproto"])
async def test_a_dead_client_is_found(loop: Any, library: str) -> None:
    async with running(ws=library, ws_ping_interval=0.1, ws_ping_timeout=0.1) as server:
        sock = raw_handshake(server.address, "/echo")  # never answers a ping
        await until(lambda: server.app.seen)
        sock.close()


async def test_a_reader_that_stops_holds_the_writer_back(loop: Any, ws: str) -> None:
    options = {"ws_ping_interval": None, "ws_per_message_deflate": False}
    async with running(ws=ws, **options) as server:
        sock = raw_handshake(server.address, "/flood")
        before = -1
        while server.app.count != before:
            before = server.app.count
            await asyncio.sleep(0.3)
        assert 0 < before < 400
        for _ in range(100):
            await loop.sock_recv(sock, 1 << 20)
        await until(lambda: server.app.count > before)
        reset(sock)
        await until(lambda: server.app.seen)


async def test_a_room_of_many(loop: Any, ws: str) -> None:
    async with running(ws=ws) as server:
        clients = [await dial(server.url + "/room") for _ in range(30)]
        await until(lambda: len(server.app.members) == 30)
        for n, client in enumerate(clients[:10]):
            await client.send(str(n))
        for client in clients:
            got = {await client.recv() for _ in range(10)}
            assert got == {str(n) for n in range(10)}
        await asyncio.gather(*[client.close() for client in clients])
        await until(lambda: not server.app.members)


async def test_a_receive_that_is_cancelled_loses_nothing(loop: Any, ws: str) -> None:
    async with running(ws=ws) as server, dial(server.url + "/echo") as client:
        for n in range(30):
            waiting = asyncio.create_task(client.recv())
            await turns(n % 4)
            waiting.cancel()
            await asyncio.wait([waiting])
            await client.send(str(n))
            assert await client.recv() == str(n)


async def test_shutdown_closes_with_1012(loop: Any, ws: str) -> None:
    server = Running(ws=ws)
    await server.start()
    clients = [await dial(server.url + "/echo") for _ in range(5)]
    reads = [asyncio.create_task(client.recv()) for client in clients]
    await turns(5)
    await server.stop()
    for read in reads:
        with pytest.raises(ConnectionClosed):
            await read
    assert [client.close_code for client in clients] == [1012] * 5
    assert {code for code, _ in server.app.seen} == {1012}

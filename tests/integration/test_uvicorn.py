"""uvicorn in the test's own loop: both HTTP parsers, plain ASGI, raw peers."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import pathlib
import random
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest

uvicorn = pytest.importorskip("uvicorn")
httpx = pytest.importorskip("httpx")

from asgiapps import Application  # noqa: E402
from servers import leave  # noqa: E402
from support import reset, turns, until  # noqa: E402
from webpeers import read_response, request, wrk  # noqa: E402

PAYLOAD = random.Random(3).randbytes((5 << 20) + 11)
DIGEST = hashlib.sha256(PAYLOAD).hexdigest()


class App(Application):
    payload = PAYLOAD

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def on_number(self, scope: Any, receive: Any, send: Any) -> None:
        await turns(random.randrange(3))
        await self.answer(send, scope["path"].split("/")[2])

    async def on_flood(self, scope: Any, receive: Any, send: Any) -> None:
        """Send until the client is gone, as receive() tells."""
        gone = asyncio.create_task(receive_disconnect(receive))
        await send({"type": "http.response.start", "status": 200})
        while not gone.done():
            body = {"type": "http.response.body", "body": bytes(65536)}
            await send(body | {"more_body": True})
            self.count += 1
            # To a client that is gone uvicorn sends without waiting.
            await asyncio.sleep(0)
        self.seen.append(await gone)

    async def on_gate(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen.append("waiting")
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.seen.append("cancelled")
            raise
        await self.answer(send, "done")


async def receive_disconnect(receive: Any) -> str:
    while (await receive())["type"] != "http.disconnect":
        pass
    return "disconnect"


class Running:
    """A uvicorn server that serves an App in the running loop."""

    def __init__(self, **options: Any) -> None:
        self.app = App()
        options = {"port": 0, "log_config": None, "lifespan": "on"} | options
        self.config = uvicorn.Config(self.app, access_log=False, **options)
        self.server = uvicorn.Server(self.config)

    async def start(self) -> None:
        self.task = asyncio.create_task(self.server.serve())
        await until(lambda: self.server.started or self.task.done())

    @property
    def address(self) -> Any:
        return self.server.servers[0].sockets[0].getsockname()

    @property
    def url(self) -> str:
        scheme = "https" if self.config.is_ssl else "http"
        return f"{scheme}://localhost:{self.address[1]}"

    @property
    def connections(self) -> Any:
        return self.server.server_state.connections

    def plain_socket(self, data: bytes) -> socket.socket:
        sock = socket.create_connection(self.address)
        sock.sendall(data)
        return sock

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
        server.app.gate.set()
        await server.stop()


@pytest.fixture(params=["h11", "httptools"])
def http(request: pytest.FixtureRequest) -> str:
    """The HTTP parser that uvicorn uses."""
    pytest.importorskip(request.param)
    return str(request.param)


def client(**options: Any) -> Any:
    limits = httpx.Limits(max_connections=30)
    return httpx.AsyncClient(trust_env=False, limits=limits, timeout=40, **options)


async def test_many_users(loop: Any, loop_kind: str, http: str) -> None:
    async with running(http=http) as server, client() as session:
        gets = [session.get(f"{server.url}/number/{n}") for n in range(100)]
        texts = [response.text for response in await asyncio.gather(*gets)]
        assert texts == [str(n) for n in range(100)]
        assert (await session.get(server.url + "/loop")).text == f"{loop_kind} 1.1"
        assert server.app.seen == ["startup"]
    assert server.app.seen == ["startup", "shutdown"]


async def test_big_bodies_both_ways(loop: Any, http: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(PAYLOAD), 70_001):
            yield PAYLOAD[start : start + 70_001]

    async with running(http=http) as server, client() as session:
        url = server.url
        posts = [session.post(url + "/digest", content=pieces()) for _ in range(3)]
        posts += [session.post(url + "/digest", content=PAYLOAD) for _ in range(3)]
        for response in await asyncio.gather(*posts):
            assert response.text == DIGEST
        gets = [session.get(url + "/payload") for _ in range(4)]
        for response in await asyncio.gather(*gets):
            assert hashlib.sha256(response.content).hexdigest() == DIGEST


async def test_a_burst_of_pipelined_requests(loop: Any, http: str) -> None:
    async with running(http=http) as server:
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(b"".join(request(f"/number/{n}") for n in range(150)))
        bodies = [(await read_response(reader))[2] for _ in range(150)]
        assert bodies == [b"%d" % n for n in range(150)]
        await leave(writer)


async def test_resets_in_the_middle_of_a_burst(loop: Any, http: str) -> None:
    async with running(http=http) as server, client() as session:
        burst = b"".join(request(f"/number/{n}") for n in range(50))
        for cut in (len(burst), len(burst) // 2 + 7, 20):
            sock = server.plain_socket(burst[:cut])
            await until(lambda: server.connections)
            reset(sock)
            await until(lambda: not server.connections)
        assert (await session.get(server.url + "/number/7")).text == "7"


async def test_half_a_request_and_nothing_more(loop: Any, http: str) -> None:
    async with running(http=http) as server, client() as session:
        body = request("/digest", method="POST", body=PAYLOAD)[:1000]
        for part in (b"GET /nu", request("/number/1")[:-2], body):
            sock = server.plain_socket(part)
            await until(lambda: server.connections)
            await turns(5)
            sock.close()
            await until(lambda: not server.connections)
        await until(lambda: "disconnect in the body" in server.app.seen)
        assert (await session.get(server.url + "/number/7")).text == "7"


async def test_a_request_byte_by_byte(loop: Any, http: str) -> None:
    async with running(http=http) as server:
        sock = server.plain_socket(b"")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader, writer = await asyncio.open_connection(sock=sock)
        for byte in request("/digest", method="POST", body=b"slowly"):
            writer.write(bytes([byte]))
            await turns(2)
        body = (await read_response(reader))[2]
        assert body.decode() == hashlib.sha256(b"slowly").hexdigest()
        await leave(writer)


async def test_expect_100_continue(loop: Any, http: str) -> None:
    async with running(http=http) as server:
        whole = request("/digest", "Expect: 100-continue", method="POST", body=b"xyz")
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(whole[:-3])
        assert (await read_response(reader))[0] == 100
        writer.write(whole[-3:])
        body = (await read_response(reader))[2]
        assert body.decode() == hashlib.sha256(b"xyz").hexdigest()
        await leave(writer)


async def test_nonsense_gets_400(loop: Any, http: str) -> None:
    async with running(http=http) as server:
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(b"\x16\x03\x01 no HTTP at all\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        await leave(writer)


@pytest.mark.parametrize("end", ["reset", "close"])
async def test_the_client_of_a_stream_vanishes(loop: Any, http: str, end: str) -> None:
    async with running(http=http) as server:
        sock = server.plain_socket(request("/flood"))
        await until(lambda: server.app.count > 3)
        reset(sock) if end == "reset" else sock.close()
        await until(lambda: server.app.seen == ["startup", "disconnect"])
        await until(lambda: not server.connections)


async def test_a_slow_reader_holds_the_writer_back(loop: Any, http: str) -> None:
    async with running(http=http) as server:
        sock = server.plain_socket(request("/flood"))
        before = -1
        while server.app.count != before:
            before = server.app.count
            await asyncio.sleep(0.3)
        assert 0 < before < 400  # far less than an unbounded buffer
        sock.setblocking(False)
        for _ in range(200):
            assert await loop.sock_recv(sock, 1 << 20)
        await until(lambda: server.app.count > before)
        reset(sock)
        await until(lambda: "disconnect" in server.app.seen)


async def test_a_slow_application_holds_the_client_back(loop: Any, http: str) -> None:
    """uvicorn stops reading where the application does not take the body."""
    async with running(http=http) as server:
        length = f"Content-Length: {1 << 40}"
        sock = server.plain_socket(request("/gate", length, method="POST"))
        await until(lambda: "waiting" in server.app.seen)
        sock.setblocking(False)
        sent, before = 0, -1
        while sent != before:  # the client goes on while there is room
            before = sent
            await asyncio.sleep(0.3)
            with contextlib.suppress(BlockingIOError):
                while sent < 200 << 20:
                    sent += sock.send(bytes(1 << 20))
        assert sent < 100 << 20
        reset(sock)
        server.app.gate.set()
        await until(lambda: not server.connections)


async def test_clients_that_give_up(loop: Any, http: str) -> None:
    async with running(http=http) as server, client() as session:
        with pytest.raises(httpx.ReadTimeout):
            await session.get(server.url + "/gate", timeout=0.1)
        task = asyncio.create_task(session.get(server.url + "/gate"))
        await until(lambda: server.app.seen.count("waiting") == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with session.stream("GET", server.url + "/payload") as response:
            async for _ in response.aiter_bytes():
                break
        server.app.gate.set()
        assert (await session.get(server.url + "/number/5")).text == "5"
        await session.aclose()
        await until(lambda: not server.connections)


async def test_idle_connections_are_closed(loop: Any, http: str) -> None:
    async with running(http=http, timeout_keep_alive=0.1) as server:
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(request("/number/1"))
        assert (await read_response(reader))[2] == b"1"
        assert await reader.read() == b""
        await leave(writer)


async def test_the_limit_of_connections(loop: Any, http: str) -> None:
    async with running(http=http, limit_concurrency=3) as server, client() as session:
        socks = [server.plain_socket(request("/gate")) for _ in range(2)]
        await until(lambda: server.app.seen.count("waiting") == 2)
        assert (await session.get(server.url + "/loop")).status_code == 503
        for sock in socks:
            sock.close()


async def test_the_limit_of_requests(loop: Any, http: str) -> None:
    server = Running(http=http, limit_max_requests=10)
    await server.start()
    async with client() as session:
        for n in range(10):
            assert (await session.get(f"{server.url}/number/{n}")).text == str(n)
    await server.task
    assert server.app.seen == ["startup", "shutdown"]


async def test_tls(
    loop: Any,
    http: str,
    certificate: pathlib.Path,
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async with running(http=http, ssl_certfile=certificate) as server:
        async with client(verify=tls[1]) as session:
            url = server.url + "/digest"
            posts = [session.post(url, content=PAYLOAD) for _ in range(4)]
            for response in await asyncio.gather(*posts):
                assert response.text == DIGEST
            response = await session.get(server.url + "/payload")
            assert hashlib.sha256(response.content).hexdigest() == DIGEST
        async with client() as session:
            with pytest.raises(httpx.ConnectError):
                await session.get(server.url + "/loop")
        count = await wrk(server.url + "/loop")
        assert count <= server.app.count <= count + 20


async def test_under_load(loop: Any, http: str) -> None:
    async with running(http=http) as server:
        count = await wrk(server.url + "/loop", connections=40)
        assert count <= server.app.count <= count + 40
        await until(lambda: not server.connections)


async def test_shutdown_waits_for_requests(loop: Any, http: str) -> None:
    server = Running(http=http)
    await server.start()
    address = server.address
    idle_reader, idle = await asyncio.open_connection(*address)
    idle.write(request("/number/1"))
    assert (await read_response(idle_reader))[0] == 200
    reader, writer = await asyncio.open_connection(*address)
    writer.write(request("/gate"))
    await until(lambda: "waiting" in server.app.seen)
    server.server.should_exit = True
    assert await idle_reader.read() == b""
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)
    assert not server.task.done()
    server.app.gate.set()
    status, _, body = await read_response(reader)
    assert (status, body) == (200, b"done")
    await server.task
    assert server.app.seen[-1] == "shutdown"
    await leave(idle)
    await leave(writer)


async def test_shutdown_cancels_what_takes_too_long(loop: Any, http: str) -> None:
    server = Running(http=http, timeout_graceful_shutdown=0.2)
    await server.start()
    reader, writer = await asyncio.open_connection(*server.address)
    writer.write(request("/gate"))
    await until(lambda: "waiting" in server.app.seen)
    await server.stop()
    await until(lambda: "cancelled" in server.app.seen)
    data = await reader.read()
    assert not data or data.startswith(b"HTTP/1.1 500 ")
    await leave(writer)

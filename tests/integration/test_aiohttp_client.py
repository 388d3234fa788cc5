"""The client of aiohttp: its pool, timeouts, bodies, TLS, proxies."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import socket
import ssl
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver

from clientpeers import (
    MIB,
    Proxy,
    Source,
    block,
    checksum_of,
    full_listener,
    request_head,
    serving,
    serving_streams,
)
from support import settle, until


class Counter:
    """A handler that counts requests, connections, and how many at once."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.now = self.most = self.requests = 0
        self.connections: set[Any] = set()
        self.full = asyncio.Event()

    async def __call__(self, request: web.Request) -> web.Response:
        self.now += 1
        self.requests += 1
        self.most = max(self.most, self.now)
        self.connections.add(request.transport.get_extra_info("peername"))
        if self.now == self.wanted:
            self.full.set()
        await self.full.wait()
        await asyncio.sleep(0)
        self.now -= 1
        return web.Response(text=str(self.requests))


async def text_of(session: aiohttp.ClientSession, url: Any, **options: Any) -> str:
    async with session.get(url, **options) as response:
        assert response.status == 200
        return await response.text()


async def test_the_pool_is_limited(loop: Any) -> None:
    handler = Counter(4)
    async with serving(web.get("/", handler)) as port:
        connector = aiohttp.TCPConnector(limit=4)
        async with aiohttp.ClientSession(connector=connector) as session:
            url = f"http://127.0.0.1:{port}/"
            await asyncio.gather(*(text_of(session, url) for _ in range(60)))
    assert handler.requests == 60
    assert handler.most == len(handler.connections) == 4


async def test_the_pool_is_limited_per_host(loop: Any) -> None:
    one, two = Counter(2), Counter(2)
    async with (
        serving(web.get("/", one)) as first,
        serving(web.get("/", two)) as second,
    ):
        connector = aiohttp.TCPConnector(limit=0, limit_per_host=2)
        async with aiohttp.ClientSession(connector=connector) as session:
            urls = [f"http://127.0.0.1:{port}/" for port in (first, second)] * 20
            await asyncio.gather(*(text_of(session, url) for url in urls))
    assert (one.most, two.most) == (2, 2)
    assert (one.requests, two.requests) == (20, 20)


async def test_a_waiter_for_a_connection_is_cancelled(loop: Any) -> None:
    handler = Counter(2)
    async with serving(web.get("/", handler)) as port:
        connector = aiohttp.TCPConnector(limit=1)
        async with aiohttp.ClientSession(connector=connector) as session:
            url = f"http://127.0.0.1:{port}/"
            first = asyncio.create_task(text_of(session, url))
            await until(lambda: handler.now == 1)
            others = [asyncio.create_task(text_of(session, url)) for _ in range(9)]
            await until(lambda: sum(map(len, connector._waiters.values())) == 9)
            for task in others[::2]:
                task.cancel()
            handler.full.set()
            results = await asyncio.gather(first, *others, return_exceptions=True)
    assert [isinstance(r, asyncio.CancelledError) for r in results[1::2]] == [True] * 5
    assert results[0] == "1" and sorted(results[2::2]) == ["2", "3", "4", "5"]


async def test_a_connection_is_used_again(loop: Any) -> None:
    handler = Counter(1)
    async with (
        serving(web.get("/", handler)) as port,
        aiohttp.ClientSession() as session,
    ):
        for number in range(200):
            got = await text_of(session, f"http://127.0.0.1:{port}/")
            assert got == str(number + 1)
    assert len(handler.connections) == 1


async def test_the_server_closes_after_each_answer(loop: Any) -> None:
    """It promises to go on and does not: the client meets the end by chance."""

    async def once(reader: Any, writer: Any) -> None:
        head = await request_head(reader)
        if head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()
        await writer.wait_closed()

    async with (
        serving_streams(once) as port,
        aiohttp.ClientSession() as session,
    ):
        url = f"http://127.0.0.1:{port}/"
        for number in range(150):
            assert await text_of(session, url) == "ok"
            for _ in range(number % 5):
                await asyncio.sleep(0)
        await asyncio.gather(*(text_of(session, url) for _ in range(50)))


async def test_the_server_closes_instead_of_an_answer(loop: Any) -> None:
    """A GET on a connection that was used before is sent again, a POST is not."""
    connections = 0

    async def second_fails(reader: Any, writer: Any) -> None:
        nonlocal connections
        connections += 1
        for answer in (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b""):
            if await request_head(reader):
                writer.write(answer)
        writer.close()
        await writer.wait_closed()

    async with (
        serving_streams(second_fails) as port,
        aiohttp.ClientSession() as session,
    ):
        url = f"http://127.0.0.1:{port}/"
        for _ in range(20):
            assert await text_of(session, url) == "ok"
        assert connections == 20
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.post(url)


async def test_redirects_and_cookies(loop: Any) -> None:
    async def step(request: web.Request) -> web.Response:
        left = int(request.match_info["left"])
        target = f"/step/{left - 1}" if left else "/end"
        response = web.Response(status=302, headers={"Location": target})
        response.set_cookie(f"step{left}", "seen")
        return response

    async def end(request: web.Request) -> web.Response:
        return web.json_response(sorted(request.cookies))

    async def moved(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "/body"})

    async def body(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    routes = [web.get("/step/{left}", step), web.get("/end", end)]
    routes += [web.post("/moved", moved), web.post("/body", body)]
    # aiohttp goes on waiting for a body that no handler read, also when the
    # client has left, and does not wait for the task that does.
    async with serving(*routes, lingering_time=0.05) as port:
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(
            f"http://127.0.0.1:{port}", cookie_jar=jar
        ) as session:
            async with session.get("/step/5") as response:
                assert await response.json() == [f"step{n}" for n in range(6)]
                assert len(response.history) == 6
            with pytest.raises(aiohttp.TooManyRedirects):
                await session.get("/step/20")
            data = block(1, 3 * MIB)
            async with session.post("/moved", data=io.BytesIO(data)) as response:
                assert await response.read() == data
    await settle()


class Stalled:
    """Answers the head and a first part; records that the client has left."""

    def __init__(self) -> None:
        self.begun = self.left = 0

    async def __call__(self, reader: Any, writer: Any) -> None:
        while head := await request_head(reader):
            if b"GET /ok " in head:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                continue
            if b"GET /silent " not in head:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegun")
            self.begun += 1
        self.left += 1
        writer.close()
        await writer.wait_closed()


TIMEOUTS: list[Any] = [
    ("/silent", {"total": 0.05}, asyncio.TimeoutError),
    ("/silent", {"sock_read": 0.05}, aiohttp.SocketTimeoutError),
    ("/body", {"total": 0.2}, asyncio.TimeoutError),
    ("/body", {"sock_read": 0.2}, aiohttp.SocketTimeoutError),
]


@pytest.mark.parametrize(("path", "limits", "error"), TIMEOUTS)
async def test_timeouts(loop: Any, path: str, limits: Any, error: Any) -> None:
    server = Stalled()
    timeout = aiohttp.ClientTimeout(**limits)
    async with (
        serving_streams(server) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):

        async def read() -> bytes:
            async with session.get(path, timeout=timeout) as response:
                return await response.read()

        results = await asyncio.gather(
            *(read() for _ in range(20)), return_exceptions=True
        )
        assert all(isinstance(result, error) for result in results), results
        # Each connection was closed, not kept for the next one.
        await until(lambda: server.left == server.begun == 20)
        assert await text_of(session, "/ok") == "ok"


async def test_timeout_of_the_pool(loop: Any) -> None:
    server = Stalled()
    connector = aiohttp.TCPConnector(limit=1)
    timeout = aiohttp.ClientTimeout(connect=0.05)
    async with (
        serving_streams(server) as port,
        aiohttp.ClientSession(
            f"http://127.0.0.1:{port}", connector=connector
        ) as session,
    ):
        async with session.get("/body") as response:
            assert await response.content.readexactly(5) == b"begun"
            with pytest.raises(aiohttp.ConnectionTimeoutError):
                await session.get("/body", timeout=timeout)
        assert await text_of(session, "/ok", timeout=timeout) == "ok"


async def test_timeout_of_connecting(loop: Any) -> None:
    with full_listener() as port:
        timeout = aiohttp.ClientTimeout(sock_connect=0.05)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            with pytest.raises(aiohttp.ConnectionTimeoutError):
                await session.get(f"http://127.0.0.1:{port}/")
            with pytest.raises(asyncio.TimeoutError):
                async with asyncio.timeout(0.05):
                    await session.get(f"http://127.0.0.1:{port}/", timeout=None)


async def test_cancelled_in_the_body(loop: Any) -> None:
    server = Stalled()
    async with (
        serving_streams(server) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        begun = 0

        async def read() -> None:
            nonlocal begun
            async with session.get("/body") as response:
                await response.content.readexactly(5)
                begun += 1
                await response.content.read(1)

        tasks = [asyncio.create_task(read()) for _ in range(30)]
        await until(lambda: begun == 30)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results} == {asyncio.CancelledError}
        await until(lambda: server.left == 30)
        assert await text_of(session, "/ok") == "ok"


async def test_cancelled_at_every_moment(loop: Any) -> None:
    """After so many turns, from before the connection to after the answer."""
    data = block(3, 300_000)

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async def post(session: Any) -> bytes:
        async with session.post("/", data=data) as response:
            return bytes(await response.read())

    turn = finished = 0
    async with (
        serving(web.post("/", answer)) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        while finished < 3:
            task = asyncio.create_task(post(session))
            for _ in range(turn):
                await asyncio.sleep(0)
            task.cancel()
            turn += 1
            with contextlib.suppress(asyncio.CancelledError):
                finished += await task == data
        assert await post(session) == data
    assert turn > finished


async def test_upload_waits_for_the_server(loop: Any) -> None:
    source = Source(64, MIB)
    go_on = asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        digest = hashlib.sha256()
        await go_on.wait()
        async for chunk in request.content.iter_chunked(1 << 16):
            digest.update(chunk)
        return web.Response(text=digest.hexdigest())

    async with serving(web.post("/", slow)) as port, aiohttp.ClientSession() as session:

        async def upload() -> str:
            url = f"http://127.0.0.1:{port}/"
            async with session.post(url, data=aiter(source)) as response:
                return await response.text()

        task = asyncio.create_task(upload())
        await source.stalled()
        assert source.made < 20
        go_on.set()
        assert await task == checksum_of(64, MIB)


async def test_download_waits_for_the_client(loop: Any) -> None:
    source = Source(64, MIB)

    async def send(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for chunk in source:
            await response.write(chunk)
        return response

    async with (
        serving(web.get("/", send)) as port,
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/") as response,
    ):
        await source.stalled()
        assert source.made < 20
        digest = hashlib.sha256()
        async for chunk in response.content.iter_any():
            digest.update(chunk)
        assert digest.hexdigest() == checksum_of(64, MIB)


async def test_a_server_that_ends_in_the_body(loop: Any) -> None:
    async def cut(reader: Any, writer: Any) -> None:
        await request_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        writer.close()
        await writer.wait_closed()

    async with serving_streams(cut) as port, aiohttp.ClientSession() as session:

        async def read() -> None:
            async with session.get(f"http://127.0.0.1:{port}/") as response:
                await response.read()

        results = await asyncio.gather(
            *(read() for _ in range(20)), return_exceptions=True
        )
    assert {type(result) for result in results} == {aiohttp.ClientPayloadError}


class Addresses(AbstractResolver):
    """Gives one name the addresses it was told, in that order."""

    def __init__(self, addresses: list[tuple[str, int]]) -> None:
        self.addresses = addresses

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> Any:
        return [
            {
                "hostname": host,
                "host": address,
                "port": own_port,
                "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                "proto": 0,
                "flags": socket.AI_NUMERICHOST,
            }
            for address, own_port in self.addresses
        ]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("first", ["silent", "refused"])
async def test_happy_eyeballs(loop: Any, first: str) -> None:
    handler = Counter(1)
    with full_listener() as silent, socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bad = silent if first == "silent" else bound.getsockname()[1]
        async with serving(web.get("/", handler)) as port:
            resolver = Addresses([("127.0.0.1", bad), ("127.0.0.1", port)])
            connector = aiohttp.TCPConnector(
                resolver=resolver, happy_eyeballs_delay=0.02
            )
            async with aiohttp.ClientSession(connector=connector) as session:
                assert await text_of(session, f"http://server:{port}/") == "1"


async def hello(request: web.Request) -> web.Response:
    return web.Response(text=request.scheme)


async def test_tls(loop: Any, tls: Any) -> None:
    async with serving(web.get("/", hello), ssl=tls[0]) as port:
        url = f"https://localhost:{port}/"
        async with aiohttp.ClientSession() as session:
            got = await asyncio.gather(
                *(text_of(session, url, ssl=tls[1]) for _ in range(100))
            )
            assert got == ["https"] * 100


async def test_tls_that_cannot_be_verified(loop: Any, tls: Any) -> None:
    async with (
        serving(web.get("/", hello), ssl=tls[0]) as port,
        aiohttp.ClientSession() as session,
    ):
        url = f"https://127.0.0.1:{port}/"
        strange = ssl.create_default_context()
        with pytest.raises(aiohttp.ClientConnectorCertificateError) as caught:
            await session.get(url, ssl=strange)
        assert isinstance(caught.value.certificate_error, ssl.SSLError)
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(url, ssl=tls[1], server_hostname="elsewhere")
        wrong = aiohttp.Fingerprint(b"\0" * 32)
        with pytest.raises(aiohttp.ServerFingerprintMismatch):
            await session.get(url, ssl=wrong)
        assert await text_of(session, url, ssl=tls[1]) == "https"
        assert await text_of(session, url, ssl=False) == "https"


async def test_plain_http_to_a_tls_server(loop: Any, tls: Any) -> None:
    async with (
        serving(web.get("/", hello), ssl=tls[0]) as port,
        serving(web.get("/", hello)) as plain,
        aiohttp.ClientSession() as session,
    ):
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get(f"http://localhost:{port}/")
        with pytest.raises(aiohttp.ClientConnectorSSLError):
            await session.get(f"https://localhost:{plain}/", ssl=tls[1])


@pytest.mark.parametrize("outer", ["http", "https"])
async def test_proxy(loop: Any, tls: Any, outer: str) -> None:
    """CONNECT, then TLS to the server: inside TLS to the proxy if that has it."""
    proxy = Proxy(login="user:word")
    options = {"ssl": tls[0]} if outer == "https" else {}

    async def upload(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async with (
        serving(web.post("/", upload), ssl=tls[0]) as port,
        serving_streams(proxy, **options) as gate,
    ):
        url = f"https://localhost:{port}/"
        via = {"proxy": f"{outer}://localhost:{gate}", "ssl": tls[1]}
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientHttpProxyError) as caught:
                await session.post(url, **via)
            assert caught.value.status == 407
            login = aiohttp.BasicAuth("user", "word")

            async def post(number: int) -> bool:
                data = block(number, 200_000)
                async with session.post(
                    url, data=data, proxy_auth=login, **via
                ) as response:
                    return bool(await response.read() == data)

            assert await asyncio.gather(*map(post, range(20))) == [True] * 20
            assert set(proxy.targets) == {f"localhost:{port}"}
        await until(lambda: proxy.open == 0)


class Chat:
    """A server of web sockets that echoes, and ends in the ways it is told."""

    def __init__(self) -> None:
        self.codes: list[Any] = []
        self.seen: list[Any] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(max_msg_size=0, autoping=False)
        await socket.prepare(request)
        async for message in socket:
            self.seen.append(message.type)
            if message.data == "abort":
                request.transport.abort()
            elif message.data == "close":
                await socket.close(code=4001, message=b"as told")
            elif message.type == aiohttp.WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type == aiohttp.WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        self.codes.append(socket.close_code)
        return socket


@pytest.mark.parametrize("compress", [0, 15])
async def test_web_sockets(loop: Any, tls: Any, compress: int) -> None:
    chat = Chat()
    big = block(7, 5 * MIB)
    async with serving(web.get("/", chat), ssl=tls[0]) as port:
        connector = aiohttp.TCPConnector(limit=0, ssl=tls[1])
        async with aiohttp.ClientSession(connector=connector) as session:

            async def talk(number: int) -> None:
                async with session.ws_connect(
                    f"wss://localhost:{port}/", compress=compress, max_msg_size=0
                ) as ws:
                    assert ws.compress == compress
                    for count in range(10):
                        await ws.send_str(f"{number}-{count}")
                    got = [await ws.receive_str() for _ in range(10)]
                    assert got == [f"{number}-{count}" for count in range(10)]
                    if number % 20 == 0:
                        await ws.send_bytes(big)
                        assert await ws.receive_bytes() == big

            await asyncio.gather(*map(talk, range(60)))
    assert chat.codes == [1000] * 60


async def test_web_sockets_that_end(loop: Any) -> None:
    chat = Chat()
    async with (
        serving(web.get("/", chat)) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        async with session.ws_connect("/") as ws:
            await ws.send_str("close")
            message = await ws.receive()
            assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 4001)
            assert message.extra == "as told"
        async with session.ws_connect("/") as ws:
            receiving = asyncio.create_task(ws.receive())
            await ws.send_str("abort")
            assert (await receiving).type == aiohttp.WSMsgType.CLOSED
            assert ws.close_code == 1006
        async with session.ws_connect("/") as ws:
            with pytest.raises(asyncio.TimeoutError):
                await ws.receive(timeout=0.02)
            receiving = asyncio.create_task(ws.receive())
            await asyncio.sleep(0)
            receiving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await receiving
            await ws.send_str("still here")
            assert await ws.receive_str() == "still here"


async def test_a_heartbeat_that_is_not_answered(loop: Any) -> None:
    """The server's handler answers no pings, so the client gives up."""
    chat = Chat()
    async with (
        serving(web.get("/", chat)) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
        session.ws_connect("/", heartbeat=0.1) as ws,
    ):
        message = await ws.receive()
        assert message.type == aiohttp.WSMsgType.ERROR
        assert isinstance(message.data, aiohttp.ServerTimeoutError)
        assert aiohttp.WSMsgType.PING in chat.seen

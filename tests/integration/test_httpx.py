"""httpx.AsyncClient: HTTP/1.1 and HTTP/2, pools, timeouts, bodies, proxies."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import pathlib
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import httpx
import hypercorn.asyncio
import hypercorn.config
import pytest
from aiohttp import web

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
from support import collect, until


def client(**options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(trust_env=False, **options)


class Application:
    """An ASGI application: echoes, digests, streams, and waits."""

    def __init__(self) -> None:
        self.waiting = self.left = self.most = self.now = 0
        self.source = Source(16, MIB)
        self.full = asyncio.Event()
        self.ports: set[Any] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        self.ports.add(scope["client"])
        self.version = scope["http_version"]
        await getattr(self, scope["path"][1:])(receive, send)

    async def answer(self, send: Any, body: bytes) -> None:
        await self.begin(send)
        await send({"type": "http.response.body", "body": body})

    async def begin(self, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def digest(self, receive: Any, send: Any) -> None:
        digest = hashlib.sha256()
        more = True
        while more:
            message = await receive()
            digest.update(message.get("body", b""))
            more = message.get("more_body", False)
        await self.answer(send, digest.hexdigest().encode())

    async def together(self, receive: Any, send: Any) -> None:
        """Answers when thirty requests are here at once."""
        self.now += 1
        if self.now == 30:
            self.full.set()
        await self.full.wait()
        await self.answer(send, b"together")

    async def big(self, receive: Any, send: Any) -> None:
        await self.begin(send)
        async for chunk in self.source:
            message = {"type": "http.response.body", "body": chunk, "more_body": True}
            await send(message)
        await send({"type": "http.response.body", "body": b""})

    async def stall(self, receive: Any, send: Any) -> None:
        """Begins an answer and waits until the client leaves."""
        await self.begin(send)
        await send({"type": "http.response.body", "body": b"1", "more_body": True})
        self.waiting += 1
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left += 1


@contextlib.asynccontextmanager
async def http2(app: Any, certificate: pathlib.Path) -> AsyncIterator[str]:
    """Hypercorn on the running loop, with TLS and so HTTP/2; gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        config = hypercorn.config.Config()
        config.bind = [f"fd://{listener.detach()}"]
        config.certfile = config.keyfile = str(certificate)
        config.errorlog = None
        config.graceful_timeout = 1
    end = asyncio.Event()
    task = asyncio.create_task(
        hypercorn.asyncio.serve(app, config, shutdown_trigger=end.wait)
    )
    try:
        yield f"https://localhost:{port}"
    finally:
        end.set()
        await task


@pytest.fixture
def trust(tls: Any) -> ssl.SSLContext:
    context: ssl.SSLContext = tls[1]
    return context


async def test_many_requests_on_one_connection(
    loop: Any, certificate: Any, trust: Any
) -> None:
    app = Application()
    async with (
        http2(app, certificate) as url,
        client(http2=True, verify=trust, base_url=url) as session,
    ):
        first = await session.post("/digest", content=b"")
        assert first.http_version == "HTTP/2" and app.version == "2"
        answers = await asyncio.gather(*(session.get("/together") for _ in range(30)))
        assert {answer.text for answer in answers} == {"together"}

        async def post(number: int) -> bool:
            data = block(number, number * 5000)
            answer = await session.post("/digest", content=data)
            return bool(answer.text == hashlib.sha256(data).hexdigest())

        assert await asyncio.gather(*map(post, range(60))) == [True] * 60
    assert len(app.ports) == 1


async def test_http2_streams(loop: Any, certificate: Any, trust: Any) -> None:
    """Bodies that do not fit into the windows of HTTP/2, up and down at once."""
    app = Application()
    async with (
        http2(app, certificate) as url,
        client(http2=True, verify=trust, base_url=url, timeout=50) as session,
    ):

        async def down() -> str:
            digest = hashlib.sha256()
            async with session.stream("GET", "/big") as answer:
                async for chunk in answer.aiter_bytes():
                    digest.update(chunk)
            return digest.hexdigest()

        async def up() -> str:
            source = aiter(Source(4, MIB))
            return (await session.post("/digest", content=source)).text

        assert await asyncio.gather(down(), up()) == [
            checksum_of(16, MIB),
            checksum_of(4, MIB),
        ]
    assert len(app.ports) == 1


async def test_http2_waits_for_the_client(
    loop: Any, certificate: Any, trust: Any
) -> None:
    app = Application()
    async with (
        http2(app, certificate) as url,
        client(http2=True, verify=trust, base_url=url, timeout=50) as session,
        session.stream("GET", "/big") as answer,
    ):
        await app.source.stalled()
        assert app.source.made < 8
        digest = hashlib.sha256()
        async for chunk in answer.aiter_bytes():
            digest.update(chunk)
        assert digest.hexdigest() == checksum_of(16, MIB)


@pytest.mark.parametrize("two", [False, True])
async def test_cancelled_in_the_body(
    loop: Any, certificate: Any, trust: Any, two: bool
) -> None:
    """What is cancelled ends; the client goes on."""
    app = Application()
    async with (
        http2(app, certificate) as url,
        client(http2=two, verify=trust, base_url=url) as session,
    ):

        async def read() -> None:
            async with session.stream("GET", "/stall") as answer:
                async for _ in answer.aiter_bytes():
                    pass

        tasks = [asyncio.create_task(read()) for _ in range(15)]
        await until(lambda: app.waiting == 15)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results} == {asyncio.CancelledError}
        if not two:  # httpx does not reset a stream of HTTP/2 that it leaves
            await until(lambda: app.left == 15)
        answer = await session.post("/digest", content=b"")
        assert answer.http_version == ("HTTP/2" if two else "HTTP/1.1")
    await until(lambda: app.left == 15)


async def test_cancelled_at_every_moment(
    loop: Any, certificate: Any, trust: Any, unraisable: Any
) -> None:
    app = Application()
    data = block(5, 100_000)
    wanted = hashlib.sha256(data).hexdigest()
    turn = finished = 0
    async with http2(app, certificate) as url:
        while finished < 2:
            async with client(verify=trust, base_url=url) as session:
                task = asyncio.create_task(session.post("/digest", content=data))
                for _ in range(turn):
                    await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    finished += (await task).text == wanted
                turn += 3
                assert (await session.post("/digest", content=data)).text == wanted
    assert turn > finished
    # Cancelled between connecting and TLS, httpx leaves the connection to the
    # garbage collector.
    collect()
    assert all("ResourceWarning: unclosed" in text for text in unraisable.take())


async def test_http1_upload_waits_for_the_server(loop: Any) -> None:
    source = Source(64, MIB)
    go_on = asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        digest = hashlib.sha256()
        await go_on.wait()
        async for chunk in request.content.iter_any():
            digest.update(chunk)
        return web.Response(text=digest.hexdigest())

    async with (
        serving(web.post("/", slow)) as port,
        client(timeout=50) as session,
    ):
        url = f"http://127.0.0.1:{port}/"
        task = asyncio.create_task(session.post(url, content=aiter(source)))
        await source.stalled()
        assert source.made < 20
        go_on.set()
        assert (await task).text == checksum_of(64, MIB)


async def stalled(reader: Any, writer: Any) -> None:
    """Answers /ok, begins an answer to /body, says nothing to /silent."""
    while head := await request_head(reader):
        if b"GET /ok " in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        elif b"GET /body " in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegun")
    writer.close()
    with contextlib.suppress(ConnectionResetError):
        await writer.wait_closed()


async def test_timeouts(loop: Any) -> None:
    async with serving_streams(stalled) as port:
        url = f"http://127.0.0.1:{port}"
        limits = httpx.Limits(max_connections=2)
        async with client(base_url=url, limits=limits, timeout=None) as session:
            short = httpx.Timeout(None, read=0.05)
            for path in ("/silent", "/body"):
                with pytest.raises(httpx.ReadTimeout):
                    await session.get(path, timeout=short)
            async with session.stream("GET", "/body"), session.stream("GET", "/body"):
                short = httpx.Timeout(None, pool=0.05)
                with pytest.raises(httpx.PoolTimeout):
                    await session.get("/ok", timeout=short)
            assert (await session.get("/ok", timeout=short)).text == "ok"
            short = httpx.Timeout(None, write=0.05)
            with pytest.raises(httpx.WriteTimeout), full_reader() as deaf:
                await session.post(deaf, content=bytes(64 * MIB), timeout=short)
            short = httpx.Timeout(None, connect=0.05)
            with pytest.raises(httpx.ConnectTimeout), full_listener() as full:
                await session.get(f"http://127.0.0.1:{full}/", timeout=short)


@contextlib.contextmanager
def full_reader() -> Any:
    """A server that is connected to and never reads."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


async def test_the_pool_is_limited(loop: Any) -> None:
    """A hundred users of three connections, some of whom give up waiting."""
    now = most = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.002)
        now -= 1
        return web.Response(text=request.query["n"])

    limits = httpx.Limits(max_connections=3, max_keepalive_connections=3)
    async with (
        serving(web.get("/", handler)) as port,
        client(limits=limits, base_url=f"http://127.0.0.1:{port}") as session,
    ):

        async def get(number: int) -> str:
            return (await session.get("/", params={"n": number}, timeout=50)).text

        tasks = [asyncio.create_task(get(n)) for n in range(100)]
        await until(lambda: most == 3)
        for task in tasks[50::5]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for number, result in enumerate(results):
            if number >= 50 and number % 5 == 0:
                assert isinstance(result, asyncio.CancelledError)
            else:
                assert result == str(number)
    assert most == 3


async def test_the_server_closes_idle_connections(loop: Any) -> None:
    """It says keep-alive and closes at once, between or into two requests."""

    async def once(reader: Any, writer: Any) -> None:
        if await request_head(reader):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()
        await writer.wait_closed()

    met = 0
    async with (
        serving_streams(once) as port,
        client(base_url=f"http://127.0.0.1:{port}") as session,
    ):
        for number in range(100):
            for _ in range(number % 7):
                await asyncio.sleep(0)
            try:
                assert (await session.get("/")).text == "ok"
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                met += 1  # httpx sends nothing again
    assert met < 100


async def test_broken_answers(loop: Any) -> None:
    async def cut(reader: Any, writer: Any) -> None:
        head = await request_head(reader)
        if b"GET /reset" in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
            await writer.drain()
            linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        elif b"GET /half" in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        elif b"GET /noise" in head:
            writer.write(b"\x80\x81 not HTTP\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async with (
        serving_streams(cut) as port,
        client(base_url=f"http://127.0.0.1:{port}") as session,
    ):
        for path, error in (
            ("/half", httpx.RemoteProtocolError),
            ("/noise", httpx.RemoteProtocolError),
            ("/nothing", httpx.RemoteProtocolError),
            ("/reset", httpx.ReadError),
        ):
            with pytest.raises(error):
                await session.get(path)
    with pytest.raises(httpx.ConnectError):
        async with client() as session:
            await session.get(f"http://127.0.0.1:{port}/")


async def test_unverified_certificate(loop: Any, certificate: Any) -> None:
    app = Application()
    async with http2(app, certificate) as url:
        async with client(verify=ssl.create_default_context()) as session:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await session.post(url + "/digest")
        async with client(verify=False) as session:
            assert (await session.post(url + "/digest")).status_code == 200


@pytest.mark.parametrize("outer", ["http", "https"])
async def test_proxy(
    loop: Any, certificate: Any, tls: Any, trust: Any, outer: str
) -> None:
    """HTTP/2 through CONNECT, inside the proxy's own TLS if it has it."""
    app = Application()
    relay = Proxy(login="user:word")
    options = {"ssl": tls[0]} if outer == "https" else {}
    async with http2(app, certificate) as url, serving_streams(relay, **options) as at:
        via = httpx.Proxy(
            f"{outer}://localhost:{at}",
            auth=("user", "word"),
            ssl_context=trust if options else None,
        )
        async with client(http2=True, verify=trust, proxy=via) as session:
            data = block(9, 3 * MIB)
            answer = await session.post(url + "/digest", content=data)
            assert answer.text == hashlib.sha256(data).hexdigest()
            assert answer.http_version == "HTTP/2"
        assert len(relay.targets) == 1
        await until(lambda: relay.open == 0)

"""aiohttp's server and client, on one loop."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import pathlib
import random
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

aiohttp = pytest.importorskip("aiohttp")

from aiohttp import web  # noqa: E402

from servers import leave, unused_port  # noqa: E402
from support import reset, turns, until  # noqa: E402
from webpeers import (  # noqa: E402
    ended_well,
    loop_name,
    read_response,
    request,
    signal_while_busy,
    wrk,
)

MEGABYTE = 1 << 20
PAYLOAD = random.Random(1).randbytes(5 * MEGABYTE + 17)
DIGEST = hashlib.sha256(PAYLOAD).hexdigest()


class Server:
    """An application with the routes of these tests, and what it has seen."""

    def __init__(self) -> None:
        self.app = web.Application(client_max_size=1 << 26)
        self.seen: list[str] = []
        self.count = 0
        self.gate = asyncio.Event()
        routes = self.app.router
        routes.add_get("/loop", self.loop)
        routes.add_get("/number/{n}", self.number)
        routes.add_post("/digest", self.digest)
        routes.add_post("/refuse", self.refuse)
        routes.add_get("/gate", self.wait)
        routes.add_get("/flood", self.flood)
        routes.add_post("/form", self.form)
        routes.add_post("/mirror", self.mirror)

    async def loop(self, _: web.Request) -> web.Response:
        self.count += 1
        return web.Response(text=loop_name())

    async def number(self, request: web.Request) -> web.Response:
        await turns(random.randrange(3))
        return web.Response(text=request.match_info["n"])

    async def digest(self, request: web.Request) -> web.Response:
        found = hashlib.sha256()
        async for part in request.content.iter_any():
            found.update(part)
        return web.Response(text=found.hexdigest())

    async def refuse(self, _: web.Request) -> web.Response:
        raise web.HTTPExpectationFailed

    async def wait(self, request: web.Request) -> web.Response:
        self.request = request
        self.seen.append("waiting")
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.seen.append("cancelled")
            raise
        self.seen.append("done")
        return web.Response(text="done")

    async def flood(self, request: web.Request) -> web.StreamResponse:
        """Write for as long as there is somebody who takes it."""
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65536)
                self.count += 1
        except BaseException as error:
            self.seen.append(type(error).__name__)
            raise

    async def form(self, request: web.Request) -> web.Response:
        found = {}
        async for part in await request.multipart():
            digest, size = hashlib.sha256(), 0
            while chunk := await part.read_chunk(30_011):
                digest.update(chunk)
                size += len(chunk)
            found[part.name] = [part.filename, size, digest.hexdigest()]
        return web.json_response(found)

    async def mirror(self, request: web.Request) -> web.StreamResponse:
        """Send the body back while it still comes."""
        response = web.StreamResponse()
        await response.prepare(request)
        async for part in request.content.iter_any():
            await response.write(part)
        return response

    async def start(self, **options: Any) -> str:
        """Serve on a free port; returns the URL."""
        context = options.pop("ssl_context", None)
        options.setdefault("shutdown_timeout", 5)
        self.runner = web.AppRunner(self.app, access_log=None, **options)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0, ssl_context=context).start()
        self.address = self.runner.addresses[0]
        scheme = "http" if context is None else "https"
        return f"{scheme}://localhost:{self.address[1]}"

    async def connect(self) -> tuple[Any, Any]:
        return await asyncio.open_connection(*self.address)

    def plain_socket(self, data: bytes) -> socket.socket:
        """A connected socket on which a request (or a part of one) was sent."""
        sock = socket.create_connection(self.address)
        sock.sendall(data)
        return sock


@contextlib.asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[Server, str]]:
    server = Server()
    url = await server.start(**options)
    try:
        yield server, url
    finally:
        await server.runner.cleanup()


@contextlib.asynccontextmanager
async def served(**options: Any) -> AsyncIterator[tuple[Server, str, Any]]:
    """(server, url, a client's session), ended in the right order."""
    connector = aiohttp.TCPConnector(limit=options.pop("limit", 50))
    async with (
        serving(**options) as (server, url),
        aiohttp.ClientSession(connector=connector) as session,
    ):
        yield server, url, session


async def text(session: Any, url: str, method: str = "get", **options: Any) -> str:
    async with session.request(method, url, **options) as response:
        assert response.status == 200
        found: str = await response.text()
        return found


async def test_many_users_share_the_connections(loop: Any, loop_kind: str) -> None:
    async with served(limit=20) as (server, url, session):
        wanted = [str(n) for n in range(1000)]
        texts = [text(session, f"{url}/number/{n}") for n in range(1000)]
        assert await asyncio.gather(*texts) == wanted
        assert await text(session, url + "/loop") == loop_kind
        assert len(server.runner.server.connections) <= 20


async def test_bodies_both_ways(loop: Any) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(PAYLOAD), 70_001):
            yield PAYLOAD[start : start + 70_001]

    async with served() as (_, url, session):
        for body in (io.BytesIO(PAYLOAD), pieces()):
            assert await text(session, url + "/digest", "post", data=body) == DIGEST
        echoes = [session.post(url + "/mirror", data=pieces()) for _ in range(4)]
        for response in await asyncio.gather(*echoes):
            assert hashlib.sha256(await response.read()).hexdigest() == DIGEST


async def test_multipart_upload(loop: Any, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "payload.bin"
    path.write_bytes(PAYLOAD)
    async with served() as (_, url, session):
        with path.open("rb") as file:
            form = aiohttp.FormData()
            form.add_field("note", "a word")
            form.add_field("file", file, filename="payload.bin")
            found = await text(session, url + "/form", "post", data=form)
        assert f'["payload.bin", {len(PAYLOAD)}, "{DIGEST}"]' in found
        assert '"note": [null, 6,' in found


async def test_a_burst_of_pipelined_requests(loop: Any) -> None:
    async with serving() as (server, _):
        reader, writer = await server.connect()
        writer.write(b"".join(request(f"/number/{n}") for n in range(300)))
        bodies = [(await read_response(reader))[2] for _ in range(300)]
        assert bodies == [b"%d" % n for n in range(300)]
        await leave(writer)


async def test_a_reset_in_the_middle_of_a_burst(loop: Any) -> None:
    async with served() as (server, url, session):
        burst = b"".join(request(f"/number/{n}") for n in range(50))
        for cut in (len(burst), len(burst) // 2 + 7, 20):
            sock = server.plain_socket(burst[:cut])
            await until(lambda: len(server.runner.server.connections) == 1)
            reset(sock)
            await until(lambda: not server.runner.server.connections)
        assert await text(session, url + "/number/7") == "7"


async def test_half_a_request_and_nothing_more(loop: Any) -> None:
    async with served() as (server, url, session):
        body = request("/digest", method="POST", body=PAYLOAD)[:1000]
        for part in (b"GET /nu", request("/number/1")[:-2], body):
            reader, writer = await server.connect()
            writer.write(part)
            await turns(5)
            writer.write_eof()
            await reader.read()
            await leave(writer)
        await until(lambda: not server.runner.server.connections)
        assert await text(session, url + "/number/7") == "7"


async def test_a_request_byte_by_byte(loop: Any) -> None:
    async with serving() as (server, _):
        reader, writer = await server.connect()
        writer.get_extra_info("socket").setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )
        for byte in request("/digest", method="POST", body=b"slowly"):
            writer.write(bytes([byte]))
            await turns(2)
        status, _, body = await read_response(reader)
        assert status == 200 and body.decode() == hashlib.sha256(b"slowly").hexdigest()
        await leave(writer)


async def test_expect_100_continue(loop: Any) -> None:
    async with serving() as (server, _):
        whole = request("/digest", "Expect: 100-continue", method="POST", body=b"x" * 9)
        reader, writer = await server.connect()
        writer.write(whole[:-9])
        assert (await read_response(reader))[0] == 100
        writer.write(whole[-9:])
        status, _, body = await read_response(reader)
        assert status == 200 and body.decode() == hashlib.sha256(b"x" * 9).hexdigest()
        writer.write(request("/x", "Expect: miracle", method="POST", body=b"y"))
        assert (await read_response(reader))[0] in (404, 417)
        await leave(writer)


@pytest.mark.parametrize("cancels", [False, True])
async def test_the_client_of_a_stream_vanishes(loop: Any, cancels: bool) -> None:
    async with serving(handler_cancellation=cancels) as (server, _):
        sock = server.plain_socket(request("/flood"))
        await until(lambda: server.count > 3)
        reset(sock)
        await until(lambda: server.seen)
        # Without cancellation: by drain() that waits, or by the next write().
        resets = {"ConnectionError", "ClientConnectionResetError"}
        assert server.seen[0] in ({"CancelledError"} if cancels else resets)
        await until(lambda: not server.runner.server.connections)


@pytest.mark.parametrize("cancels", [False, True])
async def test_the_client_of_a_waiting_handler_vanishes(
    loop: Any, cancels: bool
) -> None:
    async with serving(handler_cancellation=cancels) as (server, _):
        sock = server.plain_socket(request("/gate"))
        await until(lambda: server.seen)
        sock.close()
        await until(lambda: server.request.transport is None)
        await turns(3)
        server.gate.set()
        wanted = "cancelled" if cancels else "done"
        await until(lambda: server.seen == ["waiting", wanted])
        await until(lambda: not server.runner.server.connections)


async def test_a_slow_reader_holds_the_writer_back(loop: Any) -> None:
    async with serving() as (server, _):
        sock = server.plain_socket(request("/flood"))
        before = -1
        while server.count != before:  # the writer goes on while there is room
            before = server.count
            await asyncio.sleep(0.3)
        assert 0 < before < 400  # 25 MiB: far less than an unbounded buffer
        sock.setblocking(False)
        for _ in range(200):
            assert await loop.sock_recv(sock, MEGABYTE)
        await until(lambda: server.count > before)
        reset(sock)
        await until(lambda: server.seen)


async def test_a_client_gives_up(loop: Any) -> None:
    async with served() as (server, url, session):
        short = aiohttp.ClientTimeout(total=0.05)
        with pytest.raises(TimeoutError):
            await text(session, url + "/gate", timeout=short)
        task = asyncio.create_task(text(session, url + "/gate"))
        await until(lambda: len(server.seen) >= 1 and server.seen[-1] == "waiting")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with session.get(url + "/flood") as response:
            await response.content.readexactly(100_000)
        server.gate.set()
        assert await text(session, url + "/number/5") == "5"
        assert await text(session, url + "/gate") == "done"


@pytest.mark.parametrize("secure", [False, True])
async def test_static_files(
    loop: Any,
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    log: Any,
    secure: bool,
) -> None:
    (tmp_path / "big.bin").write_bytes(PAYLOAD)
    (tmp_path / "empty.bin").write_bytes(b"")
    calls: list[int] = []
    sendfile = loop.sendfile

    async def spy(transport: Any, file: Any, offset: int, count: int) -> Any:
        calls.append(count)
        return await sendfile(transport, file, offset, count)

    monkeypatch.setattr(loop, "sendfile", spy)
    server = Server()
    server.app.router.add_static("/static", tmp_path)
    url = await server.start(**({"ssl_context": tls[0]} if secure else {}))
    big = url + "/static/big.bin"
    async with aiohttp.ClientSession() as session:
        async with session.get(big, ssl=tls[1]) as whole:
            assert hashlib.sha256(await whole.read()).hexdigest() == DIGEST
            tag = whole.headers["ETag"]
        part = {"Range": "bytes=100-2000099"}
        async with session.get(big, headers=part, ssl=tls[1]) as response:
            assert response.status == 206
            assert await response.read() == PAYLOAD[100:2_000_100]
        fresh = {"If-None-Match": tag}
        async with session.get(big, headers=fresh, ssl=tls[1]) as response:
            assert response.status == 304
        async with session.get(url + "/static/empty.bin", ssl=tls[1]) as response:
            assert await response.read() == b""
        async with session.head(big, ssl=tls[1]) as response:
            assert response.headers["Content-Length"] == str(len(PAYLOAD))
        assert calls == [len(PAYLOAD), 2_000_000]
        async with session.get(big, ssl=tls[1]) as response:
            await response.content.readexactly(1000)  # and no more
        many = [session.get(big, ssl=tls[1]) for _ in range(5)]
        for response in await asyncio.gather(*many):
            assert hashlib.sha256(await response.read()).hexdigest() == DIGEST
    await server.runner.cleanup()
    # asyncio's sendfile() over TLS writes on to a client that has left.
    assert set(log.take()) <= {"SSL connection is closed"}


async def test_the_client_of_a_file_vanishes(loop: Any, tmp_path: pathlib.Path) -> None:
    with (tmp_path / "huge.bin").open("wb") as file:
        file.truncate(1 << 30)
    server = Server()
    server.app.router.add_static("/static", tmp_path)
    await server.start()
    socks = [server.plain_socket(request("/static/huge.bin")) for _ in range(5)]
    for sock in socks:
        sock.setblocking(False)
        await loop.sock_recv(sock, 100_000)
        reset(sock)
    await until(lambda: not server.runner.server.connections)
    await server.runner.cleanup()


async def test_tls(loop: Any, tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with served(ssl_context=tls[0]) as (server, url, session):
        posts = [
            text(session, url + "/digest", "post", data=io.BytesIO(PAYLOAD), ssl=tls[1])
            for _ in range(5)
        ]
        assert await asyncio.gather(*posts) == [DIGEST] * 5
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await text(session, url + "/loop")
        reset(server.plain_socket(b"GET / HTTP/1.1\r\n\r\n"))  # no handshake
        assert await text(session, url + "/number/1", ssl=tls[1]) == "1"


async def test_unix_socket(loop: Any, socket_path: pathlib.Path) -> None:
    path = str(socket_path)
    server = Server()
    runner = web.AppRunner(server.app, access_log=None)
    await runner.setup()
    await web.UnixSite(runner, path).start()
    connector = aiohttp.UnixConnector(path)
    async with aiohttp.ClientSession(connector=connector) as session:
        posts = [
            text(session, "http://any/digest", "post", data=io.BytesIO(PAYLOAD))
            for _ in range(10)
        ]
        assert await asyncio.gather(*posts) == [DIGEST] * 10
    await runner.cleanup()


async def test_shutdown_waits_for_requests(loop: Any) -> None:
    server = Server()
    await server.start()
    idle_reader, idle = await server.connect()
    idle.write(request("/number/1"))
    assert (await read_response(idle_reader))[0] == 200
    reader, writer = await server.connect()
    writer.write(request("/gate"))
    await until(lambda: server.seen == ["waiting"])
    cleanup = asyncio.create_task(server.runner.cleanup())
    assert await idle_reader.read() == b""  # the idle one ends at once
    with pytest.raises(ConnectionRefusedError):
        await server.connect()
    assert not cleanup.done()
    server.gate.set()
    status, _, body = await read_response(reader)
    assert (status, body) == (200, b"done")
    await cleanup
    await leave(idle)
    await leave(writer)


async def test_shutdown_cancels_what_takes_too_long(loop: Any) -> None:
    server = Server()
    await server.start(shutdown_timeout=0.1)
    reader, writer = await server.connect()
    writer.write(request("/gate"))
    await until(lambda: server.seen == ["waiting"])
    await server.runner.cleanup()
    assert server.seen == ["waiting", "cancelled"]
    assert await reader.read() == b""
    await leave(writer)


@pytest.mark.parametrize("secure", [False, True])
async def test_under_load(
    loop: Any, tls: tuple[ssl.SSLContext, ssl.SSLContext], secure: bool
) -> None:
    options = {"ssl_context": tls[0]} if secure else {}
    async with serving(**options) as (server, url):
        count = await wrk(url + "/loop", connections=30)
        assert count <= server.count <= count + 30
        await until(lambda: not server.runner.server.connections)


PROGRAM = """
import asyncio
import os
from aiohttp import web

KIND = os.environ["HOTLOOP_TEST_KIND"]

async def slow(request):
    print("begun", flush=True)
    await asyncio.sleep(1)
    name = type(asyncio.get_running_loop()).__module__.split(".")[0]
    return web.Response(text=name)

async def background(app):
    task = asyncio.create_task(asyncio.Event().wait())
    yield
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        print("background cancelled", flush=True)

app = web.Application()
app.router.add_get("/slow", slow)
app.cleanup_ctx.append(background)
if KIND == "hotloop":
    import hotloop
    loop = hotloop.new_event_loop()
else:
    loop = asyncio.SelectorEventLoop()
web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]), loop=loop)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_app_ends_well(
    loop_kind: str, start: Any, tmp_path: pathlib.Path, number: int
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    port = unused_port()
    program = start(sys.executable, "program.py", env={"PORT": str(port)})
    program.wait_for("Running on")
    answer = signal_while_busy(program, port, number, "Connection: close")
    assert answer.endswith(loop_kind.encode())
    ended_well(program, program.wait())
    assert "background cancelled" in program.log()

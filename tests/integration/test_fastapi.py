"""FastAPI and Starlette on uvicorn, in the test's own loop, and their TestClient."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import pathlib
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("multipart")
pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")

import uvicorn  # noqa: E402
from fastapi import Request  # noqa: E402
from fastapi.testclient import TestClient  # noqa: E402
from starlette.middleware.base import BaseHTTPMiddleware  # noqa: E402
from starlette.middleware.gzip import GZipMiddleware  # noqa: E402

from fastapiapp import DIGEST, PAYLOAD, World, make_app  # noqa: E402
from support import loop_factory, until  # noqa: E402
from webpeers import request, wrk  # noqa: E402


@contextlib.asynccontextmanager
async def running(app: Any, **options: Any) -> AsyncIterator[str]:
    """Serve an application; yields the URL."""
    options = {"port": 0, "log_config": None, "access_log": False} | options
    config = uvicorn.Config(app, **options)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started or task.done())
    port = server.servers[0].sockets[0].getsockname()[1]
    scheme = "https" if config.is_ssl else "http"
    try:
        yield f"{scheme}://localhost:{port}"
    finally:
        server.should_exit = True
        await task


@contextlib.asynccontextmanager
async def serving(
    folder: pathlib.Path | None = None, **options: Any
) -> AsyncIterator[tuple[World, Any]]:
    """(what the application shares, a client of it)."""
    world = World()
    verify = options.pop("verify", True)
    async with running(make_app(world, folder), **options) as url:
        limits = httpx.Limits(max_connections=30)
        async with httpx.AsyncClient(
            base_url=url, trust_env=False, limits=limits, timeout=40, verify=verify
        ) as client:
            yield world, client
        world.gate.set()


@pytest.fixture(params=["h11", "httptools"])
def http(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_dependencies_and_lifespan(loop: Any, loop_kind: str, http: str) -> None:
    async with serving(http=http) as (world, client):
        assert (await client.get("/loop")).json() == loop_kind
        answers = [client.get(f"/depends/{n}") for n in range(40)]
        for n, response in enumerate(await asyncio.gather(*answers)):
            wanted = {"n": n, "value": "connection", "thread": True}
            assert response.json() == wanted | {"greeting": "from lifespan"}
        assert (await client.get("/depends/x")).status_code == 422
        await until(lambda: world.seen.count("closed") == world.seen.count("opened"))
    assert world.seen[0] == "startup" and world.seen[-1] == "shutdown"


async def test_handlers_in_threads(loop: Any, http: str) -> None:
    async with serving(http=http) as (_, client):
        gets = [client.get(f"/sync/{n}") for n in range(50)]
        found = [response.json() for response in await asyncio.gather(*gets)]
        assert found == list(range(50))


async def test_a_failing_handler(
    loop: Any, http: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(http=http) as (world, client):
        assert (await client.get("/fails")).status_code == 500
        assert world.seen == ["startup", "opened", "closed"]
        assert (await client.get("/sync/1")).json() == 1
    assert "lost in the handler" in caplog.text


async def test_background_tasks_outlive_the_response(loop: Any, http: str) -> None:
    async with serving(http=http) as (world, client):
        assert (await client.post("/background")).json() == "accepted"
        assert "background" not in world.seen
        world.gate.set()
        await until(lambda: "background in a thread" in world.seen)
        assert world.seen.index("background") == 1


async def test_shutdown_waits_for_background_tasks(loop: Any, http: str) -> None:
    async with serving(http=http) as (world, client):
        await client.post("/background")
        loop.call_later(0.2, world.gate.set)
        world.gate, gate = asyncio.Event(), world.gate  # serving() does not set it
        await client.aclose()
    assert gate.is_set()
    assert world.seen[1:] == ["background", "background in a thread", "shutdown"]


async def test_uploaded_files(loop: Any, http: str) -> None:
    """A big file is spooled to the disk, in threads; a small one is not."""
    async with serving(http=http) as (_, client):

        async def upload() -> None:
            files = [("files", ("big.bin", PAYLOAD)), ("files", ("small.bin", b"x"))]
            response = await client.post("/upload", data={"note": "é"}, files=files)
            small = hashlib.sha256(b"x").hexdigest()
            wanted = ["é", "big.bin", len(PAYLOAD), DIGEST, "small.bin", 1, small]
            assert response.json() == wanted

        await asyncio.gather(*[upload() for _ in range(3)])


async def test_streams_both_ways(loop: Any, http: str, tmp_path: pathlib.Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(PAYLOAD), 70_001):
            yield PAYLOAD[start : start + 70_001]

    (tmp_path / "file.bin").write_bytes(PAYLOAD)
    async with serving(tmp_path, http=http) as (_, client):
        posts = [client.post("/digest", content=pieces()) for _ in range(3)]
        gets = [client.get(path) for path in ("/stream", "/file", "/stream")]
        for response in await asyncio.gather(*posts):
            assert response.json() == DIGEST
        for response in await asyncio.gather(*gets):
            assert hashlib.sha256(response.content).hexdigest() == DIGEST
        part = await client.get("/file", headers={"Range": "bytes=100-2000099"})
        assert part.status_code == 206 and part.content == PAYLOAD[100:2_000_100]


async def test_the_client_of_a_stream_vanishes(loop: Any, http: str) -> None:
    async with serving(http=http) as (world, client):
        async with client.stream("GET", "/flood") as response:
            async for _ in response.aiter_bytes():
                break
        await until(lambda: len(world.seen) > 1)
        # Cancelled in itself, or closed after that where it handed its part over.
        assert world.seen[1] in ("CancelledError", "GeneratorExit")


@pytest.mark.parametrize("end", ["reset", "close"])
async def test_is_disconnected(loop: Any, http: str, end: str) -> None:
    async with serving(http=http) as (world, client):
        port = client.base_url.port
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request("/poll"))
        await until(lambda: "polling" in world.seen)
        writer.transport.abort() if end == "reset" else writer.close()
        await until(lambda: "disconnected" in world.seen)


@pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])
async def test_websockets(loop: Any, ws: str) -> None:
    from websockets.asyncio.client import connect

    async with serving(ws=ws) as (world, client):
        url = f"ws://localhost:{client.base_url.port}/ws/kitchen"
        talks = [await connect(url, proxy=None) for _ in range(10)]
        for n, talk in enumerate(talks):
            await talk.send(f'{{"n": {n}}}')
        for n, talk in enumerate(talks):
            wanted = {"room": "kitchen", "value": "connection", "got": {"n": n}}
            assert json.loads(await talk.recv()) == wanted
        talks[0].transport.abort()
        for talk in talks[1:]:
            await talk.close(4001)
        await until(lambda: world.seen.count("closed") == 10)
        assert world.seen.count(4001) == 9


async def test_middleware(loop: Any, http: str) -> None:
    """Middleware of functions runs the application in a task group of anyio."""

    async def count(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["X-Passed"] = "yes"
        return response

    world = World()
    app = make_app(world)
    app.add_middleware(GZipMiddleware)
    app.add_middleware(BaseHTTPMiddleware, dispatch=count)
    async with (
        running(app, http=http) as url,
        httpx.AsyncClient(trust_env=False, timeout=40) as client,
    ):
        for response in await asyncio.gather(
            *[client.get(url + "/stream") for _ in range(5)]
        ):
            assert response.headers["X-Passed"] == "yes"
            assert response.headers["Content-Encoding"] == "gzip"
            assert hashlib.sha256(response.content).hexdigest() == DIGEST


async def test_tls_under_load(
    loop: Any,
    http: str,
    certificate: pathlib.Path,
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    options = {"ssl_certfile": certificate, "verify": tls[1], "http": http}
    async with serving(**options) as (world, client):
        count = await wrk(str(client.base_url) + "/loop")
        assert count <= world.count <= count + 20
        response = await client.get("/stream")
        assert hashlib.sha256(response.content).hexdigest() == DIGEST


def test_testclient(loop_kind: str) -> None:
    """Its application runs in a thread of anyio's, on the loop that is named."""
    world = World()
    options = {"loop_factory": loop_factory(loop_kind)}
    with TestClient(make_app(world), backend_options=options) as client:
        assert client.get("/loop").json() == loop_kind
        assert client.get("/depends/3").json()["greeting"] == "from lifespan"
        assert [client.get(f"/sync/{n}").json() for n in range(20)] == [*range(20)]
        response = client.get("/stream")
        assert hashlib.sha256(response.content).hexdigest() == DIGEST
        with client.websocket_connect("/ws/hall") as ws:
            ws.send_json([1])
            assert ws.receive_json()["got"] == [1]
        with pytest.raises(LookupError):
            client.get("/fails")
    assert world.seen[0] == "startup" and world.seen[-1] == "shutdown"
    assert 1000 in world.seen


def test_testclient_without_lifespan(loop_kind: str) -> None:
    """Each request then gets a loop of its own."""
    options = {"loop_factory": loop_factory(loop_kind)}
    client = TestClient(make_app(World()), backend_options=options)
    for _ in range(5):
        assert client.get("/loop").json() == loop_kind

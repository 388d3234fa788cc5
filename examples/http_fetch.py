"""Many HTTP requests at once, with limits, by aiohttp or by httpx.

    python examples/http_fetch.py [--client httpx]             asyncio's loop
    python examples/run_with.py hotloop examples/http_fetch.py [--client httpx]

One client for all requests, so that connections are used again; a limit of those in
flight; a time limit and a size limit for each answer, which is read as a stream. What
goes wrong with one address is its result, not the end of the others. The server
(aiohttp) runs in the same program.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import aiohttp
import httpx
from aiohttp import web

LARGEST = 1_000_000


class TooLarge(Exception):
    pass


@dataclass
class Page:
    """What came of an address."""

    status: int = 0
    body: bytes = b""
    error: str = ""


# Status and parts of an answer, within an `async with`.
Answer = tuple[int, AsyncIterator[bytes]]
Get = Callable[[str], AbstractAsyncContextManager[Answer]]


@contextlib.asynccontextmanager
async def with_aiohttp(limit: int) -> AsyncIterator[Get]:
    connector = aiohttp.TCPConnector(limit=limit)
    async with aiohttp.ClientSession(connector=connector) as session:

        @contextlib.asynccontextmanager
        async def get(url: str) -> AsyncIterator[Answer]:
            async with session.get(url) as response:
                yield response.status, response.content.iter_any()

        yield get


@contextlib.asynccontextmanager
async def with_httpx(limit: int) -> AsyncIterator[Get]:
    limits = httpx.Limits(max_connections=limit, max_keepalive_connections=limit)
    # The time limit of a page covers everything; httpx's are for single steps.
    async with httpx.AsyncClient(limits=limits, timeout=None) as session:

        @contextlib.asynccontextmanager
        async def get(url: str) -> AsyncIterator[Answer]:
            async with session.stream("GET", url) as response:
                yield response.status_code, response.aiter_bytes()

        yield get


CLIENTS = {"aiohttp": with_aiohttp, "httpx": with_httpx}


async def fetch(get: Get, url: str, seconds: float) -> Page:
    page = Page()
    body = bytearray()
    try:
        async with asyncio.timeout(seconds), get(url) as (page.status, parts):
            async for part in parts:
                body += part
                if len(body) > LARGEST:
                    raise TooLarge
        page.body = bytes(body)
    except (OSError, aiohttp.ClientError, httpx.HTTPError, TooLarge) as exc:
        page.error = type(exc).__name__
    return page


async def fetch_all(
    get: Get, urls: list[str], limit: int, seconds: float
) -> list[Page]:
    slots = asyncio.Semaphore(limit)

    async def fetch_one(url: str) -> Page:
        async with slots:
            return await fetch(get, url, seconds)

    return list(await asyncio.gather(*map(fetch_one, urls)))


async def sized(request: web.Request) -> web.Response:
    number = int(request.match_info["number"])
    return web.Response(body=b"%09d\n" % number * (number // 10))


async def unfinished(request: web.Request) -> web.StreamResponse:
    """Hangs, or breaks, in the middle."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"the beginning")
    if request.path == "/hang":
        await asyncio.Event().wait()
    assert request.transport is not None
    request.transport.close()
    return response


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/size/{number}", sized)
    app.router.add_get("/{how:hang|break}", unfinished)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield "http://{}:{}".format(*runner.addresses[0])
    finally:
        await runner.cleanup()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--client", choices=CLIENTS, default="aiohttp")
    parser.add_argument("--count", type=int, default=2000, help="pages")
    parser.add_argument("--limit", type=int, default=20, help="requests at once")
    options = parser.parse_args()
    async with serving() as url, CLIENTS[options.client](options.limit) as get:
        started = time.perf_counter()
        urls = [f"{url}/size/{number * 10}" for number in range(options.count)]
        pages = await fetch_all(get, urls, options.limit, 60)
        elapsed = time.perf_counter() - started
        digest = hashlib.sha256(b"".join(page.body for page in pages)).hexdigest()
        print(f"{sum(page.status == 200 for page in pages)} pages, {digest[:16]}")
        for name in ("nothing", "hang", "break", "size/5000000"):
            seconds = 0.5 if name == "hang" else 60
            (one,) = await fetch_all(get, [f"{url}/{name}"], 1, seconds)
            print(f"/{name}: {one.status} {one.error or 'no error'}")
        (one,) = await fetch_all(get, ["http://127.0.0.1:1/"], 1, 60)
        print(f"nobody there: {one.status} {one.error}")
    print(f"{options.count / elapsed:,.0f} requests/s")


if __name__ == "__main__":
    asyncio.run(main())

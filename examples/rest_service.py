"""A REST service on PostgreSQL with Redis as its cache: aiohttp, asyncpg, redis.

    pip install aiohttp asyncpg redis
    export POSTGRES_DSN=postgresql://USER@HOST/DATABASE REDIS_URL=redis://HOST/0
    python examples/rest_service.py                            asyncio's loop
    python examples/run_with.py hotloop examples/rest_service.py
    python examples/rest_service.py --serve 127.0.0.1:8015

From a checkout, tests/integration/services.py starts both servers for a command:

    python tests/integration/services.py postgres redis -- python examples/...

Reads look into the cache first; a change removes the entry. Reads of one item that
miss at the same time ask the database once. The cache may be down: the service goes
on without it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import asyncpg
import redis.asyncio
from aiohttp import web

TABLE = "hotloop_example_items"
SECONDS = 60  # that an entry stays: the limit of how long a mistake can last


class Items:
    """The items: in the database, with copies in the cache."""

    def __init__(self, pool: Any, cache: Any) -> None:
        self.pool, self.cache = pool, cache
        self.loading: dict[int, asyncio.Task[str | None]] = {}
        self.hits = self.loads = 0

    async def read(self, number: int) -> str | None:
        with contextlib.suppress(redis.RedisError):
            if text := await self.cache.get(f"item:{number}"):
                self.hits += 1
                return str(text)
        task = self.loading.get(number)
        if task is None:
            task = self.loading[number] = asyncio.create_task(self._load(number))
            task.add_done_callback(lambda done: self._forget(number, done))
        # One who asks may go away; the others go on waiting for the same task.
        return await asyncio.shield(task)

    def _forget(self, number: int, task: asyncio.Task[str | None]) -> None:
        if self.loading.get(number) is task:
            del self.loading[number]

    async def _load(self, number: int) -> str | None:
        self.loads += 1
        query = f"SELECT id, name, price FROM {TABLE} WHERE id = $1"
        row = await self.pool.fetchrow(query, number)
        if row is None:
            return None
        text = json.dumps(dict(row))
        with contextlib.suppress(redis.RedisError):
            await self.cache.set(f"item:{number}", text, ex=SECONDS)
        return text

    async def create(self, name: str, price: int) -> int:
        query = f"INSERT INTO {TABLE} (name, price) VALUES ($1, $2) RETURNING id"
        return int(await self.pool.fetchval(query, name, price))

    async def reprice(self, number: int, price: int) -> bool:
        query = f"UPDATE {TABLE} SET price = $2 WHERE id = $1"
        status = await self.pool.execute(query, number, price)
        # After the commit: who loads from now on gets the new price. A load on its
        # way may still leave the old one in the cache, for SECONDS at most.
        self.loading.pop(number, None)
        with contextlib.suppress(redis.RedisError):
            await self.cache.delete(f"item:{number}")
        return bool(status == "UPDATE 1")


ITEMS = web.AppKey("items", Items)


def application(dsn: str, cache_url: str) -> web.Application:
    routes = web.RouteTableDef()

    @routes.get(r"/items/{number:\d+}")
    async def read(request: web.Request) -> web.Response:
        text = await request.app[ITEMS].read(int(request.match_info["number"]))
        if text is None:
            raise web.HTTPNotFound
        return web.Response(text=text, content_type="application/json")

    @routes.post("/items")
    async def create(request: web.Request) -> web.Response:
        item = await request.json()
        number = await request.app[ITEMS].create(item["name"], item["price"])
        return web.json_response({"id": number}, status=201)

    @routes.put(r"/items/{number:\d+}/price")
    async def reprice(request: web.Request) -> web.Response:
        number, price = int(request.match_info["number"]), await request.json()
        if not await request.app[ITEMS].reprice(number, price):
            raise web.HTTPNotFound
        return web.Response(status=204)

    async def connections(app: web.Application) -> AsyncIterator[None]:
        cache = redis.asyncio.from_url(cache_url, decode_responses=True)
        async with asyncpg.create_pool(dsn, max_size=10) as pool, cache:
            columns = "id serial PRIMARY KEY, name text, price integer"
            await pool.execute(f"CREATE TABLE IF NOT EXISTS {TABLE} ({columns})")
            app[ITEMS] = Items(pool, cache)
            yield

    app = web.Application()
    app.add_routes(routes)
    app.cleanup_ctx.append(connections)
    return app


async def try_out(url: str, items: Items, count: int) -> None:
    connector = aiohttp.TCPConnector(limit=50)
    async with aiohttp.ClientSession(url, connector=connector) as session:

        async def create(price: int) -> int:
            item = {"name": f"item {price}", "price": price}
            async with session.post("/items", json=item) as response:
                return int((await response.json())["id"])

        async def price(number: int) -> int:
            async with session.get(f"/items/{number}") as response:
                return int((await response.json())["price"])

        numbers = await asyncio.gather(*map(create, range(100)))
        for what in ("first", "second"):
            prices = await asyncio.gather(*map(price, numbers))
            counts = f"{items.loads} loads, {items.hits} hits"
            print(f"{what} reads: {prices == list(range(100))}, {counts}")
        async with session.put(f"/items/{numbers[7]}/price", json=1000) as response:
            print(f"changed: {response.status}, {await price(numbers[7])}")
        async with session.get("/items/0") as response:
            print(f"not there: {response.status}")
        started = time.perf_counter()
        for _ in range(count // 100):
            await asyncio.gather(*map(price, numbers))
        print(f"{count / (time.perf_counter() - started):,.0f} requests/s")
    await items.pool.execute(f"DROP TABLE {TABLE}")
    with contextlib.suppress(redis.RedisError):
        await items.cache.delete(*(f"item:{number}" for number in numbers))


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", metavar="HOST:PORT")
    parser.add_argument("--count", type=int, default=5000, help="requests measured")
    options = parser.parse_args()
    urls = [os.environ.get(name, "") for name in ("POSTGRES_DSN", "REDIS_URL")]
    if "" in urls:
        raise SystemExit(
            "rest_service.py needs POSTGRES_DSN and REDIS_URL: see its head"
        )
    host, _, port = (options.serve or "127.0.0.1:0").rpartition(":")
    app = application(*urls)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, int(port)).start()
        url = "http://{}:{}".format(*runner.addresses[0][:2])
        if options.serve:
            print("serving on", *runner.addresses[0][:2], flush=True)
            await asyncio.Event().wait()
        await try_out(url, app[ITEMS], options.count)
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())

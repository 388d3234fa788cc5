"""The aiohttp "hello" server: ``python -m benchmarks.servers.hello_aiohttp LOOP``."""

from __future__ import annotations

import sys

from aiohttp import web

from .serve import BACKLOG, HOST, run_server, serve_until_killed


async def hello(request: web.Request) -> web.Response:
    """Answer every request alike."""
    return web.Response(text="Hello, world!")


async def serve() -> None:
    """Serve ``GET /`` for ever."""
    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0, backlog=BACKLOG).start()
    await serve_until_killed(runner.addresses[0][1])


if __name__ == "__main__":
    run_server(sys.argv[1], serve())

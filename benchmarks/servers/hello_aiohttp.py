"""The aiohttp "hello" server: ``python -m benchmarks.servers.hello_aiohttp LOOP``.

With the files of a certificate and of its key after that, it speaks HTTPS.
"""

from __future__ import annotations

import ssl
import sys

from aiohttp import web

from .serve import BACKLOG, HOST, run_server, serve_until_killed, server_context


async def hello(request: web.Request) -> web.Response:
    """Answer every request alike."""
    return web.Response(text="Hello, world!")


async def serve(context: ssl.SSLContext | None) -> None:
    """Serve ``GET /`` for ever."""
    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0, backlog=BACKLOG, ssl_context=context)
    await site.start()
    await serve_until_killed(runner.addresses[0][1])


if __name__ == "__main__":
    loop, *files = sys.argv[1:]
    run_server(loop, serve(server_context(*files) if files else None))

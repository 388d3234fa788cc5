"""The Sanic "hello" server: ``python -m benchmarks.servers.hello_sanic LOOP``."""

from __future__ import annotations

import sys

from sanic import HTTPResponse, Request, Sanic, text

from .serve import BACKLOG, HOST, run_server, serve_until_killed

app: Sanic = Sanic("hello", configure_logging=False)


@app.get("/")
async def hello(request: Request) -> HTTPResponse:
    """Answer every request alike."""
    return text("Hello, world!")


async def serve() -> None:
    """Serve ``GET /`` for ever."""
    server = await app.create_server(
        HOST, 0, backlog=BACKLOG, access_log=False, return_asyncio_server=True
    )
    assert server is not None
    await server.startup()
    assert server.server is not None
    await server.start_serving()
    await serve_until_killed(server.server.sockets[0].getsockname()[1])


if __name__ == "__main__":
    run_server(sys.argv[1], serve())

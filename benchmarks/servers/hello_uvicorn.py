"""The uvicorn "hello" server: ``python -m benchmarks.servers.hello_uvicorn LOOP``.

A bare ASGI application, parsed by httptools. With the files of a certificate
and of its key after that, it speaks HTTPS.
"""

from __future__ import annotations

import socket
import sys

import uvicorn
from uvicorn._types import (
    ASGIApplication,
    ASGIReceiveCallable,
    ASGISendCallable,
    Scope,
)

from .serve import BACKLOG, HOST, announce, run_server

BODY = b"Hello, world!"
HEADERS = [
    (b"content-type", b"text/plain"),
    (b"content-length", str(len(BODY)).encode()),
]


async def hello(
    scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
) -> None:
    """Answer every request alike."""
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": HEADERS,
            "trailers": False,
        }
    )
    await send({"type": "http.response.body", "body": BODY, "more_body": False})


class Announcing(uvicorn.Server):
    """Tells the parent the port once the server accepts."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        announce(self.servers[0].sockets[0].getsockname()[1])


async def serve(
    chain: str | None = None,
    key: str | None = None,
    *,
    application: ASGIApplication = hello,
) -> None:
    """Serve for ever."""
    config = uvicorn.Config(
        application,
        host=HOST,
        port=0,
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        backlog=BACKLOG,
        ssl_certfile=chain,
        ssl_keyfile=key,
    )
    await Announcing(config).serve()


if __name__ == "__main__":
    run_server(sys.argv[1], serve(*sys.argv[2:]))

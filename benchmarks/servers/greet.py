"""Server that greets: ``python -m benchmarks.servers.greet LOOP``.

Every connection gets one byte as soon as it is made, and ends with its peer.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

from .serve import BACKLOG, HOST, run_server, serve_until_killed


class Greet(asyncio.Protocol):
    """Writes one byte."""

    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(b"!")


async def serve() -> None:
    """Serve for ever."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Greet, HOST, 0, backlog=BACKLOG)
    await serve_until_killed(server.sockets[0].getsockname()[1])


if __name__ == "__main__":
    run_server(sys.argv[1], serve())

"""A WebSocket echo: ``python -m benchmarks.servers.echo_websockets LOOP``."""

from __future__ import annotations

import sys

from websockets.asyncio.server import ServerConnection, serve

from .serve import BACKLOG, HOST, run_server, serve_until_killed


async def echo(connection: ServerConnection) -> None:
    """Send every message back."""
    async for message in connection:
        await connection.send(message)


async def main() -> None:
    """Serve for ever."""
    async with serve(echo, HOST, 0, backlog=BACKLOG) as server:
        await serve_until_killed(server.sockets[0].getsockname()[1])


if __name__ == "__main__":
    run_server(sys.argv[1], main())

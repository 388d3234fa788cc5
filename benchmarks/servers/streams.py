"""Server of streams: ``python -m benchmarks.servers.streams LOOP MODE``.

Modes that begin with ``c-`` use the ``start_server`` of the loop's own package
where it has one, the others always asyncio's.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from asyncio import StreamReader, StreamWriter
from typing import Any

from .echo import echo_lines, echo_read
from .serve import BACKLOG, HOST, run_server, serve_until_killed

OWN = "c-"
PREFIX = 4


async def echo_prefixed(reader: StreamReader, writer: StreamWriter) -> None:
    """Echo messages that begin with their length."""
    while True:
        try:
            size = int.from_bytes(await reader.readexactly(PREFIX), "big")
            body = await reader.readexactly(size)
        except asyncio.IncompleteReadError:
            break
        writer.write(size.to_bytes(PREFIX, "big") + body)
        await writer.drain()
    writer.close()


HANDLERS = {
    "readline": echo_lines,
    "length_prefixed": echo_prefixed,
    "read": echo_read,
}


async def serve(loop: str, mode: str) -> None:
    """Serve one mode for ever."""
    start_server: Any = asyncio.start_server
    if mode.startswith(OWN):
        package = importlib.import_module(loop.partition("+")[0])
        start_server = getattr(package, "start_server", start_server)
    handler = HANDLERS[mode.removeprefix(OWN)]
    server = await start_server(handler, HOST, 0, backlog=BACKLOG)
    await serve_until_killed(server.sockets[0].getsockname()[1])


def main() -> None:
    loop, mode = sys.argv[1:]
    run_server(loop, serve(loop, mode))


if __name__ == "__main__":
    main()

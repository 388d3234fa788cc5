"""Worker of suite *tls*: resident bytes of an idle TLS connection of a server.

``python -m benchmarks.workers.tlsmemory LOOP COUNT CERTIFICATE KEY CLIENT``

The client is the C program that holds the other ends, in a process of its own.
Each connection has echoed 1 KiB and 64 KiB before it idles.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
import time

from ..child import answer, die_with_parent
from ..limits import raise_descriptor_limit
from ..loops import loop_factory
from ..servers.echo import Echo
from ..servers.serve import server_context
from .memory import BACKLOG, HOST, SPARE_DESCRIPTORS, WARM_UP, resident_bytes, turns

SECONDS = 60.0
POLL = 0.002


async def hold_more(client: subprocess.Popen[bytes], count: int) -> None:
    """Have the client connect and echo so often; wait until all idle."""
    assert client.stdin is not None and client.stdout is not None
    client.stdin.write(b"%d\n" % count)
    client.stdin.flush()
    deadline = time.monotonic() + SECONDS
    while not client.stdout.readline():
        if client.poll() is not None:
            raise RuntimeError("the client ended")
        if time.monotonic() > deadline:
            raise RuntimeError(f"no {count} connections in {SECONDS:.0f} s")
        await asyncio.sleep(POLL)
    await turns()


async def measure(count: int, context: ssl.SSLContext, program: str) -> None:
    """Measure and answer; the parent ends this process after that."""
    count = min(count, raise_descriptor_limit() - SPARE_DESCRIPTORS)
    server = await asyncio.get_running_loop().create_server(
        Echo, HOST, 0, backlog=BACKLOG, ssl=context
    )
    port = server.sockets[0].getsockname()[1]
    client = subprocess.Popen(
        [program, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert client.stdout is not None
    os.set_blocking(client.stdout.fileno(), False)
    try:
        await hold_more(client, WARM_UP)
        before = resident_bytes()
        await hold_more(client, count)
        used = resident_bytes() - before
    finally:
        client.kill()
        client.wait()
    answer({"bytes": used / count, "count": count})


def main() -> None:
    """Measure idle connections under one loop."""
    die_with_parent()
    loop, count, chain, key, program = sys.argv[1:]
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(measure(int(count), server_context(chain, key), program))


if __name__ == "__main__":
    main()

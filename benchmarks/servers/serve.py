"""What all server processes share."""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections.abc import Coroutine
from typing import Any

from ..child import answer, die_with_parent
from ..limits import raise_descriptor_limit
from ..loops import loop_factory

HOST = "127.0.0.1"
BACKLOG = 1024


def server_context(chain: str, key: str) -> ssl.SSLContext:
    """Return Python's default context of servers, with a certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, key)
    return context


def announce(port: int) -> None:
    """Tell the parent where the server listens."""
    gc.collect()
    answer({"port": port})


async def serve_until_killed(port: int) -> None:
    """Tell the parent where the server listens, and wait.

    Not ``Server.serve_forever``, which not every loop gets right.
    """
    announce(port)
    await asyncio.get_running_loop().create_future()


def run_server(loop: str, main: Coroutine[Any, Any, None]) -> None:
    """Run a server coroutine on a loop until the parent kills the process."""
    die_with_parent()
    raise_descriptor_limit()
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(main)

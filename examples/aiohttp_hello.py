"""A small HTTP server in aiohttp.

Plain asyncio code: nothing here knows which event loop runs it.

    python examples/aiohttp_hello.py [port]                    asyncio's loop
    python examples/run_with.py hotloop examples/aiohttp_hello.py [port]

It prints its address once it serves. Port 0, the default, lets the kernel choose.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

from aiohttp import web


async def hello(request: web.Request) -> web.Response:
    return web.Response(text="Hello, world!\n")


async def main() -> None:
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        host, port = runner.addresses[0]
        print(f"http://{host}:{port}/", flush=True)
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())

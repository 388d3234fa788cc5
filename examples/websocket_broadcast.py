"""A WebSocket server that sends what happens to all who listen, with aiohttp.

    python examples/websocket_broadcast.py                     asyncio's loop
    python examples/run_with.py hotloop examples/websocket_broadcast.py
    python examples/websocket_broadcast.py --serve 127.0.0.1:8010

Publishing is a POST to /publish. Every subscriber has its own small queue: one who
does not keep up loses the oldest messages, not the connection, and slows nobody.
The message is packed once, not once for every subscriber.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time

import aiohttp
from aiohttp import web


class Hub:
    """The subscribers' queues."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.queues: set[asyncio.Queue[str | None]] = set()

    def publish(self, text: str | None) -> None:
        """Give a text to all; None ends all subscriptions."""
        for queue in self.queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(text)

    async def subscribe(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(heartbeat=30)
        queue: asyncio.Queue[str | None] = asyncio.Queue(self.limit)
        self.queues.add(queue)  # first: who has connected misses nothing
        try:
            await socket.prepare(request)
            async with asyncio.TaskGroup() as group:
                sender = group.create_task(self._send(socket, queue))
                # Reading answers pings, and notices when the peer goes.
                async for _ in socket:
                    pass
                sender.cancel()
        finally:
            self.queues.discard(queue)
        return socket

    async def _send(
        self, socket: web.WebSocketResponse, queue: asyncio.Queue[str | None]
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while (text := await queue.get()) is not None:
                await socket.send_str(text)
            await socket.close()

    async def post(self, request: web.Request) -> web.Response:
        self.publish(json.dumps(await request.json()))
        return web.json_response({"subscribers": len(self.queues)})

    async def shut_down(self, _: web.Application) -> None:
        self.publish(None)


def application(hub: Hub) -> web.Application:
    app = web.Application()
    app.add_routes([web.get("/listen", hub.subscribe), web.post("/publish", hub.post)])
    app.on_shutdown.append(hub.shut_down)
    return app


async def listen(
    session: aiohttp.ClientSession, url: str, everybody: asyncio.Barrier
) -> int:
    """Receive until the server closes; returns how many came in order."""
    expected = 0
    async with session.ws_connect(url + "/listen") as socket:
        await everybody.wait()
        async for message in socket:
            expected += json.loads(message.data)["number"] == expected
    return expected


async def try_out(hub: Hub, url: str, listeners: int, count: int) -> list[int]:
    everybody = asyncio.Barrier(listeners + 1)
    # By itself aiohttp's client opens at most 100 connections, then waits.
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        asyncio.TaskGroup() as group,
    ):
        tasks = [
            group.create_task(listen(session, url, everybody)) for _ in range(listeners)
        ]
        await everybody.wait()
        for number in range(count):
            message = {"number": number, "text": "something happened"}
            async with session.post(url + "/publish", json=message) as response:
                answer = await response.json()
                if answer["subscribers"] != listeners:
                    raise ValueError(f"{answer} instead of {listeners} listeners")
        hub.publish(None)
    return [task.result() for task in tasks]


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", metavar="HOST:PORT")
    parser.add_argument("--listeners", type=int, default=100)
    parser.add_argument("--count", type=int, default=200, help="messages")
    options = parser.parse_args()
    host, _, port = (options.serve or "127.0.0.1:0").rpartition(":")
    hub = Hub(limit=options.count + 1)
    runner = web.AppRunner(application(hub), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, int(port)).start()
        url = "http://{}:{}".format(*runner.addresses[0][:2])
        if options.serve:
            print("serving on", *runner.addresses[0][:2], flush=True)
            await asyncio.Event().wait()
        started = time.perf_counter()
        heard = await try_out(hub, url, options.listeners, options.count)
        elapsed = time.perf_counter() - started
    finally:
        await runner.cleanup()
    print(f"{options.listeners} listeners, {min(heard)} to {max(heard)} messages each")
    print(f"{sum(heard) / elapsed:,.0f} messages/s")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())

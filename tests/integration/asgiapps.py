"""ASGI applications of the tests of web servers."""

from __future__ import annotations

import hashlib
from typing import Any

from webpeers import loop_name


class Application:
    """What all these tests ask of a server, and what the application has seen.

    A request to /NAME/... is on_NAME's, which a subclass may add.
    """

    payload = b""  # what on_payload sends

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.count = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.lifespan(receive, send)
            return
        name = scope["path"].split("/")[1]
        await getattr(self, "on_" + name)(scope, receive, send)

    async def lifespan(self, receive: Any, send: Any) -> None:
        for event in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{event}"
            self.seen.append(event)
            await send({"type": f"lifespan.{event}.complete"})

    async def answer(self, send: Any, text: str, **headers: str) -> None:
        fields = {"content-length": str(len(text)), **headers}
        pairs = [(k.encode(), v.encode()) for k, v in fields.items()]
        await send({"type": "http.response.start", "status": 200, "headers": pairs})
        await send({"type": "http.response.body", "body": text.encode()})

    async def on_loop(self, scope: Any, receive: Any, send: Any) -> None:
        self.count += 1
        await self.answer(send, f"{loop_name()} {scope['http_version']}")

    async def on_digest(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer with the digest of the body, if all of it comes."""
        found, more = hashlib.sha256(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.seen.append("disconnect in the body")
                return
            found.update(message.get("body", b""))
            more = message.get("more_body", False)
        await self.answer(send, found.hexdigest())

    async def on_payload(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for start in range(0, len(self.payload), 100_003):
            part = self.payload[start : start + 100_003]
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


# The same for servers in processes of their own: a module "webapp" with an "app",
# which tells its loop, its process and how it was greeted.
WEBAPP = """
import asyncio, os

async def lifespan(receive, send):
    for event in ("startup", "shutdown"):
        assert (await receive())["type"] == f"lifespan.{event}"
        print(f"application {event} in {os.getpid()}", flush=True)
        await send({"type": f"lifespan.{event}.complete"})

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    if scope["path"] in ("/slow", "/forever"):
        print("begun", flush=True)
        try:
            await asyncio.sleep(1 if scope["path"] == "/slow" else 3600)
        except asyncio.CancelledError:
            print("cancelled", flush=True)
            raise
    name = type(asyncio.get_running_loop()).__module__.split(".")[0]
    text = f"{name} {os.getpid()} {os.environ.get('GREETING', 'first')}".encode()
    length = (b"content-length", b"%d" % len(text))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": text})
"""

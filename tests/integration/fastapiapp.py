"""An application that uses what FastAPI's tutorial shows."""

# Without postponed annotations: FastAPI could not see local names in them.

import asyncio
import contextlib
import hashlib
import pathlib
import random
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

from fastapi import (
    BackgroundTasks,
    Depends,
    FastAPI,
    File,
    Form,
    Request,
    UploadFile,
    WebSocket,
    WebSocketDisconnect,
)
from fastapi.responses import FileResponse, StreamingResponse
from webpeers import loop_name

PAYLOAD = random.Random(5).randbytes((4 << 20) + 3)
DIGEST = hashlib.sha256(PAYLOAD).hexdigest()


class World:
    """What the application's handlers share with the tests."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.count = 0
        self.gate = asyncio.Event()


def make_app(world: World, folder: pathlib.Path | None = None) -> FastAPI:
    """An application with what FastAPI's tutorial shows."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        world.seen.append("startup")
        ticking = asyncio.create_task(asyncio.Event().wait())
        yield {"greeting": "from lifespan"}
        ticking.cancel()
        await asyncio.wait([ticking])
        world.seen.append("shutdown")

    app = FastAPI(lifespan=lifespan)

    async def connection() -> AsyncIterator[str]:
        """A dependency with an end, as a database session has."""
        world.seen.append("opened")
        try:
            yield "connection"
        finally:
            world.seen.append("closed")

    def thread(value: Annotated[str, Depends(connection)]) -> tuple[str, int]:
        """A dependency that runs in a thread of the pool."""
        return value, threading.get_ident()

    @app.get("/loop")
    async def loop() -> str:
        world.count += 1
        return loop_name()

    @app.get("/depends/{n}")
    async def depends(
        n: int,
        request: Request,
        found: Annotated[tuple[str, int], Depends(thread)],
    ) -> dict[str, Any]:
        other = found[1] != threading.get_ident()
        return {"n": n, "value": found[0], "thread": other, **request.state._state}

    @app.get("/sync/{n}")
    def sync(n: int) -> int:
        assert threading.current_thread() is not threading.main_thread()
        return n

    @app.get("/fails")
    async def fails(_: Annotated[str, Depends(connection)]) -> None:
        raise LookupError("lost in the handler")

    @app.post("/background")
    async def background(tasks: BackgroundTasks) -> str:
        async def later() -> None:
            await world.gate.wait()
            world.seen.append("background")

        tasks.add_task(later)
        tasks.add_task(world.seen.append, "background in a thread")
        return "accepted"

    @app.post("/upload")
    async def upload(
        note: Annotated[str, Form()], files: Annotated[list[UploadFile], File()]
    ) -> list[Any]:
        found: list[Any] = [note]
        for file in files:
            digest = hashlib.sha256()
            while part := await file.read(50_021):
                digest.update(part)
            found += [file.filename, file.size, digest.hexdigest()]
        return found

    @app.post("/digest")
    async def digest(request: Request) -> str:
        found = hashlib.sha256()
        async for part in request.stream():
            found.update(part)
        return found.hexdigest()

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        def parts() -> Iterator[bytes]:  # iterated in threads
            for start in range(0, len(PAYLOAD), 100_003):
                yield PAYLOAD[start : start + 100_003]

        return StreamingResponse(parts())

    @app.get("/flood")
    async def flood() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            try:
                while True:
                    world.count += 1
                    yield bytes(65536)
                    # To a client that is gone uvicorn sends without waiting.
                    await asyncio.sleep(0)
            except BaseException as error:
                world.seen.append(type(error).__name__)
                raise

        return StreamingResponse(parts())

    @app.get("/poll")
    async def poll(request: Request) -> None:
        """Wait for the client to be gone, by asking."""
        world.seen.append("polling")
        while not await request.is_disconnected():
            await asyncio.sleep(0.001)
        world.seen.append("disconnected")

    @app.get("/file")
    async def file() -> FileResponse:
        assert folder is not None
        return FileResponse(folder / "file.bin")

    @app.websocket("/ws/{room}")
    async def talk(
        ws: WebSocket, room: str, value: Annotated[str, Depends(connection)]
    ) -> None:
        await ws.accept()
        try:
            while True:
                message = await ws.receive_json()
                await ws.send_json({"room": room, "value": value, "got": message})
        except WebSocketDisconnect as error:
            world.seen.append(error.code)

    return app

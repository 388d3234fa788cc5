"""When a write pipe lets its protocol go on."""

from __future__ import annotations

import asyncio
import io
import os
from typing import Any

from support import turns


class Resumes(asyncio.Protocol):
    """Notes how much was left when it was told to go on."""

    def __init__(self) -> None:
        self.left: list[int] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def resume_writing(self) -> None:
        self.left.append(self.transport.get_write_buffer_size())


async def test_resumes_when_all_is_sent(loop: Any) -> None:
    """Unlike a socket, whatever the low-water mark."""
    reading, writing = os.pipe()
    transport, protocol = await loop.connect_write_pipe(
        Resumes, io.FileIO(writing, "w")
    )
    transport.set_write_buffer_limits(high=100_000, low=90_000)
    transport.write(bytes(65536 + 120_000))
    os.set_blocking(reading, False)
    got = 0
    while got < 65536 + 120_000:
        try:
            got += len(os.read(reading, 10_000))
        except BlockingIOError:
            await asyncio.sleep(0.001)
        await turns(1)
    await turns(3)
    assert protocol.left == [0]
    transport.close()
    await turns(3)
    os.close(reading)

"""An echo server as a BufferedProtocol: the loop reads into memory of its own.

Plain asyncio code: nothing here knows which event loop runs it.

    python examples/echo_buffered.py                           asyncio's loop
    python examples/run_with.py hotloop examples/echo_buffered.py
    python examples/echo_buffered.py --serve 127.0.0.1:8007    the server alone

Big messages go in and out with no bytes object made for what arrives. Both sides
are BufferedProtocols; the client puts each answer together in place.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import time
from typing import cast


class Echo(asyncio.BufferedProtocol):
    """Sends back what it gets, from the buffer that it was read into."""

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(256 * 1024))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        # Some loops keep the object given to write() until the kernel takes it, so
        # what is sent must not change any more: a copy, made once.
        self.transport.write(bytes(self.buffer[:nbytes]))

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


class Client(asyncio.BufferedProtocol):
    """Sends a message so many times and keeps the digest of all answers."""

    def __init__(self, message: bytes, count: int) -> None:
        self.message = message
        self.left = count
        self.answer = memoryview(bytearray(len(message)))
        self.filled = 0
        self.digest = hashlib.sha256()
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self.message)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.answer[self.filled :]  # never empty: see buffer_updated()

    def buffer_updated(self, nbytes: int) -> None:
        self.filled += nbytes
        if self.filled < len(self.answer):
            return
        self.filled = 0
        self.digest.update(self.answer)
        self.left -= 1
        if self.left:
            self.transport.write(self.message)
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


async def talk(address: tuple[str, int], message: bytes, count: int) -> bool:
    """Whether all that came back is what was sent."""
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: Client(message, count), *address)
    await client.lost
    expected = hashlib.sha256()
    for _ in range(count):
        expected.update(message)
    return client.digest.digest() == expected.digest()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", metavar="HOST:PORT")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--count", type=int, default=100, help="messages of each")
    parser.add_argument("--size", type=int, default=256 * 1024, help="of a message")
    options = parser.parse_args()
    host, _, port = (options.serve or "127.0.0.1:0").rpartition(":")
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, host, int(port))
    async with server:
        if options.serve:
            print("serving on", *server.sockets[0].getsockname()[:2], flush=True)
            await server.serve_forever()
        address = server.sockets[0].getsockname()
        messages = [bytes([n % 256]) * options.size for n in range(options.clients)]
        started = time.perf_counter()
        good = await asyncio.gather(
            *(talk(address, message, options.count) for message in messages)
        )
        elapsed = time.perf_counter() - started
    total = options.clients * options.count * options.size
    print(f"{sum(good)} of {options.clients} clients got back what they sent")
    print(f"{total} bytes each way")
    print(f"{total / 1e6 / elapsed:,.0f} MB/s")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())

"""An echo server as a Protocol, which stops reading while its peer does not read.

Plain asyncio code: nothing here knows which event loop runs it.

    python examples/echo_protocol.py                           asyncio's loop
    python examples/run_with.py hotloop examples/echo_protocol.py
    python examples/echo_protocol.py --serve 127.0.0.1:8007    the server alone

Clients send messages and compare every answer; one more sends everything before it
reads, and gets it all back while the server never holds more than its buffers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from typing import cast

MESSAGE = bytes(range(256)) * 4


class Echo(asyncio.Protocol):
    """Sends back what it gets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    # Called when the write buffer is over its high-water mark, and under the low
    # one again. Without these two, a peer that does not read fills the memory.
    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


class Client(asyncio.Protocol):
    """Sends MESSAGE so many times, each when the answer to the last has come."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.received = 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(MESSAGE)

    def data_received(self, data: bytes) -> None:
        end = self.received + len(data)
        if data != MESSAGE[self.received : end]:
            self.done.set_exception(ValueError("a wrong answer"))
            self.transport.abort()
            return
        self.received = end % len(MESSAGE)
        if end < len(MESSAGE):
            return
        self.left -= 1
        if self.left:
            self.transport.write(MESSAGE)
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(self.left)


async def talk(address: tuple[str, int], count: int) -> None:
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: Client(count), *address)
    if left := await client.done:
        raise ConnectionError(f"closed with {left} answers to come")


async def send_all_then_read(address: tuple[str, int], data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(data)  # no drain(): this client only buffers
    received = await reader.readexactly(len(data))
    writer.close()
    await writer.wait_closed()
    return received


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", metavar="HOST:PORT")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--count", type=int, default=500, help="messages of each")
    options = parser.parse_args()
    host, _, port = (options.serve or "127.0.0.1:0").rpartition(":")
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, host, int(port))
    async with server:
        if options.serve:
            print("serving on", *server.sockets[0].getsockname()[:2], flush=True)
            await server.serve_forever()
        address = server.sockets[0].getsockname()
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(options.clients):
                group.create_task(talk(address, options.count))
        rate = options.clients * options.count / (time.perf_counter() - started)
        data = MESSAGE * 8192
        same = await send_all_then_read(address, data) == data
    print(f"{options.clients} clients, {options.count} right answers each")
    print(f"{len(data)} bytes sent before reading: came back {same=}")
    print(f"{rate:,.0f} requests/s")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())

"""A UDP service: requests with numbers, sent again when no answer comes.

Plain asyncio code: nothing here knows which event loop runs it.

    python examples/udp_service.py                             asyncio's loop
    python examples/run_with.py hotloop examples/udp_service.py
    python examples/udp_service.py --serve 127.0.0.1:8013      the server alone

Datagrams get lost, come twice, or come in another order: the client has one socket
for all its requests, finds by number whose answer came, and ignores answers nobody
waits for. The server's work may be done twice, so it must not matter that it is.
This server ignores some first attempts, and answers some requests twice.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import struct
import time
from typing import cast

NUMBER = struct.Struct("!I")


class Server(asyncio.DatagramProtocol):
    """Upper case, in an unreliable way if asked to."""

    def __init__(self, unreliable: bool) -> None:
        self.unreliable = unreliable
        self.seen: set[bytes] = set()
        self.dropped = self.doubled = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        if len(data) < NUMBER.size:
            return  # whoever sent this does not speak our protocol
        (number,) = NUMBER.unpack_from(data)
        if self.unreliable and number % 10 == 3 and data not in self.seen:
            self.seen.add(data)
            self.dropped += 1
            return
        answer = data[: NUMBER.size] + data[NUMBER.size :].upper()
        self.transport.sendto(answer, address)
        if self.unreliable and number % 10 == 7:
            self.doubled += 1
            self.transport.sendto(answer, address)


class Client(asyncio.DatagramProtocol):
    """Requests of many tasks over one socket."""

    def __init__(self) -> None:
        self.waiting: dict[int, asyncio.Future[bytes]] = {}
        self.number = self.late = self.again = 0
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        (number,) = NUMBER.unpack_from(data)
        future = self.waiting.get(number)
        if future is None or future.done():
            self.late += 1
        else:
            future.set_result(data[NUMBER.size :])

    def error_received(self, exc: Exception) -> None:
        """ICMP says that nobody listens; sending again may still help."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)

    async def ask(
        self, data: bytes, attempts: int = 8, patience: float = 0.05
    ) -> bytes:
        number = self.number = (self.number + 1) % 2**32
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.waiting[number] = future
        try:
            for attempt in range(attempts):
                self.again += attempt > 0
                self.transport.sendto(NUMBER.pack(number) + data)
                await asyncio.wait([future], timeout=patience * 2**attempt)
                if future.done():
                    return future.result()
            raise TimeoutError(f"no answer to {attempts} datagrams")
        finally:
            del self.waiting[number]


async def ask_many(client: Client, name: int, count: int) -> int:
    """Returns how many answers were right."""
    right = 0
    for number in range(count):
        text = f"request {number} of {name}".encode()
        right += await client.ask(text) == text.upper()
    return right


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", metavar="HOST:PORT")
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--count", type=int, default=400, help="requests of each")
    options = parser.parse_args()
    host, _, port = (options.serve or "127.0.0.1:0").rpartition(":")
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(
        lambda: Server(unreliable=False), (host, int(port))
    )
    address = transport.get_extra_info("sockname")[:2]
    if options.serve:
        print("serving on", *address, flush=True)
        try:
            await asyncio.Event().wait()
        finally:
            transport.close()
    _, client = await loop.create_datagram_endpoint(Client, remote_addr=address)
    started = time.perf_counter()
    right = await asyncio.gather(
        *(ask_many(client, name, options.count) for name in range(options.tasks))
    )
    elapsed = time.perf_counter() - started
    print(f"{sum(right)} right answers")

    server.unreliable = True
    client.number = 0
    right = await asyncio.gather(*(ask_many(client, name, 2) for name in range(50)))
    await client.ask(b"this")  # comes after whatever was sent twice
    print(f"{sum(right)} with {server.dropped} datagrams lost", end=", ")
    print(f"sent again: {client.again >= server.dropped}", end=", ")
    print(f"answers too many: {client.late >= 10}")
    transport.close()
    await asyncio.sleep(0)
    try:
        await client.ask(b"anybody?", attempts=2, patience=0.01)
    except TimeoutError as exc:
        print("the server has gone:", exc)
    client.transport.close()
    await client.closed
    print(f"{options.tasks * options.count / elapsed:,.0f} requests/s")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())

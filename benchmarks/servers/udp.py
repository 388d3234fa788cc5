"""UDP server: ``python -m benchmarks.servers.udp LOOP MODE``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, cast

from .serve import HOST, run_server, serve_until_killed

Address = tuple[str | Any, int]
LAST = ord("L")


class Echo(asyncio.DatagramProtocol):
    """Sends back what it receives."""

    __slots__ = ("transport",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.transport.sendto(data, addr)


class Sink(Echo):
    """Counts what it receives, and says how many when asked."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.count += 1
        if data[0] == LAST:
            self.transport.sendto(b"%d" % self.count, addr)


PROTOCOLS: dict[str, Callable[[], asyncio.DatagramProtocol]] = {
    "echo": Echo,
    "burst": Sink,
}


async def serve(mode: str) -> None:
    """Serve one mode for ever."""
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        PROTOCOLS[mode], local_addr=(HOST, 0)
    )
    await serve_until_killed(transport.get_extra_info("sockname")[1])


def main() -> None:
    loop, mode = sys.argv[1:]
    run_server(loop, serve(mode))


if __name__ == "__main__":
    main()

"""A TCP proxy: both directions at once, back-pressure, and ends passed on singly.

Plain asyncio code: nothing here knows which event loop runs it.

    python examples/tcp_proxy.py                               asyncio's loop
    python examples/run_with.py hotloop examples/tcp_proxy.py
    python examples/tcp_proxy.py --serve 127.0.0.1:8009 --to example.org:80

drain() makes the slower side set the pace of the faster one. When one side has
finished sending (half-close), only that direction ends: the answer to a request
that ends with end of file still comes through. An error on either side ends both.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import hashlib
import time

CHUNK = 256 * 1024
Address = tuple[str, int]


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def proxy(
    target: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Serve one connection by one to the target."""
    try:
        there_reader, there_writer = await asyncio.open_connection(*target)
    except OSError:
        writer.transport.abort()  # the client sees a reset, as without the proxy
        return
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(copy(reader, there_writer))
            group.create_task(copy(there_reader, writer))
    except* OSError:
        writer.transport.abort()
        there_writer.transport.abort()
    finally:
        for each in (writer, there_writer):
            each.close()
        for each in (writer, there_writer):
            with contextlib.suppress(OSError):
                await each.wait_closed()


async def digest_service(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Reads to the end of file, then answers with the data and its digest."""
    data = await reader.read()
    writer.write(data)
    writer.write(hashlib.sha256(data).digest())
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def ask(address: Address, data: bytes) -> bool:
    """Whether the data and its digest come back after our half-close."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(data)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer == data + hashlib.sha256(data).digest()


async def refused(address: Address) -> bool:
    """Whether a connection ends without an answer."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def parse(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host, int(port)


async def start_proxy(target: Address, host: str, port: int) -> asyncio.Server:
    return await asyncio.start_server(functools.partial(proxy, target), host, port)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", metavar="HOST:PORT", type=parse)
    parser.add_argument("--to", metavar="HOST:PORT", type=parse)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--size", type=int, default=4_000_000, help="sent by each")
    options = parser.parse_args()
    if options.serve:
        async with await start_proxy(options.to, *options.serve) as server:
            print("serving on", *server.sockets[0].getsockname()[:2], flush=True)
            await server.serve_forever()
    behind = await asyncio.start_server(digest_service, "127.0.0.1", 0)
    target = behind.sockets[0].getsockname()
    front = await start_proxy(target, "127.0.0.1", 0)
    address = front.sockets[0].getsockname()
    async with front:
        async with behind:
            started = time.perf_counter()
            good = await asyncio.gather(
                *(
                    ask(address, bytes([n]) * options.size)
                    for n in range(options.clients)
                )
            )
            elapsed = time.perf_counter() - started
        turned_away = await refused(address)  # nobody listens there any more
    print(f"{sum(good)} of {options.clients} clients: right answer after a half-close")
    print(f"without a target the client is turned away: {turned_away}")
    print(f"{2 * options.clients * options.size / 1e6 / elapsed:,.0f} MB/s")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())

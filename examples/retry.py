"""Retry with exponential back-off and jitter, under a time limit for everything.

Plain asyncio code: nothing here knows which event loop runs it.

    python examples/retry.py                                   asyncio's loop
    python examples/run_with.py hotloop examples/retry.py

Only errors that may go away are tried again. The delay is drawn from the whole span
up to a bound that doubles ("full jitter"), so that clients that failed together do
not come back together. Cancellation is never swallowed. What retries a real server
here is a TCP client: the server hangs up on the first attempts.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

T = TypeVar("T")


def delays(
    attempts: int, base: float = 0.001, cap: float = 0.05, seed: int | None = None
) -> Iterator[float]:
    """The waits between so many attempts."""
    source = random.Random(seed)
    for number in range(attempts - 1):
        yield source.uniform(0, min(cap, base * 2**number))


async def retry(
    call: Callable[[], Awaitable[T]],
    waits: Iterator[float],
    errors: tuple[type[Exception], ...] = (OSError, EOFError, TimeoutError),
) -> T:
    """The first result of call(); its last error when there are no more waits."""
    while True:
        try:
            return await call()
        except errors:
            wait = next(waits, None)
            if wait is None:
                raise
        # Not within `except`: there the error, and all its frames hold, would live on.
        await asyncio.sleep(wait)


class Flaky:
    """A server of which each client's first connections are closed at once."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.visits: dict[bytes, int] = {}

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        name = await reader.readline()
        self.visits[name] = self.visits.get(name, 0) + 1
        if self.visits[name] > self.failures:
            writer.write(b"hello " + name)
        writer.close()
        await writer.wait_closed()


async def greet(address: tuple[str, int], name: str) -> str:
    """One attempt."""
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(*address)
        try:
            writer.write(name.encode() + b"\n")
            return (await reader.readuntil()).decode().strip()
        finally:
            writer.close()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=500, help="clients")
    options = parser.parse_args()
    flaky = Flaky(failures=3)
    server = await asyncio.start_server(flaky.serve, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()[:2]

    async def patient(number: int) -> str:
        waits = delays(attempts=6, seed=number)
        return await retry(lambda: greet(address, f"client {number}"), waits)

    async with server:
        started = time.perf_counter()
        answers = await asyncio.gather(*map(patient, range(options.count)))
        elapsed = time.perf_counter() - started
        right = answers == [f"hello client {n}" for n in range(options.count)]
        attempts = sum(flaky.visits.values())
        print(f"{options.count} clients greeted: {right}, after {attempts} attempts")
        try:
            await retry(lambda: greet(address, "hasty"), delays(attempts=2))
        except EOFError as exc:
            print("two attempts are too few:", type(exc).__name__)
    try:
        async with asyncio.timeout(0.05):
            await retry(lambda: greet(address, "late"), iter(lambda: 0.01, None))
    except TimeoutError:
        print("nobody listens: given up at the time limit")
    print(f"{attempts / elapsed:,.0f} attempts/s")


if __name__ == "__main__":
    asyncio.run(main())

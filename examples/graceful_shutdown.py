"""A server that ends well on SIGINT or SIGTERM.

Plain asyncio code: nothing here knows which event loop runs it.

    python examples/graceful_shutdown.py                       asyncio's loop
    python examples/run_with.py hotloop examples/graceful_shutdown.py
    python examples/graceful_shutdown.py --serve 127.0.0.1:8011   then: nc, Ctrl-C

On the first signal it stops listening, closes idle connections, and lets requests in
flight finish for `--limit` seconds; what is left then is cancelled. A second signal
ends the process at once. A request is a line, answered by "begun" and then "done":
"work N" takes N ms, "poll" waits for news until the server stops, "hang" forever.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import time

SIGNALS = (signal.SIGINT, signal.SIGTERM)
Address = tuple[str, int]


class Service:
    """Knows its connections, and which of them wait for a request."""

    def __init__(self) -> None:
        self.connections: set[asyncio.Task[None]] = set()
        self.idle: set[asyncio.Task[None]] = set()
        self.stopping = asyncio.Event()

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections.add(task)
        try:
            while not self.stopping.is_set():
                self.idle.add(task)
                line = await reader.readline()
                self.idle.discard(task)
                if not line:
                    break
                await self.answer(line.split(), writer)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the task ends here either way
        finally:
            self.idle.discard(task)
            self.connections.discard(task)
            writer.close()

    async def answer(self, words: list[bytes], writer: asyncio.StreamWriter) -> None:
        writer.write(b"begun\n")
        if words[0] == b"hang":
            await asyncio.Event().wait()
        elif words[0] == b"poll":
            await self.stopping.wait()
        elif words[0] == b"work":
            await asyncio.sleep(int(words[1]) / 1000)
        writer.write(b"done\n")
        await writer.drain()

    async def stop(self, server: asyncio.Server, limit: float) -> tuple[int, int]:
        """Returns how many requests were left to finish, and how many did not."""
        self.stopping.set()
        server.close()
        for task in self.idle:
            task.cancel()
        busy = late = self.connections - self.idle
        if self.connections:
            _, late = await asyncio.wait(self.connections, timeout=limit)
        for task in late:
            task.cancel()
        await asyncio.gather(*late)
        await server.wait_closed()
        return len(busy), len(late)


async def serve_until_signal(
    service: Service, server: asyncio.Server, limit: float
) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in SIGNALS:
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    for number in SIGNALS:
        loop.remove_signal_handler(number)  # the second one gets the usual action
    busy, late = await service.stop(server, limit)
    print(f"stopped: {busy} requests in flight, {late} cut off", flush=True)


async def ask(address: Address, text: str, everybody: asyncio.Barrier) -> bytes:
    """What comes after "begun" (or after nothing, if there is no text)."""
    reader, writer = await asyncio.open_connection(*address)
    if text:
        writer.write(f"{text}\n".encode())
        assert await reader.readline() == b"begun\n"
    await everybody.wait()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def measure(address: Address, count: int) -> float:
    reader, writer = await asyncio.open_connection(*address)
    started = time.perf_counter()
    for _ in range(count):
        writer.write(b"work 0\n")
        await reader.readline()
        await reader.readline()
    writer.close()
    return count / (time.perf_counter() - started)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", metavar="HOST:PORT")
    parser.add_argument("--limit", type=float, default=1.0, help="seconds to finish")
    parser.add_argument("--count", type=int, default=5000, help="requests measured")
    options = parser.parse_args()
    host, _, port = (options.serve or "127.0.0.1:0").rpartition(":")
    service = Service()
    server = await asyncio.start_server(service.serve, host, int(port))
    address = server.sockets[0].getsockname()[:2]
    running = asyncio.create_task(serve_until_signal(service, server, options.limit))
    if options.serve:
        print("serving on", *address, flush=True)
        return await running
    rate = await measure(address, options.count)
    requests = ["poll"] * 20 + ["hang"] * 3 + [""] * 5
    everybody = asyncio.Barrier(len(requests) + 1)
    asking = asyncio.gather(*(ask(address, text, everybody) for text in requests))
    await everybody.wait()  # all have begun
    os.kill(os.getpid(), signal.SIGTERM)
    await running
    answers = await asking
    print("finished:", answers.count(b"done\n"), "closed:", answers.count(b""))
    with contextlib.suppress(ConnectionRefusedError):
        await asyncio.open_connection(*address)
        print("still listening")
    print(f"{rate:,.0f} requests/s")


if __name__ == "__main__":
    asyncio.run(main())

"""Past one core: several processes serve one port, each with a loop of its own.

    python examples/multi_process.py                           asyncio's loop
    python examples/run_with.py hotloop examples/multi_process.py
    python examples/multi_process.py --serve 127.0.0.1:8014 --workers 4

Each worker listens for itself (SO_REUSEPORT), and the kernel spreads the connections:
no lock, no hand-over, no process in front of them. The parent holds the port without
listening, starts a worker anew when it ends, and ends them with SIGTERM. Workers run
on the same kind of loop as the parent.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import signal
import socket
import time
from collections import Counter
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, cast

SPAWN = multiprocessing.get_context("spawn")
Address = tuple[str, int]


class WhoAmI(asyncio.Protocol):
    """Answers each line with the number of its process."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.answer = b"%d\n" % os.getpid()

    def data_received(self, data: bytes) -> None:
        self.transport.write(self.answer * data.count(b"\n"))


async def serve(address: Address, ready: Connection) -> None:
    """The life of a worker."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # Ctrl-C is the parent's
    parent = multiprocessing.parent_process()
    assert parent is not None
    loop.add_reader(parent.sentinel, stop.set)  # it may be killed
    server = await loop.create_server(WhoAmI, *address, reuse_port=True)
    ready.send(os.getpid())
    ready.close()
    await stop.wait()
    loop.remove_reader(parent.sentinel)
    server.close()


def worker(loop_class: Any, address: Address, ready: Connection) -> None:
    with asyncio.Runner(loop_factory=loop_class) as runner:
        runner.run(serve(address, ready))


async def ended(process: SpawnProcess) -> None:
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(process.sentinel, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(process.sentinel)


async def keep(address: Address, serving: asyncio.Queue[int]) -> None:
    """A worker, and a new one whenever it ends; on cancellation it is ended."""
    loop_class = type(asyncio.get_running_loop())
    while True:
        ours, theirs = SPAWN.Pipe(duplex=False)
        process = SPAWN.Process(target=worker, args=(loop_class, address, theirs))
        with ours:
            with theirs:
                process.start()
            try:
                # EOFError if it does not come up: then no other will either.
                serving.put_nowait(await asyncio.to_thread(ours.recv))
                await ended(process)
            finally:
                process.terminate()
                await asyncio.to_thread(process.join)


async def ask(address: Address, count: int) -> Counter[int]:
    """Who answered how often, over one connection."""
    reader, writer = await asyncio.open_connection(*address)
    who: Counter[int] = Counter()
    for _ in range(count):
        writer.write(b"who?\n")
        who[int(await reader.readuntil())] += 1
    writer.close()
    await writer.wait_closed()
    return who


async def ask_all(address: Address, clients: int, count: int) -> Counter[int]:
    answers = await asyncio.gather(*(ask(address, count) for _ in range(clients)))
    return sum(answers, Counter())


async def try_out(
    address: Address, serving: asyncio.Queue[int], options: argparse.Namespace
) -> None:
    pids = {await serving.get() for _ in range(options.workers)}
    started = time.perf_counter()
    who = await ask_all(address, options.clients, options.count)
    elapsed = time.perf_counter() - started
    print(f"{who.total()} answers by {len(who)} workers, all ours: {set(who) == pids}")
    os.kill(pids.pop(), signal.SIGKILL)
    pids.add(await serving.get())
    who = await ask_all(address, 50, 1)
    print(f"after one was killed: {len(who)} workers, all ours: {set(who) == pids}")
    print(f"{options.clients * options.count / elapsed:,.0f} requests/s")


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", metavar="HOST:PORT")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--count", type=int, default=500, help="requests of each")
    options = parser.parse_args()
    host, _, port = (options.serve or "127.0.0.1:0").rpartition(":")
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((host, int(port)))
        address = holder.getsockname()
        serving: asyncio.Queue[int] = asyncio.Queue()
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(keep(address, serving))
                for _ in range(options.workers)
            ]
            if options.serve:
                stop = asyncio.Event()
                for number in (signal.SIGINT, signal.SIGTERM):
                    asyncio.get_running_loop().add_signal_handler(number, stop.set)
                for _ in tasks:
                    await serving.get()
                print("serving on", *address, flush=True)
                await stop.wait()
            else:
                await try_out(address, serving, options)
            for task in tasks:
                task.cancel()


if __name__ == "__main__":
    asyncio.run(main())

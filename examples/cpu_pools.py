"""CPU work in processes, blocking calls in threads, and how to stop both.

Plain asyncio code: nothing here knows which event loop runs it.

    python examples/cpu_pools.py                               asyncio's loop
    python examples/run_with.py hotloop examples/cpu_pools.py

Pure Python that computes holds the interpreter: it goes to a pool of processes. Calls
that wait, or let others run meanwhile (files, hashlib, zlib), go to threads. Work that
runs already cannot be cancelled from outside: it must look at a flag now and then,
which the task that waits for it sets when it is cancelled.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import multiprocessing
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Event

stop_processes: Event  # set up in each process of the pool


def begin_process(stop: Event) -> None:
    global stop_processes
    stop_processes = stop


def count_primes(start: int, end: int) -> int:
    """Runs in a process. Stops early when it is told to."""
    count = 0
    for number in range(max(start, 2), end):
        if number % 1000 == 0 and stop_processes.is_set():
            break
        count += all(number % n for n in range(2, int(number**0.5) + 1))
    return count


async def count_in_processes(pool: ProcessPoolExecutor, end: int, size: int) -> int:
    """Chunks large enough to be worth the way there and back."""
    loop = asyncio.get_running_loop()
    chunks = [(at, min(at + size, end)) for at in range(0, end, size)]
    counts = (loop.run_in_executor(pool, count_primes, *chunk) for chunk in chunks)
    return sum(await asyncio.gather(*counts))


def digest_until(stop: threading.Event) -> int:
    """Runs in a thread: work without an end. Returns the number of rounds."""
    rounds = 0
    data = bytes(100_000)
    while True:
        data = hashlib.sha512(data).digest() * 1000
        rounds += 1
        if stop.is_set():
            return rounds


async def digest_for(seconds: float) -> int:
    """Stops its thread, and waits for it, before a cancellation goes on."""
    stop = threading.Event()
    thread = asyncio.create_task(asyncio.to_thread(digest_until, stop))
    try:
        await asyncio.sleep(seconds)
    finally:
        stop.set()
        await asyncio.wait([thread])  # unlike `await thread`, does not cancel it
    return thread.result()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=20_000, help="calls in threads")
    parser.add_argument("--end", type=int, default=100_000, help="primes up to this")
    options = parser.parse_args()

    # Not "fork": a copy of a process with threads and a running loop is no use.
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(2, context, begin_process, (stop,))
    try:
        size = options.end // 10
        primes = await count_in_processes(pool, options.end, size)
        print(f"{primes} primes below {options.end}")
        long = asyncio.create_task(count_in_processes(pool, 10**9, 10**8))
        await asyncio.sleep(0.05)
        long.cancel()  # cancels what has not begun; the flag stops what has
        await asyncio.wait([long])
        stop.set()
        print(f"the endless count: cancelled={long.cancelled()}")
    finally:
        # It waits for processes to end: in a thread, as all that waits.
        await asyncio.to_thread(pool.shutdown, cancel_futures=True)

    print("rounds in a thread:", await digest_for(0.01) > 0)
    waiting = asyncio.create_task(digest_for(3600))
    await asyncio.sleep(0.05)
    waiting.cancel()
    await asyncio.wait([waiting])
    print(f"the endless thread: cancelled={waiting.cancelled()}")

    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    for at in range(0, options.count, 100):
        calls = (loop.run_in_executor(None, abs, -n) for n in range(at, at + 100))
        assert sum(await asyncio.gather(*calls)) == sum(range(at, at + 100))
    elapsed = time.perf_counter() - started
    print(f"{options.count / elapsed:,.0f} calls/s")


if __name__ == "__main__":
    asyncio.run(main())

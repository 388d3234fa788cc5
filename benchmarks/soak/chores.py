"""What a loop does beside its connections: timers, tasks, threads, children."""

from __future__ import annotations

import asyncio
import contextlib
import random
import zlib

from .wire import Account, some_bytes

TICK = 0.05
TIMERS = 20
TIMER_SECONDS = 3.0
TASKS = 5
CALL_SECONDS = 0.5
CHILD_SECONDS = 5.0
CHILD_BYTES = 64 * 1024


async def timers(account: Account) -> None:
    """Start timers, and cancel most of them before they are due."""
    loop = asyncio.get_running_loop()
    pending: list[asyncio.TimerHandle] = []

    def cancel(number: int) -> None:
        """Cancel all but so many of those that are not due yet."""
        nonlocal pending
        now = loop.time()
        pending = [handle for handle in pending if handle.when() > now]
        random.shuffle(pending)
        for handle in pending[number:]:
            handle.cancel()
            account.add("timers cancelled")
        del pending[number:]

    try:
        while True:
            for _ in range(TIMERS):
                delay = random.random() * TIMER_SECONDS
                pending.append(loop.call_later(delay, account.add, "timers fired"))
            account.add("timers", TIMERS)
            cancel(TIMERS * 4)
            await asyncio.sleep(TICK)
    finally:
        cancel(0)


async def waiting() -> None:
    """A task that ends by itself, or is cancelled at one of three places."""
    future = asyncio.get_running_loop().create_future()
    await asyncio.sleep(random.random() * TICK)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(random.random() * TICK):
            await future
    await asyncio.gather(*(asyncio.sleep(random.random() * TICK) for _ in "ab"))


async def tasks(account: Account) -> None:
    """Start tasks, and cancel some at random moments."""
    running: set[asyncio.Task[None]] = set()

    def ended(task: asyncio.Task[None]) -> None:
        running.discard(task)
        account.add("tasks cancelled" if task.cancelled() else "tasks done")

    try:
        while True:
            for _ in range(TASKS):
                task = asyncio.create_task(waiting())
                running.add(task)
                task.add_done_callback(ended)
            account.add("tasks", TASKS)
            await asyncio.sleep(random.random() * TICK * 2)
            for task in random.sample(sorted(running, key=id), min(2, len(running))):
                task.cancel()
    finally:
        await asyncio.gather(*running, return_exceptions=True)


async def calls(account: Account) -> None:
    """Have a thread compute something."""
    loop = asyncio.get_running_loop()
    while True:
        data = bytes(some_bytes(4096))
        if await loop.run_in_executor(None, zlib.crc32, data) != zlib.crc32(data):
            account.error("executor", ValueError("another checksum"))
        account.add("executor calls")
        await asyncio.sleep(CALL_SECONDS)


async def children(account: Account) -> None:
    """Start a child that copies, and see that it does."""
    while True:
        data = bytes(some_bytes(CHILD_BYTES))
        child = await asyncio.create_subprocess_exec(
            "cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        try:
            output, _ = await child.communicate(data)
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        if output != data or child.returncode != 0:
            account.error("child", ValueError(f"{len(output)} bytes came back"))
        account.add("children")
        await asyncio.sleep(CHILD_SECONDS)


class Chores:
    """All of these, from `go()` to `stop()`."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.running: list[asyncio.Task[None]] = []

    def go(self) -> None:
        kinds = (timers, tasks, calls, children)
        self.running = [asyncio.create_task(kind(self.account)) for kind in kinds]

    async def stop(self) -> None:
        """Stop, and let what is due happen."""
        for task in self.running:
            task.cancel()
        for result in await asyncio.gather(*self.running, return_exceptions=True):
            if isinstance(result, Exception):
                self.account.error("chores", result)
        self.running = []
        await asyncio.sleep(2 * TICK)

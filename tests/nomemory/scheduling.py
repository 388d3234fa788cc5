"""Calls, timers, tasks, futures, threads and processes."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import signal
import socket
import threading
from collections.abc import Generator
from typing import Any

import support

from .common import scenario

VARIABLE: contextvars.ContextVar[int] = contextvars.ContextVar("VARIABLE")


@scenario
def create_and_close(faults: Any) -> None:
    with faults:
        loop = faults.new_loop()
        loop.close()


@scenario
def run_once(faults: Any) -> None:
    async def main() -> None:
        await asyncio.sleep(0)

    with faults:
        loop = faults.new_loop()
        coroutine = main()
        try:
            loop.run_until_complete(coroutine)
        finally:
            coroutine.close()
            loop.close()


@scenario
def runner(faults: Any) -> None:
    import hotloop

    async def main() -> None:
        faults.watch(asyncio.get_running_loop())
        await asyncio.sleep(0)
        await asyncio.to_thread(int)

    coroutine = main()
    try:
        with faults:
            hotloop.run(coroutine)
    finally:
        coroutine.close()


@scenario
async def call_soon(faults: Any) -> None:
    loop = asyncio.get_running_loop()
    called: list[int] = []
    with faults:
        for number in range(20):
            loop.call_soon(called.append, number)
        loop.call_soon(called.append, 20).cancel()
        context = contextvars.copy_context()
        context.run(VARIABLE.set, 1)
        loop.call_soon(called.append, 21, context=context)
        repr(loop.call_soon(called.append, 22))
        await asyncio.sleep(0)
    if called != [*range(20), 21, 22]:
        raise ValueError(called)


@scenario
async def many_calls(faults: Any) -> None:
    """So many that the ring and the heap have to grow."""
    loop = asyncio.get_running_loop()
    called: list[int] = []
    keep = [loop.call_soon(called.append, 0) for _ in range(60)]
    with faults:
        keep += [loop.call_soon(called.append, 0) for _ in range(20)]
        keep += [loop.call_later(0.0001 * (n % 7), called.append, 0) for n in range(40)]
        await asyncio.sleep(0.002)
    if len(called) != 120:
        raise ValueError(len(called))


@scenario
async def timers(faults: Any) -> None:
    loop = asyncio.get_running_loop()
    called: list[int] = []
    with faults:
        loop.call_later(0, called.append, 0)
        loop.call_at(loop.time() + 0.0002, called.append, 1)
        loop.call_at(loop.time() + 0.0001, called.append, 1)
        handle = loop.call_later(100, called.append, 2)
        repr(handle)
        handle.when()
        handle.cancel()
        await asyncio.sleep(0.001)
    if sorted(called) != [0, 1, 1]:
        raise ValueError(called)


@scenario
async def cancelled_timers(faults: Any) -> None:
    """More than half of them, so that they are swept out."""
    loop = asyncio.get_running_loop()
    handles = [loop.call_later(100, int) for _ in range(210)]
    with faults:
        for handle in handles[:150]:
            handle.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0.0001)
    for handle in handles:
        handle.cancel()


@scenario
async def threadsafe(faults: Any) -> None:
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def work() -> None:
        try:
            for _ in range(3):
                loop.call_soon_threadsafe(int)
            loop.call_soon_threadsafe(done.set_result, None)
        except BaseException as error:
            faults.notes.add(error)

    thread = threading.Thread(target=work)
    with faults:
        thread.start()
        await done
    thread.join()


@scenario
async def tasks(faults: Any) -> None:
    async def child(number: int) -> int:
        await asyncio.sleep(0)
        return number

    loop = asyncio.get_running_loop()
    coroutines = [child(number) for number in range(6)]
    try:
        with faults:
            first = loop.create_task(coroutines[0])
            second = asyncio.create_task(coroutines[1], name="second")
            third = asyncio.ensure_future(coroutines[2])
            context = contextvars.copy_context()
            fourth = loop.create_task(coroutines[3], context=context)
            repr(first)
            asyncio.all_tasks()
            asyncio.current_task()
            second.set_name("other")
            for task in (first, second, third, fourth):
                await task
            first.get_stack()
            await coroutines[4]
    finally:
        for coroutine in coroutines:
            coroutine.close()


@scenario
async def task_endings(faults: Any) -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise KeyError("wanted")

    async def waits() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)

    loop = asyncio.get_running_loop()
    coroutines = [fails(), waits(), waits()]
    with faults:
        made = [loop.create_task(coroutine) for coroutine in coroutines]
        await asyncio.sleep(0)
        made[1].cancel("because")
        made[2].cancel()
        await asyncio.wait(made)
        for task in made:
            if not task.cancelled():
                task.exception()
        with contextlib.suppress(KeyError):
            await made[0]
        with contextlib.suppress(asyncio.CancelledError):
            await made[1]


@scenario
async def together(faults: Any) -> None:
    async def child(number: int) -> int:
        await asyncio.sleep(0.0001 * number)
        return number

    # No TaskGroup: asyncio's own counts a task before it asks to hear of its end,
    # and waits for ever where that fails.
    with faults:
        await asyncio.gather(*(child(number) for number in range(4)))
        await asyncio.wait_for(child(1), 5)
        async with asyncio.timeout(5):
            await child(1)
        for future in asyncio.as_completed([child(1), child(0)]):
            await future
        await asyncio.shield(child(0))


@scenario
async def futures(faults: Any) -> None:
    loop = asyncio.get_running_loop()
    called: list[Any] = []

    def first(future: Any) -> None:
        called.append(1)

    async def waiter(future: Any) -> Any:
        return await future

    with faults:
        future = loop.create_future()
        future.add_done_callback(first)
        future.add_done_callback(called.append)
        future.add_done_callback(called.append, context=contextvars.copy_context())
        future.remove_done_callback(first)
        waiters = [loop.create_task(waiter(future)) for _ in range(3)]
        await asyncio.sleep(0)
        repr(future)
        future.set_result(1)
        for task in waiters:
            await task
        failed = loop.create_future()
        failed.set_exception(KeyError("wanted"))
        with contextlib.suppress(KeyError):
            await failed
        gone = loop.create_future()
        gone.cancel("because")
        with contextlib.suppress(asyncio.CancelledError):
            await gone
        unread = loop.create_future()
        unread.set_exception(MemoryError("wanted"))
        del unread
    if len(called) != 2:
        raise ValueError(called)


@scenario
async def foreign_awaitables(faults: Any) -> None:
    class Mine:
        def __await__(self) -> Generator[Any, Any, int]:
            yield None
            return 1

    async def use() -> None:
        await Mine()
        stock: asyncio.Future[None] = asyncio.Future(loop=loop)
        loop.call_soon(stock.set_result, None)
        await stock
        with contextlib.suppress(RuntimeError):
            await asyncio.current_task()  # type: ignore[misc]

    loop = asyncio.get_running_loop()
    task = loop.create_task(use())
    with faults:
        await task


@scenario
async def errors_reported(faults: Any) -> None:
    loop = asyncio.get_running_loop()

    def fail() -> None:
        raise MemoryError("wanted")

    with faults:
        loop.call_soon(fail)
        loop.call_exception_handler({"message": "MemoryError wanted"})
        await asyncio.sleep(0)
        await asyncio.sleep(0)


@scenario
async def debug_mode(faults: Any) -> None:
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 100
    try:
        with faults:
            loop.call_soon(int)
            loop.call_later(0.0001, int)
            await asyncio.create_task(asyncio.sleep(0.0002))
            loop.call_soon_threadsafe(int)
            await asyncio.sleep(0)
    finally:
        loop.set_debug(False)


@scenario
async def names(faults: Any) -> None:
    loop = asyncio.get_running_loop()
    with faults:
        await loop.getaddrinfo("127.0.0.1", 80)
        await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
        await loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST)
        future = loop.getaddrinfo("localhost", "http")
        with contextlib.suppress(socket.gaierror):
            await future


@scenario
async def executor(faults: Any) -> None:
    loop = asyncio.get_running_loop()

    def fails() -> None:
        raise KeyError("wanted")

    await loop.run_in_executor(None, int)
    with faults:
        await loop.run_in_executor(None, int, "7")
        with contextlib.suppress(KeyError):
            await loop.run_in_executor(None, fails)
        await asyncio.to_thread(int)
        future = loop.run_in_executor(None, int)
        future.cancel()
        await asyncio.wait([future])


@scenario
async def signals(faults: Any) -> None:
    loop = asyncio.get_running_loop()
    got = loop.create_future()
    try:
        with faults:
            loop.add_signal_handler(signal.SIGUSR1, got.set_result, None)
            os.kill(os.getpid(), signal.SIGUSR1)
            await got
    finally:
        loop.remove_signal_handler(signal.SIGUSR1)


@scenario
async def children(faults: Any) -> None:
    process = None
    try:
        with faults:
            process = await asyncio.create_subprocess_exec(
                "/bin/cat",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            await process.communicate(b"x" * 1000)
    finally:
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            process._transport.close()  # type: ignore[attr-defined]
            await support.turns(3)

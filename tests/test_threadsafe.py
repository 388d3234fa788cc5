"""Calls into the loop from other threads."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import threading
import time
from typing import Any

import pytest

from support import PY

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("VAR", default="-")


def in_thread(*targets: Any) -> None:
    """Run every target in its own thread, and wait for all."""
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_handle_type(loop: Any) -> None:
    seen: list[int] = []
    handle = loop.call_soon_threadsafe(seen.append, 1)
    assert isinstance(handle, asyncio.Handle)
    assert not handle.cancelled()
    other = loop.call_soon_threadsafe(seen.append, 2)
    other.cancel()
    assert other.cancelled()
    loop.call_soon_threadsafe(loop.stop)
    loop.run_forever()
    assert seen == [1]


def test_queued_before_the_loop_runs_keeps_order(loop: Any) -> None:
    seen: list[int] = []
    loop.call_soon(seen.append, 1)
    loop.call_soon_threadsafe(seen.append, 2)
    loop.call_soon(seen.append, 3)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == [1, 2, 3]


def test_wakes_a_parked_loop(loop: Any) -> None:
    seen: list[float] = []

    def poke() -> None:
        time.sleep(0.05)
        sent = time.monotonic()
        loop.call_soon_threadsafe(lambda: seen.append(time.monotonic() - sent))
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=poke)
    thread.start()
    loop.run_forever()
    thread.join()
    assert len(seen) == 1 and 0 <= seen[0] < 5


def test_wakes_a_loop_that_waits_for_a_timer(loop: Any) -> None:
    handle = loop.call_later(3600, loop.stop)
    thread = threading.Timer(0.02, loop.call_soon_threadsafe, [loop.stop])
    thread.start()
    loop.run_forever()
    thread.join()
    handle.cancel()


def test_wakes_again_and_again(loop: Any) -> None:
    rounds = 500
    done = threading.Semaphore(0)
    count = 0

    def bump() -> None:
        nonlocal count
        count += 1
        done.release()

    def poke() -> None:
        for _ in range(rounds):
            loop.call_soon_threadsafe(bump)
            assert done.acquire(timeout=30)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=poke)
    thread.start()
    loop.run_forever()
    thread.join()
    assert count == rounds


def test_many_threads_keep_their_own_order(loop: Any) -> None:
    threads, each = 8, 2000
    seen: list[tuple[int, int]] = []
    left = threads

    def finished() -> None:
        nonlocal left
        left -= 1
        if not left:
            loop.stop()

    def feed(name: int) -> None:
        for number in range(each):
            loop.call_soon_threadsafe(seen.append, (name, number))
        loop.call_soon_threadsafe(finished)

    workers = [threading.Thread(target=feed, args=(n,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    loop.run_forever()
    for worker in workers:
        worker.join()
    assert len(seen) == threads * each
    for name in range(threads):
        assert [n for who, n in seen if who == name] == list(range(each))


def test_while_the_loop_is_busy(loop: Any) -> None:
    seen: list[int] = []
    stop = False

    def busy() -> None:
        if not stop:
            loop.call_soon(busy)
        else:
            loop.stop()

    def feed() -> None:
        nonlocal stop
        for number in range(3000):
            loop.call_soon_threadsafe(seen.append, number)
        while len(seen) < 3000:
            time.sleep(0.001)
        stop = True

    thread = threading.Thread(target=feed)
    thread.start()
    loop.call_soon(busy)
    loop.run_forever()
    thread.join()
    assert seen == list(range(3000))


def test_context_is_the_callers(loop: Any) -> None:
    seen: list[str] = []
    given = contextvars.copy_context()
    given.run(VAR.set, "given")

    def feed() -> None:
        VAR.set("thread")
        loop.call_soon_threadsafe(lambda: seen.append(VAR.get()))
        loop.call_soon_threadsafe(lambda: seen.append(VAR.get()), context=given)
        loop.call_soon_threadsafe(loop.stop)

    in_thread(feed)
    loop.run_forever()
    assert seen == ["thread", "given"]


def test_closed_loop(loop: Any) -> None:
    loop.close()
    errors: list[str] = []

    def feed() -> None:
        try:
            loop.call_soon_threadsafe(print)
        except RuntimeError as error:
            errors.append(str(error))

    in_thread(feed)
    assert errors == ["Event loop is closed"]


def test_closing_against_a_feeding_thread(new_loop: Any) -> None:
    for _ in range(20):
        loop = new_loop()
        started = threading.Event()
        errors: list[str] = []

        def feed(loop: Any, started: Any, errors: list[str]) -> None:
            try:
                while True:
                    loop.call_soon_threadsafe(int)
                    started.set()
            except RuntimeError as error:
                errors.append(str(error))

        thread = threading.Thread(target=feed, args=(loop, started, errors))
        thread.start()
        assert started.wait(10)
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
        thread.join()
        assert errors == ["Event loop is closed"]


def test_exception_in_the_callback(loop: Any, reports: Any) -> None:
    in_thread(lambda: loop.call_soon_threadsafe(lambda: 1 / 0))
    loop.call_soon(loop.stop)
    loop.run_forever()
    report = reports.one()
    assert isinstance(report["exception"], ZeroDivisionError)
    assert report["message"].startswith("Exception in callback ")


def test_cancel_from_another_thread(loop: Any) -> None:
    seen: list[int] = []
    handles = [loop.call_soon_threadsafe(seen.append, n) for n in range(10)]
    in_thread(*[handle.cancel for handle in handles[5:]])
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == [0, 1, 2, 3, 4]


@pytest.mark.skipif(PY < (3, 14), reason="_ThreadSafeHandle came with 3.14")
def test_cancel_waits_for_a_started_callback(loop: Any) -> None:
    started, seen = threading.Event(), []

    def slow() -> None:
        started.set()
        time.sleep(0.05)
        seen.append("callback")
        loop.stop()

    handle = loop.call_soon_threadsafe(slow)

    def cancel() -> None:
        assert started.wait(10)
        handle.cancel()
        seen.append("cancelled")

    thread = threading.Thread(target=cancel)
    thread.start()
    loop.run_forever()
    thread.join()
    assert seen == ["callback", "cancelled"]


async def test_run_coroutine_threadsafe(loop: Any) -> None:
    async def work(value: int) -> int:
        await asyncio.sleep(0.001)
        assert asyncio.get_running_loop() is loop
        return value * 2

    def call() -> int:
        future = asyncio.run_coroutine_threadsafe(work(21), loop)
        assert isinstance(future, concurrent.futures.Future)
        return future.result(timeout=10)

    assert await asyncio.to_thread(call) == 42


async def test_run_coroutine_threadsafe_errors(loop: Any) -> None:
    async def fail() -> None:
        raise KeyError("inside")

    def call() -> None:
        asyncio.run_coroutine_threadsafe(fail(), loop).result(timeout=10)

    with pytest.raises(KeyError, match="inside"):
        await asyncio.to_thread(call)


async def test_run_coroutine_threadsafe_cancel(loop: Any) -> None:
    cancelled: list[bool] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    def call() -> None:
        future = asyncio.run_coroutine_threadsafe(wait(), loop)
        with pytest.raises(concurrent.futures.TimeoutError):
            future.result(timeout=0.05)
        future.cancel()

    await asyncio.to_thread(call)
    while not cancelled:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0)


async def test_wrap_future_between_threads(loop: Any) -> None:
    outside: Any = concurrent.futures.Future()
    wrapped = asyncio.wrap_future(outside)
    threading.Timer(0.01, outside.set_result, ["done"]).start()
    assert await wrapped == "done"


@pytest.mark.parametrize("name", ["call_soon", "call_later", "call_at"])
async def test_debug_mode_refuses_other_threads(loop: Any, name: str) -> None:
    loop.set_debug(True)
    loop.slow_callback_duration = 100
    args = (print,) if name == "call_soon" else (1, print)
    with pytest.raises(RuntimeError) as caught:
        await asyncio.to_thread(lambda: getattr(loop, name)(*args))
    assert str(caught.value) == (
        "Non-thread-safe operation invoked on an event loop other than the current one"
    )


async def test_without_debug_it_is_not_checked(loop: Any) -> None:
    seen: list[int] = []
    await asyncio.to_thread(loop.call_soon, seen.append, 1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert seen == [1]


def test_loops_in_threads(new_loop: Any) -> None:
    results: list[int] = []

    def work(number: int) -> None:
        loop = new_loop()

        async def main() -> int:
            await asyncio.sleep(0.01)
            return await loop.run_in_executor(None, lambda: number)

        results.append(loop.run_until_complete(main()))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    in_thread(*[lambda n=n: work(n) for n in range(8)])
    assert sorted(results) == list(range(8))


def test_loops_that_talk_to_each_other(new_loop: Any) -> None:
    first, second = new_loop(), new_loop()
    thread = threading.Thread(target=second.run_forever)
    thread.start()

    async def there(number: int) -> int:
        await asyncio.sleep(0)
        return number + 1

    async def main() -> int:
        number = 0
        for _ in range(200):
            future = asyncio.run_coroutine_threadsafe(there(number), second)
            number = await asyncio.wrap_future(future)
        return number

    assert first.run_until_complete(main()) == 200
    second.call_soon_threadsafe(second.stop)
    thread.join()
    first.close()
    second.close()


def test_created_here_run_there(new_loop: Any) -> None:
    loop = new_loop()
    seen: list[int] = []
    loop.call_soon(lambda: seen.append(threading.get_ident()))
    loop.call_soon(loop.stop)
    in_thread(loop.run_forever)
    assert seen and seen[0] != threading.get_ident()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()

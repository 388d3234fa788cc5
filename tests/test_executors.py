"""run_in_executor(), asyncio.to_thread() and the executors behind them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import multiprocessing.resource_tracker
import os
import threading
import time
import weakref
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest

from hotloop._release import CHAINS_BY_THREAD
from support import turns

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("VAR", default="-")


class Inline(concurrent.futures.Executor):
    """Runs the function at once, in the caller's thread."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        future.set_result(fn(*args, **kwargs))
        return future


class Held(concurrent.futures.Executor):
    """Hands its futures to the test."""

    def __init__(self) -> None:
        self.futures: list[concurrent.futures.Future[Any]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.futures.append(concurrent.futures.Future())
        return self.futures[-1]


class Gate:
    """Keeps the only thread of a pool busy until it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> None:
        self.entered.set()
        assert self.opened.wait(10)


def fail(exc: BaseException) -> None:
    raise exc


async def test_result_and_arguments(loop: Any) -> None:
    assert await loop.run_in_executor(None, divmod, 17, 5) == (3, 2)
    assert await loop.run_in_executor(None, threading.get_ident) != (
        threading.get_ident()
    )


async def test_name_of_the_threads(loop: Any) -> None:
    name = await loop.run_in_executor(None, lambda: threading.current_thread().name)
    assert name == "asyncio_0"
    with ThreadPoolExecutor(1, "mine") as pool:
        name = await loop.run_in_executor(pool, lambda: threading.current_thread().name)
    assert name == "mine_0"


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
async def test_exception(loop: Any, kind: Any) -> None:
    exc = kind("text")
    for _ in range(2):  # the first call also makes the pool
        with pytest.raises(kind) as caught:
            await loop.run_in_executor(None, fail, exc)
        assert caught.value is exc
    names = [entry.name for entry in caught.traceback]
    assert "fail" in names


async def test_stop_iteration(loop: Any, reports: Any) -> None:
    await loop.run_in_executor(None, int)
    future = loop.run_in_executor(None, fail, StopIteration(1))
    await asyncio.wait([future], timeout=0.5)
    if future.done():
        assert reports.take() == []
        with pytest.raises(RuntimeError, match="StopIteration interacts badly"):
            await future
    else:  # early 3.11 and 3.12 refuse it
        (report,) = reports.take()
        assert isinstance(report["exception"], TypeError)
        future.cancel()


async def test_cancelled_error_of_a_function(loop: Any) -> None:
    await loop.run_in_executor(None, int)
    with pytest.raises(asyncio.CancelledError, match="text"):
        await loop.run_in_executor(
            None, fail, concurrent.futures.CancelledError("text")
        )


async def test_many_at_once(loop: Any) -> None:
    results = await asyncio.gather(
        *(loop.run_in_executor(None, lambda n=n: n * n) for n in range(500))
    )
    assert results == [n * n for n in range(500)]


async def test_to_thread_takes_the_context(loop: Any) -> None:
    VAR.set("caller")

    def work(text: str, *, end: str) -> str:
        seen = VAR.get()
        VAR.set("thread")
        return seen + text + end

    assert await asyncio.to_thread(work, "-", end="!") == "caller-!"
    assert VAR.get() == "caller"


async def test_plain_call_has_the_thread_s_context(loop: Any) -> None:
    VAR.set("caller")
    assert await loop.run_in_executor(None, VAR.get) == "-"


async def test_cancel_before_the_start(loop: Any) -> None:
    ran = []
    gate = Gate()
    with ThreadPoolExecutor(1) as pool:
        first = loop.run_in_executor(pool, gate)
        await asyncio.to_thread(gate.entered.wait, 10)
        second = loop.run_in_executor(pool, ran.append, 2)
        third = loop.run_in_executor(pool, ran.append, 3)
        assert second.cancel("message")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gate.opened.set()
        await first
        await third
        with pytest.raises(asyncio.CancelledError, match="message"):
            await second
    assert ran == [3]


async def test_cancel_while_it_runs(loop: Any) -> None:
    gate = Gate()
    with ThreadPoolExecutor(1) as pool:
        task = loop.create_task(self_cancelled(loop, pool, gate))
        await asyncio.to_thread(gate.entered.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.opened.set()
        assert await loop.run_in_executor(pool, int) == 0


async def self_cancelled(loop: Any, pool: Any, gate: Gate) -> None:
    await loop.run_in_executor(pool, gate)


async def test_timeout(loop: Any) -> None:
    gate = Gate()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(loop.run_in_executor(None, gate), 0.01)
    gate.opened.set()


async def test_shutdown_that_cancels(loop: Any) -> None:
    gate = Gate()
    pool = ThreadPoolExecutor(1)
    first = loop.run_in_executor(pool, gate)
    await asyncio.to_thread(gate.entered.wait, 10)
    second = loop.run_in_executor(pool, int)
    pool.shutdown(wait=False, cancel_futures=True)
    gate.opened.set()
    await first
    with pytest.raises(asyncio.CancelledError):
        await second
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shut"):
        loop.run_in_executor(pool, int)
    pool.shutdown()


async def test_broken_pool(loop: Any, caplog: Any) -> None:
    gate = Gate()

    def initializer() -> None:
        gate()
        raise ZeroDivisionError

    pool = ThreadPoolExecutor(1, initializer=initializer)
    waiting = [loop.run_in_executor(pool, int) for _ in range(3)]
    gate.opened.set()
    for future in waiting:
        with pytest.raises(concurrent.futures.BrokenExecutor, match="initializer"):
            await future
    with pytest.raises(concurrent.futures.BrokenExecutor):
        loop.run_in_executor(pool, int)
    pool.shutdown()


async def test_default_executor(loop: Any) -> None:
    with ThreadPoolExecutor(1, "chosen") as pool:
        loop.set_default_executor(pool)
        names = {
            await loop.run_in_executor(None, lambda: threading.current_thread().name),
            await asyncio.to_thread(lambda: threading.current_thread().name),
        }
    assert names == {"chosen_0"}


def test_refusals(new_loop: Any) -> None:
    loop = new_loop()

    async def main() -> None:
        await loop.run_in_executor(None, int)
        await loop.shutdown_default_executor()
        with pytest.raises(RuntimeError, match="Executor shutdown has been called"):
            loop.run_in_executor(None, int)

    loop.run_until_complete(main())
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.run_in_executor(None, int)
    with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError):
        loop.run_in_executor(pool, int)


def test_shutdown_waits_for_the_work(new_loop: Any) -> None:
    loop = new_loop()
    done = []

    def work() -> None:
        time.sleep(0.05)
        done.append(True)

    async def main() -> None:
        await loop.run_in_executor(None, int)
        loop.run_in_executor(None, work)
        await loop.shutdown_default_executor()
        assert done

    loop.run_until_complete(main())
    loop.close()


def test_end_of_the_loop_before_that_of_the_work(new_loop: Any) -> None:
    loop = new_loop()
    gate = Gate()
    pool = ThreadPoolExecutor(1)

    async def main() -> None:
        loop.run_in_executor(pool, gate)
        await asyncio.to_thread(gate.entered.wait, 10)
        await loop.shutdown_default_executor()

    loop.run_until_complete(main())
    loop.close()
    gate.opened.set()
    pool.shutdown()


@pytest.fixture(scope="session")
def resource_tracker() -> None:
    """Its pipe stays open for good, so not within one test."""
    multiprocessing.resource_tracker.ensure_running()


async def test_process_pool(resource_tracker: None, loop: Any) -> None:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as pool:
        pid = await loop.run_in_executor(pool, os.getpid)
        assert pid != os.getpid()
        with pytest.raises(ValueError, match="invalid literal"):
            await loop.run_in_executor(pool, int, "x")


async def test_executor_of_another_kind(loop: Any) -> None:
    assert await loop.run_in_executor(Inline(), int, "7") == 7
    held = Held()
    futures = [loop.run_in_executor(held, int) for _ in range(4)]
    held.futures[0].set_result("a")
    held.futures[1].set_exception(KeyError("b"))
    held.futures[2].cancel()
    assert futures[3].cancel()
    results = await asyncio.gather(*futures, return_exceptions=True)
    await asyncio.sleep(0)
    assert results[0] == "a"
    assert isinstance(results[1], KeyError)
    assert isinstance(results[2], asyncio.CancelledError)
    assert isinstance(results[3], asyncio.CancelledError)
    assert held.futures[3].cancelled()


async def test_when_an_outcome_of_this_thread_is_seen(loop: Any) -> None:
    held = Held()
    future = loop.run_in_executor(held, int)
    held.futures[0].set_result(None)
    at_once = future.done()
    await future
    assert at_once == CHAINS_BY_THREAD
    already = loop.run_in_executor(Inline(), int)
    assert already.done() == CHAINS_BY_THREAD
    await already


async def test_result_that_comes_after_a_cancel(loop: Any) -> None:
    held = Held()
    future = loop.run_in_executor(held, int)
    held.futures[0].set_running_or_notify_cancel()
    future.cancel()
    await asyncio.sleep(0)
    held.futures[0].set_result("late")
    await asyncio.sleep(0)
    assert future.cancelled()


async def test_executor_that_returns_something_else(loop: Any) -> None:
    class Odd(concurrent.futures.Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            return fn()

    mine = loop.create_future()
    assert loop.run_in_executor(Odd(), lambda: mine) is mine
    with pytest.raises(AssertionError, match="Future is expected"):
        loop.run_in_executor(Odd(), int)
    with pytest.raises(AttributeError):
        loop.run_in_executor(object(), int)


async def test_replaced_submit_is_asked(loop: Any, monkeypatch: Any) -> None:
    seen = []
    submit = ThreadPoolExecutor.submit

    def replacement(self: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        seen.append(fn)
        return submit(self, fn, *args, **kwargs)

    with ThreadPoolExecutor(1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(ThreadPoolExecutor, "submit", replacement)
            await loop.run_in_executor(pool, int)
        await loop.run_in_executor(pool, str)
        pool.submit = lambda fn: (seen.append(fn), submit(pool, fn))[1]  # type: ignore
        await loop.run_in_executor(pool, bytes)
    assert seen == [int, bytes]


async def test_a_wrapper_of_submit_is_asked(loop: Any, monkeypatch: Any) -> None:
    """Tracing tools wrap it in a proxy that has all attributes of the original."""
    seen = []

    class Bound:
        def __init__(self, method: Any) -> None:
            self.method = method

        def __getattr__(self, name: str) -> Any:
            return getattr(self.method, name)

        def __call__(self, *args: Any) -> Any:
            seen.append(args)
            return self.method(*args)

    class Wrapper:
        def __init__(self, function: Any) -> None:
            self.function = function

        def __get__(self, pool: Any, owner: Any = None) -> Any:
            return Bound(self.function.__get__(pool, owner))

    with ThreadPoolExecutor(1) as pool:
        wrapper = Wrapper(ThreadPoolExecutor.submit)
        monkeypatch.setattr(ThreadPoolExecutor, "submit", wrapper)
        assert await loop.run_in_executor(pool, int, "7") == 7
    assert seen == [(int, "7")]


async def test_subclass_of_a_thread_pool(loop: Any) -> None:
    class Counting(ThreadPoolExecutor):
        calls = 0

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return super().submit(fn, *args, **kwargs)

    with Counting(1) as pool:
        assert await loop.run_in_executor(pool, int) == 0
        assert pool.calls == 1


async def test_a_pool_that_serves_others_too(loop: Any) -> None:
    with ThreadPoolExecutor(2) as pool:
        plain = [pool.submit(pow, 2, n) for n in range(20)]
        ours = [loop.run_in_executor(pool, pow, 3, n) for n in range(20)]
        assert await asyncio.gather(*ours) == [3**n for n in range(20)]
        assert [future.result() for future in plain] == [2**n for n in range(20)]


async def test_nothing_is_kept(loop: Any) -> None:
    """Function, argument and result die when nobody else has them."""

    class Thing:
        def __call__(self, other: Any) -> Any:
            return Thing()

    await loop.run_in_executor(None, int)
    func, argument = Thing(), Thing()
    result = await loop.run_in_executor(None, func, argument)
    refs = [weakref.ref(thing) for thing in (func, argument, result)]
    del func, argument, result
    deadline = time.monotonic() + 5
    while any(ref() for ref in refs) and time.monotonic() < deadline:
        await asyncio.sleep(0.01)  # the worker still lets go of it
    assert [ref() for ref in refs] == [None] * 3


async def test_cycle_through_the_work_is_collected(loop: Any) -> None:
    held = Held()

    class Node:
        other: Any = None

        def __call__(self) -> None:
            """Not called."""

    node = Node()
    node.other = loop.run_in_executor(held, node)
    held.futures[0].node = node  # type: ignore[attr-defined]
    ref = weakref.ref(node)
    held.futures[0].cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    held.futures.clear()
    del node
    gc.collect()
    assert ref() is None


def test_debug_mode_checks_the_function(new_loop: Any) -> None:
    loop = new_loop()
    loop.set_debug(True)

    async def coroutine() -> None:
        """Not called."""

    with pytest.raises(TypeError, match="coroutines cannot be used"):
        loop.run_in_executor(None, coroutine)
    with pytest.raises(TypeError, match="a callable object was expected"):
        loop.run_in_executor(None, 1)
    assert loop.run_until_complete(loop.run_in_executor(None, int)) == 0
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def test_what_is_no_function_fails_in_the_thread(new_loop: Any) -> None:
    loop = new_loop()
    for _ in range(2):
        with pytest.raises(TypeError, match="'int' object is not callable"):
            loop.run_until_complete(loop.run_in_executor(None, 1))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def test_override_in_a_subclass(loop_kind: str) -> None:
    import support

    base: Any = type(loop := support.loop_factory(loop_kind)())
    loop.close()

    class Mine(base):  # type: ignore[misc]
        sent = 0

        def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> Any:
            self.sent += 1
            return super().call_soon_threadsafe(*args, **kwargs)

    mine = Mine()
    mine.run_until_complete(mine.run_in_executor(None, int))
    assert mine.sent
    mine.run_until_complete(mine.shutdown_default_executor())
    mine.close()


async def test_a_future_that_the_program_settles(
    loop: Any, loop_kind: str, reports: Any
) -> None:
    """The function is called all the same: only cancel() keeps it from that."""
    called: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        gate = threading.Event()
        loop.run_in_executor(pool, gate.wait, 10)
        future = loop.run_in_executor(pool, called.append, 1)
        future.set_result("settled")
        gate.set()
    await turns(3)
    assert called == [1]
    assert await future == "settled"
    if loop_kind == "asyncio":
        reports.clear()  # its own assertion that the future is not done

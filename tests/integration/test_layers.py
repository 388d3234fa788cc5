"""Small libraries on top of asyncio, and hotloop beside other loops."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import aiocache
import aiostream
import async_timeout
import janus
import pytest
import tenacity
from async_lru import alru_cache

from clientpeers import block
from support import loop_factory, run_script, settle, turns, until


async def test_aiostream(loop: Any) -> None:
    """Streams merged, mapped by several tasks at once, cut, and cancelled."""
    begun: list[int] = []
    closed: list[int] = []

    async def numbers(first: int) -> Any:
        begun.append(first)
        try:
            for number in range(first, first + 50):
                await asyncio.sleep(0)
                yield number
        finally:
            closed.append(first)

    running = most = 0

    async def double(number: int, *_: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return number * 2

    merged = aiostream.stream.merge(*(numbers(n * 50) for n in range(8)))
    mapped = aiostream.stream.map(merged, double, task_limit=5, ordered=False)
    async with mapped.stream() as streamer:
        got = sorted([number async for number in streamer])
    assert got == [number * 2 for number in range(400)]
    assert most == 5 and sorted(closed) == [n * 50 for n in range(8)]
    begun.clear()
    closed.clear()
    cut = aiostream.stream.merge(*(numbers(n * 50) for n in range(8)))[:10]
    assert len(await aiostream.stream.list(cut)) == 10
    await until(lambda: begun and sorted(closed) == sorted(begun))

    async def endless() -> None:
        waits = aiostream.stream.repeat(1, interval=0.01)
        async with waits.stream() as streamer:
            async for _ in streamer:
                pass

    task = asyncio.create_task(endless())
    await turns(5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    late = aiostream.stream.timeout(aiostream.stream.never(), 0.01)
    with pytest.raises(asyncio.TimeoutError):
        await late


async def test_tenacity(loop: Any) -> None:
    """Tries again after errors and timeouts, and not after a cancellation."""
    tries = 0

    @tenacity.retry(
        stop=tenacity.stop_after_attempt(5),
        wait=tenacity.wait_exponential(0.001),
        retry=tenacity.retry_if_exception_type((OSError, TimeoutError)),
        reraise=True,
    )
    async def flaky(good: int) -> int:
        nonlocal tries
        tries += 1
        if tries < good:
            async with asyncio.timeout(0.001):
                await asyncio.open_connection("127.0.0.1", 1)
                await asyncio.sleep(10)
        return tries

    assert await flaky(4) == 4
    tries = -10
    with pytest.raises((OSError, TimeoutError)):
        await flaky(4)
    assert tries == -5

    async def forever() -> None:
        async for attempt in tenacity.AsyncRetrying(wait=tenacity.wait_fixed(0.001)):
            with attempt:
                nonlocal tries
                tries += 1
                await asyncio.sleep(0)
                raise LookupError

    tries = 0
    task = asyncio.create_task(forever())
    await until(lambda: tries > 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_async_lru(loop: Any) -> None:
    """One call for a crowd; one of the crowd may leave; errors are not kept."""
    calls = 0
    go_on = asyncio.Event()

    @alru_cache(maxsize=10)
    async def slow(key: int) -> int:
        nonlocal calls
        calls += 1
        await go_on.wait()
        if key == 13:
            raise LookupError(key)
        return key * 2

    tasks = [asyncio.create_task(slow(n % 4)) for n in range(100)]
    await turns(3)
    for task in tasks[::10]:
        task.cancel()
    await turns(3)
    go_on.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for number, result in enumerate(results):
        if number % 10 == 0:
            assert isinstance(result, asyncio.CancelledError)
        else:
            assert result == number % 4 * 2
    assert calls == 4
    for _ in range(2):
        with pytest.raises(LookupError):
            await slow(13)
    assert calls == 6
    await slow.cache_close()


async def test_aiocache(loop: Any) -> None:
    cache = aiocache.SimpleMemoryCache()
    calls = 0

    @aiocache.cached_stampede(lease=5)
    async def slow(key: int) -> int:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.005)
        return key

    assert await asyncio.gather(*(slow(7) for _ in range(50))) == [7] * 50
    assert calls == 1
    await cache.set("short", 1, ttl=0.01)
    assert await cache.get("short") == 1
    # It ends by a timer of the loop.
    await until(lambda: not cache._cache)


async def test_async_timeout(loop: Any) -> None:
    """The one of PyPI, which cancels the task itself."""
    with pytest.raises(asyncio.TimeoutError):
        async with async_timeout.timeout(0.005):
            await asyncio.sleep(10)
    async with async_timeout.timeout(0.001) as limit:
        limit.reject()
        await asyncio.sleep(0.01)

    async def outer() -> str:
        try:
            async with async_timeout.timeout(0.005), async_timeout.timeout(10):
                await asyncio.sleep(20)
        except TimeoutError:
            return "outer"
        return "no"

    assert await asyncio.gather(*(outer() for _ in range(50))) == ["outer"] * 50
    task = asyncio.create_task(outer())
    await turns(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_janus(loop: Any) -> None:
    """A queue between threads and tasks, in both directions, small and full."""
    to_threads: janus.Queue[Any] = janus.Queue(maxsize=3)
    to_loop: janus.Queue[Any] = janus.Queue(maxsize=3)

    def work() -> None:
        while (item := to_threads.sync_q.get()) is not None:
            to_loop.sync_q.put(item * 2)
            to_threads.sync_q.task_done()
        to_threads.sync_q.task_done()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()

    async def feed() -> None:
        for number in range(1000):
            await to_threads.async_q.put(number)
        for _ in threads:
            await to_threads.async_q.put(None)

    feeding = asyncio.create_task(feed())
    got = [await to_loop.async_q.get() for _ in range(1000)]
    assert sorted(got) == [number * 2 for number in range(1000)]
    await feeding
    await to_threads.async_q.join()
    getting = asyncio.create_task(to_loop.async_q.get())
    await turns(3)
    getting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await getting
    await to_threads.aclose()
    await to_loop.aclose()
    for thread in threads:
        thread.join()
    await settle()


@pytest.fixture(scope="module")
def uvloop_began() -> None:
    """uvloop's own libuv opens what it keeps for good with its first loop."""
    loop_factory("uvloop")().close()


def test_loops_of_other_makes_in_threads(uvloop_began: None) -> None:
    """asyncio, uvloop and hotloop at once, calling each other all the time."""
    kinds = ["asyncio", "uvloop", "hotloop", "hotloop"]
    loops: list[Any] = [loop_factory(kind)() for kind in kinds]
    threads = [threading.Thread(target=loop.run_forever) for loop in loops]
    for thread in threads:
        thread.start()

    async def add(value: int) -> int:
        await asyncio.sleep(0.0001 * (value % 3))
        return value + 1

    async def echo(reader: Any, writer: Any) -> None:
        writer.write(await reader.read())
        writer.close()
        await writer.wait_closed()

    async def ask(index: int, ports: list[int]) -> int:
        value = 0
        for count in range(40):
            other = loops[(index + count) % len(loops)]
            future = asyncio.run_coroutine_threadsafe(add(value), other)
            value = await asyncio.wrap_future(future)
        for port in ports:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            data = block(index, 300_000)
            writer.write(data)
            writer.write_eof()
            assert await reader.read() == data
            writer.close()
            await writer.wait_closed()
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
        assert await child.wait() == 0
        return value

    async def serve() -> Any:
        return await asyncio.start_server(echo, "127.0.0.1", 0)

    async def stop(server: Any) -> None:
        server.close()
        await server.wait_closed()

    def all_of(calls: Any) -> list[Any]:
        pairs = zip(calls, loops, strict=True)
        futures = [asyncio.run_coroutine_threadsafe(call, on) for call, on in pairs]
        return [future.result(30) for future in futures]

    try:
        servers = all_of(serve() for _ in loops)
        ports = [server.sockets[0].getsockname()[1] for server in servers]
        assert all_of(ask(index, ports) for index in range(len(loops))) == [40] * 4
        all_of(stop(server) for server in servers)
    finally:
        for loop, thread in zip(loops, threads, strict=True):
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


def test_executors(loop_kind: str) -> None:
    """Pools of threads and processes; waiting for one is cancelled."""
    out, _ = run_script(
        loop_kind,
        """
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

        async def main():
            loop = asyncio.get_running_loop()
            context = multiprocessing.get_context("spawn")
            with (ThreadPoolExecutor(4) as threads,
                  ProcessPoolExecutor(2, mp_context=context) as processes):
                for pool, count in ((threads, 500), (processes, 100)):
                    calls = [loop.run_in_executor(pool, abs, -n)
                             for n in range(count)]
                    assert await asyncio.gather(*calls) == list(range(count))
                release = threading.Event()
                waiting = [loop.run_in_executor(threads, release.wait)
                           for _ in range(20)]
                await asyncio.sleep(0)
                for future in waiting[::2]:
                    future.cancel()
                release.set()
                results = await asyncio.gather(*waiting, return_exceptions=True)
                assert results[1::2] == [True] * 10
                assert {type(result) for result in results[::2]} == {
                    asyncio.CancelledError}
                size = await loop.run_in_executor(processes, len, bytes(8 << 20))
                print(size >> 20)
        run(main())
        """,
    )
    assert out == "8\n"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(loop_kind: str, tmp_path: Any, method: str) -> None:
    """A loop in the parent, one in each child, a pipe between them."""
    program = tmp_path / "program.py"
    program.write_text(
        """
import asyncio, multiprocessing, os, socket, sys
if os.environ["HOTLOOP_TEST_KIND"] == "hotloop":
    from hotloop import new_event_loop
else:
    new_event_loop = asyncio.SelectorEventLoop

def run(main):
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)

async def serve(sock):
    reader, writer = await asyncio.open_connection(sock=sock)
    while (data := await reader.readline()) != b"end\\n":
        writer.write(data.upper())
        await writer.drain()
    writer.close()
    await writer.wait_closed()

def child(sock):
    run(serve(sock))

async def talk(number):
    near, far = socket.socketpair()
    process = context.Process(target=child, args=(far,))
    await asyncio.to_thread(process.start) if method != "fork" else process.start()
    far.close()
    reader, writer = await asyncio.open_connection(sock=near)
    for count in range(100):
        writer.write(b"child %d line %d\\n" % (number, count))
    for count in range(100):
        assert await reader.readline() == b"CHILD %d LINE %d\\n" % (number, count)
    writer.write(b"end\\n")
    writer.close()
    await writer.wait_closed()
    await asyncio.to_thread(process.join)
    return process.exitcode

async def main():
    return [await talk(n) for n in range(2)] + await asyncio.gather(talk(2), talk(3))

if __name__ == "__main__":
    method = sys.argv[1]
    context = multiprocessing.get_context(method)
    print(run(main()))
"""
    )
    out, _ = run_script(
        loop_kind,
        f"""
        import runpy
        sys.argv = ["program", {method!r}]
        runpy.run_path({str(program)!r}, run_name="__main__")
        """,
        "-W",
        "ignore::DeprecationWarning",
        timeout=50,
    )
    assert out == "[0, 0, 0, 0]\n"

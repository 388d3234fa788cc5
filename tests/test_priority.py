"""The queue of high priority: order, what is handed on, and its bound."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import socket
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import support

if "hotloop" not in support.wanted_kinds():
    pytest.skip("hotloop is not wanted", allow_module_level=True)

import hotloop


@pytest.fixture
def loop_kind() -> str:
    """Only hotloop has it."""
    return "hotloop"


def spin(seconds: float = 0.0004) -> None:
    """Take longer than a turn goes without a look at what is urgent."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def soon(loop: Any, log: list[Any], *names: Any) -> None:
    for name in names:
        loop.call_soon(log.append, name)


@pytest.mark.parametrize("debug", [False, True])
async def test_order(loop: Any, debug: bool) -> None:
    """Before all that is queued, in their own order."""
    loop.set_debug(debug)
    log: list[Any] = []
    soon(loop, log, 1, 2)
    for name in "ab":
        loop.call_soon_priority(log.append, name)
    loop.call_soon(lambda: (log.append(3), loop.call_soon_priority(log.append, "c")))
    soon(loop, log, 4)
    await asyncio.sleep(0)
    assert log == ["a", "b", 1, 2, 3, "c", 4]


async def test_alone(loop: Any) -> None:
    """With nothing else to run, and from a loop that waits."""
    log: list[Any] = []
    done = loop.create_future()
    loop.call_soon_priority(loop.call_soon_priority, done.set_result, None)
    await done
    loop.call_later(0.001, loop.call_soon_priority, log.append, "later")
    await support.until(lambda: log)


async def test_bound(loop: Any) -> None:
    """However many there are, and again and again: one ordinary between them."""
    log: list[str] = []
    going = True

    def urgent() -> None:
        log.append("u")
        if going:
            loop.call_soon_priority(urgent)

    for _ in range(3):
        loop.call_soon_priority(urgent)
    soon(loop, log, *"abc")
    await asyncio.sleep(0)
    going = False
    assert "".join(log).startswith("uuuauuubuuucuuu")
    await support.turns(2)
    assert "".join(log).count("u") <= 21


async def test_io_goes_on(loop: Any) -> None:
    """Also the poll has its turn."""
    near, far = support.unix_pair()

    def again() -> None:
        if not ended:
            loop.call_soon_priority(again)

    ended = False
    again()
    far.send(b"x")
    assert await loop.sock_recv(near, 1) == b"x"
    await asyncio.sleep(0.001)
    ended = True
    near.close()
    far.close()


# ---- what is handed on ----


async def ahead(loop: Any, start: Callable[[list[Any]], Any]) -> list[Any]:
    """Where what start() begins comes in a turn of ordinary callbacks."""
    log: list[Any] = []
    soon(loop, log, 1, 2)
    begun = start(log)
    soon(loop, log, 3, 4)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if begun is not None:
        await begun
    return log


async def test_callbacks(loop: Any) -> None:
    def start(log: list[Any]) -> None:
        loop.call_soon_priority(loop.call_soon, log.append, "u")

    assert await ahead(loop, start) == [1, "u", 2, 3, 4]


@pytest.mark.parametrize("debug", [False, True])
async def test_every_step_of_a_task(loop: Any, debug: bool) -> None:
    loop.set_debug(debug)
    await asyncio.sleep(0)  # it schedules something itself

    async def work(log: list[Any]) -> str:
        log.append("a")
        await asyncio.sleep(0)
        log.append("b")
        await asyncio.sleep(0)
        log.append("c")
        return "done"

    def start(log: list[Any]) -> Any:
        return loop.create_priority_task(work(log), name="urgent")

    assert await ahead(loop, start) == ["a", 1, "b", 2, "c", 3, 4]


@pytest.mark.parametrize("debug", [False, True])
async def test_woken_by_ordinary_callbacks(loop: Any, debug: bool) -> None:
    loop.set_debug(debug)
    event = asyncio.Event()
    log: list[Any] = []

    async def work() -> None:
        await event.wait()
        log.append("u")

    task = loop.create_priority_task(work())
    await asyncio.sleep(0)
    soon(loop, log, 1)
    loop.call_soon(event.set)
    soon(loop, log, 2, 3)
    await task
    assert log == [1, "u", 2, 3]


async def test_ordinary_tasks_stay_ordinary(loop: Any) -> None:
    """An urgent one that wakes them gives nothing away."""
    event = asyncio.Event()
    log: list[Any] = []

    async def work() -> None:
        await event.wait()
        log.append("ordinary")

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    soon(loop, log, 1, 2)
    loop.call_soon_priority(event.set)
    await task
    assert log == [1, 2, "ordinary"]


async def test_tasks_of_tasks(loop: Any) -> None:
    log: list[Any] = []

    async def child(name: str) -> None:
        await asyncio.sleep(0)
        log.append(name)

    async def work() -> None:
        ordinary = loop.create_priority_task(child("ordinary"), high=False)
        async with asyncio.TaskGroup() as group:
            group.create_task(child("x"))
            group.create_task(child("y"))
        log.append("group")
        await ordinary

    task = loop.create_priority_task(work())
    soon(loop, log, *range(9))
    await task
    assert log.index("y") < log.index("group") < 8 < log.index("ordinary")


async def test_what_is_urgent_ends(loop: Any) -> None:
    """What the caller schedules afterwards is ordinary, also after an error."""
    log: list[Any] = []

    async def nothing() -> None:
        log.append("u")

    task = loop.create_priority_task(nothing())
    with pytest.raises(TypeError):
        loop.create_priority_task(None)
    soon(loop, log, 1)
    loop.call_soon_priority(log.append, "v")
    await task
    await asyncio.sleep(0)
    assert log == ["u", "v", 1]


async def test_timers_in_a_long_turn(loop: Any) -> None:
    """They come when they are due, not when the turn ends."""
    log: list[Any] = []

    async def work() -> None:
        await asyncio.sleep(0.001)
        log.append("u")

    task = loop.create_priority_task(work())
    await asyncio.sleep(0)
    for _ in range(60):
        loop.call_soon(spin)
    loop.call_soon(log.append, "end")
    await task
    await asyncio.sleep(0)
    assert log == ["u", "end"]


@pytest.mark.parametrize("way", ["sock_recv", "add_reader", "stream", "transport"])
async def test_sockets_in_a_long_turn(loop: Any, way: str) -> None:
    log: list[Any] = []
    near, far = support.tcp_pair()
    ready = asyncio.Event()

    class Reads(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            log.append("u")
            done.set_result(None)

    def read() -> None:
        near.recv(9)
        log.append("u")
        done.set_result(None)

    async def work() -> Any:
        if way == "sock_recv":
            ready.set()
            await loop.sock_recv(near, 10)
            log.append("u")
        elif way == "add_reader":
            loop.add_reader(near, read)
        elif way == "stream":
            reader, writer = await asyncio.open_connection(sock=near)
            ready.set()
            await reader.readexactly(1)
            log.append("u")
            return writer
        else:
            transport, _ = await loop.create_connection(Reads, sock=near)
            return transport
        return None

    done = loop.create_future()
    task = loop.create_priority_task(work())
    if way in ("sock_recv", "stream"):
        await ready.wait()
        await support.turns(2)
    else:
        opened = await task
    far.send(b"x")
    for _ in range(60):
        loop.call_soon(spin)
    loop.call_soon(log.append, "end")
    await (task if way in ("sock_recv", "stream") else done)
    await support.turns(2)
    assert log == ["u", "end"]
    opened = task.result()
    if way == "add_reader":
        loop.remove_reader(near)
    if opened is not None:
        opened.close()
        await support.turns(2)
    near.close()
    far.close()


async def test_an_event_hands_nothing_to_others(loop: Any) -> None:
    """What ordinary callbacks schedule in the turn that finds it is ordinary."""
    log: list[Any] = []
    near, far = support.unix_pair()
    task = loop.create_priority_task(loop.sock_recv(near, 1))
    await asyncio.sleep(0)
    far.send(b"x")
    loop.call_soon(loop.call_soon, log.append, "soon")
    soon(loop, log, 1)
    spin()  # until the next turn looks
    assert await task == b"x"
    await support.turns(2)
    assert log == [1, "soon"]
    near.close()
    far.close()


async def test_a_server_of_high_priority(loop: Any) -> None:
    """Its connections are urgent; what they write leaves before the turn ends."""

    async def handle(reader: Any, writer: Any) -> None:
        while data := await reader.read(100):
            writer.write(data.upper())
        writer.close()

    async def serve() -> Any:
        return await asyncio.start_server(handle, "127.0.0.1", 0)

    server = await loop.create_priority_task(serve())
    with socket.create_connection(server.sockets[0].getsockname()) as client:
        client.sendall(b"hello")
        assert await support.read_all(client_ready(client), 5) == b"HELLO"
        client.sendall(b"again")
        for _ in range(100):
            loop.call_soon(spin)
        answer: list[Any] = []
        loop.call_soon(lambda: answer.append(client.recv(5)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert answer == [b"AGAIN"]
    server.close()
    await server.wait_closed()
    await support.settle()


def client_ready(client: socket.socket) -> socket.socket:
    client.setblocking(False)
    return client


async def test_executors(loop: Any) -> None:
    log: list[Any] = []
    go = threading.Event()

    async def work() -> None:
        await loop.run_in_executor(None, go.wait)
        log.append("u")

    await asyncio.to_thread(int)  # the first call takes asyncio's way
    task = loop.create_priority_task(work())
    await asyncio.sleep(0)
    loop.call_soon(go.set)
    for _ in range(200):
        loop.call_soon(time.sleep, 0.0005)
        loop.call_soon(lambda: log or time.sleep(0.01))
    loop.call_soon(log.append, "end")
    await task
    await asyncio.sleep(0)
    assert log == ["u", "end"]


@pytest.mark.skipif(support.PY < (3, 12), reason="eager tasks are of 3.12")
async def test_eager_tasks(loop: Any) -> None:
    loop.set_task_factory(asyncio.eager_task_factory)
    log: list[Any] = []

    async def work() -> None:
        log.append("a")
        await asyncio.sleep(0)
        log.append("b")

    soon(loop, log, 1)
    task = loop.create_priority_task(work())
    soon(loop, log, 2)
    await task
    loop.set_task_factory(None)
    await asyncio.sleep(0)
    assert log == ["a", "b", 1, 2]


# ---- threads, contexts, errors ----


async def test_threads(loop: Any) -> None:
    """Between two callbacks of a turn."""
    log: list[Any] = []

    def ask() -> None:
        thread = threading.Thread(
            target=loop.call_soon_priority_threadsafe, args=(log.append, "u")
        )
        thread.start()
        thread.join()

    soon(loop, log, 1)
    loop.call_soon(ask)
    soon(loop, log, 2)
    await asyncio.sleep(0)
    assert log == [1, "u", 2]


async def test_threads_wake_the_loop(loop: Any) -> None:
    future = loop.create_future()
    timer = threading.Timer(
        0.02, loop.call_soon_priority_threadsafe, (future.set_result, 1)
    )
    timer.start()
    assert await future == 1
    timer.join()


async def test_threads_do_not_inherit(loop: Any) -> None:
    """What another thread asks for while an urgent callback runs."""
    log: list[Any] = []

    def urgent() -> None:
        thread = threading.Thread(
            target=loop.call_soon_threadsafe, args=(log.append, "thread")
        )
        thread.start()
        thread.join()

    soon(loop, log, 1)
    loop.call_soon_priority(urgent)
    soon(loop, log, 2)
    await support.turns(2)
    assert log == [1, 2, "thread"]


VAR: contextvars.ContextVar[int] = contextvars.ContextVar("VAR", default=0)


async def test_contexts_and_handles(loop: Any) -> None:
    log: list[Any] = []
    VAR.set(1)
    other = contextvars.copy_context()
    other.run(VAR.set, 2)
    loop.call_soon_priority(lambda: log.append(VAR.get()))
    handle = loop.call_soon_priority(lambda: log.append(VAR.get()), context=other)
    cancelled = loop.call_soon_priority(log.append, "cancelled")
    cancelled.cancel()
    assert isinstance(handle, asyncio.Handle) and handle in loop._ready
    await asyncio.sleep(0)
    assert log == [1, 2]


async def test_callbacks_that_raise(loop: Any, reports: Any) -> None:
    log: list[Any] = []
    loop.call_soon_priority(lambda: 1 / 0)
    loop.call_soon_priority(log.append, "next")
    await asyncio.sleep(0)
    assert log == ["next"]
    assert isinstance(reports.one()["exception"], ZeroDivisionError)


def test_exit(loop: Any) -> None:
    """It ends the run; what was queued is there for the next."""
    log: list[Any] = []

    def leave() -> None:
        raise SystemExit(3)

    loop.call_soon_priority(leave)
    loop.call_soon_priority(log.append, "urgent")
    loop.call_soon(loop.call_soon, log.append, "ordinary")
    with pytest.raises(SystemExit):
        loop.run_forever()
    assert log == []
    loop.run_until_complete(support.turns(2))
    assert log == ["urgent", "ordinary"]


def test_stop(loop: Any) -> None:
    log: list[Any] = []
    loop.call_soon_priority(loop.stop)
    soon(loop, log, 1)
    loop.run_forever()
    assert log == [1]


def test_errors(new_loop: support.LoopFactory) -> None:
    loop: Any = new_loop()
    with pytest.raises(TypeError, match="callback"):
        loop.call_soon_priority()
    with pytest.raises(TypeError, match="nonsense"):
        loop.call_soon_priority(print, nonsense=1)
    loop.set_debug(True)
    for name in ("call_soon_priority", "call_soon_priority_threadsafe"):
        with pytest.raises(TypeError, match=rf"{name}\(\)"):
            getattr(loop, name)(None)
    loop.close()
    for name in ("call_soon_priority", "call_soon_priority_threadsafe"):
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            getattr(loop, name)(print)


def test_wrong_thread(loop: Any) -> None:
    loop.set_debug(True)

    async def main() -> None:
        with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
            await asyncio.to_thread(loop.call_soon_priority, print)

    loop.run_until_complete(main())


def test_what_is_left_is_dropped() -> None:
    loop = hotloop.new_event_loop()

    class Thing:
        def call(self) -> None:
            pytest.fail("called")

    thing = Thing()
    gone = weakref.ref(thing)
    loop.call_soon_priority(thing.call)
    del thing
    loop.close()
    assert gone() is None
    cycle = hotloop.new_event_loop()
    seen = weakref.ref(cycle)
    cycle.call_soon_priority(cycle.time)
    cycle.close()
    del cycle
    gc.collect()
    assert seen() is None


def test_it_costs_nothing_unused(loop: Any) -> None:
    """No queue is made before somebody asks; the order of turns is asyncio's."""
    log: list[Any] = []

    def twice(name: str) -> None:
        log.append(name)
        if name.islower():
            loop.call_soon(twice, name.upper())

    for name in "abc":
        loop.call_soon(twice, name)
    loop.run_until_complete(support.turns(3))
    assert log == list("abcABC")

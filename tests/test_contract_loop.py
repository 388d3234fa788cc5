"""asyncio's contract, row by row: the loop itself. The index is contract.toml."""

# mypy: disable-error-code="misc"

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import inspect
import itertools
import re
import signal
import socket
import threading
import time
from typing import Any

import pytest

from support import PY, ROOT, turns

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("contract", default="")
LOOP_ATTRIBUTES = [
    *("_add_reader", "_asyncgens", "_check_closed", "_check_running", "_csock"),
    *("_clock_resolution", "_current_handle", "_debug", "_default_executor"),
    *("_ready", "_run_once", "_scheduled", "_selector", "_signal_handlers"),
    *("_ssock", "_stopping", "_task_factory", "_thread_id", "_transports"),
    "_write_to_self",
]
HANDLE_ATTRIBUTES = [
    *("_args", "_callback", "_cancelled", "_context", "_loop", "_repr", "_run"),
    "_source_traceback",
]


def test_d1_the_clock_has_no_steps_of_a_millisecond(loop: Any) -> None:
    """D1: two readings 100 microseconds apart differ."""
    seen = []
    end = time.monotonic() + 0.02
    while time.monotonic() < end:
        seen.append(loop.time())
    steps = [b - a for a, b in itertools.pairwise(seen) if b > a]
    assert steps and min(steps) < 0.0001


@pytest.mark.parametrize("delay", [0, -1, 0.0001, 0.002])
def test_d2_every_delay_makes_a_timer(loop: Any, delay: float) -> None:
    """D2: no delay is so short that it becomes a plain handle."""
    handle = loop.call_later(delay, int)
    assert isinstance(handle, asyncio.TimerHandle)
    assert handle.when() == pytest.approx(loop.time() + delay, abs=0.05)
    handle.cancel()


def test_d2_timers_of_one_millisecond_fire_in_the_order_of_their_deadlines(
    loop: Any,
) -> None:
    """D2: deadlines 50 microseconds apart are not rounded together."""
    fired: list[int] = []
    start = loop.time() + 0.01
    for number in reversed(range(10)):
        loop.call_at(start + number * 0.00005, fired.append, number)
    loop.call_at(start + 0.002, loop.stop)
    loop.run_forever()
    assert fired == list(range(10))


def test_d6_events_run_as_callbacks_of_their_own_turn(loop: Any) -> None:
    """D6: what a reader queues runs after the other events of the same poll."""
    pairs = [socket.socketpair() for _ in range(3)]
    seen: list[str] = []

    def reader(number: int) -> None:
        loop.remove_reader(pairs[number][0])
        seen.append(f"event {number}")
        loop.call_soon(seen.append, "queued")

    for number, (left, right) in enumerate(pairs):
        right.send(b"x")
        loop.add_reader(left, reader, number)
    loop.run_until_complete(turns(5))
    assert [text.split()[0] for text in seen] == ["event"] * 3 + ["queued"] * 3
    for left, right in pairs:
        left.close()
        right.close()


@pytest.mark.parametrize("entry", ["task", "handle"])
async def test_d10_the_context_of_what_is_reported(loop: Any, entry: str) -> None:
    """D10: from 3.12 on the handler runs in the context of the task or handle."""
    seen: list[str] = []
    context = contextvars.copy_context()
    context.run(VAR.set, "its own")
    things = {
        "task": loop.create_task(turns(), context=context),
        "handle": loop.call_soon(int, context=context),
    }
    VAR.set("the caller's")
    loop.set_exception_handler(lambda *_: seen.append(VAR.get()))
    loop.call_exception_handler({"message": "reported", entry: things[entry]})
    await things["task"]
    assert seen == ["its own" if PY >= (3, 12) else "the caller's"]


@pytest.mark.parametrize("then", ["task", "handle"])
async def test_d10_the_last_word_of_a_task(loop: Any, then: str) -> None:
    """D10: a task that ends unheard has left its context when it is reported."""
    seen: list[str] = []

    async def fails() -> None:
        raise ValueError

    async def follows() -> None:
        seen.append("next")

    context = contextvars.copy_context()
    context.run(VAR.set, "its own")
    loop.set_exception_handler(lambda *_: seen.append(VAR.get()))
    loop.create_task(fails(), context=context)
    if then == "task":
        follower = loop.create_task(follows(), context=context)
        await turns(2)
        assert follower.done()
    else:
        loop.call_soon(seen.append, "next")
        await turns(2)
    assert seen == ["its own" if PY >= (3, 12) else "", "next"]


def test_d29_the_wakeup_descriptor_of_the_program_is_kept(loop: Any) -> None:
    """D29: a loop does not take a wake-up descriptor that somebody set."""
    left, right = socket.socketpair()
    left.setblocking(False)
    before = signal.set_wakeup_fd(left.fileno())
    try:

        async def main() -> int:
            await turns(2)
            found = signal.set_wakeup_fd(-1)
            signal.set_wakeup_fd(found)
            return found

        assert loop.run_until_complete(main()) == left.fileno()
        assert signal.set_wakeup_fd(left.fileno()) == left.fileno()
    finally:
        signal.set_wakeup_fd(before)
        left.close()
        right.close()


async def test_executor_threads_are_named_after_asyncio(loop: Any) -> None:
    """run_in_executor: the default executor's threads are asyncio's by name."""
    name = await loop.run_in_executor(None, lambda: threading.current_thread().name)
    assert name.startswith("asyncio_")


async def test_executor_takes_a_coroutine_function(loop: Any) -> None:
    """run_in_executor: only debug mode looks at what is called."""

    async def work() -> None:
        pass

    made = await loop.run_in_executor(None, work)
    assert inspect.iscoroutine(made)
    made.close()


class Counting(concurrent.futures.ThreadPoolExecutor):
    """An executor that knows what it was asked to do."""

    def __init__(self) -> None:
        super().__init__(1)
        self.count = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.count += 1
        return super().submit(fn, *args, **kwargs)


async def test_d31_names_are_looked_up_in_the_default_executor(loop: Any) -> None:
    """D31, getaddrinfo, getnameinfo: set_default_executor() decides who works."""
    with Counting() as executor:
        loop.set_default_executor(executor)
        infos = await loop.getaddrinfo("localhost", 80, family=socket.AF_INET)
        assert infos and executor.count == 1
        flags = socket.NI_NAMEREQD | socket.NI_NUMERICSERV
        host, _ = await loop.getnameinfo(("127.0.0.1", 80), flags)
        assert host and executor.count == 2


def test_d36_nothing_of_the_process_is_replaced() -> None:
    """D28, D36: no allocator of libuv's and no fork handler is installed."""
    folder = ROOT / "csrc"
    if not folder.is_dir():
        pytest.skip("the sources are not beside the tests")
    text = "".join(path.read_text() for path in folder.rglob("*.[ch]"))
    assert not re.search(r"\b(uv_replace_allocator|pthread_atfork)\b", text)


@pytest.mark.parametrize("name", LOOP_ATTRIBUTES)
def test_private_attribute_of_a_loop(loop: Any, name: str) -> None:
    """1.6: what libraries and CPython's own tests read is there."""
    if name in ("_ready", "_scheduled"):
        loop.call_soon(int)
        loop.call_later(60, int)
        assert len(getattr(loop, name)) == 1
    else:
        getattr(loop, name)


def test_base_classes_of_the_loop(loop: Any) -> None:
    """1.6: an instance of asyncio's own loop classes."""
    assert isinstance(loop, asyncio.BaseEventLoop)
    assert isinstance(loop, asyncio.AbstractEventLoop)


def test_members_of_handles(loop: Any) -> None:
    """2.6: a handle has asyncio's type, get_context() and private attributes."""
    context = contextvars.copy_context()
    soon = loop.call_soon(int, "1", context=context)
    later = loop.call_later(60, int, "2", context=context)
    for handle in (soon, later):
        assert isinstance(handle, asyncio.Handle)
        for name in HANDLE_ATTRIBUTES:
            getattr(handle, name)
        assert handle._callback is int and handle._loop is loop
        if PY >= (3, 12):
            assert handle.get_context() is context
    assert isinstance(later, asyncio.TimerHandle) and later._scheduled is True
    other = loop.call_at(later.when() + 1, int)
    assert later < other and later <= other and other > later and later != other
    assert hash(later) == hash(later.when())
    for handle in (soon, later, other):
        handle.cancel()


async def test_factories_are_called_with_what_was_given(loop: Any) -> None:
    """1.2: a factory of two parameters works, and gets nothing nobody passed."""
    seen: list[dict[str, Any]] = []

    def plain(loop: Any, coro: Any) -> Any:
        return asyncio.Task(coro, loop=loop)

    def noting(loop: Any, coro: Any, **kwargs: Any) -> Any:
        seen.append(kwargs)
        return asyncio.Task(coro, loop=loop, **kwargs)

    loop.set_task_factory(plain)
    await loop.create_task(turns())
    loop.set_task_factory(noting)
    await loop.create_task(turns())
    task = loop.create_task(turns(), name="named")
    assert task.get_name() == "named"
    await task
    loop.set_task_factory(None)
    assert seen[0] == {}
    assert set(seen[1]) <= {"name"}

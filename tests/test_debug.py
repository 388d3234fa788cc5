"""Debug mode: slow callbacks, origins, wrong threads, coroutines, leaks."""

# mypy: disable-error-code="func-returns-value"

from __future__ import annotations

import asyncio
import gc
import re
import signal
import sys
import time
import warnings
from typing import Any

import pytest

from support import (
    Recorder,
    connected,
    finish,
    loop_factory,
    run_script,
    turns,
    unix_pair,
    until,
)

# Far enough apart, and from what other steps take on a machine that stalls.
LIMIT = 0.1
SLOW = 0.25


def slow(*args: Any) -> None:
    time.sleep(SLOW)


@pytest.fixture
def debug_loop(loop: Any) -> Any:
    """A loop in debug mode that takes nothing for slow."""
    loop.set_debug(True)
    loop.slow_callback_duration = 60
    return loop


@pytest.fixture
def slow_loop(debug_loop: Any) -> Any:
    """A loop in debug mode that reports slow()."""
    debug_loop.slow_callback_duration = LIMIT
    return debug_loop


def check_slow(text: str, *words: str) -> None:
    found = re.fullmatch(r"Executing <.*> took (\d+\.\d{3}) seconds", text)
    assert found and float(found[1]) >= SLOW - 0.001, text
    for word in words:
        assert word in text, text


def spin(loop: Any) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_debug_flag(loop: Any) -> None:
    assert loop.get_debug() is False
    assert loop.set_debug(True) is None
    assert loop.get_debug() is True
    loop.set_debug(0)
    assert not loop.get_debug()


@pytest.mark.parametrize(
    "flags,env",
    [(["-X", "dev"], {}), ([], {"PYTHONASYNCIODEBUG": "1"}), ([], {})],
)
def test_debug_comes_from_the_environment(
    loop_kind: str, flags: list[str], env: dict[str, str], monkeypatch: Any
) -> None:
    body = "loop = new_loop(); print(loop.get_debug()); loop.close()"
    if env:
        body = "os.environ.update(PYTHONASYNCIODEBUG='1')\n" + body
        body = f"import sys\n{body}"
    out, _ = run_script(loop_kind, body, *flags)
    assert out == f"{bool(flags or env)}\n"


def test_slow_call_soon(slow_loop: Any, log: Any) -> None:
    slow_loop.call_soon(slow, "argument")
    spin(slow_loop)
    check_slow(log.one(), "<Handle slow('argument')", "created at")


def test_slow_timer(slow_loop: Any, log: Any) -> None:
    slow_loop.call_later(0.001, slow)
    slow_loop.call_later(0.002, slow_loop.stop)
    slow_loop.run_forever()
    check_slow(log.one(), "<TimerHandle when=", "slow()", "created at")


def test_slow_threadsafe_callback(slow_loop: Any, log: Any) -> None:
    slow_loop.call_soon_threadsafe(slow)
    spin(slow_loop)
    check_slow(log.one(), "slow()", "created at")


def test_slow_task_step(slow_loop: Any, log: Any) -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        slow()

    slow_loop.run_until_complete(work())
    check_slow(log.one(), "<Task ", "name='Task-", "work()", "test_debug.py")


def test_slow_done_callback(slow_loop: Any, log: Any) -> None:
    future = slow_loop.create_future()
    future.add_done_callback(slow)
    future.set_result(None)
    spin(slow_loop)
    check_slow(log.one(), "slow(")


async def test_slow_reader_and_writer(loop: Any, log: Any) -> None:
    loop.set_debug(True)
    loop.slow_callback_duration = LIMIT
    left, right = unix_pair()
    calls: list[str] = []

    def reader() -> None:
        calls.append("r")
        left.recv(9)
        time.sleep(SLOW)

    def writer() -> None:
        calls.append("w")
        loop.remove_writer(left)
        time.sleep(SLOW)

    loop.add_reader(left, reader)
    right.send(b"x")
    await until(lambda: calls)
    await turns(2)
    check_slow(log.one(), "reader()")
    loop.add_writer(left, writer)
    await until(lambda: len(calls) == 2)
    await turns(2)
    check_slow(log.one(), "writer()")
    loop.remove_reader(left)
    left.close()
    right.close()


async def test_slow_data_received(loop: Any, log: Any) -> None:
    class Slow(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            time.sleep(SLOW)

    transport, protocol, peer = await connected(Slow())
    loop.set_debug(True)
    loop.slow_callback_duration = LIMIT
    peer.send(b"x")
    await until(lambda: protocol.data)
    await turns(2)
    check_slow(log.one(), "Transport")
    loop.set_debug(False)
    await finish(transport, peer)


async def test_slow_connection_made(loop: Any, log: Any) -> None:
    class Slow(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            time.sleep(SLOW)

    loop.set_debug(True)
    loop.slow_callback_duration = LIMIT
    transport, _, peer = await connected(Slow())
    await turns(2)
    check_slow(log.one(), "connection_made")
    loop.set_debug(False)
    await finish(transport, peer)


async def test_slow_signal_handler(loop: Any, log: Any) -> None:
    loop.set_debug(True)
    loop.slow_callback_duration = LIMIT
    seen: list[int] = []
    loop.add_signal_handler(signal.SIGUSR1, lambda: (slow(), seen.append(1)))
    signal.raise_signal(signal.SIGUSR1)
    await until(lambda: seen)
    await turns(2)
    check_slow(log.one())
    loop.remove_signal_handler(signal.SIGUSR1)


def test_fast_callbacks_are_not_reported(debug_loop: Any) -> None:
    debug_loop.slow_callback_duration = 5
    debug_loop.call_soon(slow)
    spin(debug_loop)


def test_without_debug_nothing_is_reported(loop: Any) -> None:
    loop.slow_callback_duration = 0.001
    loop.call_soon(slow)
    spin(loop)


def test_slow_duration_of_another_type(debug_loop: Any, log: Any) -> None:
    debug_loop.slow_callback_duration = 0
    debug_loop.call_soon(slow)
    spin(debug_loop)
    debug_loop.slow_callback_duration = 5
    assert any("slow()" in text for text in log.take())


def came_from_here(future: Any) -> bool:
    return any(frame.filename == __file__ for frame in future._source_traceback)


def test_handles_know_where_they_were_made(debug_loop: Any) -> None:
    for handle in (
        debug_loop.call_soon(slow),
        debug_loop.call_later(100, slow),
        debug_loop.call_at(1e9, slow),
        debug_loop.call_soon_threadsafe(slow),
    ):
        traceback = handle._source_traceback
        assert traceback[-1].filename == __file__
        assert traceback[-1].name == "test_handles_know_where_they_were_made"
        assert f"created at {__file__}:{traceback[-1].lineno}" in repr(handle)
        handle.cancel()
        assert "cancelled" in repr(handle) and "slow" in repr(handle)


def test_handles_have_no_origin_without_debug(loop: Any) -> None:
    handle = loop.call_soon(slow)
    assert handle._source_traceback is None
    handle.cancel()


def test_futures_and_tasks_know_their_origin(debug_loop: Any) -> None:
    future = debug_loop.create_future()
    assert came_from_here(future)
    assert "created at" in repr(future)

    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(0))
        assert came_from_here(task)
        await task

    task = debug_loop.create_task(main())
    assert came_from_here(task)
    assert task._source_traceback[-1].filename == __file__
    debug_loop.run_until_complete(task)


def test_report_has_the_origin(debug_loop: Any, reports: Any, log: Any) -> None:
    debug_loop.call_soon(lambda: 1 / 0)
    spin(debug_loop)
    report = reports.one()
    assert report["source_traceback"][-1].filename == __file__
    debug_loop.set_exception_handler(None)
    debug_loop.call_soon(lambda: 1 / 0)
    spin(debug_loop)
    text = log.one()
    assert "Object created at (most recent call last):" in text
    assert "test_report_has_the_origin" in text


async def test_exception_in_reader_has_the_origin(loop: Any, reports: Any) -> None:
    loop.set_debug(True)
    left, right = unix_pair()
    loop.add_reader(left, lambda: (loop.remove_reader(left), 1 / 0))
    right.send(b"x")
    await until(lambda: reports)
    report = reports.one()
    assert any(frame.filename == __file__ for frame in report["source_traceback"])
    left.close()
    right.close()


async def coroutine_function() -> None:
    raise AssertionError


METHODS = [
    ("call_soon", ()),
    ("call_soon_threadsafe", ()),
    ("call_later", (1,)),
    ("call_at", (1,)),
]


@pytest.mark.parametrize("name,args", METHODS)
def test_coroutines_are_refused(debug_loop: Any, name: str, args: Any) -> None:
    reported = "call_at" if name == "call_later" else name
    method = getattr(debug_loop, name)
    with pytest.raises(TypeError) as caught:
        method(*args, coroutine_function)
    assert str(caught.value) == f"coroutines cannot be used with {reported}()"
    coro = coroutine_function()
    with pytest.raises(TypeError) as caught:
        method(*args, coro)
    assert str(caught.value) == f"coroutines cannot be used with {reported}()"
    coro.close()


@pytest.mark.parametrize("name,args", METHODS)
def test_other_things_are_refused(debug_loop: Any, name: str, args: Any) -> None:
    reported = "call_at" if name == "call_later" else name
    with pytest.raises(TypeError) as caught:
        getattr(debug_loop, name)(*args, 17)
    wanted = f"a callable object was expected by {reported}(), got 17"
    assert str(caught.value) == wanted


async def test_executor_refuses_coroutines(loop: Any) -> None:
    loop.set_debug(True)
    with pytest.raises(TypeError, match="coroutines cannot be used with"):
        loop.run_in_executor(None, coroutine_function)


def test_coroutine_origin_tracking(debug_loop: Any) -> None:
    assert sys.get_coroutine_origin_tracking_depth() == 0
    depths: list[int] = []

    async def main() -> None:
        depths.append(sys.get_coroutine_origin_tracking_depth())
        asyncio.get_running_loop().set_debug(False)
        await turns(2)
        depths.append(sys.get_coroutine_origin_tracking_depth())
        asyncio.get_running_loop().set_debug(True)
        await turns(2)
        depths.append(sys.get_coroutine_origin_tracking_depth())

    debug_loop.run_until_complete(main())
    assert depths[0] > 0 and depths[1] == 0 and depths[2] > 0
    assert sys.get_coroutine_origin_tracking_depth() == 0


def test_origin_tracking_is_put_back(debug_loop: Any) -> None:
    sys.set_coroutine_origin_tracking_depth(3)
    try:
        debug_loop.run_until_complete(turns(1))
        assert sys.get_coroutine_origin_tracking_depth() == 3
    finally:
        sys.set_coroutine_origin_tracking_depth(0)


def test_poll_is_not_called_slow(slow_loop: Any) -> None:
    slow_loop.run_until_complete(asyncio.sleep(SLOW))


def test_unclosed_loop_warns(loop_kind: str) -> None:
    loop = loop_factory(loop_kind)()
    text = repr(loop)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del loop
        gc.collect()
    messages = [
        str(w.message) for w in caught if issubclass(w.category, ResourceWarning)
    ]
    assert f"unclosed event loop {text}" in messages
    # The self-pipe of the stock loop is reported by its sockets, too.
    assert [m for m in messages if "event loop" in m] == [f"unclosed event loop {text}"]


def test_unclosed_loop_with_work_warns(loop_kind: str) -> None:
    loop = loop_factory(loop_kind)()
    loop.call_soon(slow)
    loop.call_later(10, slow)
    loop.run_until_complete(asyncio.sleep(0))
    loop.call_soon(slow)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del loop
        gc.collect()
    assert any("unclosed event loop" in str(w.message) for w in caught)


async def test_debug_switched_on_while_running(loop: Any, log: Any) -> None:
    loop.slow_callback_duration = LIMIT
    slow()
    await turns(1)
    assert log.take() == []
    loop.set_debug(True)
    await turns(2)
    slow()
    await turns(1)
    assert len(log.take()) == 1
    loop.set_debug(False)


def test_never_awaited_names_the_origin(loop_kind: str) -> None:
    _, err = run_script(
        loop_kind,
        """
        async def forgotten():
            raise AssertionError
        async def main():
            forgotten()
            await asyncio.sleep(0)
        run(main(), debug=True)
        """,
        quiet=False,
    )
    assert "coroutine 'forgotten' was never awaited" in err
    assert "Coroutine created at" in err

"""Signals and the loop's self-pipe: which handler hears of one, and when."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from typing import Any

import pytest

from support import PY, loop_factory, run_script, turns

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")


def test_a_signal_of_before_is_not_for_a_new_handler(loop: Any) -> None:
    """Ctrl-C ended a run; then the clean-up handles SIGINT."""
    heard: list[str] = []

    async def interrupted() -> None:
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(1)

    async def clean_up() -> None:
        loop.add_signal_handler(signal.SIGINT, heard.append, "old")
        await asyncio.sleep(0.02)
        loop.remove_signal_handler(signal.SIGINT)

    task = loop.create_task(interrupted())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    loop.run_until_complete(clean_up())
    assert heard == []
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))


async def test_a_handler_is_added_right_after_the_signal(loop: Any) -> None:
    heard: list[str] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: heard.append("python"))
    signal.raise_signal(signal.SIGUSR1)
    loop.add_signal_handler(signal.SIGUSR1, heard.append, "loop")
    await asyncio.sleep(0.02)
    assert heard == ["python"]
    signal.raise_signal(signal.SIGUSR1)
    await asyncio.sleep(0.02)
    assert heard == ["python", "loop"]
    loop.remove_signal_handler(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


async def test_a_handler_does_not_wait_for_many_turns(loop: Any) -> None:
    """Though callbacks are ready all the time, and each takes a while."""
    heard: list[int] = []
    turn = 0
    loop.add_signal_handler(signal.SIGUSR1, lambda: heard.append(turn))
    for turn in range(40):
        if turn == 20:
            signal.raise_signal(signal.SIGUSR1)
        time.sleep(0.001)
        await asyncio.sleep(0)
    loop.remove_signal_handler(signal.SIGUSR1)
    assert heard and heard[0] <= 23


def test_events_of_a_run_that_a_signal_ended(loop: Any) -> None:
    """A byte that came with Ctrl-C is announced once."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    read: list[bytes | None] = []

    def on_readable() -> None:
        try:
            read.append(os.read(reading, 1))
        except BlockingIOError:
            read.append(None)

    main = threading.get_ident()

    def both() -> None:
        time.sleep(0.02)
        os.write(writing, b"y")
        signal.pthread_kill(main, signal.SIGINT)

    loop.add_reader(reading, on_readable)
    for _ in range(5):
        thread = threading.Thread(target=both)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(asyncio.sleep(1))
        thread.join()
        loop.run_until_complete(turns(3))
    assert read == [b"y"] * 5
    loop.remove_reader(reading)
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(turns(2))
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("how", ["leave", "swap", "pop"])
def test_a_task_that_leaves_the_register_itself(loop_kind: str, how: str) -> None:
    """It may be the last to know the task: nothing of it is used afterwards."""
    if how == "swap" and PY < (3, 12):
        pytest.skip("came with 3.12")
    if how == "pop" and PY >= (3, 14):
        pytest.skip("the register is no dict any more")
    run_script(
        loop_kind,
        f"""
        import gc
        async def leaves():
            loop = asyncio.get_running_loop()
            task = asyncio.current_task()
            if {how!r} == "leave":
                asyncio.tasks._leave_task(loop, task)
            elif {how!r} == "swap":
                asyncio.tasks._swap_current_task(loop, None)
            else:
                asyncio.tasks._current_tasks.pop(loop)

        async def others():
            await asyncio.sleep(0)

        loop = new_loop()
        loop.set_exception_handler(lambda *_: None)
        for _ in range(20):
            loop.create_task(leaves())
            gc.collect()
            for _ in range(3):
                loop.create_task(others())
            try:
                loop.run_until_complete(asyncio.sleep(0.001))
            except RuntimeError:
                pass  # one of ours may end the run, and says why
        for task in asyncio.all_tasks(loop):
            task.cancel()
        try:
            loop.run_until_complete(asyncio.sleep(0))
        except RuntimeError:
            pass
        loop.close()
        """,
        quiet=False,
    )


def test_a_clock_that_fails_in_debug_mode(loop_kind: str) -> None:
    """What an overridden time() raises ends the run, as under asyncio."""
    plain = loop_factory(loop_kind)()
    plain.close()
    base: Any = type(plain)

    class Failing(base):  # type: ignore[misc]
        calls = -1000

        def time(self) -> float:
            self.calls += 1
            if self.calls == 2:
                raise ZeroDivisionError
            return float(super().time())

    loop = Failing()
    loop.set_debug(True)
    loop.call_soon(lambda: None)
    loop.call_soon(loop.stop)
    loop.calls = 0
    with pytest.raises(ZeroDivisionError):
        loop.run_forever()
    loop.close()


def test_tools_that_replace_the_running_of_handles(
    loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those do that time every callback: tasks' steps included."""
    timed: list[Any] = []
    run = asyncio.events.Handle._run

    def timing(self: Any) -> None:
        timed.append(self)
        run(self)

    monkeypatch.setattr(asyncio.events.Handle, "_run", timing)
    loop.call_soon(timed.append, "ran")
    loop.run_until_complete(turns(5))
    assert "ran" in timed
    assert len(timed) >= 8  # one callback, itself, and the steps of the task
    assert all(isinstance(one, asyncio.Handle) for one in timed if one != "ran")

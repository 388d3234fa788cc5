"""Signals and the loop's self-pipe: which handler hears of one, and when."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from typing import Any

import pytest

from support import turns

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

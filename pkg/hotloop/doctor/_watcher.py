"""The thread that watches loops."""

from __future__ import annotations

import _thread
import contextlib
import gc
import os
import time
from collections.abc import Callable
from typing import Any

from ._findings import Notes
from ._tasks import LoopRecord, Tasks

TICK = 0.01
# Tasks are looked at so often, and for no more than this part of the time.
SWEEP = 0.05
PART = 0.2


class Watcher:
    """Samples the loops' threads from its own, and has tasks looked at in theirs.

    The thread is none of the threading module, so that the program does not find it
    there. It makes nothing that the garbage collector sees while that is enabled: a
    collection would run the program's finalizers in this thread. Whatever touches
    tasks is done in the loop, whose thread may drop the last reference to one.
    """

    def __init__(
        self,
        tasks: Tasks,
        notes: Notes,
        sample: Callable[[LoopRecord], None],
        sweep: Callable[[LoopRecord], None],
        tick: float,
    ) -> None:
        self._tasks = tasks
        self._notes = notes
        self._sample = sample
        self._sweep = sweep
        self._tick = tick
        self._asked: set[int] = set()
        self._next: dict[int, float] = {}
        self._stop = _thread.allocate_lock()
        self._gone = _thread.allocate_lock()
        self._runs = False
        self._native = 0

    def start(self) -> None:
        """Start the thread."""
        if self._runs:
            return
        self._stop = _thread.allocate_lock()
        self._gone = _thread.allocate_lock()
        self._stop.acquire()
        self._gone.acquire()
        self._runs = True
        _thread.start_new_thread(self._watch, ())

    def stop(self) -> None:
        """Stop the thread, and wait until it has ended."""
        if not self._runs:
            return
        self._runs = False
        self._stop.release()
        self._gone.acquire()
        # What is left is the system's, which counts it still: a fork right now would
        # be taken for one beside other threads.
        until = time.monotonic() + 0.5
        while os.path.exists(f"/proc/self/task/{self._native}"):
            if time.monotonic() > until:
                break
            time.sleep(0.0002)

    def _watch(self) -> None:
        self._native = _thread.get_native_id()
        try:
            while not self._stop.acquire(timeout=self._tick):
                self._look()
        finally:
            self._gone.release()

    def _look(self) -> None:
        enabled = gc.isenabled()
        gc.disable()
        try:
            for known in list(self._tasks.loops.values()):
                self._sample(known)
                self._ask(known)
        except Exception as error:
            self._notes.fail(error)
        finally:
            if enabled:
                gc.enable()

    def _ask(self, known: LoopRecord) -> None:
        """Have the loop look at its tasks, unless it was asked already."""
        key = id(known)
        loop: Any = known.ref()
        if loop is None or not loop.is_running() or key in self._asked:
            return
        if time.monotonic() < self._next.get(key, 0.0) or not self._tasks.live:
            return
        self._asked.add(key)
        try:
            loop.call_soon_threadsafe(self._look_at_tasks, known)
        except RuntimeError:
            self._asked.discard(key)  # closed meanwhile

    def _look_at_tasks(self, known: LoopRecord) -> None:
        begun = time.monotonic()
        try:
            self._sweep(known)
        except Exception as error:
            self._notes.fail(error)
        ended = time.monotonic()
        key = id(known)
        self._next[key] = ended + max(SWEEP, (ended - begun) / PART)
        self._asked.discard(key)

    def forget(self) -> None:
        """Take it that the thread is gone: it is, in a forked child."""
        self._runs = False
        with contextlib.suppress(RuntimeError):
            self._stop.release()

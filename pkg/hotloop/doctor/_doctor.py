"""The doctor: what watches a program, put together, switched on and off."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import sys
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, TypeVar

from .._loop import Loop
from ._blocking import Blocking
from ._cancelling import Cancelling
from ._findings import KINDS, Notes, Report
from ._growth import Growth
from ._patches import Patches
from ._places import Finder
from ._reports import Reports
from ._resources import Awaited, Closed
from ._tasks import LoopRecord, Record, Steps, Tasks
from ._timeline import timeline
from ._waits import Waits
from ._watcher import TICK, Watcher

T = TypeVar("T")

_active: Doctor | None = None


class Doctor:
    """Watches the asyncio programs of this process while it is entered.

    ``slow`` is how long, in seconds, a callback may keep a loop; ``await_limit`` how
    long an await of the network may last that has no timeout; ``task_limit`` how many
    unfinished tasks of one place are never thought too many. Kinds named in ``ignore``
    are not reported. With ``libraries``, mistakes in installed packages are reported,
    too. One doctor can watch at a time.
    """

    def __init__(
        self,
        *,
        slow: float = 0.1,
        await_limit: float = 10.0,
        task_limit: int = 1000,
        ignore: Iterable[str] = (),
        libraries: bool = False,
    ) -> None:
        ignored = frozenset(ignore)
        unknown = sorted(ignored - KINDS.keys())
        if unknown:
            raise ValueError(f"unknown kind of finding: {', '.join(unknown)}")
        if slow <= 0 or await_limit <= 0 or task_limit <= 0:
            raise ValueError("slow, await_limit and task_limit must be positive")
        self._options = (slow, await_limit, task_limit, ignored, libraries)
        self._report: Report | None = None
        self._entered = False

    @property
    def report(self) -> Report:
        """The report: of the last time watched, or of what was seen until now."""
        if self._entered:
            return self._make_report()
        if self._report is None:
            raise RuntimeError("the doctor has not watched anything yet")
        return self._report

    # ---- on and off ----

    def __enter__(self) -> Doctor:
        """Begin to watch."""
        global _active
        if _active is not None:
            raise RuntimeError("a doctor is watching already")
        self._build()
        self._report = None
        self._entered = True
        _active = self
        self._install()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        value: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        """Watch no longer. What is garbage by now is collected, and reported."""
        global _active
        if not self._entered:
            return
        if value is None:
            gc.collect()
        self._watcher.stop()
        self._steps.stop()
        self._patches.undo()
        self._awaited.stop()
        self._closed.stop()
        self._closed.finish()
        self._report = self._make_report()
        self._entered = False
        _active = None

    def _build(self) -> None:
        slow, await_limit, task_limit, ignored, libraries = self._options
        self._begun = time.monotonic()
        finder = Finder(libraries)
        notes = self._notes = Notes(ignored, self._begun)
        tasks = self._tasks = Tasks(finder)
        self._patches = Patches()
        self._steps = Steps(tasks)
        self._awaited = Awaited(notes, finder)
        self._closed = Closed(notes, finder, self._awaited)
        self._reports = Reports(tasks, notes, finder)
        self._waits = Waits(tasks, notes, finder, await_limit)
        self._cancelling = Cancelling(notes, finder)
        self._growth = Growth(notes, task_limit)
        blocking = Blocking(tasks, self._steps, notes, finder, slow)
        tick = min(TICK, slow / 5)
        self._watcher = Watcher(tasks, notes, blocking.look, self._sweep, tick)

    def _install(self) -> None:
        patches = self._patches
        if self._steps.start():
            self._tasks.watch_code = self._steps.watch
            self._steps.returning = self._returning
        self._tasks.first_sight = self._first_sight
        self._tasks.install(patches)
        self._reports.install(patches)
        self._awaited.install(patches)
        self._closed.install(patches)
        for owner in (Loop, asyncio.SelectorEventLoop):
            patches.wrap(owner, "sock_connect", self._connecting)
        self._watcher.start()

    def _connecting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def sock_connect(self_: Any, sock: Any, address: Any) -> Any:
            with contextlib.suppress(TypeError):
                self._waits.connected.add(sock)
            return original(self_, sock, address)

        return sock_connect

    # ---- while it watches ----

    def _first_sight(self) -> None:
        """A loop was seen for the first time: maybe in another thread, and later."""
        self._awaited.track()
        self._closed.wrap_classes()

    def _returning(self, record: Record) -> None:
        try:
            self._cancelling.returning(record)
        except Exception as error:
            self._notes.fail(error)

    def _sweep(self, known: LoopRecord) -> None:
        loop = known.ref()
        pairs = [
            (record, task)
            for record, task in self._tasks.each()
            if task.get_loop() is loop
        ]
        self._waits.look(known, pairs)
        self._cancelling.look(pairs)
        self._growth.look(pairs)
        self._closed.wrap_classes()
        self._notes.merge()

    def _make_report(self) -> Report:
        findings = self._notes.findings()
        now = time.monotonic()
        return Report(
            findings=findings,
            seconds=now - self._begun,
            tasks=self._tasks.made,
            most_tasks=self._tasks.most,
            failures=list(self._notes.failures),
            make_timeline=functools.partial(timeline, self._tasks, self._begun, now),
        )

    # ---- forks ----

    def _pause(self) -> None:
        # Python warns of forks with other threads around, of which it has one.
        self._watcher.stop()

    def _resume(self) -> None:
        # Before 3.14 it looks for other threads only after this.
        loop = asyncio._get_running_loop()
        if loop is not None:
            loop.call_soon(self._go_on)
        else:
            self._tasks.first_made = self._go_on

    def _go_on(self) -> None:
        if self._entered:
            self._watcher.start()

    def _leave_to_parent(self) -> None:
        """In a forked child: what the parent watches is not here."""
        global _active
        self._watcher.forget()
        self._steps.stop()
        self._patches.undo()
        self._awaited.stop()
        self._closed.stop()
        self._entered = False
        _active = None


def examine(call: Callable[[], T], doctor: Doctor | None = None) -> T:
    """Call a function while a doctor watches, and return its result.

    Without a doctor given there is one for the call, whose report is written to
    standard error.
    """
    if doctor is not None:
        with doctor:
            return call()
    watching = Doctor()
    try:
        with watching:
            return call()
    finally:
        if sys.stderr is not None:
            sys.stderr.write(watching.report.text())


def _tell(name: str) -> Callable[[], None]:
    def tell() -> None:
        if _active is not None:
            getattr(_active, name)()

    return tell


os.register_at_fork(
    before=_tell("_pause"),
    after_in_parent=_tell("_resume"),
    after_in_child=_tell("_leave_to_parent"),
)

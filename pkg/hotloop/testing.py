"""Loops for tests, whose time is moved by the test; sockets are real.

async def main():
    clock = hotloop.testing.get_clock()
    task = asyncio.create_task(asyncio.sleep(30))
    await clock.advance(30)
    assert task.done()

hotloop.testing.run(main())
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, TypeVar, TypeVarTuple

from ._loop import Loop
from ._run import run as _run

__all__ = ["Clock", "TestLoop", "get_clock", "new_event_loop", "run"]

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

# What Loop._run_held() returns.
_RAN = 1
_MOVED = 2

# Times that sums of floats put this close to each other are the same.
_DIGITS = 9
_SAME = 0.5e-9


class Clock:
    """The time of a loop for tests: it passes only as the test says.

    It moves while somebody awaits ``advance()``, or by itself with ``autojump``, from
    one deadline to the next, and only at a quiet moment of the loop: when no callback
    is ready, no descriptor either, no work is under way in an executor and no
    ``hold()`` is open.

    A clock may serve one loop after another, but only one at a time.

    Attributes that may be set: ``autojump``, to move to the next deadline whenever the
    loop is quiet; ``executors``, whether work in executors keeps the loop from being
    quiet; ``grace``, for how many real seconds no descriptor must become ready, after
    the loop has sent something, before it is quiet; ``limit``, how many turns
    ``advance()`` waits for a quiet moment before it raises.
    """

    def __init__(self, start: float = 0.0, *, autojump: bool = False) -> None:
        start = float(start)
        if not math.isfinite(start):
            raise ValueError(f"a clock cannot start at {start!r}")
        self.autojump = autojump
        self.executors = True
        self.grace: float = 0.005
        self.limit = 100_000
        self._now = start
        self._order = itertools.count()
        # Those that await a time: (time, order, future), a heap.
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._holds = 0
        self._turns = 0  # that ran something, since somebody waits or time moved

    def __repr__(self) -> str:
        return f"<{type(self).__name__} now={self._now!r} autojump={self.autojump!r}>"

    def now(self) -> float:
        """Return the time in seconds: what ``loop.time()`` returns."""
        return self._now

    async def advance(self, seconds: float) -> None:
        """Let time pass, from one deadline to the next.

        Timers run in the order of their deadlines, each at its own time, and what they
        set off has run before time goes on. Return when that many seconds have passed
        since the call and all that became due has run. Several tasks may advance at
        once: time moves as far as the one that goes farthest. When cancelled, time
        stays where it came to.

        Raise ValueError for a negative, infinite or undefined number, and RuntimeError
        if the running loop has another clock, or is never quiet for ``limit`` turns.
        """
        target = self._now + seconds
        if seconds < 0 or not math.isfinite(target):
            raise ValueError(f"time cannot advance by {seconds!r} seconds")
        # Ten times 0.1 seconds are one second.
        await self._reach(max(self._now, round(target, _DIGITS)))

    async def settle(self) -> None:
        """Wait until all that is ready, or due now, has run; time stands still.

        Raise RuntimeError as ``advance()`` does.
        """
        await self._reach(self._now)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep time where it is: for work that the loop cannot know of.

        As that of threads or processes of the program's own. To be used in the loop's
        thread; holds may be nested.
        """
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1

    async def _reach(self, target: float) -> None:
        loop = asyncio.get_running_loop()
        if getattr(loop, "clock", None) is not self:
            raise RuntimeError(f"{loop!r} does not run by this clock")
        if not self._waiting:
            self._turns = 0
        future: asyncio.Future[None] = loop.create_future()
        entry = (target, next(self._order), future)
        heapq.heappush(self._waiting, entry)
        try:
            await future
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)
                heapq.heapify(self._waiting)

    def _run_turn(self, loop: TestLoop) -> None:
        """Run a turn of the loop, and move if it was a quiet one."""
        due = loop._next_deadline
        wait = None
        mobile = False
        if due is not None and due <= self._now:
            wait = 0.0
        elif self._may_move(loop, due):
            mobile = True
            wait = max(0.0, loop._quiet_from - monotonic())
        done = loop._run_held(wait)
        if done & _MOVED or (done & _RAN and wait):
            loop._quiet_from = monotonic() + self.grace
        if done & _RAN:
            self._count_turn()
        elif mobile and monotonic() >= loop._quiet_from:
            self._move(loop._next_deadline)

    def _may_move(self, loop: TestLoop, due: float | None) -> bool:
        if self._holds or (loop._works and self.executors):
            return False
        return bool(self._waiting) or (self.autojump and due is not None)

    def _move(self, due: float | None) -> None:
        """Go to the next deadline, or to the end of an advance() before it."""
        target = self._waiting[0][0] if self._waiting else None
        if due is not None and (
            due < math.inf if target is None else due <= target + _SAME
        ):
            self._now = max(self._now, due)
        elif target is not None:
            self._now = max(self._now, target)
            future = heapq.heappop(self._waiting)[2]
            future.set_result(None)
        self._turns = 0

    def _count_turn(self) -> None:
        self._turns += 1
        if self._waiting and self._turns > self.limit:
            self._turns = 0
            text = (
                f"the loop was not quiet for {self.limit} turns at {self._now!r}: "
                "is something scheduled again and again?"
            )
            for _, _, future in self._waiting:
                if not future.done():  # cancelled in this turn
                    future.set_exception(RuntimeError(text))
            self._waiting.clear()


class TestLoop(Loop):
    """A hotloop loop that runs by a clock of the test's."""

    __test__ = False  # pytest: it is no class of tests

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = Clock() if clock is None else clock
        self._works = 0  # in executors, under way
        self._quiet_from = 0.0  # of real time, if nothing happens
        super().__init__()

    def time(self) -> float:
        """Return the time of the clock, in seconds."""
        return self.clock._now

    def _run_once(self) -> None:
        self.clock._run_turn(self)

    def _work_ended(self, _: asyncio.Future[Any]) -> None:
        self._works -= 1

    def run_in_executor(
        self, executor: Any, func: Callable[[*_Ts], _T], *args: *_Ts
    ) -> asyncio.Future[_T]:
        """Call func(*args) in an executor; the clock waits for the end of it."""
        future = super().run_in_executor(executor, func, *args)
        self._works += 1
        future.add_done_callback(self._work_ended)
        return future

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        """Wait for the threads of the default executor; the clock does so, too."""
        with self.clock.hold():
            await super().shutdown_default_executor(*args, **kwargs)


def get_clock() -> Clock:
    """Return the clock of the running loop.

    Raise RuntimeError if no loop runs or its time is the real one.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, TestLoop):
        raise RuntimeError(f"{loop!r} is no loop for tests")
    return loop.clock


def new_event_loop(clock: Clock | None = None) -> TestLoop:
    """Return a new loop that runs by a clock, by default one of its own."""
    return TestLoop(clock)


def run(
    main: Coroutine[Any, Any, _T],
    *,
    clock: Clock | None = None,
    debug: bool | None = None,
) -> _T:
    """Run a coroutine on a new loop for tests, as ``hotloop.run()`` does."""
    return _run(main, debug=debug, loop_factory=lambda: TestLoop(clock))

"""Random programs, run on both loops: what happens must be the same.

Each program is drawn from a seed: tasks, futures, callbacks, events and locks
act on each other, and every step is written down. The journal of the stock
loop is what hotloop's has to equal.
"""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

import asyncio
import contextvars
import random
from typing import Any

import pytest

from support import loop_factory, wanted_kinds

VAR: contextvars.ContextVar[int] = contextvars.ContextVar("VAR", default=0)
STEPS = 40

pytestmark = pytest.mark.skipif(
    "hotloop" not in wanted_kinds(), reason="compares hotloop with asyncio"
)


def made(task: Any) -> int:
    """The number in a default task name: they count up."""
    return int(task.get_name().removeprefix("Task-"))


class Program:
    """One random program on one loop, and its journal."""

    def __init__(self, seed: int, kind: str) -> None:
        self.random = random.Random(seed)
        self.loop = loop_factory(kind)()
        self.journal: list[Any] = []
        self.futures: list[Any] = []
        self.tasks: list[Any] = []
        self.handles: list[Any] = []
        self.count = 0

    def log(self, *what: Any) -> None:
        self.journal.append((*map(repr, what), VAR.get()))

    def report(self, loop: Any, context: dict[str, Any]) -> None:
        # What the collector finds is reported when it runs: not comparable.
        if "handle" in context:
            self.log("report", context["exception"])

    def future(self) -> Any:
        if not self.futures or self.random.random() < 0.3:
            self.futures.append(self.loop.create_future())
        return self.random.choice(self.futures)

    def task(self, depth: int = 0) -> Any:
        self.count += 1
        task = self.loop.create_task(self.work(self.count, depth))
        task.set_name(f"t{self.count}")
        self.tasks.append(task)
        return task

    def callback(self, number: int, *args: Any) -> None:
        self.log("callback", number, asyncio.current_task() is None)
        VAR.set(number)
        if number % 11 == 0:
            raise ValueError(number)
        if self.random.random() < 0.3:
            self.act(number)

    def act(self, number: int) -> None:
        """Do one thing that does not wait."""
        choice = self.random.randrange(11)
        self.log("act", number, choice)
        future = self.future()
        if choice == 0 and not future.done():
            future.set_result(number)
        elif choice == 1 and not future.done():
            future.set_exception(LookupError(number))
        elif choice == 2:
            self.log("cancelled", future.cancel(f"m{number}"))
        elif choice == 3 and self.tasks:
            task = self.random.choice(self.tasks)
            self.log(task.get_name(), task.cancel(f"c{number}"), task.cancelling())
        elif choice == 4 and self.count < 60:
            self.task()
        elif choice in (5, 6):
            self.count += 1
            call = (
                self.loop.call_soon if choice == 5 else self.loop.call_soon_threadsafe
            )
            self.handles.append(call(self.callback, self.count))
        elif choice == 7 and self.handles:
            self.random.choice(self.handles).cancel()
        elif choice == 8:
            self.count += 1
            future.add_done_callback(lambda f, n=self.count: self.callback(n, f))
        elif choice == 9 and self.tasks:
            task = self.random.choice(self.tasks)
            self.log("uncancel", task.get_name(), task.uncancel())
        elif choice == 10:
            self.count += 1
            when = self.random.random()  # long past: due at once, in order
            self.handles.append(self.loop.call_at(when, self.callback, self.count))

    async def wait(self, number: int, depth: int) -> None:
        """Wait for one thing."""
        choice = self.random.randrange(10)
        self.log("wait", number, choice)
        if choice == 0:
            await asyncio.sleep(0)
        elif choice == 1:
            self.log("got", await self.future())
        elif choice == 2 and depth < 3:
            self.log("child", await self.task(depth + 1))
        elif choice == 3 and self.tasks:
            other = self.random.choice(self.tasks)
            if other is not asyncio.current_task():
                self.log("other", await asyncio.shield(other))
        elif choice == 4:
            async with self.lock:
                await asyncio.sleep(0)
        elif choice == 5:
            self.queue.put_nowait(number)
            self.log("queue", await self.queue.get())
        elif choice == 6 and depth < 3:
            coros = [self.work(number, depth + 1) for _ in range(2)]
            self.log("gather", await asyncio.gather(*coros, return_exceptions=True))
        elif choice == 7:
            await asyncio.wait([self.future()], timeout=0)
        elif choice == 8 and depth < 2:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.work(number, depth + 1))
        else:
            self.event.set()
            await self.event.wait()
            self.event.clear()

    async def work(self, number: int, depth: int) -> int:
        VAR.set(number)
        self.log("start", number)
        for _ in range(self.random.randrange(1, 5)):
            try:
                if self.random.random() < 0.5:
                    self.act(number)
                await self.wait(number, depth)
            except asyncio.CancelledError as error:
                self.log("cancel", number, error.args)
                if self.random.random() < 0.7:
                    raise
            except Exception as error:
                self.log("error", number, type(error).__name__)
                if self.random.random() < 0.2:
                    raise
        self.log("end", number)
        return number

    async def main(self) -> None:
        self.lock, self.event = asyncio.Lock(), asyncio.Event()
        self.queue: asyncio.Queue[int] = asyncio.Queue()
        for step in range(STEPS):
            if step % 4 == 0:
                self.task()
            self.act(-1)
            await asyncio.sleep(0)
        # Whatever still waits is cancelled, in order, until nothing does.
        for _ in range(200):
            rest = [task for task in asyncio.all_tasks() if not task.done()]
            rest.remove(asyncio.current_task())
            if not rest:
                break
            mine = [task for task in self.tasks if not task.done()]
            for task in mine or sorted(rest, key=made):
                task.cancel()
            for future in self.futures:
                future.cancel()
            await asyncio.sleep(0)
        for thing in self.tasks + self.futures:
            if thing.done() and not thing.cancelled():
                self.log("left", repr(thing.exception()))

    def run(self) -> list[Any]:
        self.loop.set_exception_handler(self.report)
        try:
            contextvars.Context().run(self.loop.run_until_complete, self.main())
        finally:
            self.loop.close()
        return self.journal


@pytest.mark.parametrize("seed", range(150))
def test_same_journal(seed: int, no_warnings: Any) -> None:
    reference = Program(seed, "asyncio").run()
    mine = Program(seed, "hotloop").run()
    assert len(reference) > STEPS
    for number, (wanted, got) in enumerate(zip(reference, mine, strict=False)):
        assert got == wanted, f"step {number}"
    assert len(mine) == len(reference)
    # A program may end before a coroutine of its own began.
    assert all("was never awaited" in text for text in no_warnings())

"""Background tasks: kept alive, watched, started again, and stopped at the end.

Plain asyncio code: nothing here knows which event loop runs it.

    python examples/background_tasks.py                        asyncio's loop
    python examples/run_with.py hotloop examples/background_tasks.py

The loop holds its tasks weakly: a task that nobody refers to may vanish in the middle
of its work, and the error of one that nobody awaits is seen by nobody. Background
keeps both in order for work that is started and left alone. Supervisor keeps services
running: one that fails starts again, with growing pauses, and fails for good when it
did so too often.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

Work = Coroutine[Any, Any, Any]


class Background:
    """Tasks that are started and left alone; `async with` ends with all done."""

    def __init__(self, on_error: Callable[[str, BaseException], None]) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()
        self.on_error = on_error

    def start(self, work: Work, name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.on_error(task.get_name(), error)

    async def __aenter__(self) -> Background:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        while self.tasks:  # those that end may have started others
            if kind:
                for task in self.tasks:
                    task.cancel()
            await asyncio.wait(self.tasks)


class Supervisor:
    """Keeps services running for the time of an `async with` block."""

    def __init__(self, restarts: int = 3, pause: float = 0.001) -> None:
        self.restarts, self.pause = restarts, pause
        self.starts: dict[str, int] = {}
        self.tasks: list[asyncio.Task[None]] = []

    def run(self, name: str, service: Callable[[], Work]) -> None:
        self.tasks.append(self.group.create_task(self._keep(name, service)))

    async def _keep(self, name: str, service: Callable[[], Work]) -> None:
        for number in range(self.restarts + 1):
            self.starts[name] = number + 1
            try:
                return await service()  # type: ignore[no-any-return]
            except Exception:
                if number == self.restarts:
                    raise  # ends the block, and the other services
            await asyncio.sleep(self.pause * 2**number)

    async def __aenter__(self) -> Supervisor:
        self.group = await asyncio.TaskGroup().__aenter__()
        return self

    async def __aexit__(self, *details: Any) -> None:
        for task in self.tasks:
            task.cancel()
        await self.group.__aexit__(*details)


class Counter:
    """A service that fails at its first starts, then counts what it is sent."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.inbox: asyncio.Queue[int] = asyncio.Queue()
        self.total = 0

    async def __call__(self) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("not ready")
        while True:
            self.total += await self.inbox.get()
            self.inbox.task_done()


async def note(results: list[int], number: int) -> None:
    await asyncio.sleep(0)
    if number % 1000 == 999:
        raise ValueError(f"work {number}")
    results.append(number)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=50_000, help="background tasks")
    options = parser.parse_args()
    errors: list[str] = []
    results: list[int] = []
    started = time.perf_counter()
    async with Background(lambda name, exc: errors.append(f"{name}: {exc}")) as tasks:
        for number in range(options.count):
            tasks.start(note(results, number), f"task {number}")
    elapsed = time.perf_counter() - started
    print(f"{len(results)} done, {len(errors)} failed, the first: {errors[0]}")

    steady, shaky = Counter(failures=0), Counter(failures=3)
    async with Supervisor(restarts=3) as supervisor:
        supervisor.run("steady", steady)
        supervisor.run("shaky", shaky)
        for service in (steady, shaky):
            for number in range(100):
                service.inbox.put_nowait(number)
            await service.inbox.join()
    print(f"starts: {supervisor.starts}, totals: {steady.total}, {shaky.total}")
    try:
        async with Supervisor(restarts=2) as supervisor:
            supervisor.run("broken", Counter(failures=10))
            await asyncio.Event().wait()
    except* ConnectionError as group:
        print(f"starts: {supervisor.starts}, then:", group.exceptions[0])
    print("tasks left:", len(asyncio.all_tasks()) - 1)
    print(f"{options.count / elapsed:,.0f} tasks/s")


if __name__ == "__main__":
    asyncio.run(main())

"""create_task() with and without a factory: what it hands to whom, and when."""

from __future__ import annotations

import asyncio
import contextvars
import re
from typing import Any

import pytest

from support import PY, collect, loop_factory, wanted_kinds

pytestmark = pytest.mark.skipif(
    "hotloop" not in wanted_kinds(), reason="compares hotloop with asyncio"
)
KEYWORDS: list[dict[str, Any]] = [
    {},
    {"name": "text"},
    {"name": None},
    {"name": 5},
    {"context": None},
    {"name": "both", "context": contextvars.Context()},
    {"eager_start": True},
    {"eager_start": False, "name": "lazy"},
    {"eager_start": None},
    {"unknown": 1},
]


def eager(loop: Any) -> Any:
    return asyncio.eager_task_factory


def lazy(loop: Any) -> Any:
    def factory(loop: Any, coro: Any, **keywords: Any) -> Any:
        factory.seen.append(sorted(keywords))  # type: ignore[attr-defined]
        return asyncio.Task(coro, loop=loop, **keywords)

    factory.seen = []  # type: ignore[attr-defined]
    return factory


def none(loop: Any) -> Any:
    return None


async def attempt(factory: Any, keywords: dict[str, Any]) -> list[Any]:
    loop = asyncio.get_running_loop()
    seen: list[Any] = []

    async def main() -> None:
        for _ in range(2):
            task = asyncio.current_task()
            assert task is not None
            seen.append(task.get_name())
            await asyncio.sleep(0)

    loop.set_task_factory(factory)
    coro = main()
    try:
        task = loop.create_task(coro, **keywords)
    except TypeError as error:
        coro.close()
        return [str(error)]
    finally:
        loop.set_task_factory(None)
    seen.append(task.get_name())
    await task
    return [*seen, getattr(factory, "seen", None)]


@pytest.mark.parametrize("make", [none, eager, lazy])
@pytest.mark.parametrize("keywords", KEYWORDS, ids=str)
def test_names_and_keywords(make: Any, keywords: dict[str, Any]) -> None:
    if make is eager and PY < (3, 12):
        pytest.skip("eager tasks came with 3.12")
    found = []
    for kind in ("asyncio", "hotloop"):
        with asyncio.Runner(loop_factory=loop_factory(kind)) as runner:
            factory = make(runner.get_loop())
            seen = runner.run(attempt(factory, keywords))
        found.append(re.sub(r"Task-\d+", "Task-N", repr(seen)))
    assert found[1] == found[0]


@pytest.mark.skipif(PY < (3, 12), reason="eager tasks came with 3.12")
async def test_name_that_fails(loop: Any, reports: Any) -> None:
    class Name:
        def __str__(self) -> str:
            raise LookupError("no name")

    async def main() -> None:
        await asyncio.sleep(0)

    coro = main()
    loop.set_task_factory(asyncio.eager_task_factory)
    with pytest.raises(LookupError, match="no name"):
        loop.create_task(coro, name=Name())
    collect()
    destroyed = reports.take()  # from 3.14 on it has the name before it starts
    assert len(destroyed) == (1 if PY >= (3, 14) else 0)
    loop.set_task_factory(None)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        await task
    coro.close()

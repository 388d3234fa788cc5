"""Who awaits whom (3.14+): asyncio's call graph, from inside and outside."""

# mypy: disable-error-code="attr-defined,no-any-return"

from __future__ import annotations

import asyncio
import contextlib
import io
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

import awaiting
from support import HERE, PY, loop_factory, script_env, wanted_kinds

pytestmark = pytest.mark.skipif(PY < (3, 14), reason="the call graph came with 3.14")
both = pytest.mark.skipif(
    "hotloop" not in wanted_kinds(), reason="compares hotloop with asyncio"
)


def plain(text: str) -> str:
    """The text without addresses."""
    return re.sub(r"0x[0-9a-f]+", "0x", text)


def nameless(text: str) -> str:
    """The same without the numbers of default task names."""
    return re.sub(r"Task-\d+", "Task-N", plain(text))


def run_on(kind: str, main: Callable[[], Any]) -> Any:
    with asyncio.Runner(loop_factory=loop_factory(kind)) as runner:
        return runner.run(main())


def sort_key(graph: Any) -> str:
    return nameless(repr(graph))


def shape(graph: Any) -> Any:
    """A call graph as lists and texts, its awaiters in order."""
    future, name = graph.future, ""
    if isinstance(future, asyncio.Task):
        name = future.get_name()
    frames = [
        (pathlib.Path(entry.frame.f_code.co_filename).name, entry.frame.f_lineno)
        for entry in graph.call_stack
    ]
    return [name, frames, sorted(map(shape, graph.awaited_by), key=sort_key)]


@both
@pytest.mark.parametrize("name", awaiting.SCENARIOS)
def test_graphs_are_equal(name: str) -> None:
    async def main() -> Any:
        tasks = await awaiting.start([name])
        graphs = []
        for task in asyncio.all_tasks():
            graphs.append(shape(asyncio.capture_call_graph(task)))
            waiter = task._fut_waiter
            if waiter is not None:
                graphs.append(shape(asyncio.capture_call_graph(waiter)))
        await awaiting.stop(tasks)
        return sorted(graphs, key=sort_key)

    expected, got = run_on("asyncio", main), run_on("hotloop", main)
    assert nameless(repr(got)) == nameless(repr(expected))
    assert sum(len(graph[1]) for graph in got) > 0


@both
def test_printed_graphs_are_equal() -> None:
    async def main() -> str:
        tasks = await awaiting.start(list(awaiting.SCENARIOS))
        texts = []
        for task in sorted(asyncio.all_tasks(), key=lambda one: one.get_name()):
            out = io.StringIO()
            asyncio.print_call_graph(task, file=out)
            text = asyncio.format_call_graph(task, limit=2)
            texts.append(out.getvalue() + text)
        await awaiting.stop(tasks)
        return "\n".join(sorted(nameless("\n".join(texts)).split("\n")))

    expected, got = run_on("asyncio", main), run_on("hotloop", main)
    assert "gathering" in got and "awaited by" in got.lower()
    assert got == expected


async def test_graph_of_the_running_task(loop: Any, task_class: Any) -> None:
    async def inner() -> Any:
        return asyncio.capture_call_graph(), asyncio.format_call_graph()

    async def outer() -> Any:
        return await inner()

    me = asyncio.current_task()
    task = asyncio.create_task(outer(), name="running")
    graph, text = await task
    assert graph.future is task and type(task) is task_class
    names = [entry.frame.f_code.co_name for entry in graph.call_stack]
    assert names[:2] == ["inner", "outer"]
    assert {above.future for above in graph.awaited_by} == {me}
    assert "running" in text and "outer" in text


async def test_limit_and_depth(loop: Any) -> None:
    task = asyncio.create_task(awaiting.deep(3), name="deep")
    await asyncio.sleep(0)
    capture = asyncio.capture_call_graph
    names = [entry.frame.f_code.co_name for entry in capture(task).call_stack]
    assert names == ["sleep", "leaf", "deep", "deep", "deep", "deep"]
    assert len(capture(task, limit=2).call_stack) == 2
    assert capture(task, limit=0).call_stack == ()
    assert len(capture(task, limit=-2).call_stack) == 2
    await awaiting.stop([task])


async def test_outside_of_a_task(loop: Any) -> None:
    got = loop.create_future()

    def callback() -> None:
        got.set_result(asyncio.capture_call_graph())

    loop.call_soon(callback)
    assert await got is None
    with pytest.raises(TypeError, match="Future"):
        asyncio.capture_call_graph(object())


async def test_links_by_hand(loop: Any, task_class: Any, future_class: Any) -> None:
    add, discard = (
        asyncio.future_add_to_awaited_by,
        asyncio.future_discard_from_awaited_by,
    )
    future, waiters = future_class(loop=loop), [loop.create_future() for _ in "abc"]
    assert future._asyncio_awaited_by is None
    add(future, waiters[0])
    assert future._asyncio_awaited_by == frozenset(waiters[:1])
    add(future, waiters[0])
    add(future, waiters[1])
    add(future, waiters[2])
    assert future._asyncio_awaited_by == frozenset(waiters)
    graph = asyncio.capture_call_graph(future)
    assert {above.future for above in graph.awaited_by} == set(waiters)
    for waiter in waiters:
        discard(future, waiter)
        discard(future, waiter)
    assert not future._asyncio_awaited_by
    task = task_class(awaiting.wait_on(future), loop=loop, name="t")
    await asyncio.sleep(0)
    assert future._asyncio_awaited_by == frozenset([task])
    add(future, waiters[0])
    future.set_result(None)
    await task
    assert future._asyncio_awaited_by == frozenset(waiters[:1])
    add(object(), future)  # foreign objects are passed over in silence
    add(future, object())
    discard(object(), object())
    assert future._asyncio_awaited_by == frozenset(waiters[:1])


async def test_link_is_gone_however_the_wait_ends(loop: Any) -> None:
    async def swallow(future: Any) -> None:
        with contextlib.suppress(ValueError, asyncio.CancelledError):
            await future

    for end in ("result", "exception", "cancel", "cancel the task"):
        future = loop.create_future()
        task = asyncio.create_task(swallow(future))
        await asyncio.sleep(0)
        assert future._asyncio_awaited_by == frozenset([task])
        if end == "result":
            future.set_result(None)
        elif end == "exception":
            future.set_exception(ValueError())
        elif end == "cancel":
            future.cancel()
        else:
            task.cancel()
        await task
        assert not future._asyncio_awaited_by, end


class Program:
    """awaiting.py in another process, seen by `python -m asyncio`."""

    def __init__(self, kind: str, *names: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "awaiting.py"), kind, *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=HERE,
            env=script_env(kind),
        )

    def __enter__(self) -> Program:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.communicate(timeout=30)
        assert self.process.returncode == 0

    def seen_by(self, command: str) -> str:
        """What the command prints; skips the test where it is refused."""
        told = subprocess.run(
            [sys.executable, "-m", "asyncio", command, str(self.process.pid)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        refusals = ("permission", "not permitted", "not available", "not supported")
        if told.returncode != 0 and any(
            word in (told.stderr + told.stdout).lower() for word in refusals
        ):
            pytest.skip(f"`python -m asyncio {command}` may not look: {told.stderr}")
        output = told.stdout + told.stderr
        return re.sub(rf"\b{self.process.pid}\b", "TID", output)


def pictures(command: str, *names: str) -> list[str]:
    """The command's view of a program on each loop, once it stands still."""
    found = []
    for kind in ("asyncio", "hotloop"):
        with Program(kind, *names) as program:
            time.sleep(0.1)
            found.append(program.seen_by(command))
    return found


def rows(table: str) -> list[list[str]]:
    """The cells of `ps`, in the order of its rows."""
    lines = plain(table).splitlines()
    return [re.split(r"\s{2,}", line.strip()) for line in lines if "--" not in line]


@both
@pytest.mark.parametrize(
    "name", ["gathering", "grouping", "shielding", "starting_eagerly", "timing_out"]
)
def test_tree_from_outside(name: str) -> None:
    expected, got = pictures("pstree", name)
    assert name in expected and "leaf" in expected
    assert plain(got) == plain(expected)


@both
def test_trees_from_outside() -> None:
    expected, got = pictures("pstree", *awaiting.SCENARIOS)
    # Who awaits one and the same task comes in the order of a set.
    assert sorted(plain(got).splitlines()) == sorted(plain(expected).splitlines())


@both
def test_table_from_outside() -> None:
    expected, got = map(rows, pictures("ps", *awaiting.SCENARIOS))
    assert len(expected) > 2 * len(awaiting.SCENARIOS)
    assert any("inner" in row for row in expected)
    assert sorted(got) == sorted(expected)


@both
@pytest.mark.parametrize("command", ["ps", "pstree"])
def test_running_task_from_outside(command: str) -> None:
    """A program that is not at rest: the register of the current task is read."""
    # It goes round a few lines: which one it is at is chance.
    expected, got = (
        re.sub(r"(awaiting\.py):\d+", r"\1", picture)
        for picture in pictures(command, awaiting.SPIN)
    )
    assert "spinning" in expected
    if command == "ps":
        assert rows(got) == rows(expected)
    else:
        assert plain(got) == plain(expected)

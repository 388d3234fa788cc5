"""Debuggers, profilers and tracers see the same on both loops."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import asyncio
import bdb
import faulthandler
import io
import json
import os
import pathlib
import pdb
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from support import (
    HERE,
    PY,
    collect,
    finish_script,
    loop_factory,
    start_script,
    wanted_kinds,
)

pytestmark = pytest.mark.skipif(
    "hotloop" not in wanted_kinds(), reason="compares hotloop with asyncio"
)


async def leaf(number: int) -> int:
    await asyncio.sleep(0)
    return number + 1


async def fails() -> None:
    await asyncio.sleep(0)
    raise ValueError("expected")


async def numbers() -> Any:
    for number in range(2):
        await asyncio.sleep(0)
        yield number


async def cancelled() -> None:
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        await asyncio.sleep(0)


def callback(future: Any, seen: list[int]) -> None:
    seen.append(1)
    future.set_result(2)


async def program() -> list[int]:
    loop = asyncio.get_running_loop()
    seen = [await leaf(1)]
    seen += await asyncio.gather(leaf(2), leaf(3))
    future = loop.create_future()
    loop.call_soon(callback, future, seen)
    seen.append(await future)
    try:
        await asyncio.create_task(fails())
    except ValueError as error:
        seen.append(len(error.args))
    async for number in numbers():
        seen.append(number)
    task = asyncio.create_task(cancelled())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    async with asyncio.timeout(10):
        seen.append(await asyncio.create_task(leaf(4)))
    return seen


RESULT = [2, 3, 4, 1, 2, 1, 0, 1, 5]


def run_on(kind: str, main: Callable[[], Any] = program) -> Any:
    with asyncio.Runner(loop_factory=loop_factory(kind)) as runner:
        return runner.run(main())


def on_both(record: Callable[[str], list[Any]]) -> list[Any]:
    """What a recorder gets on each loop, which must be the same."""
    expected, got = record("asyncio"), record("hotloop")
    assert got == expected
    return got


def is_here(code: Any) -> bool:
    return bool(code.co_filename == __file__)


def test_settrace() -> None:
    def record(kind: str) -> list[Any]:
        events: list[Any] = []

        def trace(frame: Any, event: str, arg: Any) -> Any:
            if not is_here(frame.f_code):
                return None
            what = arg[0].__name__ if event == "exception" else None
            events.append((event, frame.f_code.co_name, frame.f_lineno, what))
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            assert run_on(kind) == RESULT
        finally:
            sys.settrace(before)
        return events

    events = on_both(record)
    assert {event[0] for event in events} == {"call", "line", "return", "exception"}
    assert {"leaf", "callback", "fails", "numbers"} <= {event[1] for event in events}


def test_settrace_set_inside() -> None:
    """A debugger that attaches while the loop runs."""

    def record(kind: str) -> list[Any]:
        events: list[Any] = []

        def trace(frame: Any, event: str, arg: Any) -> Any:
            if is_here(frame.f_code):
                events.append((event, frame.f_code.co_name, frame.f_lineno))
                return trace
            return None

        async def main() -> None:
            before = sys.gettrace()
            asyncio.get_running_loop().call_soon(sys.settrace, trace)
            await asyncio.sleep(0)
            await program()
            sys.settrace(before)

        run_on(kind, main)
        return events

    assert len(on_both(record)) > 50


def test_setprofile() -> None:
    def record(kind: str) -> list[Any]:
        events: list[Any] = []

        def profile(frame: Any, event: str, arg: Any) -> None:
            if is_here(frame.f_code) and not event.startswith("c_"):
                events.append((event, frame.f_code.co_name, frame.f_lineno))

        before = sys.getprofile()
        sys.setprofile(profile)
        try:
            assert run_on(kind) == RESULT
        finally:
            sys.setprofile(before)
        return events

    events = on_both(record)
    assert {event[0] for event in events} == {"call", "return"}


@pytest.mark.skipif(PY < (3, 12), reason="sys.monitoring came with 3.12")
def test_monitoring() -> None:
    def record(kind: str) -> list[Any]:
        monitoring: Any = sys.monitoring
        events: list[Any] = []
        wanted = [
            "PY_START",
            "PY_RESUME",
            "PY_RETURN",
            "PY_YIELD",
            "PY_THROW",
            "PY_UNWIND",
            "LINE",
            "RAISE",
        ]
        tool = monitoring.DEBUGGER_ID

        def note(name: str) -> Callable[..., None]:
            def noted(code: Any, where: Any, *rest: Any) -> None:
                if is_here(code):
                    kind = type(rest[0]).__name__ if rest else where
                    events.append((name, code.co_name, kind))

            return noted

        monitoring.use_tool_id(tool, "test")
        try:
            for name in wanted:
                number = getattr(monitoring.events, name)
                monitoring.register_callback(tool, number, note(name))
            numbers = [getattr(monitoring.events, name) for name in wanted]
            monitoring.set_events(tool, sum(numbers))
            assert run_on(kind) == RESULT
        finally:
            monitoring.set_events(tool, 0)
            monitoring.free_tool_id(tool)
        return events

    events = on_both(record)
    assert {"PY_RESUME", "PY_YIELD", "PY_THROW", "RAISE"} <= {e[0] for e in events}


class Stepper(bdb.Bdb):
    """A debugger that gives one command over and over, and notes where it is."""

    def __init__(self, command: str) -> None:
        super().__init__()
        self.command = command
        self.seen: list[Any] = []

    def go_on(self, frame: Any, event: str) -> None:
        if is_here(frame.f_code):
            self.seen.append((event, frame.f_code.co_name, frame.f_lineno))
        if self.command == "step":
            self.set_step()
        elif self.command == "next":
            self.set_next(frame)
        elif self.command == "until":
            self.set_until(frame)
        elif self.command == "return":
            self.set_return(frame)
        else:
            self.set_continue()

    def user_line(self, frame: Any) -> None:
        self.go_on(frame, "line")

    def user_return(self, frame: Any, value: Any) -> None:
        self.go_on(frame, "return")

    def user_exception(self, frame: Any, info: Any) -> None:
        self.go_on(frame, "exception")


async def stepped(debugger: Stepper) -> None:
    debugger.set_trace()
    await program()
    debugger.set_quit()


@pytest.mark.parametrize("command", ["step", "next", "until", "return"])
def test_bdb_steps_across_awaits(command: str) -> None:
    def record(kind: str) -> list[Any]:
        debugger = Stepper(command)
        before = sys.gettrace()
        try:
            run_on(kind, lambda: stepped(debugger))
        finally:
            sys.settrace(before)
        return debugger.seen

    assert on_both(record)


def test_bdb_breakpoints() -> None:
    def record(kind: str) -> list[Any]:
        debugger = Stepper("continue")
        before = sys.gettrace()
        for function in (leaf, callback, fails):
            line = function.__code__.co_firstlineno + 1
            assert debugger.set_break(__file__, line) is None
        try:
            debugger.runcall(run_on, kind)
        finally:
            sys.settrace(before)
            debugger.clear_all_breaks()
            bdb.Breakpoint.clearBreakpoints()  # it remembers that there were some
        return debugger.seen

    seen = on_both(record)
    assert [one[1] for one in seen].count("leaf") == 4


async def under_pdb(debugger: pdb.Pdb) -> int:
    debugger.set_trace()
    number = await leaf(1)
    number += await asyncio.create_task(leaf(number))
    return number


PDB_LINE = under_pdb.__code__.co_firstlineno


def test_pdb_session() -> None:
    # From 3.13 on it stops at the call of set_trace() itself.
    commands = ["next"] if PY >= (3, 13) else []
    commands += ["step", "next", "p number", "next", "up", "list", "down", "return"]
    commands += ["next", "p number", "next", "p number", "where", "continue"]

    def record(kind: str) -> list[Any]:
        out = io.StringIO()
        text = io.StringIO("\n".join(commands) + "\n")
        debugger = pdb.Pdb(stdin=text, stdout=out, nosigint=True, readrc=False)
        debugger.use_rawinput = False
        before = sys.gettrace()
        try:
            run_on(kind, lambda: under_pdb(debugger))
        finally:
            sys.settrace(before)
        lines = out.getvalue().splitlines()
        where = max(n for n, line in enumerate(lines) if line.startswith("(Pdb)   "))
        assert f"({PDB_LINE + 3})under_pdb()" in out.getvalue()
        return lines[:where]  # the way there is the loop's own

    seen = on_both(record)
    assert {"(Pdb) 1", "(Pdb) 2", "(Pdb) 5"} <= set(seen)
    assert [line.endswith("leaf()") for line in seen].count(True) >= 3


def test_tracemalloc() -> None:
    def record(kind: str) -> list[Any]:
        kept: list[Any] = []

        async def inner() -> None:
            await asyncio.sleep(0)
            kept.append(bytes(100_000))

        async def outer() -> None:
            await asyncio.create_task(inner())
            await inner()

        tracemalloc.start(10)
        try:
            run_on(kind, outer)
            found = []
            for block in kept:
                trace = tracemalloc.get_object_traceback(block)
                assert trace is not None
                # From 3.11 on the frames that run the loop stand below.
                here = [frame.lineno for frame in trace if frame.filename == __file__]
                found.append(here[-2:])
        finally:
            tracemalloc.stop()
        return found

    assert on_both(record)[0]


def test_tracemalloc_sees_memory_of_the_loop() -> None:
    """What tasks and futures take is counted as Python's memory."""
    tracemalloc.start()
    try:
        loop = loop_factory("hotloop")()
        before = tracemalloc.get_traced_memory()[0]
        futures = [loop.create_future() for _ in range(3000)]
        grown = tracemalloc.get_traced_memory()[0] - before
        del futures
        loop.close()
        collect()
    finally:
        tracemalloc.stop()
    assert grown > 3000 * 100


def names_of(dump: str, wanted: set[str]) -> list[str]:
    found = re.findall(r'File "[^"]*", line (\d+) in (\w+)', dump)
    return [f"{name}:{line}" for line, name in found if name in wanted]


def test_faulthandler() -> None:
    def record(kind: str) -> list[Any]:
        dumps: list[str] = []

        def dump() -> None:
            with tempfile.TemporaryFile("w+") as file:
                faulthandler.dump_traceback(file, all_threads=False)
                file.seek(0)
                dumps.append(file.read())

        async def inner() -> None:
            await asyncio.sleep(0)
            dump()

        async def outer() -> None:
            asyncio.get_running_loop().call_soon(dump)
            await inner()
            await asyncio.create_task(inner())

        run_on(kind, outer)
        return [names_of(text, {"dump", "inner", "outer"}) for text in dumps]

    found = on_both(record)
    assert [len(names) for names in found] == [1, 3, 2]


CRASH = """
import faulthandler
async def inner():
    await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGABRT)
async def outer():
    await asyncio.create_task(inner())
faulthandler.enable()
run(outer())
"""


def test_faulthandler_in_a_crash() -> None:
    def record(kind: str) -> list[Any]:
        process = start_script(kind, CRASH, "-X", "faulthandler")
        status, _, err = finish_script(process)
        assert status < 0 and "Fatal Python error: Aborted" in err
        return names_of(err, {"inner", "outer"})

    assert [name.split(":")[0] for name in on_both(record)] == ["inner"]


def texts_of(task: Any) -> Any:
    out = io.StringIO()
    task.print_stack(file=out)
    short = io.StringIO()
    task.print_stack(limit=1, file=short)
    stack = [frame for frame in task.get_stack() if is_here(frame.f_code)]
    frames = [(frame.f_code.co_name, frame.f_lineno) for frame in stack]
    if task is asyncio.current_task():
        return frames  # below them are those that run the loop
    one = [frame.f_code.co_name for frame in task.get_stack(limit=1)]
    text = re.sub(r"Task-\d+|0x[0-9a-f]+", "", out.getvalue() + short.getvalue())
    return frames, one, text, task.get_coro().__name__


def test_stacks() -> None:
    def record(kind: str) -> list[Any]:
        async def main() -> list[Any]:
            seen: list[Any] = []

            async def looks() -> None:
                seen.append(texts_of(asyncio.current_task()))

            tasks: list[Any] = [asyncio.create_task(cancelled(), name="c")]
            tasks += [asyncio.create_task(fails(), name="f")]
            tasks += [asyncio.create_task(leaf(1), name="l")]
            seen += map(texts_of, tasks)
            for _ in range(3):
                await asyncio.sleep(0)
                seen.extend(map(texts_of, tasks))
            await looks()
            tasks[0].cancel()
            await asyncio.wait(tasks)
            seen.extend(map(texts_of, tasks))
            assert tasks[1].exception() is not None
            if PY >= (3, 12):
                for task in tasks:
                    assert task.get_context() is task.get_context()
            return seen

        return run_on(kind, main)

    assert len(on_both(record)) == 16


COVERED = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
import support, test_debuggers
assert test_debuggers.run_on(sys.argv[1]) == test_debuggers.RESULT
"""


@pytest.mark.parametrize("core", ["ctrace", "pytrace", "sysmon"])
def test_coverage(core: str, tmp_path: pathlib.Path) -> None:
    pytest.importorskip("coverage")
    if core == "sysmon" and PY < (3, 12):
        pytest.skip("sys.monitoring came with 3.12")
    script = tmp_path / "covered.py"
    script.write_text(COVERED)

    def record(kind: str) -> list[Any]:
        data = tmp_path / f"{kind}.data"
        report = tmp_path / f"{kind}.json"
        coverage = [sys.executable, "-m", "coverage"]
        start = [*coverage, "run", "--branch", f"--data-file={data}"]
        include = [f"--include={__file__}"]
        told = subprocess.run(
            [*start, *include, str(script), kind, str(HERE)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "COVERAGE_CORE": core},
        )
        assert told.returncode == 0, told.stderr
        subprocess.run(
            [*coverage, "json", "-q", f"--data-file={data}", "-o", str(report)],
            timeout=60,
            check=True,
            cwd=tmp_path,
        )
        (seen,) = json.loads(report.read_text())["files"].values()
        return [seen["executed_lines"], seen.get("executed_branches")]

    lines, _ = on_both(record)
    assert leaf.__code__.co_firstlineno + 2 in lines


SPUN = """
async def inner():
    print("ready", flush=True)
    while True: pass
async def outer():
    await inner()
async def main():
    await asyncio.create_task(outer())
run(main())
"""


def test_py_spy() -> None:
    spy = shutil.which("py-spy", path=pathlib.Path(sys.executable).parent)
    if spy is None:
        pytest.skip("py-spy is not installed")

    def record(kind: str) -> list[Any]:
        process = start_script(kind, SPUN)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.05)
            told = subprocess.run(
                [spy, "dump", "--pid", str(process.pid)],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        finally:
            process.kill()
            process.communicate()
        if told.returncode != 0:
            pytest.skip(f"py-spy cannot look: {told.stderr.strip()}")
        frames = re.findall(r"^    (\S+) \((\S+):(\d+)\)$", told.stdout, re.M)
        return [frame for frame in frames if frame[1] == "<string>"]

    names = [frame[0] for frame in on_both(record)]
    assert names[:2] == ["inner", "outer"] and names[-1] == "<module>"

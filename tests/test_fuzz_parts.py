"""The fuzzers of protocols and of arguments: that they reach all, and notice."""

from __future__ import annotations

import asyncio
import logging
import os
import pathlib
import random
import shutil
import subprocess
import sys
import warnings
from typing import Any

import pytest

import support

pytest.importorskip("trustme")
if "hotloop" not in support.wanted_kinds():
    pytest.skip("fuzzes hotloop", allow_module_level=True)

from fuzz import arguments, ends, hostile, native, protocols, surface

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def run_fuzzer(*args: str) -> str:
    """Run a fuzzer in a process of its own; returns what it said."""
    path = os.pathsep.join([str(support.HERE), *filter(None, sys.path)])
    env = dict(os.environ, PYTHONPATH=path)
    done = subprocess.run(
        [sys.executable, "-m", *args],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.slow
def test_arguments() -> None:
    assert "nothing" in run_fuzzer("fuzz.arguments", "--calls=200", "--seed=500")


@pytest.mark.slow
def test_protocols() -> None:
    assert "nothing" in run_fuzzer("fuzz.protocols", "--sequences=100", "--seed=500")


@pytest.mark.parametrize("name", sorted(surface.classes()))
def test_every_class_is_reached(name: str) -> None:
    """A class that is new needs a line in surface.make(), or nothing calls it."""
    found: list[Any] = []

    async def main() -> None:
        arena = hostile.Arena(asyncio.get_running_loop(), random.Random(1))
        target = await surface.make(name, arena)
        found.append(type(target).__name__)
        for thing in arena.kept:
            thing.close()
        for end in ("abort", "close"):
            if name not in ("Loop", "WorkItem") and hasattr(target, end):
                getattr(target, end)()
                break
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    loop = support.loop_factory("hotloop")()
    loop.set_exception_handler(lambda loop, context: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            loop.run_until_complete(main())
        finally:
            loop.close()
    assert found == [name]


def test_public_functions_are_called() -> None:
    wanted = {"run", "new_event_loop", "open_connection", "libuv_version"}
    assert wanted <= set(surface.functions())


def play_broken(monkeypatch: pytest.MonkeyPatch, program: Any, tmp: Any) -> str:
    """What the fuzzer says of a sequence."""
    monkeypatch.setattr(protocols, "LIMIT", 2.0)
    with pytest.raises(protocols.FailedError) as caught:
        protocols.play(program, "hotloop", str(tmp))
    return str(caught.value)


def program(*actions: Any, kind: str = "pair") -> dict[str, Any]:
    both = {"buffered": [0, 0], "keep_open": [False, False]}
    return {"kind": kind, "actions": list(actions), **both}


WRITES = program((0, "made", "write", 1000), (0, "made", "write", 7))


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("order", "out of order"),
        ("more", "more than was sent"),
        ("less", "got 999 of 1000"),
        ("twice", "made when open"),
        ("after", "data when lost"),
        ("hang", "hangs"),
        ("descriptor", "descriptors left over"),
        ("task", "tasks left over"),
        ("report", "reported"),
    ],
)
def test_what_is_broken_is_noticed(
    broken: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """A protocol that is told the wrong things stands for a loop that tells them."""
    real_data = ends.Plain.data_received
    kept: list[Any] = []

    def data_received(self: Any, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        if broken == "order":
            data = data[1:]
        elif broken == "more":
            data = data + ends.PATTERN[len(data) : len(data) + 50]
        elif broken == "less":
            data = data[:-1]
        elif broken == "after":
            self.side.lost.add_done_callback(lambda _: real_data(self, b"x"))
        elif broken == "descriptor":
            kept.append(os.dup(0))
        elif broken == "task":
            kept.append(loop.create_task(support.until(lambda: False, 1e6)))
        elif broken == "report":
            loop.call_soon(int, "x")
        elif broken == "twice":
            self.side.made(self.side.transport)
        real_data(self, data)

    monkeypatch.setattr(ends.Plain, "data_received", data_received)
    if broken == "hang":
        monkeypatch.setattr(ends.Base, "connection_lost", lambda *args: None)
    case = program((0, "made", "write", 1000))
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert said in play_broken(monkeypatch, case, tmp_path)
            for thing in kept:
                if isinstance(thing, int):
                    os.close(thing)
    finally:
        logging.disable(logging.NOTSET)


def test_pauses_alternate(tmp_path: pathlib.Path) -> None:
    class Quiet:
        program = WRITES
        failed: str | None = None

        def fail(self, what: str) -> None:
            self.failed = what

    async def main() -> str | None:
        quiet: Any = Quiet()
        side = ends.Side(0, WRITES, quiet)
        side.state = "open"
        side.pause()
        assert quiet.failed is None
        side.pause()
        return str(quiet.failed)

    assert "paused twice" in str(asyncio.run(main()))


def test_a_system_error_is_noticed() -> None:
    case = arguments.Case(1, "hotloop")
    inner = ValueError()
    inner.__context__ = SystemError("returned a result with an exception set")
    case.note("method", inner)
    assert case.bad and "returned a result" in case.bad[0]


def test_a_program_is_made_of_its_seed() -> None:
    for seed in range(50):
        assert protocols.make_program(seed) == protocols.make_program(seed)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a compiler")
def test_every_target_has_a_corpus() -> None:
    for name in native.targets():
        folder = native.CORPUS / name
        assert folder.is_dir() and any(folder.iterdir()), name

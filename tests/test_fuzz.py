"""Random programs do on hotloop what they do on asyncio; `make fuzz` runs more.

They run in a process of their own, whose clock moves only when a loop waits.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

import support
from fuzz import clock
from fuzz.found import FOUND

pytest.importorskip("hypothesis")
pytestmark = [
    # Of its own generator, which a collection at a bad moment takes.
    pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning"),
    pytest.mark.slow,
    pytest.mark.skipif(
        "hotloop" not in support.wanted_kinds(), reason="compares hotloop with asyncio"
    ),
    pytest.mark.skipif(sys.platform != "linux", reason="the clock is Linux's"),
    pytest.mark.skipif(
        shutil.which(clock.compiler()[0]) is None, reason="the clock needs a compiler"
    ),
]


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a fuzzing process."""
    found = clock.preloaded(str(tmp_path_factory.mktemp("clock")))
    path = [str(support.HERE), *filter(None, sys.path)]
    found["PYTHONPATH"] = os.pathsep.join(path)
    yield found


def fuzz(env: dict[str, str], *args: str) -> tuple[int, str]:
    """Run the fuzzer; returns (exit status, what it said)."""
    command = [sys.executable, "-X", "faulthandler", "-m", "fuzz", *args]
    done = subprocess.run(
        command,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("name", FOUND)
def test_found(name: str, env: dict[str, str], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "program"
    path.write_text(repr(FOUND[name]))
    code, said = fuzz(env, "--replay", str(path))
    assert code == 0, said


@pytest.mark.parametrize("seed", [1, 2])
def test_programs(seed: int, env: dict[str, str], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "program"
    path.touch()
    args = ["--only=programs", "--examples=150", f"--seed={seed}", "--fresh"]
    code, said = fuzz(env, *args, f"--worker={path}")
    assert code == 0, f"{said}\n{path.read_text()}"


def test_programs_by_a_clock_for_tests(
    env: dict[str, str], tmp_path: pathlib.Path
) -> None:
    """What hotloop.testing's time does to a program is what time does to it."""
    path = tmp_path / "program"
    path.touch()
    args = ["--only=programs", "--examples=120", "--seed=3", "--fresh"]
    code, said = fuzz(env, *args, "--against=testing", f"--worker={path}")
    assert code == 0, f"{said}\n{path.read_text()}"


def test_it_finds_what_differs(env: dict[str, str], tmp_path: pathlib.Path) -> None:
    """Another loop, which wakes and counts otherwise, is told from asyncio."""
    pytest.importorskip("uvloop")
    path = tmp_path / "program"
    path.touch()
    args = ["--only=programs", "--examples=400", "--seed=1", "--fresh"]
    code, said = fuzz(env, *args, "--against=uvloop", f"--worker={path}")
    assert code == 1 and "DifferenceError" in said, said

"""The fixture hotloop_clock, in runs of pytest of their own."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from support import wanted_kinds

pytestmark = pytest.mark.slow

if "hotloop" not in wanted_kinds():
    pytest.skip("hotloop is not wanted", allow_module_level=True)

PRELUDE = """
import asyncio, sys, unittest
import pytest
"""
ENV = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "", "COLUMNS": "200"}

Run = Callable[..., dict[str, str]]


@pytest.fixture
def run(tmp_path: pathlib.Path) -> Run:
    """Runs tests; returns the outcome of each by the end of its name."""

    def run(text: str, *words: str, code: int = 0) -> dict[str, str]:
        (tmp_path / "test_it.py").write_text(PRELUDE + textwrap.dedent(text))
        command = [sys.executable, "-m", "pytest", "-vv", "-W", "error"]
        command += ["-p", "no:cacheprovider", "-p", "pytest_hotloop", *words]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=50,
            env={**os.environ, **ENV},
        )
        assert done.returncode == code, done.stdout + done.stderr
        run.text = done.stdout  # type: ignore[attr-defined]
        return dict(re.findall(r"^test_it\.py::(\S+) ([A-Z]+)", done.stdout, re.M))

    return run


PLAIN = """
def test_run(hotloop_clock):
    async def main():
        task = asyncio.create_task(asyncio.sleep(100, "slept"))
        await hotloop_clock.advance(100)
        return task.result()

    assert asyncio.run(main()) == "slept" and hotloop_clock.now() == 100
    hotloop_clock.autojump = True
    with asyncio.Runner() as runner:
        runner.run(asyncio.sleep(50))
    assert hotloop_clock.now() == 150

@pytest.mark.usefixtures("hotloop_clock")
class TestCase(unittest.IsolatedAsyncioTestCase):
    async def test_method(self):
        import hotloop.testing
        clock = hotloop.testing.get_clock()
        await clock.advance(100)
        assert asyncio.get_running_loop().time() == 100 == clock.now()

def test_a_clock_for_each_test(hotloop_clock):
    assert hotloop_clock.now() == 0

def test_real_time():
    async def main():
        return type(asyncio.get_running_loop()).__name__
    assert asyncio.run(main()) != "TestLoop"
"""
NAMES = ["test_run", "TestCase::test_method", "test_a_clock_for_each_test"]


def test_without_a_plugin(run: Run) -> None:
    names = [*NAMES, "test_real_time"]
    assert run(PLAIN) == dict.fromkeys(names, "PASSED")
    assert run(PLAIN, "--hotloop") == dict.fromkeys(names, "PASSED")


def test_once_for_several_loops(run: Run) -> None:
    found = run(PLAIN, "--loops", "asyncio,hotloop", "-k", "not TestCase")
    assert found == dict.fromkeys(
        ["test_run", "test_a_clock_for_each_test", "test_real_time"], "PASSED"
    )


def test_nothing_is_loaded_without_need(run: Run) -> None:
    text = """
    def test_modules():
        assert not [name for name in sys.modules if name.split(".")[0] == "hotloop"]
    """
    assert run(text) == {"test_modules": "PASSED"}


ANYIO = """
@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"

@pytest.mark.anyio
async def test_advance(hotloop_clock):
    import anyio
    with pytest.raises(TimeoutError):
        with anyio.fail_after(30):
            await hotloop_clock.advance(60)
    assert hotloop_clock.now() == 30

@pytest.fixture
async def begun(hotloop_clock):
    task = asyncio.create_task(asyncio.sleep(100))
    await hotloop_clock.advance(50)
    yield task
    assert task.done()

@pytest.mark.anyio
async def test_asynchronous_fixture(begun, hotloop_clock):
    await hotloop_clock.advance(50)

@pytest.mark.anyio
async def test_after_that():
    assert type(asyncio.get_running_loop()).__name__ != "TestLoop"
"""


def test_anyio(run: Run) -> None:
    found = run(ANYIO, "-p", "anyio.pytest_plugin")
    names = ["test_advance", "test_asynchronous_fixture", "test_after_that"]
    assert found == dict.fromkeys(names, "PASSED")


def test_loops_that_tests_share_keep_the_time(run: Run) -> None:
    """Else those that come later would wait for ever."""
    text = """
    @pytest.fixture(scope="module")
    def anyio_backend():
        return "asyncio"

    @pytest.fixture(scope="module")
    async def shared(anyio_backend):
        yield asyncio.get_running_loop()

    @pytest.mark.anyio
    async def test_with_a_clock(shared, hotloop_clock):
        await hotloop_clock.advance(1)

    @pytest.mark.anyio
    async def test_later(shared):
        await asyncio.sleep(0.001)
    """
    found = run(text, "-p", "anyio.pytest_plugin", code=1)
    assert found == {"test_with_a_clock": "FAILED", "test_later": "PASSED"}
    said: Any = run.text  # type: ignore[attr-defined]
    assert "does not run by this clock" in said

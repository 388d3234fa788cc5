"""The fixture hotloop_clock together with pytest-asyncio."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

import support

if "hotloop" not in support.wanted_kinds():
    pytest.skip("hotloop is not wanted", allow_module_level=True)

TESTS = """
import asyncio

import pytest
import pytest_asyncio

@pytest_asyncio.fixture
async def moved(hotloop_clock):
    await hotloop_clock.advance(5)
    yield
    assert hotloop_clock.now() == 7

@pytest_asyncio.fixture
async def running():
    return asyncio.get_running_loop()

@pytest.mark.asyncio
async def test_advance(hotloop_clock):
    task = asyncio.create_task(asyncio.sleep(100))
    await hotloop_clock.advance(100)
    assert task.done()

@pytest.mark.asyncio
async def test_fixture_with_the_clock(moved, hotloop_clock):
    await hotloop_clock.advance(2)

@pytest.mark.asyncio
async def test_fixture_without(running, hotloop_clock):
    hotloop_clock.autojump = True
    await asyncio.sleep(1000)
    assert running is asyncio.get_running_loop()

@pytest.mark.asyncio
async def test_real_time():
    assert type(asyncio.get_running_loop()).__name__ != "TestLoop"

@pytest.mark.asyncio(loop_scope="module")
async def test_shared_loop(hotloop_clock):
    with pytest.raises(RuntimeError, match="does not run by this clock"):
        await hotloop_clock.advance(1)
    await asyncio.sleep(0.001)
"""


@pytest.mark.parametrize("loops,passed", [("", 5), ("--loops=asyncio,hotloop", 6)])
def test_clock(tmp_path: pathlib.Path, loops: str, passed: int) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_default_fixture_loop_scope = function\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    command += ["-p", "pytest_hotloop", "-p", "pytest_asyncio.plugin"]
    done = subprocess.run(
        [*command, *loops.split()],
        cwd=tmp_path,
        env=dict(os.environ, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1"),
        capture_output=True,
        text=True,
        timeout=55,
    )
    assert f"{passed} passed" in done.stdout, done.stdout + done.stderr
    assert "failed" not in done.stdout

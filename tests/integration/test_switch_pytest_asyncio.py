"""hotloop's plugin of pytest together with pytest-asyncio and pytest-aiohttp."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest

SECONDS = 60

TESTS = """
import asyncio

import pytest
import pytest_asyncio
from aiohttp import web

ended = []

def kind():
    return type(asyncio.get_running_loop()).__module__.split(".")[0]

@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def session_loop():
    began = asyncio.get_running_loop()
    yield began
    assert asyncio.get_running_loop() is began
    ended.append(kind())

@pytest_asyncio.fixture
async def value():
    await asyncio.sleep(0)
    return kind()

@pytest.mark.asyncio(loop_scope="session")
async def test_not_asking(request, session_loop):
    assert asyncio.get_running_loop() is session_loop
    assert "[" not in request.node.name or kind() in request.node.name

@pytest.mark.asyncio
async def test_function(hotloop_loop, value):
    assert kind() == hotloop_loop == value

@pytest.mark.asyncio(loop_scope="session")
async def test_session(hotloop_loop, session_loop):
    assert kind() == hotloop_loop
    assert asyncio.get_running_loop() is session_loop

@pytest.mark.asyncio(loop_scope="session")
async def test_session_again(hotloop_loop, session_loop):
    assert asyncio.get_running_loop() is session_loop

@pytest.mark.asyncio(loop_scope="package")
async def test_package(hotloop_loop):
    assert kind() == hotloop_loop

@pytest.mark.asyncio(loop_scope="module")
async def test_module(hotloop_loop):
    assert kind() == hotloop_loop

class TestClass:
    loops = []

    @pytest.mark.asyncio(loop_scope="class")
    async def test_class(self, hotloop_loop):
        assert kind() == hotloop_loop
        self.loops.append(asyncio.get_running_loop())

    @pytest.mark.asyncio(loop_scope="class")
    async def test_class_again(self, hotloop_loop):
        assert self.loops[-1] is asyncio.get_running_loop()

def test_fixture_of_sync_test(hotloop_loop, value, session_loop):
    assert value == hotloop_loop

@pytest.mark.asyncio
async def test_client(aiohttp_client, hotloop_loop):
    async def handle(request):
        return web.Response(text=kind())

    app = web.Application()
    app.router.add_get("/", handle)
    client = await aiohttp_client(app)
    response = await client.get("/")
    assert await response.text() == hotloop_loop

def test_plain():
    async def find():
        return kind()

    assert asyncio.run(find()) == FIRST

def test_what_has_ended():
    # The session's loop of one kind ends before the next kind's turn.
    assert ended[: len(LOOPS) - 1] == LOOPS[:-1]
"""

NAMES = ["not_asking", "function", "session", "session_again", "package", "module"]
NAMES += ["class", "class_again", "fixture_of_sync_test", "client"]


def run(folder: pathlib.Path, text: str, *words: str) -> dict[str, str]:
    """Run tests; returns the outcome of each by its name without "test_"."""
    (folder / "__init__.py").write_text("")
    (folder / "test_it.py").write_text(text)
    (folder / "pytest.ini").write_text(
        "[pytest]\nasyncio_default_fixture_loop_scope = function\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-vv", "-p", "no:cacheprovider", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "PYTEST_ADDOPTS": "", "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.findall(r"^test_it\.py::\S*?test_(\S+) ([A-Z]+)", done.stdout, re.M)
    assert len(found) == len(dict(found))
    return dict(found)


@pytest.mark.parametrize(
    "loops", [["asyncio", "hotloop", "uvloop"], ["hotloop", "asyncio"], ["hotloop"]]
)
def test_every_scope(tmp_path: pathlib.Path, loops: list[str]) -> None:
    text = f"FIRST, LOOPS = {loops[0]!r}, {loops!r}\n{TESTS}"
    found = run(tmp_path, text, "--loops", ",".join(loops))
    ids = [f"[{loop}]" for loop in loops] if len(loops) > 1 else [""]
    names = [name + each for each in ids for name in NAMES]
    assert found == dict.fromkeys([*names, "plain", "what_has_ended"], "PASSED")


def test_without_it(tmp_path: pathlib.Path) -> None:
    text = f"FIRST, LOOPS = 'asyncio', ['asyncio']\n{TESTS}"
    found = run(tmp_path, text)
    assert found == dict.fromkeys([*NAMES, "plain", "what_has_ended"], "PASSED")


def test_what_the_project_chose_wins(tmp_path: pathlib.Path) -> None:
    (tmp_path / "conftest.py").write_text("""
import asyncio

def pytest_asyncio_loop_factories(config, item):
    return {"own": asyncio.SelectorEventLoop}
""")
    text = """
import asyncio
import pytest

@pytest.mark.asyncio
async def test_own():
    assert isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop)
    assert type(asyncio.get_running_loop()).__module__.startswith("asyncio")
"""
    assert run(tmp_path, text, "--loops", "asyncio,hotloop") == {"own": "PASSED"}
    assert run(tmp_path, text, "--hotloop") == {"own": "PASSED"}

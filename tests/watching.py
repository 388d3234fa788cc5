"""What the tests of control sockets and of their commands share."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

import support

TIMEOUT = 50

# A program that has something of everything, and ends when its input does.
BUSY = """
import asyncio, sys

async def nap(seconds):
    while True:
        await asyncio.sleep(seconds)

async def serve(reader, writer):
    while data := await reader.read(1000):
        writer.write(data)
    writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    reader, writer = await asyncio.open_connection(*address[:2])
    naps = [asyncio.create_task(nap(0.002), name=f"nap-{n}") for n in range(5)]
    event = asyncio.Event()
    forever = asyncio.create_task(event.wait(), name="forever")
    loop = asyncio.get_running_loop()
    print("ready", flush=True)
    ends = loop.run_in_executor(None, sys.stdin.read)
    while not ends.done():
        writer.write(b"x" * 500)
        await reader.readexactly(500)
        await asyncio.sleep(0.001)
    writer.close()
    server.close()

asyncio.run(main())
"""


@contextlib.contextmanager
def short_folder() -> Iterator[str]:
    """A private folder whose path leaves room for the name of a socket."""
    folder = tempfile.mkdtemp(prefix="hl-", dir="/tmp")
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def environment(folder: str, **names: str) -> dict[str, str]:
    env = {**os.environ, "XDG_RUNTIME_DIR": folder, "PYTHONUNBUFFERED": "1", **names}
    env.pop("PYTHONASYNCIODEBUG", None)
    return env


@contextlib.contextmanager
def program(
    folder: str, source: str = BUSY, *, control: str = "1"
) -> Iterator[subprocess.Popen[str]]:
    """A program that runs on hotloop, once it has said that it is ready."""
    started = subprocess.Popen(
        [sys.executable, "-m", "hotloop", "-c", textwrap.dedent(source)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        env=environment(folder, HOTLOOP_CONTROL=control),
    )
    with support.once_ready(started) as process:
        yield process


def command(folder: str, *words: str, **kwargs: Any) -> tuple[int, str, str]:
    """Run a command of hotloop's; returns (exit code, stdout, stderr)."""
    done = subprocess.run(
        [sys.executable, "-m", "hotloop", *words],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        cwd=kwargs.pop("cwd", "/"),
        env=environment(folder, **kwargs),
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def sockets(folder: str) -> list[str]:
    """The names of the sockets in a runtime folder."""
    return sorted(path.name for path in pathlib.Path(folder, "hotloop").glob("*"))


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The runtime folder of the user, for this test."""
    monkeypatch.delenv("HOTLOOP_CONTROL", raising=False)
    with short_folder() as path:
        monkeypatch.setenv("XDG_RUNTIME_DIR", path)
        yield path

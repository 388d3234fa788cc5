"""IPython in a terminal, and a kernel of Jupyter, with hotloop's extension."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

SECONDS = 60
FIND = "import asyncio; type(asyncio.get_running_loop()).__module__.split('.')[0]"


@pytest.fixture
def home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A folder that IPython and Jupyter take for the user's."""
    for name in ("HOME", "IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    return tmp_path


def ipython(home: pathlib.Path, lines: list[str], *words: str) -> list[str]:
    """What IPython prints for cells that it reads from a pipe."""
    done = subprocess.run(
        [sys.executable, *words, "--simple-prompt", "--no-banner", "--no-confirm-exit"],
        input="\n".join([*lines, "exit", ""]),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=home,
        env={**os.environ, "PYTHON_COLORS": "0", "TERM": "dumb"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr, done.stderr
    lines = [line.partition(">> ") for line in done.stdout.splitlines()]
    return [printed for _, mark, printed in lines if mark]


SHOW = "import asyncio; await asyncio.sleep(0); " + (
    "print('>>', type(asyncio.get_running_loop()).__module__)"
)
RUN = "async def find(): return type(asyncio.get_running_loop()).__module__"
PLAIN = "print('>>', asyncio.run(find()))"


def test_the_extension(home: pathlib.Path) -> None:
    lines = [SHOW, "%load_ext hotloop.ipython", SHOW, RUN, PLAIN]
    lines += ["%reload_ext hotloop.ipython", SHOW]
    lines += ["%unload_ext hotloop.ipython", SHOW, PLAIN]
    ours, theirs = "hotloop._loop", "asyncio.unix_events"
    expected = [theirs, ours, ours, ours, theirs, theirs]
    assert ipython(home, lines, "-m", "IPython") == expected


def test_the_other_ways(home: pathlib.Path) -> None:
    for words in (
        ("-m", "IPython", "--ext=hotloop.ipython"),
        ("-m", "hotloop", "-m", "IPython"),
    ):
        found = ipython(home, [SHOW, RUN, PLAIN], *words)
        assert found == ["hotloop._loop"] * 2, words


def test_the_settings(home: pathlib.Path) -> None:
    (home / "profile_default").mkdir()
    (home / "profile_default" / "ipython_config.py").write_text(
        'c = get_config()\nc.InteractiveShellApp.extensions = ["hotloop.ipython"]\n'
    )
    assert ipython(home, [SHOW], "-m", "IPython") == ["hotloop._loop"]


# Talks to a kernel; in a process of its own, for the client keeps a loop of its own.
CLIENT = """
import json, sys
from jupyter_client.manager import KernelManager

words, cells, seconds = json.load(sys.stdin)
manager = KernelManager()
manager.kernel_spec.argv = [sys.executable, *words, "-f", "{connection_file}"]
manager.start_kernel()
client = manager.blocking_client()
client.start_channels()
try:
    client.wait_for_ready(timeout=seconds)
    for cell in cells:
        shown = []
        client.execute_interactive(
            cell, timeout=seconds, output_hook=lambda message: shown.append(message)
        )
        for message in shown:
            content = message["content"]
            if message["msg_type"] == "error":
                print(content["ename"], content["evalue"])
            elif message["msg_type"] == "execute_result":
                print(content["data"]["text/plain"])
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
"""


def kernel(home: pathlib.Path, words: list[str], *cells: str) -> list[str]:
    """What a kernel of Jupyter, started so, answers to these cells."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CLIENT],
        input=json.dumps([words, cells, SECONDS]),
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
        cwd=home,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


LAUNCH = ["-m", "ipykernel_launcher"]
CELLS = [
    FIND,
    "await asyncio.sleep(0.01, 'slept')",
    "await asyncio.gather(*(asyncio.sleep(0, n) for n in range(3)))",
]
ANSWERS = ["'hotloop'", "'slept'", "[0, 1, 2]"]


@pytest.mark.parametrize(
    "words",
    [["-m", "hotloop", *LAUNCH], [*LAUNCH, "--ext=hotloop.ipython"]],
    ids=["-m hotloop", "--ext"],
)
def test_a_kernel(home: pathlib.Path, words: list[str]) -> None:
    assert kernel(home, words, *CELLS) == ANSWERS


def test_the_settings_of_a_kernel(home: pathlib.Path) -> None:
    folder = home / "profile_default"
    folder.mkdir()
    (folder / "ipython_kernel_config.py").write_text(
        'c = get_config()\nc.InteractiveShellApp.extensions = ["hotloop.ipython"]\n'
    )
    assert kernel(home, LAUNCH, *CELLS) == ANSWERS


def test_a_kernel_that_runs_says_so(home: pathlib.Path) -> None:
    load = "get_ipython().extension_manager.load_extension('hotloop.ipython')"
    before, error, after = kernel(home, LAUNCH, FIND, load, FIND)
    assert (before, after) == ("'asyncio'", "'asyncio'")
    assert error.startswith("ImportError") and "ipython_kernel_config.py" in error

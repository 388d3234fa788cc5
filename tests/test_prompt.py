"""``python -m hotloop`` without a program: asyncio's prompt, on a real terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from support import PY, wanted_kinds

pytestmark = pytest.mark.slow

if "hotloop" not in wanted_kinds():
    pytest.skip("hotloop is not wanted", allow_module_level=True)

SECONDS = 50
KINDS = ["basic", "full"] if PY >= (3, 13) else ["basic"]
ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|[=>])")


class Terminal:
    """A Python at the far side of a terminal, and what it has written."""

    def __init__(self, *words: str, **env: str) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm", "PYTHON_COLORS": "0", **env},
            start_new_session=True,
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
        )
        os.close(slave)
        self.text = ""

    def expect(self, pattern: str) -> str:
        """Read until the pattern has come; returns what came before it."""
        deadline = time.monotonic() + SECONDS
        while (match := re.search(pattern, self.text)) is None:
            ready, _, _ = select.select(
                [self.master], [], [], max(0.0, deadline - time.monotonic())
            )
            assert ready, f"{pattern!r} never came: {self.text!r}"
            try:
                data = os.read(self.master, 65536)
            except OSError:  # the far side is closed
                data = b""
            assert data, f"ended before {pattern!r}: {self.text!r}"
            self.text = ESCAPES.sub("", self.text + data.decode(errors="replace"))
        before, self.text = self.text[: match.start()], self.text[match.end() :]
        return before

    def type(self, line: str) -> None:
        os.write(self.master, line.encode() + b"\n")

    def ask(self, line: str, answer: str) -> None:
        """Type a line; wait for the answer, and for the next prompt."""
        self.type(line)
        self.expect(answer)
        self.expect(r">>> ")

    def wait(self) -> int:
        return self.process.wait(SECONDS)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)


@pytest.fixture(params=KINDS)
def terminal(request: Any, tmp_path: Any) -> Iterator[Terminal]:
    env = {"PYTHON_BASIC_REPL": "1"} if request.param == "basic" else {}
    env |= {"HOME": str(tmp_path), "PYTHON_HISTORY": str(tmp_path / "history")}
    made = Terminal("-m", "hotloop", **env)
    made.expect("asyncio REPL")
    made.expect(">>> import asyncio")
    made.expect(">>> ")
    yield made
    made.close()


# Words are typed in halves: the terminal echoes what is typed.
WAITS = (
    r"""exec("async def waits():\n print('wait' 'ing')\n await asyncio.sleep(1000)")"""
)


def test_awaiting_at_the_prompt(terminal: Terminal) -> None:
    terminal.ask("type(asyncio.get_running_loop())", r"class 'hotloop\._loop\.Loop'")
    terminal.ask("await asyncio.sleep(0.01, 'ab' 'cd')", "'abcd'")
    terminal.ask("1/0", "ZeroDivisionError")
    terminal.type("exit()")
    if PY >= (3, 13):
        terminal.expect("exiting asyncio REPL")
    assert terminal.wait() == 0


def test_interrupting_what_is_awaited(terminal: Terminal) -> None:
    terminal.ask(WAITS, "")
    terminal.type("await waits()")
    terminal.expect("waiting")
    os.write(terminal.master, b"\x03")
    terminal.expect("KeyboardInterrupt")
    terminal.expect(">>> ")
    terminal.ask("await asyncio.sleep(0, 'go' 'es on')", "'goes on'")
    os.write(terminal.master, b"\x04")
    terminal.expect("exiting asyncio REPL")
    assert terminal.wait() == 0


def test_the_exit_code(terminal: Terminal) -> None:
    terminal.type("import sys; sys.exit(5)")
    assert terminal.wait() == 5


def test_input_that_is_no_terminal() -> None:
    lines = "import asyncio\nawait asyncio.sleep(0, 17)\nasyncio.get_running_loop()\n"
    results = []
    for module in ("asyncio", "hotloop"):
        done = subprocess.run(
            [sys.executable, "-m", module],
            input=lines,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env={**os.environ, "PYTHON_COLORS": "0"},
        )
        loop = "_UnixSelectorEventLoop" if module == "asyncio" else "Loop"
        assert f"<{loop} running=True" in done.stdout, done
        results.append((done.returncode, done.stdout.split("<")[0], done.stderr))
    assert results[1] == results[0]


def test_a_program_from_a_terminal() -> None:
    made = Terminal("-m", "hotloop", "-", PYTHON_BASIC_REPL="1")
    try:
        made.expect(">>> ")
        made.expect(">>> ")
        made.ask("type(asyncio.get_running_loop())", r"hotloop\._loop\.Loop")
        os.kill(made.process.pid, signal.SIGKILL)
    finally:
        made.close()

"""A child process that answers with JSON lines, under time limits.

A child writes one JSON object per line on its standard output. Its standard
error goes to a temporary file, whose last line explains a failure.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from .cores import pinned

ROOT = Path(__file__).resolve().parent.parent
PR_SET_PDEATHSIG = 1


class ChildError(Exception):
    """The child died, answered nonsense or ran out of time."""


def module_command(module: str, *args: object) -> list[str]:
    """Return the command that runs one module of this package."""
    arguments = [str(arg) for arg in args]
    return [sys.executable, "-m", f"{__package__}.{module}", *arguments]


def die_with_parent() -> None:
    """In a child: be killed when the parent dies (Linux; elsewhere nothing)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def answer(message: dict[str, Any]) -> None:
    """In a child: send one answer to the parent."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


class Child:
    """One child process, killed at the end of the ``with`` block."""

    def __init__(self, command: list[str], core: int | None = None) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._buffer = b""
        with pinned(core):
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
            )

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self.process.pid

    def ask(self, message: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Send one request and return its answer."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            raise self._failure("died") from None
        return self.read(timeout)

    def read(self, timeout: float) -> dict[str, Any]:
        """Return the next answer; ChildError when it does not come in time."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        deadline = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([descriptor], [], [], left)[0]:
                raise self._failure(f"no answer in {timeout:.0f} s")
            piece = os.read(descriptor, 65536)
            if not piece:
                raise self._failure("died")
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            message: dict[str, Any] = json.loads(line)
        except ValueError:
            raise self._failure(f"answered {line[:80]!r}") from None
        if "error" in message:
            raise ChildError(message["error"])
        return message

    def close(self) -> None:
        """Kill the child, if it still runs, and collect it."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._errors.close()

    def _failure(self, what: str) -> ChildError:
        """Describe a failure, with the exit status and the last error line."""
        if what == "died":
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(2)
        status = self.process.poll()
        if status is not None and status < 0:
            what += f" by {signal.Signals(-status).name}"
        elif status:
            what += f" with status {status}"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "")
        return ChildError(f"{what}: {last.strip()}" if last else what)

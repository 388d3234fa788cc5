"""One line per measurement, while a run goes on."""

from __future__ import annotations

import sys
import time

from .model import Row, Sample
from .units import show


class Progress:
    """Counts measurements on standard error, with the time left."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._start = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def starting(self, row: Row, loop: str) -> None:
        """Say what runs now (on a terminal only)."""
        if self._terminal:
            text = f"{self._count()} {row.suite} {row.name} {loop} ..."
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()

    def measured(self, row: Row, loop: str, sample: Sample) -> None:
        """Report one measurement."""
        self._line(row, loop, show(sample.value, row.unit))

    def failed(self, row: Row, loop: str, reason: str) -> None:
        """Report that one measurement was not possible."""
        self._line(row, loop, f"- ({reason})")

    def drop(self, count: int) -> None:
        """Expect so many measurements less."""
        self._total -= count

    def _line(self, row: Row, loop: str, text: str) -> None:
        self._done += 1
        start = "\r\x1b[K" if self._terminal else ""
        what = f"{row.suite} {row.name}"
        sys.stderr.write(f"{start}{self._count()} {what:<32} {loop:<9} {text}\n")
        sys.stderr.flush()

    def _count(self) -> str:
        spent = time.monotonic() - self._start
        left = spent / self._done * (self._total - self._done) if self._done else 0
        return f"[{self._done}/{self._total}, {left:.0f} s left]"

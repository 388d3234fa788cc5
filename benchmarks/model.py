"""What is measured, and the JSON file it is kept in."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

DISTURBED = 0.05
SATURATED = 0.97

# What to compare in a row, beside its value.
SERVER_CPU = "server CPU"
USER_CPU = "user CPU"


@dataclass(frozen=True)
class Row:
    """One thing to measure under every loop."""

    suite: str
    name: str
    unit: str
    higher_is_better: bool = False
    merit: str = ""


@dataclass
class Sample:
    """One measurement: its value, and what else was seen with it."""

    value: float
    extra: dict[str, float] = field(default_factory=dict)

    @property
    def disturbed(self) -> bool:
        """Did other programs hold the cores of this measurement?"""
        return self.extra.get("waited", 0.0) > DISTURBED

    @property
    def client_limits(self) -> bool:
        """Was the client too busy to ask for more?"""
        return self.extra.get("client_busy", 0.0) > SATURATED


@dataclass
class Cell:
    """All samples of one row under one loop."""

    row: Row
    loop: str
    samples: list[Sample] = field(default_factory=list)
    error: str | None = None

    @property
    def best(self) -> Sample | None:
        """The best sample, or None when there is none."""
        if not self.samples:
            return None
        pick = max if self.row.higher_is_better else min
        return pick(self.samples, key=lambda sample: sample.value)

    def cpu_us(self) -> tuple[float, float] | None:
        """User and kernel microseconds per request, or None if unknown.

        The sum is that of the best sample. It is split in the proportion
        of all samples together: the system finds the split by sampling, so
        one measurement alone has few ticks of user time.
        """
        best = self.best
        if best is None or "user_us" not in best.extra:
            return None
        user = sum(s.extra.get("user_us", 0.0) for s in self.samples)
        kernel = sum(s.extra.get("kernel_us", 0.0) for s in self.samples)
        share = user / (user + kernel) if user + kernel else 0.0
        total = best.extra["user_us"] + best.extra["kernel_us"]
        return total * share, total * (1 - share)

    def merit_us(self) -> float | None:
        """Microseconds of the CPU time that the row is about, if known."""
        parts = self.cpu_us()
        if parts is None:
            return None
        return parts[0] if self.row.merit == USER_CPU else sum(parts)


@dataclass
class Results:
    """One run of the benchmarks."""

    meta: dict[str, Any]
    cells: list[Cell]

    def save(self, path: Path) -> None:
        """Write the run as JSON."""
        cells = [asdict(cell) for cell in self.cells]
        text = json.dumps({"meta": self.meta, "cells": cells}, indent=1)
        path.write_text(text + "\n")

    @staticmethod
    def load(path: Path) -> Results:
        """Read a run written by `save`."""
        data = json.loads(path.read_text())
        return Results(data["meta"], [_cell(cell) for cell in data["cells"]])

    @property
    def loops(self) -> list[str]:
        """The loops of the run, in the order they were asked for."""
        return _unique(cell.loop for cell in self.cells)

    @property
    def suites(self) -> list[str]:
        """The suites of the run."""
        return _unique(cell.row.suite for cell in self.cells)

    def rows(self, suite: str) -> list[Row]:
        """The rows of one suite."""
        seen = dict.fromkeys(c.row for c in self.cells if c.row.suite == suite)
        return list(seen)

    def cell(self, row: Row, loop: str) -> Cell | None:
        """One cell, or None when it was not part of the run."""
        for cell in self.cells:
            if cell.row == row and cell.loop == loop:
                return cell
        return None


def _cell(data: dict[str, Any]) -> Cell:
    samples = [Sample(**sample) for sample in data["samples"]]
    return Cell(Row(**data["row"]), data["loop"], samples, data["error"])


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))

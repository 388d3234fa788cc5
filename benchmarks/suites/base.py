"""What every suite provides."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from ..cores import Cores
from ..model import Row, Sample


class Unavailable(Exception):
    """This row cannot be measured under this loop; the text says why."""


@dataclass(frozen=True)
class Settings:
    """How long and where to measure."""

    cores: Cores
    quick: bool = False


class Session(Protocol):
    """Measures rows; lives for one repeat of all rows."""

    def measure(self, row: Row, loop: str) -> Sample:
        """Measure once.

        Raises ChildError or Unavailable when that is not possible.
        """


class Suite(Protocol):
    """A set of rows, and the means to measure them."""

    name: str
    extra_loops: tuple[str, ...]

    def rows(self) -> list[Row]:
        """Every row there is."""

    def default_rows(self) -> list[Row]:
        """The rows measured when no pattern is given."""

    def prepare(self) -> None:
        """Build or look for what the suite needs.

        Raises Unavailable when the whole suite cannot run.
        """

    def session(self, settings: Settings) -> AbstractContextManager[Session]:
        """Start one repeat."""

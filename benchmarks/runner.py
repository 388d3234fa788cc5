"""Runs suites with the loops interleaved."""

from __future__ import annotations

from .child import Child, ChildError, module_command
from .model import Cell, Row, Sample
from .progress import Progress
from .suites.base import Session, Settings, Suite, Unavailable

PROBE_TIMEOUT = 30.0
TRIES = 3


def probe_loops(names: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the versions of the loops that work, and why others do not."""
    versions: dict[str, str] = {}
    missing: dict[str, str] = {}
    for name in names:
        with Child(module_command("workers.probe", name)) as child:
            try:
                versions[name] = child.read(PROBE_TIMEOUT)["version"]
            except ChildError as exc:
                missing[name] = str(exc)
    return versions, missing


class Plan:
    """The cells of one suite, and how to fill them."""

    def __init__(
        self,
        suite: Suite,
        rows: list[Row],
        loops: list[str],
        missing: dict[str, str],
    ) -> None:
        self.suite = suite
        self.cells = [
            Cell(row, loop, error=missing.get(loop)) for row in rows for loop in loops
        ]

    @property
    def size(self) -> int:
        """Measurements of one repeat."""
        return len(self._live())

    def run(self, settings: Settings, repeats: int, progress: Progress) -> None:
        """Measure: for each repeat, for each row, for each loop."""
        try:
            self.suite.prepare()
        except Unavailable as exc:
            progress.drop(self.size * repeats)
            for cell in self._live():
                cell.error = str(exc)
            return
        for left in reversed(range(repeats)):
            before = self.size
            with self.suite.session(settings) as session:
                for cell in self._live():
                    fill(cell, session, progress)
            progress.drop((before - self.size) * left)

    def _live(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.error is None]


def fill(cell: Cell, session: Session, progress: Progress) -> None:
    """Add one sample to a cell, or the reason why there is none."""
    progress.starting(cell.row, cell.loop)
    try:
        sample = undisturbed(cell.row, cell.loop, session)
    except (ChildError, Unavailable) as exc:
        cell.error = str(exc)
        progress.failed(cell.row, cell.loop, cell.error)
    else:
        cell.samples.append(sample)
        progress.measured(cell.row, cell.loop, sample)


def undisturbed(row: Row, loop: str, session: Session) -> Sample:
    """Measure until nothing disturbs it, or return the best of some tries."""
    tries: list[Sample] = []
    while len(tries) < TRIES:
        tries.append(session.measure(row, loop))
        if not tries[-1].disturbed:
            break
    return min(tries, key=lambda sample: sample.extra.get("waited", 0.0))

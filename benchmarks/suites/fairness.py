"""Suite *fairness*: how long one source keeps another waiting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..certificates import Certificate, CertificateError, certificate
from ..child import Child, module_command
from ..loops import SUBJECT
from ..model import Row, Sample
from .base import Settings, Unavailable

# What the aggressor does, and in which unit.
AGGRESSORS = {
    "callbacks": "callbacks",
    "connection": "bytes",
    "connections": "bytes",
    "tls": "bytes",
    "accepts": "accepts",
    "datagrams": "datagrams",
    "operations": "operations",
}
VICTIMS = ("echo", "timer", "priority")
SECONDS = 3.0
QUICK_SECONDS = 0.7
TIMEOUT = 60.0


class FairnessSession:
    """Starts a process for every measurement."""

    def __init__(self, settings: Settings) -> None:
        self._cores = settings.cores
        self._seconds = QUICK_SECONDS if settings.quick else SECONDS

    def measure(self, row: Row, loop: str) -> Sample:
        """Measure one aggressor and one victim under one loop."""
        aggressor, victim, what = row.name.split("/")
        if victim == "priority" and loop != SUBJECT:
            raise Unavailable("only hotloop has priorities")
        files: list[str] = []
        if aggressor == "tls":
            files = self._certificate()
        command = module_command(
            "workers.fairness", loop, aggressor, victim, self._seconds, *files
        )
        with Child(command, self._cores.server) as worker:
            figures = worker.read(TIMEOUT)
        key = "ms" if what == "time" else "work"
        return Sample(figures[key], figures)

    def _certificate(self) -> list[str]:
        try:
            made: Certificate = certificate("ecdsa")
        except CertificateError as error:
            raise Unavailable(str(error)) from None
        return [made.chain, made.key]


class FairnessSuite:
    """Rows aggressor/victim/work and, as time, aggressor/victim/time."""

    name = "fairness"
    extra_loops: tuple[str, ...] = ()

    def rows(self) -> list[Row]:
        pairs = [(a, v) for a in AGGRESSORS for v in VICTIMS]
        work = [Row(self.name, f"{a}/{v}/work", AGGRESSORS[a]) for a, v in pairs]
        return work + [Row(self.name, f"{a}/{v}/time", "ms") for a, v in pairs]

    def default_rows(self) -> list[Row]:
        return [row for row in self.rows() if row.name.endswith("/work")]

    def prepare(self) -> None:
        pass

    @contextmanager
    def session(self, settings: Settings) -> Iterator[FairnessSession]:
        yield FairnessSession(settings)

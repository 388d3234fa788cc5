"""CPU time of another process."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CpuTime:
    """CPU seconds of a process with all its threads, split in two.

    Where Linux is configured to sample the split, the sum is exact and the
    split is good to some percent of it. Beside it, how long its main thread
    could not run because another program had the core.
    """

    user: float
    kernel: float
    waited: float

    def __sub__(self, other: CpuTime) -> CpuTime:
        return CpuTime(
            self.user - other.user,
            self.kernel - other.kernel,
            self.waited - other.waited,
        )

    @property
    def total(self) -> float:
        return self.user + self.kernel


def cpu_time(pid: int) -> CpuTime | None:
    """Read the CPU time of a process; None where the system has no /proc."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return None
    fields = stat.read_text().rpartition(")")[2].split()
    tick = os.sysconf("SC_CLK_TCK")
    scheduling = Path(f"/proc/{pid}/schedstat")
    waited = int(scheduling.read_text().split()[1]) if scheduling.exists() else 0
    return CpuTime(int(fields[11]) / tick, int(fields[12]) / tick, waited / 1e9)


@dataclass
class CpuMeter:
    """CPU time of a process between `start` and `stop`."""

    pid: int

    def start(self) -> None:
        self._wall = time.monotonic()
        self._before = cpu_time(self.pid)

    def stop(self, requests: int) -> dict[str, float]:
        """Return the microseconds per request, and the share of one core."""
        after = cpu_time(self.pid)
        wall = time.monotonic() - self._wall
        if after is None or self._before is None or requests == 0:
            return {}
        used = after - self._before
        return {
            "user_us": used.user / requests * 1e6,
            "kernel_us": used.kernel / requests * 1e6,
            "server_busy": used.total / wall,
            "waited": used.waited / wall,
        }

"""Where and with what a run was made."""

from __future__ import annotations

import datetime
import platform
from pathlib import Path
from typing import Any

from .cores import Cores


def processor() -> str:
    """Name of the processor, as well as it is known."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def describe(cores: Cores, versions: dict[str, str], repeats: int) -> dict[str, Any]:
    """Return the facts that belong to the figures."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor(),
        "cores": cores.note,
        "repeats": repeats,
        "versions": versions,
    }

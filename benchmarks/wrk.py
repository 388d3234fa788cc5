"""Runs ``wrk`` and reads its report."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

from .cores import pinned

UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6}
GRACE = 30.0


class WrkError(Exception):
    """wrk is missing, failed, or saw failed requests."""


@dataclass(frozen=True)
class WrkReport:
    """The figures of one run."""

    rps: float
    requests: int
    p50_us: float
    p99_us: float


def find_wrk() -> str:
    """Return the path of wrk."""
    path = shutil.which("wrk")
    if path is None:
        raise WrkError("wrk is not installed (Debian and Ubuntu: apt install wrk)")
    return path


def run_wrk(url: str, connections: int, seconds: int, core: int | None) -> WrkReport:
    """Load one URL for so many seconds."""
    command = [find_wrk(), "-t1", f"-c{connections}", f"-d{seconds}s"]
    with pinned(core):
        process = subprocess.Popen(
            [*command, "--latency", url],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        output, _ = process.communicate(timeout=seconds + GRACE)
    except subprocess.TimeoutExpired:
        raise WrkError("wrk does not end") from None
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise WrkError(f"wrk failed: {output.strip()[-200:]}")
    return parse(output)


def parse(output: str) -> WrkReport:
    """Read the report of wrk."""
    for trouble in ("Socket errors:.*", "Non-2xx or 3xx responses:.*"):
        if found := re.search(trouble, output):
            raise WrkError(found[0].strip())
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    count = re.search(r"(\d+) requests in", output)
    if rate is None or count is None:
        raise WrkError(f"wrk reported nothing: {output.strip()[-200:]}")
    return WrkReport(
        float(rate[1]), int(count[1]), latency(output, 50), latency(output, 99)
    )


def latency(output: str, percent: int) -> float:
    """Return one percentile, in microseconds."""
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m)$", output, re.MULTILINE)
    if found is None:
        raise WrkError("wrk reported no latency")
    return float(found[1]) * UNITS[found[2]]

"""Runs ``openssl s_time`` and reads its report."""

from __future__ import annotations

import re
import subprocess

from .certificates import find_openssl
from .cores import pinned

GRACE = 30.0


class TimeError(Exception):
    """``openssl s_time`` failed; the text says how."""


def run_s_time(port: int, seconds: int, core: int | None) -> int:
    """Shake hands for so many seconds, one at a time; return how often."""
    command = [find_openssl(), "s_time", "-connect", f"127.0.0.1:{port}"]
    with pinned(core):
        process = subprocess.Popen(
            [*command, "-new", "-time", str(seconds)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        output, _ = process.communicate(timeout=seconds + GRACE)
    except subprocess.TimeoutExpired:
        raise TimeError("openssl s_time does not end") from None
    finally:
        process.kill()
        process.wait()
    found = re.search(r"(\d+) connections in \d+ real seconds", output)
    if process.returncode or found is None or found[1] == "0":
        raise TimeError(f"openssl s_time failed: {output.strip()[-200:]}")
    return int(found[1])

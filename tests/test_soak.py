"""The soak, short: what is sound passes, and each defect is found."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from support import PY, ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl"),
    pytest.mark.skipif(PY != (3, 13), reason="minutes: one interpreter is enough"),
    pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="not beside them"),
]

SIZE = ("--connections", "60", "--rate", "200", "--minutes", "0.06")


def soak(fault: str, *args: str) -> tuple[int, str]:
    """Run it; a few connections leave more noise in memory than ten thousand."""
    pytest.importorskip("aiohttp")
    command = [sys.executable, "-m", "benchmarks.soak", *SIZE, "--fault", fault]
    done = subprocess.run(
        [*command, "--growth", "0.25", *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def failures(output: str) -> list[str]:
    """What the verdict has against a run."""
    return [line[8:] for line in output.splitlines() if line.startswith("FAILED  ")]


def test_sound() -> None:
    code, output = soak("none")
    assert (code, failures(output)) == (0, []), output
    assert output.endswith("soak: passed\n")


def test_leak() -> None:
    code, output = soak("leak", "--leak", "50000")
    (found,) = failures(output)
    assert code == 1
    assert found.startswith("server: resident")
    assert found.endswith(": a leak")


def test_kept_socket() -> None:
    code, output = soak("kept-socket", "--patience", "4")
    assert code == 1
    assert any(f.startswith("server: descriptors") for f in failures(output)), output


@pytest.mark.skipif("CI" in os.environ, reason="two minutes, most of them idle")
def test_lost_byte() -> None:
    code, output = soak("lost-byte", "--patience", "4")
    assert code == 1
    assert any("Damage" in found for found in failures(output)), output

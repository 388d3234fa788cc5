"""The examples run, and say what they should."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from support import ROOT


def run(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_echo_streams() -> None:
    script = "examples/echo_streams.py"
    assert "hotloop" in run("examples/run_with.py", "hotloop", script)
    assert "10000 lines echoed" in run(script)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate")
def test_streams_in_c() -> None:
    plain, tls = run("examples/streams_in_c.py").splitlines()
    assert plain.startswith("plain: ") and tls.startswith("over TLS: ")
    assert plain.endswith(" with hotloop's") and tls.endswith(" with hotloop's")

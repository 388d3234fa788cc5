"""Two network namespaces, and a kernel that loses, delays and doubles packets.

Skipped where the kernel has no netem; `make netem` runs it on one that has it.
"""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys

import pytest

from support import ROOT, finish_script, script_env

PROGRAM = ROOT / "tests" / "netemprogram.py"
TRY = (
    "ip link add hot0 type veth peer name hot1 && "
    "tc qdisc add dev hot0 root netem loss 1%"
)


@pytest.fixture(scope="module", autouse=True)
def netem() -> None:
    """Skips where packets cannot be lost on purpose."""
    for program in ("unshare", "nsenter", "ip", "tc"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    if shutil.which("modprobe"):
        subprocess.run(["modprobe", "-qa", "veth", "sch_netem"], check=False)
    tried = subprocess.run(
        ["unshare", "--net", "sh", "-c", TRY], capture_output=True, text=True
    )
    if tried.returncode:
        pytest.skip(f"no netem here: {tried.stderr.strip()[:100]}")


@pytest.mark.timeout(300)
def test_a_bad_wire(loop_kind: str, certificate: pathlib.Path) -> None:
    """TCP, TLS and UDP over it, and a peer that falls silent and comes back."""
    process = subprocess.Popen(
        ["unshare", "--net", sys.executable, PROGRAM, "client", loop_kind, certificate],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=script_env(loop_kind),
    )
    code, out, err = finish_script(process, 240)
    assert (code, err) == (0, ""), f"{out}\n{err}"
    assert out.splitlines() == [
        "tcp whole whole whole whole",
        "tls whole whole whole whole",
        "datagrams lost some",
        "half-open ETIMEDOUT",
        "connect timed out",
        "while it was cut",
    ]

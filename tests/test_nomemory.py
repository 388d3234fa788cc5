"""Calls that run out of memory raise MemoryError or are reported, and nothing breaks.

`make nomemory` lets every call of every scenario fail, this here each place in the
sources once. It takes a build that can be made to fail: see csrc/base/faults.h.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

import hotloop._core
import support
from nomemory import control

CORE = pathlib.Path(hotloop._core.__file__)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "hotloop" not in support.wanted_kinds(), reason="about hotloop's own code"
    ),
    pytest.mark.skipif(
        b"hotloop_call_fails" not in CORE.read_bytes(),
        reason="only development builds can be made to fail",
    ),
    pytest.mark.skipif(
        shutil.which(control.compiler()[0]) is None, reason="needs a compiler"
    ),
]


@pytest.mark.timeout(600)
def test_every_place_that_may_run_out_of_memory() -> None:
    path = os.pathsep.join([str(support.HERE), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-m", "nomemory", "--quick"],
        env=dict(os.environ, PYTHONPATH=path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " 0 wrong" in done.stdout.splitlines()[-1]


@pytest.mark.skipif(not control.CSRC.is_dir(), reason="needs the sources")
def test_what_can_fail_is_known() -> None:
    names = control.fallible_names()
    assert {"PyTuple_New", "PyObject_Vectorcall", "hl_alloc", "uv_poll_init"} <= names
    assert sum(control.count_sites().values()) > 500

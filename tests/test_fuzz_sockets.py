"""Connections that are opened, filled, cut and broken at random lose nothing."""

from __future__ import annotations

import pathlib
import sys
import tempfile
from typing import Any

import pytest

pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, example, given, settings

import support
from fuzz.sockets import CONNECTIONS, run_traffic

pytestmark = [
    # Of its own generator, which a collection at a bad moment takes.
    pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning"),
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

# Both ends close with more to send than the system holds: neither reads again.
TIED: list[Any] = [
    (
        "pair",
        [
            ("write", 1, 300_000),
            ("write", 0, 1),
            ("on_data", 0, "close"),
            ("on_data", 1, "close"),
            ("write", 0, 300_000),
            ("writelines", 1, 300_000),
            ("write", 0, 300_000),
        ],
    )
]


def test_traffic(loop_kind: str, tmp_path: pathlib.Path) -> None:
    loop = support.loop_factory(loop_kind)()

    @settings(
        max_examples=120,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(CONNECTIONS)
    @example(TIED)
    def check(connections: list[Any]) -> None:
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            run_traffic(loop, connections, folder)

    try:
        check()
    finally:
        loop.close()

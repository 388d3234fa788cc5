"""Broken TLS harms nobody: some seeds of the fuzzer; `make fuzz` plays more."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("trustme")

import support
from fuzz.tls import run_tls

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

# Found by the fuzzer once, or of a kind that is rare.
FOUND = [14, 32, 37, 53, 55, 116, 120, 1529, 1911, 2043, 2902, 6902]
# asyncio's socket transport takes a write when it is over, and waits for ever.
HANGS = [7064]


@pytest.mark.parametrize("first", [0, 100, 200])
def test_seeds(loop_kind: str, first: int) -> None:
    loop = support.loop_factory(loop_kind)()
    try:
        ends = {run_tls(loop, seed) for seed in range(first, first + 60)}
    finally:
        loop.close()
    assert ends == {"lost", "refused"}


def test_found(loop_kind: str) -> None:
    loop = support.loop_factory(loop_kind)()
    try:
        for seed in FOUND if loop_kind == "asyncio" else FOUND + HANGS:
            run_tls(loop, seed)
    finally:
        loop.close()

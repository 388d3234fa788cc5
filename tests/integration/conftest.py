"""Fixtures of the integration tests: real servers, started where they are needed.

Each library is used unchanged and as its users use it. The fixtures of
tests/conftest.py hold here as well: `loop` is a fresh loop, on which a coroutine
test runs, and nothing may be left behind: no descriptor, no report, no task.
"""

from __future__ import annotations

import pathlib

import pytest

HERE = pathlib.Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            # What a library is about to lose is its own affair.
            for category in ("DeprecationWarning", "PendingDeprecationWarning"):
                mark = pytest.mark.filterwarnings(f"ignore::{category}")
                item.add_marker(mark)

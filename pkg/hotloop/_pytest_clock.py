"""The fixture hotloop_clock: what pytest's plugin loads if a test asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any

import pytest

from ._default import set_default
from .testing import Clock, TestLoop

NAME = "hotloop_clock"

_KEY = pytest.StashKey[Clock]()


def clock_of(request: pytest.FixtureRequest) -> Clock:
    """Return the clock of the test."""
    clock: Clock = request.node.stash[_KEY]
    return clock


class Clocks:
    """The plugin at work: it is there only if a test has the fixture."""

    def __init__(self, usual: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.usual = usual
        self.clock: Clock | None = None
        self.wider = False

    def make_loop(self) -> asyncio.AbstractEventLoop:
        """Make a loop for the test, or for fixtures that others have as well."""
        if self.clock is None or self.wider:
            return self.usual()
        return TestLoop(self.clock)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Have the loops that a test with the fixture makes run by its clock."""
        if NAME not in getattr(item, "fixturenames", ()):
            return (yield)
        self.clock = item.stash[_KEY] = Clock()
        undo = set_default(self.make_loop)
        try:
            return (yield)
        finally:
            undo()
            self.clock = None

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, Any, Any]:
        """Notice fixtures that outlive the test: their loops keep the real time."""
        before, self.wider = self.wider, fixturedef.scope != "function"
        try:
            return (yield)
        finally:
            self.wider = before

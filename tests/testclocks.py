"""What the tests of hotloop.testing share: a clock, a loop that runs by it, notes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hotloop import testing
from hotloop.testing import Clock, TestLoop


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loop(clock: Clock, reports: list[Any]) -> Iterator[TestLoop]:
    """A loop that runs by the clock."""
    made = testing.new_event_loop(clock)
    made.set_exception_handler(lambda _, context: reports.append(context))
    yield made
    made.run_until_complete(made.shutdown_asyncgens())
    made.run_until_complete(made.shutdown_default_executor())
    made.close()


class Times(list):  # type: ignore[type-arg]
    """What was called, and when."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def note(self, what: Any) -> None:
        self.append((what, self.loop.time()))

    def noting(self, what: Any) -> Callable[[], None]:
        return lambda: self.note(what)

"""Which loops asyncio makes by default: those of programs that choose none.

asyncio makes its default policy when one is asked for and none is set. Here that
policy is another; a policy or a loop factory of the program's own goes before it, and
``set_event_loop_policy(None)`` comes back to it. No name is touched that Python warns
about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ._policy import _Base

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

_events: Any = asyncio.events


class DefaultPolicy(_Base):
    """asyncio's default policy with loops of a factory."""

    def __init__(self, factory: LoopFactory) -> None:
        super().__init__()
        self._factory = factory

    def _loop_factory(self) -> asyncio.AbstractEventLoop:
        return self._factory()


def set_default(factory: LoopFactory, *, keep: bool = True) -> Callable[[], None]:
    """Have asyncio make its loops with a factory; return what undoes it.

    A policy that the program has set already is kept, or forgotten.
    """
    made, policy = _events._init_event_loop_policy, _events._event_loop_policy

    def make() -> None:
        with _events._lock:
            if _events._event_loop_policy is None:
                _events._event_loop_policy = DefaultPolicy(factory)

    def undo() -> None:
        _events._init_event_loop_policy = made
        _events._event_loop_policy = policy

    _events._init_event_loop_policy = make
    if not keep or type(policy) in (_Base, DefaultPolicy):
        _events._event_loop_policy = None
    return undo

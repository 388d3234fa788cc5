"""The event loop policy, for as long as Python has policies.

Imported on demand only: Pythons that deprecate policies warn about their names.
"""

from __future__ import annotations

import asyncio
import sys
import warnings

from ._loop import Loop
from ._run import new_event_loop

if sys.version_info < (3, 14):
    _Base = asyncio.DefaultEventLoopPolicy
else:
    from asyncio.unix_events import _DefaultEventLoopPolicy as _Base

_DEPRECATED = "{!r} is deprecated and slated for removal in Python 3.16"


class _Policy(_Base):
    """asyncio's default policy with hotloop's loops."""

    def _loop_factory(self) -> Loop:
        return new_event_loop()


_Policy.__name__ = _Policy.__qualname__ = "EventLoopPolicy"
_Policy.__module__ = "hotloop"


def policy_class() -> type[_Policy]:
    """Return hotloop.EventLoopPolicy, with asyncio's warning for such a name."""
    if sys.version_info >= (3, 14):
        warnings.warn(
            _DEPRECATED.format("hotloop.EventLoopPolicy"),
            DeprecationWarning,
            stacklevel=3,
        )
    return _Policy


def install() -> None:
    """Make every new event loop of this process a hotloop loop.

    Sets the policy, with the warning that ``asyncio.set_event_loop_policy()``
    gives where policies are deprecated. ``hotloop.run()`` needs no policy.
    """
    if sys.version_info >= (3, 14):
        warnings.warn(
            _DEPRECATED.format("asyncio.set_event_loop_policy"),
            DeprecationWarning,
            stacklevel=2,
        )
        asyncio.events._set_event_loop_policy(_Policy())
    else:
        asyncio.set_event_loop_policy(_Policy())

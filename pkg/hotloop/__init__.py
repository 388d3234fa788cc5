"""A faster asyncio event loop, in C over libuv, with no change to your code.

hotloop.run(main())

with asyncio.Runner(loop_factory=hotloop.new_event_loop) as runner:
    runner.run(main())

PYTEST_DONT_REWRITE: pytest may find this package loaded already, and says nothing.
"""

from __future__ import annotations

import sys as _sys
from typing import TYPE_CHECKING, Any

from ._core import Future, StreamReader, StreamWriter, Task
from ._loop import Loop
from ._metrics import Histogram, Metrics, ProfileEntry
from ._run import new_event_loop, run
from ._streams import (
    install_streams,
    open_connection,
    open_unix_connection,
    start_server,
    start_unix_server,
    uninstall_streams,
)
from ._version import __version__
from ._watchdog import BlockedCallback

__all__ = [
    "BlockedCallback",
    "Future",
    "Histogram",
    "Loop",
    "Metrics",
    "ProfileEntry",
    "StreamReader",
    "StreamWriter",
    "Task",
    "__version__",
    "install_streams",
    "new_event_loop",
    "open_connection",
    "open_unix_connection",
    "run",
    "start_server",
    "start_unix_server",
    "uninstall_streams",
]

if _sys.version_info < (3, 16):
    __all__ += ["EventLoopPolicy", "install"]

if TYPE_CHECKING:
    from ._policy import _Policy as EventLoopPolicy
    from ._policy import install


def _get_attribute(name: str) -> Any:
    # Policies are deprecated: to touch them only when they are asked for keeps
    # asyncio's warning where asyncio gives it, and the import free of it.
    if name in ("EventLoopPolicy", "install") and _sys.version_info < (3, 16):
        from . import _policy

        return _policy.install if name == "install" else _policy.policy_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if not TYPE_CHECKING:  # they would take it that every name exists
    __getattr__ = _get_attribute


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

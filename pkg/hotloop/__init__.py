"""A faster asyncio event loop, in C over libuv, with no change to your code.

hotloop.run(main())

with asyncio.Runner(loop_factory=hotloop.new_event_loop) as runner:
    runner.run(main())
"""

from __future__ import annotations

import sys as _sys
from typing import TYPE_CHECKING, Any

from ._core import Future, Task
from ._loop import Loop
from ._run import new_event_loop, run
from ._version import __version__

__all__ = ["Future", "Loop", "Task", "__version__", "new_event_loop", "run"]

if _sys.version_info < (3, 16):
    __all__ += ["EventLoopPolicy", "install"]

if TYPE_CHECKING:
    from ._policy import _Policy as EventLoopPolicy
    from ._policy import install


def __getattr__(name: str) -> Any:
    # Policies are deprecated: to touch them only when they are asked for keeps
    # asyncio's warning where asyncio gives it, and the import free of it.
    if name in ("EventLoopPolicy", "install") and _sys.version_info < (3, 16):
        from . import _policy

        return _policy.install if name == "install" else _policy.policy_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

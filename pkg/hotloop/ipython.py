"""IPython's extension: what is awaited in its cells, and in Jupyter's, runs on hotloop.

``%load_ext hotloop.ipython`` switches it on in a terminal. A kernel of Jupyter has one
loop from its beginning to its end, so there the extension is named in the settings:
``c.InteractiveShellApp.extensions = ["hotloop.ipython"]``.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import Callable
from typing import Any

from ._default import set_default
from ._loop import Loop
from ._run import new_event_loop

__all__ = ["load_ipython_extension", "unload_ipython_extension"]

_undo: list[Callable[[], None]] = []


def _forget_loop() -> None:
    """Close IPython's loop: it asks asyncio for another when it needs one."""
    helpers = importlib.import_module("IPython.core.async_helpers")
    loop = helpers._asyncio_event_loop
    if loop is not None and not loop.is_running():
        loop.close()


def load_ipython_extension(shell: Any) -> None:
    """Make hotloop the loop of the shell, and of what is run in it."""
    with contextlib.suppress(RuntimeError):
        if not isinstance(asyncio.get_running_loop(), Loop):
            raise ImportError(
                "the loop of a kernel that runs cannot be changed: name this in "
                "c.InteractiveShellApp.extensions, in ipython_kernel_config.py"
            )
    if not _undo:
        _undo.append(set_default(new_event_loop))
        _forget_loop()


def unload_ipython_extension(shell: Any) -> None:
    """Go back to the loops that asyncio makes by itself."""
    while _undo:
        _undo.pop()()
        _forget_loop()

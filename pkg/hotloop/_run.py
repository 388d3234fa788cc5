"""Making loops and running programs on them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ._loop import Loop
from ._streams import install_streams, uninstall_streams

T = TypeVar("T")


def new_event_loop() -> Loop:
    """Return a new hotloop event loop, for any ``loop_factory`` parameter."""
    return Loop()


def _controlled(
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None,
    wanted: bool | str | os.PathLike[str],
) -> Callable[[], asyncio.AbstractEventLoop]:
    """A factory of the same loops with a control socket each."""
    from . import control

    def make() -> asyncio.AbstractEventLoop:
        loop = (loop_factory or asyncio.new_event_loop)()
        try:
            control.serve(loop, path=None if isinstance(wanted, bool) else wanted)
        except BaseException:
            loop.close()
            raise
        return loop

    return make


def run(
    main: Coroutine[Any, Any, T],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = new_event_loop,
    streams: bool = False,
    control: bool | str | os.PathLike[str] = False,
) -> T:
    """Run a coroutine on a new hotloop event loop and return its result.

    With ``streams``, what ``install_streams()`` does holds for the run. With
    ``control`` the loop has a control socket, at that path or at one of its own:
    ``hotloop.control.serve()`` says more.

    As ``asyncio.run()``, which takes ``loop_factory`` only from 3.12 on; errors
    are the same: RuntimeError when a loop already runs in this thread, and for
    a main that is no coroutine what the running Python raises.
    """
    if control:
        loop_factory = _controlled(loop_factory, control)
    if streams:
        install_streams()
        try:
            return run(main, debug=debug, loop_factory=loop_factory)
        finally:
            uninstall_streams()
    if sys.version_info >= (3, 12):
        return asyncio.run(main, debug=debug, loop_factory=loop_factory)
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("asyncio.run() cannot be called from a running event loop")
    with asyncio.Runner(debug=debug, loop_factory=loop_factory) as runner:
        return runner.run(main)

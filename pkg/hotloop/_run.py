"""Making loops and running programs on them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ._loop import Loop
from ._streams import install_streams, uninstall_streams

if TYPE_CHECKING:
    from .doctor import Doctor

T = TypeVar("T")


def new_event_loop() -> Loop:
    """Return a new hotloop event loop, for any ``loop_factory`` parameter."""
    return Loop()


def _observing(
    factory: Callable[[], asyncio.AbstractEventLoop] | None,
    metrics: bool | Literal["profile"],
    watchdog: float | None,
    control_at: bool | str | os.PathLike[str],
) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return a factory of loops that are looked at, as run() says."""

    def observed_event_loop() -> asyncio.AbstractEventLoop:
        loop = (factory or asyncio.new_event_loop)()
        try:
            if not isinstance(loop, Loop):
                raise TypeError(f"a hotloop.Loop has metrics, not {loop!r}")
            if metrics:
                loop.enable_metrics(profile=metrics == "profile")
            if watchdog is not None:
                loop.enable_watchdog(watchdog)
            if control_at:
                from . import control

                path = None if isinstance(control_at, bool) else control_at
                control.serve(loop, path=path)
        except BaseException:
            loop.close()
            raise
        return loop

    return observed_event_loop


def run(
    main: Coroutine[Any, Any, T],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = new_event_loop,
    streams: bool = False,
    metrics: bool | Literal["profile"] = False,
    watchdog: float | None = None,
    control: bool | str | os.PathLike[str] = False,
    doctor: bool | Doctor = False,
) -> T:
    """Run a coroutine on a new hotloop event loop and return its result.

    With ``streams``, what ``install_streams()`` does holds for the run. ``metrics``
    is for ``loop.enable_metrics()``, ``watchdog`` for ``loop.enable_watchdog()``,
    ``control``, True or a path, for ``hotloop.control.serve()``. With ``doctor``,
    mistakes of the program are reported on standard error at its end, or are in the
    report of the ``hotloop.doctor.Doctor`` that is given.

    As ``asyncio.run()``, which takes ``loop_factory`` only from 3.12 on; errors
    are the same: RuntimeError when a loop already runs in this thread, and for
    a main that is no coroutine what the running Python raises.
    """
    if metrics or watchdog is not None or control:
        loop_factory = _observing(loop_factory, metrics, watchdog, control)
    if doctor:
        from .doctor import examine

        return examine(
            lambda: run(main, debug=debug, loop_factory=loop_factory, streams=streams),
            None if doctor is True else doctor,
        )
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

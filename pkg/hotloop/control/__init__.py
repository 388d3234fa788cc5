"""A Unix socket at which a running loop can be looked at, from another process.

``hotloop.run(main(), control=True)``, ``hotloop.control.serve()`` in a program that
runs or ``HOTLOOP_CONTROL=1`` in the environment open one; ``python -m hotloop top``
and ``hotloop.control.Client`` ask there. A thread answers, so that a loop that is
blocked can be seen, too.
"""

from __future__ import annotations

import asyncio
import logging
import os
from types import TracebackType

from .._loop import Loop
from . import _answers, _places
from ._client import Client, ControlError
from ._places import Place, find
from ._server import Server

__all__ = ["Client", "Control", "ControlError", "Place", "find", "serve"]

_OFF = ("", "0", "no", "off", "false")


class Control:
    """The control socket of a loop: what ``serve()`` returns.

    It is closed with its loop. A forked child does not have it.
    """

    path: str

    def __init__(self, loop: Loop, path: str | None, folder: str | None) -> None:
        listener, self.path = _places.listen(path, folder)
        watched = _answers.Watched(loop, self.path)
        self._server = Server(listener, self.path, lambda: _answers.Watcher(watched))

    @property
    def closed(self) -> bool:
        """Whether nobody answers any more."""
        return self._server.closed

    def close(self) -> None:
        """Close the socket and remove its file; closing twice is harmless."""
        self._server.close()

    def __enter__(self) -> Control:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _folder_asked() -> str | None:
    """The folder that the environment names for sockets."""
    setting = os.environ.get("HOTLOOP_CONTROL", "")
    return setting if os.sep in setting else None


def serve(
    loop: asyncio.AbstractEventLoop | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
) -> Control:
    """Open the control socket of a loop, the running one by default; return it.

    Without a path it gets one of its own in a folder that only this user may enter,
    where ``find()`` finds it. The loop's metrics are switched on. A loop that has a
    control socket keeps it: another path raises RuntimeError. Raise TypeError for
    loops that are not hotloop's, and OSError where a socket cannot be made.
    """
    if loop is None:
        loop = asyncio.get_running_loop()
    if not isinstance(loop, Loop):
        raise TypeError(f"a hotloop.Loop was expected, got {loop!r}")
    loop._check_closed()
    wanted = None if path is None else os.fspath(path)
    control = loop._control
    if control is None or control.closed:
        if not loop.metrics().enabled:
            loop.enable_metrics()
        control = loop._control = Control(loop, wanted, _folder_asked())
    elif wanted not in (None, control.path):
        raise RuntimeError(f"the loop has a control socket already: {control.path}")
    return control


def serve_if_asked(loop: Loop) -> None:
    """Open the socket if HOTLOOP_CONTROL says so; a program must not fail for it."""
    if os.environ.get("HOTLOOP_CONTROL", "").lower() in _OFF:
        return
    try:
        serve(loop)
    except OSError as error:
        logging.getLogger("hotloop").warning("HOTLOOP_CONTROL: %s", error)

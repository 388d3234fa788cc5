"""Worker processes of multiprocessing have the loops of their parent.

Forked ones have everything of it. The others begin as a new Python and read what they
need from their parent; with it they are given something that switches hotloop on as
it is read, which is before the program is loaded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from multiprocessing import spawn
from typing import Any

from ._default import set_default
from ._run import new_event_loop
from ._streams import install_streams


class _Switch:
    """Pickled, this is a call of switch_on()."""

    def __init__(self, streams: bool) -> None:
        self._streams = streams

    def __reduce__(self) -> tuple[Callable[[bool], None], tuple[bool]]:
        return switch_on, (self._streams,)


def switch_on(streams: bool) -> None:
    """Make hotloop the default of this process and of its children."""
    set_default(new_event_loop)
    if streams:
        install_streams()
    prepared: Any = spawn.get_preparation_data

    @functools.wraps(prepared)
    def get_preparation_data(name: str) -> dict[str, Any]:
        return {**prepared(name), "hotloop": _Switch(streams)}

    spawn.get_preparation_data = get_preparation_data

"""Attributes replaced while the doctor watches, and put back after."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

_MISSING = object()


class Patches:
    """Replacements that can be undone, the last one first."""

    def __init__(self) -> None:
        self._done: list[tuple[Any, str, Any, Any]] = []

    def wrap(
        self, owner: Any, name: str, wrapper: Callable[[Callable[..., Any]], Any]
    ) -> None:
        """Put wrapper(what is there) in the place of an attribute."""
        original = getattr(owner, name)
        own = vars(owner).get(name, _MISSING)
        made = wrapper(original)
        functools.update_wrapper(made, original)
        setattr(owner, name, made)
        self._done.append((owner, name, own, made))

    def undo(self) -> None:
        """Put everything back that nobody has replaced since."""
        while self._done:
            owner, name, own, made = self._done.pop()
            if vars(owner).get(name) is not made:
                continue
            if own is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, own)

"""What asyncio's selector loop sees where its selector would be."""

from __future__ import annotations

import selectors
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

    from ._core import Loop


class _Map(Mapping[Any, selectors.SelectorKey]):
    """The watched descriptors; lookups ask the C core."""

    def __init__(self, core: Loop) -> None:
        self._core = core

    def __getitem__(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        watched = self._core._watched(fileobj)
        if watched is None:
            raise KeyError(f"{fileobj!r} is not registered")
        events, reader, writer = watched
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        return selectors.SelectorKey(fd, fd, events, (reader, writer))

    def __iter__(self) -> Iterator[int]:
        return iter(self._core._watched_fds())

    def __len__(self) -> int:
        return len(self._core._watched_fds())


class CoreSelector(selectors.BaseSelector):
    """A view of the C core's descriptors: it polls nothing itself.

    The inherited loop asks its selector whether a descriptor is watched, and
    closes it; everything that changes what is watched goes to the core.
    """

    def __init__(self, core: Loop) -> None:
        self._map: _Map | None = _Map(core)

    def register(
        self, fileobj: FileDescriptorLike, events: int, data: Any = None
    ) -> selectors.SelectorKey:
        raise NotImplementedError("use loop.add_reader() or loop.add_writer()")

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        raise NotImplementedError("use loop.remove_reader() or loop.remove_writer()")

    def select(
        self, timeout: float | None = None
    ) -> list[tuple[selectors.SelectorKey, int]]:
        raise NotImplementedError("hotloop polls in C")

    def close(self) -> None:
        self._map = None

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        if self._map is None:
            raise RuntimeError("Selector is closed")
        return self._map

"""Places of the program that make more tasks than end."""

from __future__ import annotations

import collections
import time
from typing import Any

from ._findings import Notes, Place
from ._tasks import Record

# The number has to grow in each of so many looks, so far apart.
_LOOKS = 5
_APART = 0.25
_CHANGE = (
    "Bound them: acquire an asyncio.Semaphore before making the task, or have a fixed "
    "number of workers take the work from an asyncio.Queue(maxsize=...)."
)


class Growth:
    """Counts the unfinished tasks by the place that made them."""

    def __init__(self, notes: Notes, task_limit: int) -> None:
        self._notes = notes
        self._limit = task_limit
        self._history: dict[Place, list[int]] = {}
        self._next = 0.0

    def look(self, pairs: list[tuple[Record, Any]]) -> None:
        """Compare with the looks before. Runs in the loop."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _APART
        counts = collections.Counter(
            record.place
            for record, _ in pairs
            if record.place is not None and not record.serves
        )
        for place, count in counts.items():
            history = self._history.get(place, [])
            if history and count <= history[-1]:
                history = []
            history.append(count)
            self._history[place] = history[-_LOOKS:]
            grew = len(history) >= _LOOKS
            if grew and count >= self._limit and count >= 1.5 * history[-_LOOKS]:
                self._report(place, history[-_LOOKS:], pairs)
        for place in self._history.keys() - counts.keys():
            del self._history[place]

    def _report(
        self, place: Place, history: list[int], pairs: list[tuple[Record, Any]]
    ) -> None:
        record = next(r for r, _ in reversed(pairs) if r.place == place)
        grown = ", ".join(map(str, history))
        self._notes.add(
            "task-growth",
            place,
            f"makes tasks faster than they end: {grown} of them unfinished, seen "
            f"every {_APART} s",
            _CHANGE,
            task=record.name,
            number=record.number,
            weight=history[-1],
        )

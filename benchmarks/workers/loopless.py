"""Worker of the ceiling of suite *tasks*: what no event loop can undercut.

The coroutine of a row is resumed by ``map()`` and ``deque``, which are C: what
is left is the interpreter, and the work of the coroutine itself.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections import deque
from collections.abc import Coroutine
from itertools import repeat
from typing import Any, cast

from ..child import answer, die_with_parent
from ..rows import ROWS
from .tasks import NORMAL, QUICK

ROUNDS_PER_SECOND = 4_000_000


def seconds_of(name: str, rounds: int) -> float:
    """CPU seconds that so many rounds take."""
    coro = cast("Coroutine[Any, Any, None]", ROWS[name].run(rounds))
    gc.collect()
    start = time.process_time()
    deque(map(coro.send, repeat(None)), maxlen=0)  # until StopIteration
    return time.process_time() - start


def main() -> None:
    """Answer requests until standard input ends."""
    die_with_parent()
    for line in sys.stdin:
        request = json.loads(line)
        effort = QUICK if request["quick"] else NORMAL
        rounds = round(ROUNDS_PER_SECOND * effort.seconds)
        spent = [seconds_of(request["row"], rounds) for _ in range(effort.samples)]
        answer({"ns": min(spent) / rounds * 1e9, "iterations": rounds})


if __name__ == "__main__":
    main()

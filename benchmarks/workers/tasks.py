"""Worker of suites that time operations: runs rows of one loop, from stdin.

Every row gets a new loop. The number of rounds grows until one sample
takes long enough to time; the result is the best of several samples.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from dataclasses import dataclass

from ..child import answer, die_with_parent
from ..loops import loop_factory
from ..rows import DNS_ROWS, EXEC_ROWS, ROWS, SOCKET_ROWS, Operation


@dataclass(frozen=True)
class Effort:
    """CPU seconds of one sample, and how many samples to take."""

    seconds: float
    samples: int


NORMAL = Effort(0.12, 5)
QUICK = Effort(0.04, 3)
FIRST = 200
GROWTH = 20


async def timed(operation: Operation, rounds: int) -> float:
    """CPU seconds that so many rounds take."""
    gc.collect()
    start = time.process_time()
    await operation.run(rounds)
    return time.process_time() - start


async def calibrated(operation: Operation, seconds: float) -> int:
    """Find a number of rounds that takes about this long."""
    rounds = max(1, FIRST // operation.per_round)
    while True:
        spent = await timed(operation, rounds)
        if spent >= seconds * 0.5:
            return max(1, round(rounds * seconds / spent))
        wanted = rounds * seconds / max(spent, 1e-6)
        rounds = max(rounds + 1, round(min(wanted, rounds * GROWTH)))


async def measure(operation: Operation, effort: Effort) -> tuple[float, int]:
    """Return the least nanoseconds per operation, and the operations timed."""
    rounds = await calibrated(operation, effort.seconds)
    spent = [await timed(operation, rounds) for _ in range(effort.samples)]
    count = rounds * operation.per_round
    return min(spent) / count * 1e9, count


def main() -> None:
    """Answer requests until standard input ends."""
    die_with_parent()
    factory = loop_factory(sys.argv[1])
    rows = ROWS | SOCKET_ROWS | EXEC_ROWS | DNS_ROWS
    for line in sys.stdin:
        request = json.loads(line)
        effort = QUICK if request["quick"] else NORMAL
        try:
            with asyncio.Runner(loop_factory=factory) as runner:
                work = measure(rows[request["row"]], effort)
                nanoseconds, count = runner.run(work)
        except Exception as exc:
            answer({"error": f"{type(exc).__name__}: {exc}"})
        else:
            answer({"ns": nanoseconds, "iterations": count})


if __name__ == "__main__":
    main()

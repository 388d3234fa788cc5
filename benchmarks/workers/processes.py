"""Worker of suite *subprocess*: child processes and their pipes.

``python -m benchmarks.workers.processes LOOP ROW ROUNDS``
"""

from __future__ import annotations

import asyncio
import mmap
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable

from ..child import answer, die_with_parent
from ..loops import loop_factory

MIB = 1 << 20
GIB = 1 << 30
CHUNK = 64 * 1024
STREAMED = 64 * MIB
TOGETHER = 10
WARM_UP = 5


async def spawn(rounds: int) -> int:
    """Start a program that ends at once, and wait for it."""
    for _ in range(rounds):
        process = await asyncio.create_subprocess_exec("/bin/true")
        await process.wait()
    return rounds


async def spawn_from_large(rounds: int) -> int:
    """The same by a process with a gibibyte of touched memory."""
    with mmap.mmap(-1, GIB) as memory:
        for offset in range(0, GIB, mmap.PAGESIZE):
            memory[offset] = 1
        await spawn(WARM_UP)
        start = time.perf_counter()
        await spawn(rounds)
        Result.seconds = time.perf_counter() - start
    return rounds


async def spawn_many(rounds: int) -> int:
    """Ten tasks that do the same."""
    await asyncio.gather(*[spawn(rounds // TOGETHER) for _ in range(TOGETHER)])
    return rounds // TOGETHER * TOGETHER


async def communicate(rounds: int) -> int:
    """Start ``cat`` with three pipes, send it a line and take the answer."""
    for _ in range(rounds):
        process = await asyncio.create_subprocess_exec(
            "/bin/cat", stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
        await process.communicate(b"a line\n")
    return rounds


async def lines(rounds: int) -> int:
    """A line to a ``cat`` that runs, and back."""
    process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    count = rounds * 100
    for _ in range(count):
        process.stdin.write(b"a line\n")
        await process.stdout.readline()
    process.stdin.close()
    await process.wait()
    return count


async def output(rounds: int) -> int:
    """Read what a program writes, in mebibytes."""
    for _ in range(max(1, rounds // 100)):
        process = await asyncio.create_subprocess_exec(
            "/usr/bin/head", "-c", str(STREAMED), "/dev/zero", stdout=PIPE
        )
        assert process.stdout is not None
        while await process.stdout.read(CHUNK):
            pass
        await process.wait()
    return max(1, rounds // 100) * STREAMED // MIB


class Result:
    """The time that a row took where it counted only a part."""

    seconds = 0.0


ROWS: dict[str, Callable[[int], Awaitable[int]]] = {
    "true": spawn,
    "true/1GiB": spawn_from_large,
    "true/10": spawn_many,
    "communicate": communicate,
    "lines": lines,
    "output/MiB": output,
}


async def measure(row: str, rounds: int) -> tuple[float, int]:
    """Return seconds and the number of operations."""
    await spawn(WARM_UP)
    start = time.perf_counter()
    count = await ROWS[row](rounds)
    return Result.seconds or time.perf_counter() - start, count


def main() -> None:
    """Measure one row and print the figures."""
    die_with_parent()
    name, row, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with asyncio.Runner(loop_factory=loop_factory(name)) as runner:
        seconds, count = runner.run(measure(row, rounds))
    answer({"ns": seconds / count * 1e9, "count": count})


if __name__ == "__main__":
    main()

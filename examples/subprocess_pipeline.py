"""Processes connected like `a | b | c`, fed and read by the program meanwhile.

Plain asyncio code: nothing here knows which event loop runs it.

    python examples/subprocess_pipeline.py                     asyncio's loop
    python examples/run_with.py hotloop examples/subprocess_pipeline.py

Data passes between the processes in the kernel, not through Python. Feeding and
reading go on at once: who writes everything first waits forever when the pipes are
full. Whatever happens, no process stays behind, and each exit status is looked at.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import os
import signal
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Iterable, Sequence

Command = Sequence[str]


async def start(commands: Sequence[Command]) -> list[Process]:
    """Start all, each one's output the next one's input."""
    processes: list[Process] = []
    source: int = PIPE
    try:
        for number, command in enumerate(commands):
            read, write = PIPE, PIPE
            if number < len(commands) - 1:
                read, write = os.pipe()
            try:
                process = await asyncio.create_subprocess_exec(
                    *command, stdin=source, stdout=write
                )
            finally:
                # The children have copies; ours would hide the end of file.
                for fd in (source, write):
                    if fd != PIPE:
                        os.close(fd)
                source = read
            processes.append(process)
    except BaseException:
        if source != PIPE:
            os.close(source)
        await end(processes)
        raise
    return processes


async def end(processes: Sequence[Process]) -> None:
    """Kill those that still run, and wait for all."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    for process in processes:
        # A pipe that waits to be read from hides its end, for which wait() waits.
        while process.stdout is not None and await process.stdout.read(256 * 1024):
            pass
        await process.wait()


async def feed(process: Process, chunks: Iterable[bytes]) -> None:
    assert process.stdin is not None
    try:
        for chunk in chunks:
            process.stdin.write(chunk)
            await process.stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        pass  # it has read enough; its exit status tells whether that is well
    finally:
        process.stdin.close()


async def pipeline(
    commands: Sequence[Command], chunks: Iterable[bytes], statuses: list[int]
) -> AsyncGenerator[bytes, None]:
    """The output of the last process; to be used with aclosing()."""
    processes = await start(commands)
    feeder = asyncio.create_task(feed(processes[0], chunks))
    try:
        assert processes[-1].stdout is not None
        while data := await processes[-1].stdout.read(256 * 1024):
            yield data
        await feeder
        statuses += [await process.wait() for process in processes]
    finally:
        feeder.cancel()
        await end(processes)


async def digest_of(
    commands: Sequence[Command], chunks: Iterable[bytes]
) -> tuple[str, list[int]]:
    digest = hashlib.sha256()
    statuses: list[int] = []
    async with contextlib.aclosing(pipeline(commands, chunks, statuses)) as output:
        async for data in output:
            digest.update(data)
    return digest.hexdigest()[:16], statuses


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=300, help="chunks of 256 KiB")
    options = parser.parse_args()
    chunk = b"the quick brown fox 123\n" * 10_922
    chunks = [chunk] * options.count

    started = time.perf_counter()
    commands = [["tr", "a-z", "A-Z"], ["cat"], ["tr", "A-Z", "a-z"]]
    digest, statuses = await digest_of(commands, chunks)
    elapsed = time.perf_counter() - started
    expected = hashlib.sha256(b"".join(chunks)).hexdigest()[:16]
    print(f"came back unchanged: {digest == expected}, statuses {statuses}")

    digest, statuses = await digest_of([["cat"], ["head", "-n", "2"]], chunks * 10)
    right = digest == hashlib.sha256(chunk[:48]).hexdigest()[:16]
    names = [signal.Signals(-n).name if n < 0 else n for n in statuses]
    print(f"the first two lines: {right}, statuses {names}")
    try:
        await digest_of([["cat"], ["no-such-program"]], chunks)
    except FileNotFoundError as exc:
        print("not started:", type(exc).__name__)
    async with contextlib.aclosing(pipeline([["yes"], ["cat"]], [], [])) as output:
        async for data in output:
            print("left early, after", data[:2])
            break
    print(f"{len(chunk) * options.count / 1e6 / elapsed:,.0f} MB/s")


if __name__ == "__main__":
    asyncio.run(main())

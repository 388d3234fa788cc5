"""Random programs on asyncio's StreamReader and on hotloop's, step by step alike."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from support import PY, turns, wanted_kinds

if "hotloop" not in wanted_kinds():
    pytest.skip("hotloop is not wanted", allow_module_level=True)

import hotloop

SEEDS = 50
STEPS = 60


class Pausable:
    """A transport as far as a reader knows one."""

    def __init__(self, can_pause: bool) -> None:
        self.can_pause = can_pause
        self.paused = False

    def pause_reading(self) -> None:
        if not self.can_pause:
            raise NotImplementedError
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Sentinel(Exception):
    pass


def outcome(task: Any) -> Any:
    """What a task came to, as something to compare."""
    if task.cancelled():
        return "cancelled"
    exc = task.exception()
    if exc is None:
        return type(task.result()), task.result()
    details = [getattr(exc, name, None) for name in ("partial", "expected", "consumed")]
    context = exc.__context__
    return type(exc), str(exc), exc.args, details, type(context), str(context)


class Run:
    """One reader and what is done to it."""

    def __init__(self, cls: Any, loop: Any, seed: int) -> None:
        self.random = random.Random(seed)
        self.loop = loop
        self.scale = self.random.choice([1, 1, 40, 3000])
        limit = self.random.choice([1, 5, 16, 64]) * self.scale
        self.reader = cls(limit=limit, loop=loop)
        self.transport = Pausable(self.random.random() < 0.9)
        if self.random.random() < 0.9:
            self.reader.set_transport(self.transport)
        self.looks = self.random.random() < 0.3
        self.task_class = self.random.choice([asyncio.Task, None])
        self.tasks: list[Any] = []
        self.kept: Any = None

    def data(self) -> bytes:
        length = self.random.randrange(1, 12 * self.scale)
        alphabet = self.random.choice(
            [b"ab\n", b"abcdefgh", b"a\r\n", b"ab" * 40 + b"\n"]
        )
        return bytes(self.random.choices(alphabet, k=length))

    def size(self) -> int:
        return self.random.choice([0, -1, 1, 2, self.random.randrange(30 * self.scale)])

    def separator(self) -> Any:
        choices: list[Any] = [b"\n", b"\r\n", b"ab", b"aba", b"", b"abcdefgh"]
        if PY >= (3, 13):
            choices += [(b"\n", b"\r\n"), (b"abc", b"ab", b"b"), (), (b"", b"a")]
        choices += [bytearray(b"\n"), "\n", 7]
        return self.random.choice(choices)

    def coroutine(self) -> Any:
        reader = self.reader
        match self.random.randrange(8):
            case 0 | 1:
                return reader.read(self.size())
            case 2 | 3:
                return reader.readexactly(self.size())
            case 4 | 5:
                return reader.readline()
            case 6:
                return reader.readuntil(self.separator())
            case _:
                return reader.__anext__()

    def start(self) -> None:
        if len(self.tasks) >= (2 if self.random.random() < 0.1 else 1):
            return
        coroutine = self.coroutine()
        if self.task_class is None:
            self.tasks.append(self.loop.create_task(coroutine))
        else:
            self.tasks.append(self.task_class(coroutine, loop=self.loop))

    def touch(self) -> None:
        """What programs do that reach into a reader."""
        buffer = self.reader._buffer
        match self.random.randrange(5):
            case 0:
                buffer.clear()
            case 1:
                del buffer[: self.random.randrange(5)]
            case 2:
                buffer += b"touched\n"
            case 3:
                self.kept = buffer
            case _:
                self.reader._buffer = bytearray(b"new")

    def act(self) -> str:
        draw = self.random.random()
        if draw < 0.42:
            try:
                self.reader.feed_data(self.data())
            except AssertionError as error:
                return str(error)
        elif draw < 0.84:
            self.start()
        elif draw < 0.92:
            for task in self.tasks:
                task.cancel()
        elif draw < 0.96:
            self.touch()
        elif draw < 0.98:
            self.reader.set_exception(Sentinel("set"))
        elif draw < 0.985:
            self.reader._exception = None
        elif draw < 0.99:
            self.reader.feed_eof()
        return ""

    def state(self, last: bool) -> Any:
        reader = self.reader
        seen = [reader._paused, reader._eof, reader._waiter is None, reader.at_eof()]
        seen += [self.transport.paused, reader.exception()]
        if self.looks or last:
            text = repr(reader).split(" waiter")[0].split(" transport")[0]
            seen += [bytes(reader._buffer), text.rstrip("> ")]
        return [str(part) for part in seen]

    async def step(self, last: bool) -> Any:
        # While data is on its way to a waiting readexactly(), asyncio pauses, to
        # go on when that waits again: hotloop does neither.
        waits = self.reader._waiter is not None
        said = self.act()
        if self.random.random() < 0.7 or waits or last:
            await turns(5)
        done = [task for task in self.tasks if task.done()]
        self.tasks = [task for task in self.tasks if not task.done()]
        return said, [outcome(task) for task in done], self.state(last)

    async def program(self) -> list[Any]:
        told = [await self.step(number == STEPS - 1) for number in range(STEPS)]
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        return told


@pytest.mark.parametrize("group", range(5))
async def test_alike(group: int, loop: Any) -> None:
    for seed in range(group * SEEDS, (group + 1) * SEEDS):
        expected = await Run(asyncio.StreamReader, loop, seed).program()
        told = await Run(hotloop.StreamReader, loop, seed).program()
        for number in range(STEPS):
            assert told[number] == expected[number], (seed, number)

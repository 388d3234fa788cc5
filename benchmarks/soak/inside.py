"""What both processes of a run share: commands, and figures from the inside."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from ..child import answer, die_with_parent
from ..limits import raise_descriptor_limit
from ..loops import loop_factory
from .wire import Account

Commands = dict[str, Callable[[], Awaitable[dict[str, Any]]]]


class MallInfo(ctypes.Structure):
    """struct mallinfo2 of glibc."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def malloc_bytes() -> int:
    """Return what malloc() has handed out; 0 where it does not say."""
    libc = ctypes.CDLL(None)
    try:
        mallinfo = libc.mallinfo2
    except AttributeError:
        return 0
    mallinfo.restype = MallInfo
    info = mallinfo()
    return int(info.uordblks + info.hblkhd)


def trim() -> None:
    """Collect, and have malloc() give back what is free."""
    gc.collect()
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if release is not None:
        release(0)


def figures(account: Account) -> dict[str, Any]:
    """What the process knows of itself; tells a leak from fragmentation."""
    loop: Any = asyncio.get_running_loop()
    return {
        "blocks": sys.getallocatedblocks(),
        "malloc": malloc_bytes(),
        "objects": len(gc.get_objects()),
        "tasks": len(asyncio.all_tasks()),
        "ready": len(getattr(loop, "_ready", ())),
        "scheduled": len(getattr(loop, "_scheduled", ())),
        "counts": dict(account.counts),
        "errors": dict(account.errors),
    }


async def obey(commands: Commands) -> None:
    """Answer the commands on standard input until it ends."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer
    )
    while line := await reader.readline():
        answer(await commands[json.loads(line)["do"]]())


def run(loop: str, main: Callable[[Account], Awaitable[None]]) -> None:
    """Run one of the processes; what a loop reports counts as an error."""
    die_with_parent()
    raise_descriptor_limit()
    account = Account()

    def report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        exc = context.get("exception") or RuntimeError(context["message"])
        account.error("reported", exc)

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(report)
        await main(account)

    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(watched())

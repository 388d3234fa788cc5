"""Run an unchanged asyncio program on a loop chosen from outside.

    python examples/run_with.py {asyncio,uvloop,hotloop} PROGRAM [ARGUMENT...]

PROGRAM is a Python file with a coroutine function main(), which takes its
arguments from sys.argv.
"""

from __future__ import annotations

import asyncio
import importlib
import runpy
import sys
from collections.abc import Callable


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if name not in ("asyncio", "uvloop", "hotloop"):
        raise SystemExit(f"run_with.py: no loop named {name!r}")
    factory: Callable[[], asyncio.AbstractEventLoop]
    factory = importlib.import_module(name).new_event_loop
    return factory


def main() -> None:
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    factory = loop_factory(sys.argv[1])
    program = sys.argv[2]
    sys.argv = sys.argv[2:]
    names = runpy.run_path(program)
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(names["main"]())
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()

"""Run an unchanged asyncio program on a loop chosen from outside.

    python examples/run_with.py {asyncio,uvloop,hotloop} PROGRAM [ARGUMENT...]

PROGRAM is a Python file with a coroutine function main(), which takes its
arguments from sys.argv. It is imported under its own name, so that the processes
of a pool find its functions too.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if name not in ("asyncio", "uvloop", "hotloop"):
        raise SystemExit(f"run_with.py: no loop named {name!r}")
    factory: Callable[[], asyncio.AbstractEventLoop]
    factory = importlib.import_module(name).new_event_loop
    return factory


def load(program: str) -> ModuleType:
    """Import a file by its path."""
    path = Path(program)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SystemExit(f"run_with.py: {program!r} is no Python file")
    sys.path[0] = str(path.parent.resolve())
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    factory = loop_factory(sys.argv[1])
    sys.argv = sys.argv[2:]
    program = load(sys.argv[0])
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(program.main())
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()

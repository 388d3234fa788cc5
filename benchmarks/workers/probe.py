"""Answers with the version of one loop, once it has run something."""

from __future__ import annotations

import asyncio
import sys

from ..child import answer, die_with_parent
from ..loops import loop_factory, loop_version


def main() -> None:
    """Import the loop, run it, and say its version or its error."""
    die_with_parent()
    name = sys.argv[1]
    try:
        with asyncio.Runner(loop_factory=loop_factory(name)) as runner:
            runner.run(asyncio.sleep(0))
        answer({"version": loop_version(name)})
    except Exception as exc:
        answer({"error": f"{type(exc).__name__}: {exc}"})


if __name__ == "__main__":
    main()

"""Programs that once did something else on hotloop than on asyncio.

Each is as it was found and shrunk; the ordinary tests run them all.
"""

from __future__ import annotations

from typing import Any


def program(*main: Any, factory: str = "none", debug: int = 0) -> dict[str, Any]:
    return {"main": list(main), "factory": factory, "debug": debug}


FOUND = {
    "a done callback's context is None": program(("callback", 0, [], 0)),
    "a report comes while a task counts as current": program(("odd", "duck_now")),
    "the words of a step too many": program(("odd", "duck_twice")),
    "a task of ours eager within one of asyncio's": program(
        ("spawn", "eager_stock", [("shield_new", [])], None), factory="eager"
    ),
    "a task that was stepped by hand, woken twice by one future": program(
        ("odd", "duck_twice"), ("barrier", "wait")
    ),
}

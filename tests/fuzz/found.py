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
    "the last word of a task whose context is still entered": program(
        (
            "make_gather",
            [],
            [
                [
                    ("handle", 0, "cancel"),
                    ("group", [("generate", "drop", [[]], [("raise", "value")])]),
                ]
            ],
            0,
        ),
        ("await", 0),
    ),
    "what woke a task that somebody then stepped by hand": program(
        ("odd", "duck_twice"), ("cancel_me", None), ("shield_new", [])
    ),
    "a task that was stepped by hand, woken twice by one future": program(
        ("odd", "duck_twice"), ("barrier", "wait")
    ),
}

"""Timers fire in the order of their deadlines, however they were made."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("hypothesis")

from hypothesis import given, settings
from hypothesis import strategies as st

import support
from support import turns

# What programs do: the same delays again and again, so that each deadline is
# later; a few that are far away; and anything at all. Numbers are microseconds.
STEADY = st.integers(0, 3)
ANY = st.integers(0, 40)
FAR = st.integers(1000, 1003)
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("later"), STEADY),
        st.tuples(st.just("later"), STEADY),
        st.tuples(st.just("at"), ANY),
        st.tuples(st.just("at"), FAR),
        st.tuples(st.just("cancel_recent"), st.integers(1, 10)),
        st.tuples(st.just("cancel_any"), ANY),
    ),
    max_size=150,
)
Key = tuple[int, int]  # deadline and number: the order to be seen


def schedule(loop: Any, acts: list[tuple[str, int]], seen: list[Key]) -> list[Key]:
    """Make and cancel timers that are due already; return those to fire."""
    base = loop.time() - 1
    clock = 0
    live: dict[Key, Any] = {}
    for number, (name, value) in enumerate(acts):
        if name in ("later", "at"):
            clock += value if name == "later" else 0
            key = (clock if name == "later" else value, number)
            live[key] = loop.call_at(base + key[0] * 1e-6, seen.append, key)
        elif live:
            back = -value if name == "cancel_recent" else value
            live.pop(list(live)[back % len(live)]).cancel()
    waiting = loop._scheduled
    if waiting:
        assert waiting[0].when() == min(handle.when() for handle in waiting)
    assert {handle for handle in waiting if not handle.cancelled()} == set(
        live.values()
    )
    return sorted(live)


def test_any_order_of_deadlines(loop_kind: str) -> None:
    @settings(max_examples=200, derandomize=True, database=None, deadline=None)
    @given(ACTS)
    def check(acts: list[tuple[str, int]]) -> None:
        seen: list[Key] = []
        loop = support.loop_factory(loop_kind)()
        try:
            expected = schedule(loop, acts, seen)
            loop.run_until_complete(turns(3))
        finally:
            loop.close()
        assert [when for when, _ in seen] == [when for when, _ in expected]
        assert sorted(seen) == expected
        if loop_kind == "hotloop":  # asyncio promises nothing for equal ones
            assert seen == expected

    check()


def test_timeouts_beside_distant_timers(loop: Any, loop_kind: str) -> None:
    """A cancelled timer goes at once, though some are due long after it."""
    if loop_kind != "hotloop":
        pytest.skip("asyncio sweeps cancelled timers out later")
    distant = [loop.call_later(1000 + n, list) for n in range(4)]
    for _ in range(1000):
        loop.call_later(10, list).cancel()
    assert sorted(loop._scheduled) == distant
    for handle in distant:
        handle.cancel()
    assert loop._scheduled == []


def test_a_hundred_thousand_of_mixed_delays(loop: Any) -> None:
    """Long and short delays in turns, cancelled and swept out in between."""
    seen: list[float] = []
    base = loop.time() - 1
    handles = []
    for n in range(100_000):
        when = base + (n * 1e-7 if n % 3 else 0.5 - n * 1e-7)
        handles.append(loop.call_at(when, seen.append, when))
        if n % 5 == 4:
            handles[n // 2].cancel()
    for handle in handles[::2]:
        handle.cancel()
    loop.run_until_complete(turns(1))  # sweeps
    loop.run_until_complete(turns(2))
    fires = sorted(h.when() for h in handles if not h.cancelled())
    assert seen == fires

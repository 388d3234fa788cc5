"""Strategies that draw programs: see machine.py for what they mean."""

from __future__ import annotations

import functools
from typing import Any

from hypothesis import strategies as st

from .odd import ERRORS, FACTORIES, FUTURE_KINDS, ODD, TASK_KINDS

Strategy = st.SearchStrategy[Any]

REF = st.integers(0, 7)
TWO = st.integers(0, 1)
THREE = st.integers(0, 2)
NUMBER = st.integers(1, 9)
TICKS = st.sampled_from([0, 1, 2, 3, 5, -1])
LIMIT = st.sampled_from([0, 1, 1, 2, 3, None, -1])
MESSAGE = st.sampled_from([None, None, "m1", "m2", 3])
NAME = st.sampled_from([None, None, None, "x", "", 4])
REFS = st.lists(REF, max_size=3)
ERROR = st.sampled_from([*ERRORS[:12], *ERRORS])  # the last two end the run


def op(name: str, *args: Strategy) -> Strategy:
    return st.tuples(st.just(name), *args)


def one(*words: str) -> Strategy:
    return st.sampled_from(words)


def leaf_acts() -> list[Strategy]:
    """What does not wait and has no body."""
    return [
        op("handle", REF, one("cancel", "show", "run")),
        op("future", st.sampled_from(FUTURE_KINDS)),
        op("future", st.sampled_from(FUTURE_KINDS)),
        op("set_result", REF, NUMBER),
        op("set_result", REF, NUMBER),
        op("set_error", REF, ERROR, TWO),
        op("cancel", REF, MESSAGE),
        op("cancel", REF, MESSAGE),
        op("cancel", REF, MESSAGE),
        op("cancel_me", MESSAGE),
        op("uncancel", THREE),
        op("state", REF),
        op("insides", REF),
        op("uncallback", REF, REF),
        op("make_shield", REF),
        op("chain", REF, REF),
        op("reschedule", THREE, LIMIT),
        op("event", TWO, one("set", "set", "clear", "show")),
        op("sem_release", TWO),
        op("notify", THREE),
        op("put_now", THREE, NUMBER),
        op("get_now", THREE),
        op("raise", ERROR),
        st.one_of(  # seldom
            op("stop"),
            op("report", NUMBER),
            op("spawn_bad", one("int", "function", "generator")),
            op("group_state", TWO),
            op("name", REF, NAME),
            op("current"),
            op("all_tasks"),
            op("factory", st.sampled_from(FACTORIES)),
            op("expired", THREE),
            op("release", TWO),
            op("task_done", THREE),
            op("shutdown", THREE, TWO),
            op("show"),
            op("set", NUMBER),
        ),
    ]


def leaf_waits() -> list[Strategy]:
    return [
        op("sleep", TICKS),
        op("sleep", st.just(0)),
        op("sleep", st.just(1)),
        op("await", REF),
        op("await", REF),
        op("shield", REF),
        op("wait_for", LIMIT, REF),
        op("condition_wait"),
        op("event_wait", TWO),
        op("put", THREE, NUMBER),
        op("get", THREE),
        op("odd", st.sampled_from(ODD)),
        op(
            "odd_task",
            st.sampled_from(ODD),
            one("ensure", "shield", "wait_for", "gather"),
        ),
        st.one_of(  # seldom
            op("await_me"),
            op("reenter", REF),
            op("return", NUMBER),
            op("again", REF),
            op("join", THREE),
            op("barrier", one("wait", "wait", "reset", "abort")),
            op("resume", TWO),
        ),
    ]


@functools.cache
def calls(depth: int) -> Strategy:
    """The body of a callback."""
    return st.lists(st.one_of(acts(depth)), min_size=1, max_size=4)


@functools.cache
def body(depth: int, size: int = 5) -> Strategy:
    """The body of a coroutine."""
    statement = st.one_of(*acts(depth), *waits(depth))
    return st.lists(statement, min_size=min(depth, 2), max_size=size)


@functools.cache
def bodies(depth: int) -> Strategy:
    return st.lists(body(depth), max_size=3)


@functools.cache
def acts(depth: int) -> list[Strategy]:
    leaves = leaf_acts()
    if depth == 0:
        return leaves
    within = calls(depth - 1)
    script = body(depth - 1)
    kind = st.sampled_from(TASK_KINDS)
    spawn = op("spawn", kind, script, NAME)
    return [
        *leaves,
        *[spawn] * 5,
        op("group_spawn", TWO, script, NAME),
        op("group_spawn", TWO, script, NAME),
        op("call", one("soon", "threadsafe", "later", "at"), TICKS, within, TWO),
        op("call", one("soon", "threadsafe", "later", "at"), TICKS, within, TWO),
        op("callback", REF, within, TWO),
        op("callback", REF, within, TWO),
        op("make_gather", REFS, bodies(depth - 1), TWO),
    ]


@functools.cache
def waits(depth: int) -> list[Strategy]:
    leaves = leaf_waits()
    if depth == 0:
        return leaves
    script, scripts = body(depth - 1), bodies(depth - 1)
    when = one("ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION")
    handled = op(
        "try",
        one("finally", "cancel", "cancel", "error", "base", "timeout", "star"),
        script,
        script,
    )
    how = one("all", "close", "throw", "send", "keep", "drop")
    return [
        *leaves,
        handled,
        handled,
        handled,
        op("run", script),
        op("shield_new", script),
        op("wait_for_new", LIMIT, script),
        op("wait_for_new", LIMIT, script),
        op("gather", REFS, scripts, TWO),
        op("gather", REFS, scripts, TWO),
        op("wait", REFS, scripts, LIMIT, when),
        op("as_completed", scripts, LIMIT, TWO),
        op("timeout", LIMIT, TWO, script),
        op("timeout", LIMIT, TWO, script),
        op("group", script),
        op("group", script),
        op("lock", TWO, script),
        op("semaphore", TWO, script),
        op("condition", script),
        op("generate", how, scripts, script),
    ]


def programs() -> Strategy:
    """Whole programs."""
    return st.fixed_dictionaries(
        {
            "main": body(3, size=12),
            "factory": st.sampled_from(FACTORIES),
            "debug": st.sampled_from([0, 0, 0, 0, 0, 1]),
        }
    )

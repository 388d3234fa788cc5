"""Rows of suites that time one operation, which each repeats as asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from . import callbacks, dns, executors, sockets, spawning, threads, waiting


@dataclass(frozen=True)
class Operation:
    """A coroutine function that does so many rounds of an operation."""

    run: Callable[[int], Awaitable[None]]
    per_round: int = 1


ROWS: dict[str, Operation] = {
    "yield": Operation(waiting.bare_yield),
    "sleep(0)": Operation(waiting.sleep_zero),
    "create_task": Operation(spawning.create_task, spawning.BATCH),
    "spawn_await": Operation(spawning.spawn_await),
    "gather": Operation(spawning.gather, spawning.CHILDREN),
    "TaskGroup": Operation(spawning.task_group, spawning.CHILDREN),
    "call_soon": Operation(callbacks.call_soon),
    "call_soon_burst": Operation(callbacks.call_soon_burst, callbacks.BATCH),
    "call_later_cancel": Operation(callbacks.call_later_cancel, callbacks.BATCH),
    "timers_fire": Operation(callbacks.timers_fire, callbacks.TIMERS),
    "future_pingpong": Operation(waiting.future_pingpong, 2),
    "Queue": Operation(waiting.queue_pingpong, 2),
    "Lock": Operation(waiting.contended_lock, waiting.LOCK_USERS),
    "timeout": Operation(waiting.timeout),
    "wait_for": Operation(waiting.wait_for),
    "cancel": Operation(spawning.cancel),
    "call_soon_threadsafe": Operation(threads.call_soon_threadsafe, threads.BURST),
    "run_in_executor": Operation(threads.run_in_executor),
    "async_tree": Operation(spawning.async_tree, spawning.TREE_TASKS),
}

# Rows whose coroutine only ever yields, so that anything can drive it.
LOOPLESS = ("yield", "sleep(0)")

SOCKET_ROWS: dict[str, Operation] = {
    "datagrams": Operation(sockets.datagrams, 2),
    "connections": Operation(sockets.connections),
}

EXEC_ROWS: dict[str, Operation] = {
    "one_by_one": Operation(executors.one_by_one),
    "to_thread": Operation(executors.to_thread),
    "batch/100": Operation(executors.batch, executors.BATCH),
    "other_executor": Operation(executors.other_executor),
}

DNS_ROWS: dict[str, Operation] = {
    "numeric": Operation(dns.numeric),
    "numeric_ipv6": Operation(dns.numeric_ipv6),
    "numeric_zone": Operation(dns.numeric_zone),
    "numeric_name": Operation(dns.numeric_name),
    "localhost": Operation(dns.localhost),
}

"""The operations that wait, or that have bodies which may.

Each returns None, or a list with the value that its script is to return.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from . import odd
from .clock import TICK

if TYPE_CHECKING:
    from .machine import Body, Machine

Returned = list[Any] | None
Wait = Callable[..., Awaitable[Returned]]
WAITS: dict[str, Wait] = {}


def wait(function: Wait) -> Wait:
    WAITS[function.__name__.rstrip("_")] = function
    return function


def seconds(ticks: int | None) -> float | None:
    return None if ticks is None else ticks * TICK


@wait
async def sleep(m: Machine, me: str, ticks: int) -> Returned:
    await m.wait(me, "sleep", asyncio.sleep(ticks * TICK, ticks))
    return None


@wait
async def await_(m: Machine, me: str, number: int) -> Returned:
    found = m.pick(number)
    if found is not None:
        await m.wait(me, "await", found, found)
    return None


@wait
async def await_me(m: Machine, me: str) -> Returned:
    """A task cannot wait for itself."""
    current: Any = asyncio.current_task()
    try:
        await current
    except RuntimeError as error:
        m.log(me, "await_me", error)
    return None


@wait
async def run(m: Machine, me: str, body: Body) -> Returned:
    await m.wait(me, "run", m.run(f"{me}r", body))
    return None


@wait
async def shield(m: Machine, me: str, number: int) -> Returned:
    found = m.pick(number)
    if found is not None:
        await m.wait(me, "shield", asyncio.shield(found))
    return None


@wait
async def shield_new(m: Machine, me: str, body: Body) -> Returned:
    await m.wait(me, "shield_new", asyncio.shield(m.script(body)))
    return None


@wait
async def wait_for(m: Machine, me: str, ticks: int | None, number: int) -> Returned:
    found = m.pick(number)
    if found is not None:
        coro = asyncio.wait_for(found, seconds(ticks))
        await m.wait(me, "wait_for", coro, found)
    return None


@wait
async def wait_for_new(m: Machine, me: str, ticks: int | None, body: Body) -> Returned:
    coro = asyncio.wait_for(m.script(body), seconds(ticks))
    await m.wait(me, "wait_for_new", coro)
    return None


@wait
async def gather(
    m: Machine, me: str, refs: list[int], bodies: list[Body], keep: int
) -> Returned:
    members = m.picks(refs)
    if any(map(m.is_circle, members)):
        members = []
    coros = [m.script(body) for body in bodies]
    outer = asyncio.gather(*members, *coros, return_exceptions=bool(keep))
    m.waits_for[id(outer)] = getattr(outer, "_children", members)
    m.add(outer)
    await m.wait(me, "gather", outer, outer)
    return None


@wait
async def wait_(
    m: Machine,
    me: str,
    refs: list[int],
    bodies: list[Body],
    ticks: int | None,
    when: str,
) -> Returned:
    members = m.picks(refs)
    members += [m.add(asyncio.ensure_future(m.script(body))) for body in bodies]
    # A set of futures iterates by address: a list with no doubles is the same
    # for asyncio.wait(), and has an order.
    coro = asyncio.wait(members, timeout=seconds(ticks), return_when=when)
    try:
        done, pending = await coro
    except BaseException as error:
        m.log(me, "wait", "raised", error)
        raise
    m.log(me, "wait", done, pending)
    return None


@wait
async def as_completed(
    m: Machine, me: str, bodies: list[Body], ticks: int | None, plain: int
) -> Returned:
    tasks = [m.add(asyncio.ensure_future(m.script(body))) for body in bodies]
    # Those that are done already come in the order of a set, by address.
    tasks = [task for task in tasks if not task.done()]
    every: Any = asyncio.as_completed(tasks, timeout=seconds(ticks))
    if hasattr(every, "__aiter__") and not plain:
        async for item in every:
            m.log(me, "completed", item)
        return None
    for item in every:
        with contextlib.suppress(ValueError, LookupError):
            await m.wait(me, "completed", item)
    return None


@wait
async def timeout(
    m: Machine, me: str, ticks: int | None, absolute: int, body: Body
) -> Returned:
    if absolute:
        at = None if ticks is None else m.loop.time() + ticks * TICK
        scope = asyncio.timeout_at(at)
    else:
        scope = asyncio.timeout(seconds(ticks))
    m.timeouts.append(scope)
    try:
        async with scope:
            returned = await m.run(me, body)
    finally:
        m.log(me, "timeout", scope.expired(), repr(scope))
    return returned


@wait
async def reenter(m: Machine, me: str, number: int) -> Returned:
    """Enter a timeout or a group a second time."""
    found = m.pick(number, [*m.timeouts, *m.groups])
    if found is not None:
        try:
            async with found:
                m.log(me, "reenter", "entered")
        except RuntimeError as error:
            m.log(me, "reenter", error)
    return None


class InOrder(dict[Any, None]):
    """A set that iterates as it was filled: a group cancels its tasks so."""

    def add(self, item: Any) -> None:
        self[item] = None

    def discard(self, item: Any) -> None:
        self.pop(item, None)


@wait
async def group(m: Machine, me: str, body: Body) -> Returned:
    made = asyncio.TaskGroup()
    made._tasks = InOrder()  # type: ignore[attr-defined]
    m.groups.append(made)
    try:
        async with made:
            returned = await m.run(me, body)
    except BaseException as error:
        current: Any = asyncio.current_task()
        m.log(me, "group raised", error, current.cancelling(), repr(made))
        raise
    m.log(me, "group done", repr(made))
    return returned


@wait
async def try_(m: Machine, me: str, kind: str, body: Body, handler: Body) -> Returned:
    if kind == "finally":
        try:
            return await m.run(me, body)
        finally:
            m.log(me, "finally")
            await m.run(me, handler)
    if kind == "star":
        return await try_star(m, me, body, handler)
    caught = {
        "cancel": asyncio.CancelledError,
        "timeout": TimeoutError,
        "error": Exception,
        "base": BaseException,
    }[kind]
    try:
        return await m.run(me, body)
    except caught as error:
        current: Any = asyncio.current_task()
        m.log(me, "caught", error, current and current.cancelling())
        if not isinstance(error, GeneratorExit):
            return await m.run(me, handler)
        raise


async def try_star(m: Machine, me: str, body: Body, handler: Body) -> Returned:
    returned = None
    try:
        returned = await m.run(me, body)
    except* (LookupError, asyncio.CancelledError) as errors:
        m.log(me, "caught", errors)
        await m.run(me, handler)
    return returned


@wait
async def return_(m: Machine, me: str, value: int) -> Returned:
    return [value]


@wait
async def again(m: Machine, me: str, number: int) -> Returned:
    """Raise an exception that was seen before, once more."""
    found = m.pick(number)
    if found is not None and found.done() and not found.cancelled():
        error = found.exception()
        if error is not None:
            raise error
    return None


@wait
async def odd_(m: Machine, me: str, kind: str) -> Returned:
    await m.wait(me, f"odd {kind}", awaited(odd.odd_awaitable(kind, m.loop)))
    return None


async def awaited(awaitable: Any) -> Any:
    return await awaitable


@wait
async def odd_task(m: Machine, me: str, kind: str, through: str) -> Returned:
    """The same by a task of its own, or through what wraps it."""
    awaitable = odd.odd_awaitable(kind, m.loop)
    if through == "ensure":
        coro: Any = m.add(asyncio.ensure_future(awaitable))
    elif through == "shield":
        coro = asyncio.shield(awaitable)
    elif through == "wait_for":
        coro = asyncio.wait_for(awaitable, TICK)
    else:
        coro = m.add(asyncio.gather(awaitable, return_exceptions=True))
    await m.wait(me, f"odd {through} {kind}", coro)
    return None


# Locks and their like


async def inside(m: Machine, me: str, what: str, guard: Any, body: Body) -> Returned:
    m.log(me, what, "wanted")
    async with guard:
        m.log(me, what, "entered")
        returned = await m.run(me, body)
    m.log(me, what, "left")
    return returned


@wait
async def lock(m: Machine, me: str, number: int, body: Body) -> Returned:
    return await inside(m, me, "lock", m.pick(number, m.locks), body)


@wait
async def semaphore(m: Machine, me: str, number: int, body: Body) -> Returned:
    return await inside(m, me, "semaphore", m.pick(number, m.semaphores), body)


@wait
async def condition(m: Machine, me: str, body: Body) -> Returned:
    return await inside(m, me, "condition", m.condition, body)


@wait
async def condition_wait(m: Machine, me: str) -> Returned:
    async with m.condition:
        await m.wait(me, "condition_wait", m.condition.wait())
    return None


@wait
async def event_wait(m: Machine, me: str, number: int) -> Returned:
    await m.wait(me, "event_wait", m.pick(number, m.events).wait())
    return None


@wait
async def put(m: Machine, me: str, number: int, value: int) -> Returned:
    await m.wait(me, "put", m.pick(number, m.queues).put(value))
    return None


@wait
async def get(m: Machine, me: str, number: int) -> Returned:
    await m.wait(me, "get", m.pick(number, m.queues).get())
    return None


@wait
async def join(m: Machine, me: str, number: int) -> Returned:
    await m.wait(me, "join", m.pick(number, m.queues).join())
    return None


@wait
async def barrier(m: Machine, me: str, what: str) -> Returned:
    await m.wait(me, f"barrier {what}", getattr(m.barrier, what)())
    return None


# Asynchronous generators


async def generator(m: Machine, me: str, bodies: list[Body], last: Body) -> Any:
    try:
        for number, body in enumerate(bodies):
            await m.run(me, body)
            m.log(me, "generator got", (yield number))
    finally:
        m.log(me, "generator ends")
        await m.run(me, last)


@wait
async def generate(
    m: Machine, me: str, how: str, bodies: list[Body], last: Body
) -> Returned:
    made = generator(m, f"{me}g", bodies, last)
    if how == "all":
        async for item in made:
            m.log(me, "item", item)
        return None
    await m.wait(me, "first", anext(made, "none"))
    if how == "close":
        await m.wait(me, "closed", made.aclose())
    elif how == "throw":
        await m.wait(me, "threw", made.athrow(LookupError("thrown")))
    elif how == "send":
        await m.wait(me, "sent", made.asend("sent"))
    elif how == "keep" and not m.generators:
        m.generators.append(made)  # one only: the loop keeps them in a set
    return None  # else dropped: the loop closes it


@wait
async def resume(m: Machine, me: str, number: int) -> Returned:
    """Ask a generator that was kept for more; it may be busy or done."""
    found = m.pick(number, m.generators)
    if found is not None:
        await m.wait(me, "resume", anext(found, "done"))
    return None

"""The operations that do not wait; each takes the machine and its caller's name."""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import odd
from .clock import TICK

if TYPE_CHECKING:
    from .machine import Body, Machine

# These crash when asked for the coroutine of a task that ended in its eager step.
NO_CORO = (3, 12, 0) <= sys.version_info[:3] < (3, 12, 2)
HERE = os.path.dirname(__file__)

Act = Callable[..., Any]
ACTS: dict[str, Act] = {}


def act(function: Act) -> Act:
    ACTS[function.__name__.rstrip("_")] = function
    return function


# Callbacks of the loop


@act
def call(m: Machine, me: str, how: str, ticks: int, body: Body, own: int) -> Any:
    callback = m.callback(body)
    kwargs: dict[str, Any] = {}
    if own:
        kwargs["context"] = contextvars.copy_context()
    if how == "soon":
        handle = m.loop.call_soon(callback, own, **kwargs)
    elif how == "threadsafe":
        handle = m.loop.call_soon_threadsafe(callback, own, **kwargs)
    elif how == "later":
        handle = m.loop.call_later(ticks * TICK, callback, own, **kwargs)
    else:
        handle = m.loop.call_at(m.loop.time() + ticks * TICK, callback, own, **kwargs)
    m.handles.append(handle)
    return None


@act
def handle(m: Machine, me: str, number: int, what: str) -> Any:
    found = m.pick(number, m.handles)
    if found is None:
        return None
    if what == "cancel":
        return found.cancel()
    if what == "run":
        m.ran += 1  # a callback that runs itself would not end
        return m.ran < 4 and found._run()
    when = found.when() if isinstance(found, asyncio.TimerHandle) else None
    return [repr(found), found.cancelled(), when]


@act
def stop(m: Machine, me: str) -> Any:
    return m.loop.stop()


@act
def report(m: Machine, me: str, number: int) -> Any:
    error = odd.make_error("value", number) if number % 2 else None
    context: dict[str, Any] = {"message": f"report {number}", "exception": error}
    if number % 3 == 0 and m.things:
        context["task"] = m.pick(number)
    return m.loop.call_exception_handler(context)


# Futures


@act
def future(m: Machine, me: str, kind: str) -> Any:
    classes = {
        "stock": asyncio.Future,
        "python": asyncio.futures._PyFuture,  # type: ignore[attr-defined]
        "sub": m.sub_future,
    }
    made = m.loop.create_future() if kind == "loop" else classes[kind](loop=m.loop)
    return m.add(made)


@act
def set_result(m: Machine, me: str, number: int, value: int) -> Any:
    found = m.pick(number)
    return found and found.set_result(value)


@act
def set_error(m: Machine, me: str, number: int, kind: str, as_class: int) -> Any:
    error = odd.make_error(kind, next(m.numbers))
    found = m.pick(number)
    if found is None:
        return None
    return found.set_exception(type(error) if as_class else error)


@act
def cancel(m: Machine, me: str, number: int, msg: Any) -> Any:
    found = m.pick(number)
    if found is None:
        return None
    return found.cancel() if msg is None else found.cancel(msg)


@act
def cancel_me(m: Machine, me: str, msg: Any) -> Any:
    current = asyncio.current_task(m.loop)
    return current and [current.cancel(msg), current.cancelling()]


@act
def uncancel(m: Machine, me: str, number: int) -> Any:
    found = asyncio.current_task(m.loop) if number == 0 else m.pick(number)
    return found and [found.uncancel(), found.cancelling()]


@act
def state(m: Machine, me: str, number: int) -> Any:
    found = m.pick(number)
    if found is None:
        return None
    said = [found, found.done(), found.cancelled(), repr(found)]
    for method in (found.result, found.exception):
        try:
            said.append(method())
        except BaseException as error:
            said.append(error)
    if hasattr(found, "cancelling"):
        said += [found.cancelling(), found.get_name()]
    return said


@act
def insides(m: Machine, me: str, number: int) -> Any:
    """The attributes that libraries know, and what a task tells of its stack."""
    found = m.pick(number)
    if found is None:
        return None
    said = [found._state, found._asyncio_future_blocking, found._cancel_message]
    said += [found._callbacks is None, found.get_loop() is m.loop]
    if isinstance(found, asyncio.Task):
        # Of a task that runs these are also the callers, the loop's among them.
        codes = [frame.f_code for frame in found.get_stack()]
        said.append([c.co_name for c in codes if c.co_filename.startswith(HERE)])
        said += [found._fut_waiter, found._must_cancel]
        if not (NO_CORO and found.done()):
            said.append(repr(found.get_coro()))
        if sys.version_info >= (3, 12):
            context = found.get_context()
            said.append(len(list(context)))
    return said


@act
def callback(m: Machine, me: str, number: int, body: Body, own: int) -> Any:
    found = m.pick(number)
    if found is None:
        return None
    context = contextvars.copy_context() if own else None
    return found.add_done_callback(m.callback(body), context=context)


@act
def uncallback(m: Machine, me: str, number: int, which: int) -> Any:
    found = m.pick(number)
    if found is None or not m.callbacks:
        return None
    return found.remove_done_callback(m.pick(which, m.callbacks))


# Tasks


def make_task(m: Machine, kind: str, coro: Any, name: Any) -> Any:
    loop = m.loop
    if name is None and kind in ("stock", "python", "eager_stock"):
        name = f"named {next(m.numbers)}"  # these count on their own
    kwargs = {} if name is None else {"name": name}
    if kind == "asyncio":
        return asyncio.create_task(coro, **kwargs)
    if kind == "ensure":
        return asyncio.ensure_future(coro, loop=loop)
    if kind == "stock":
        return asyncio.Task(coro, loop=loop, **kwargs)
    if kind == "python" and sys.version_info < (3, 14):
        # Later ones have a register of their own: current_task() knows them not.
        python: Any = asyncio.tasks._PyTask  # type: ignore[attr-defined]
        return python(coro, loop=loop, **kwargs)
    if kind == "native":
        return m.task_class(coro, loop=loop, **kwargs)
    if kind == "sub":
        return m.sub_task(coro, loop=loop, **kwargs)
    if kind == "duck":
        return loop.create_task(odd.DuckCoroutine(coro), **kwargs)
    if kind == "context":
        return loop.create_task(coro, context=contextvars.copy_context(), **kwargs)
    if odd.HAS_EAGER and kind in ("eager", "eager_stock", "eager_off"):
        if kind == "eager_off" and sys.version_info >= (3, 14):
            return loop.create_task(coro, eager_start=True, **kwargs)
        task_class = asyncio.Task if kind == "eager_stock" else m.task_class
        kwargs["eager_start"] = kind != "eager_off"
        return task_class(coro, loop=loop, **kwargs)
    return loop.create_task(coro, **kwargs)


@act
def spawn(m: Machine, me: str, kind: str, body: Body, name: Any) -> Any:
    coro = m.script(body)
    try:
        return m.add(make_task(m, kind, coro, name))
    except BaseException:
        coro.close()
        raise


@act
def spawn_bad(m: Machine, me: str, kind: str) -> Any:
    bad = {"int": 5, "function": spawn_bad, "generator": (1 for _ in ())}[kind]
    return m.loop.create_task(bad)


@act
def group_spawn(m: Machine, me: str, number: int, body: Body, name: Any) -> Any:
    group = m.pick(number, m.groups)
    if group is None:
        return None
    coro = m.script(body)
    return m.add(group.create_task(coro, name=name))


@act
def group_state(m: Machine, me: str, number: int) -> Any:
    return repr(m.pick(number, m.groups))


@act
def name(m: Machine, me: str, number: int, text: Any) -> Any:
    found = m.pick(number)
    if not hasattr(found, "set_name"):
        return None
    found.set_name(text)
    return found.get_name()


@act
def current(m: Machine, me: str) -> Any:
    return [asyncio.current_task(m.loop), asyncio._get_running_loop() is m.loop]


@act
def all_tasks(m: Machine, me: str) -> Any:
    return asyncio.all_tasks(m.loop)


@act
def factory(m: Machine, me: str, kind: str) -> Any:
    return m.loop.set_task_factory(odd.factory(kind, m.task_class))


@act
def make_gather(
    m: Machine, me: str, refs: list[int], bodies: list[Body], keep: int
) -> Any:
    coros = [m.script(body) for body in bodies]
    members = m.picks(refs)
    outer = asyncio.gather(*members, *coros, return_exceptions=bool(keep))
    m.waits_for[id(outer)] = getattr(outer, "_children", members)
    return m.add(outer)


@act
def make_shield(m: Machine, me: str, number: int) -> Any:
    found = m.pick(number)
    return found and m.add(asyncio.shield(found))


@act
def chain(m: Machine, me: str, number: int, other: int) -> Any:
    """What run_in_executor() and wrap_future() are made of."""
    source, target = m.pick(number), m.pick(other)
    if source is None or source is target or isinstance(target, asyncio.Task):
        return None
    return asyncio.futures._chain_future(source, target)  # type: ignore[attr-defined]


# Timeouts, locks and their like


@act
def reschedule(m: Machine, me: str, number: int, ticks: int | None) -> Any:
    found = m.pick(number, m.timeouts)
    if found is None:
        return None
    when = None if ticks is None else m.loop.time() + ticks * TICK
    found.reschedule(when)
    return [repr(found), found.when()]


@act
def expired(m: Machine, me: str, number: int) -> Any:
    found = m.pick(number, m.timeouts)
    return found and [found.expired(), found.when(), repr(found)]


@act
def event(m: Machine, me: str, number: int, what: str) -> Any:
    found = m.pick(number, m.events)
    return repr(found) if what == "show" else getattr(found, what)()


@act
def release(m: Machine, me: str, number: int) -> Any:
    return m.pick(number, m.locks).release()


@act
def sem_release(m: Machine, me: str, number: int) -> Any:
    return m.pick(number, m.semaphores).release()


@act
def notify(m: Machine, me: str, count: int) -> Any:
    return m.condition.notify(count) if count else m.condition.notify_all()


@act
def put_now(m: Machine, me: str, number: int, value: int) -> Any:
    return m.pick(number, m.queues).put_nowait(value)


@act
def get_now(m: Machine, me: str, number: int) -> Any:
    return m.pick(number, m.queues).get_nowait()


@act
def task_done(m: Machine, me: str, number: int) -> Any:
    return m.pick(number, m.queues).task_done()


@act
def shutdown(m: Machine, me: str, number: int, now: int) -> Any:
    queue: Any = m.pick(number, m.queues)
    if hasattr(queue, "shutdown"):
        return queue.shutdown(immediate=bool(now))
    return None


@act
def show(m: Machine, me: str) -> Any:
    every = [*m.locks, *m.events, *m.semaphores, m.condition, *m.queues, m.barrier]
    return [repr(item) for item in every]


# The rest


@act
def set_(m: Machine, me: str, value: int) -> Any:
    from .machine import VAR

    VAR.set(value)


@act
def raise_(m: Machine, me: str, kind: str) -> Any:
    raise odd.make_error(kind, next(m.numbers))

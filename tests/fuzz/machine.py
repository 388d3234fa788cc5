"""Runs one program on one loop and writes its trace.

A program is data: {"main": body, "factory": name, "debug": 0 or 1}. A body is a
list of statements, each a tuple (operation, argument, ...); arguments are
numbers, words and bodies. Numbers that refer to tasks, futures or handles count
round those that exist at that moment, so every program makes sense.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import logging
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from . import odd
from .clock import TICK
from .describe import Describer, clean, nameless, shown

VAR: contextvars.ContextVar[int] = contextvars.ContextVar("VAR", default=0)

PATIENCE = 100  # ticks until whatever still waits is cancelled
ROUNDS = 60  # of cancelling, at most
MAX_EVENTS = 4000

Body = list[Any]
Entry = tuple[Any, ...]


class Machine:
    """The state of one run. `kind` is "asyncio", "hotloop" or another's name."""

    def __init__(self, kind: str, loop: Any, program: dict[str, Any]) -> None:
        self.loop = loop
        self.program = program
        self.trace: list[Entry] = []
        self.late: list[Any] = []  # what the collector finds: in no order
        self.closing = False
        self.task_class, self.future_class = odd.native_types(kind)
        self.sub_task, self.sub_future = odd.subclasses(kind)
        self.describe = Describer(first_task_number(loop))
        self.things: list[Any] = []  # tasks and futures
        self.known: set[int] = set()
        self.waits_for: dict[int, list[Any]] = {}
        self.handles: list[Any] = []
        self.callbacks: list[Any] = []
        self.groups: list[Any] = []
        self.timeouts: list[Any] = []
        self.generators: list[Any] = []
        self.ran = 0
        self.numbers = itertools.count(1)
        self.make_primitives()

    def make_primitives(self) -> None:
        self.locks = [asyncio.Lock(), asyncio.Lock()]
        self.events = [asyncio.Event(), asyncio.Event()]
        self.semaphores = [asyncio.Semaphore(1), asyncio.BoundedSemaphore(2)]
        self.condition = asyncio.Condition()
        self.queues = [asyncio.Queue(1), asyncio.PriorityQueue(), asyncio.LifoQueue()]
        self.barrier = asyncio.Barrier(2)

    # The trace

    def log(self, me: str, *what: Any) -> None:
        if self.closing:
            return
        if len(self.trace) >= MAX_EVENTS:
            raise AssertionError("a program without end")
        ticks = round((self.loop.time() - self.start) / TICK)
        said = tuple(map(self.describe.value, what))
        self.trace.append((ticks, me, VAR.get(), *said))

    def on_report(self, loop: Any, context: dict[str, Any]) -> None:
        message = context["message"]
        if message.endswith("never retrieved") or self.closing:
            error = context.get("exception")
            args = [nameless(shown(arg)) for arg in getattr(error, "args", ())]
            self.late.append((message, type(error).__name__, args))
            return
        about = context.get("task", context.get("future"))
        current = asyncio.current_task(self.loop)
        same = about is not None and about is current
        said = {key: context[key] for key in sorted(context)}
        said.pop("source_traceback", None)  # ten frames, the loop's among them
        self.log("report", said, current, same)

    def on_record(self, record: logging.LogRecord) -> bool:
        """What goes to asyncio's logger, first line."""
        text = record.getMessage().partition("\n")[0]
        self.late.append(clean(text))
        return False

    def on_unraisable(self, args: Any) -> None:
        self.late.append((args.exc_type.__name__, str(args.exc_value)))

    def on_warning(self, message: Any, category: Any, *args: Any) -> None:
        if "never awaited" in str(message):
            return  # it may come while the next program runs
        self.late.append(clean(f"{category.__name__}: {message}"))

    # Objects

    def add(self, thing: Any) -> Any:
        """Make a task or future known to later statements."""
        if id(thing) not in self.known and not isinstance(thing, odd.Duck):
            self.known.add(id(thing))
            self.things.append(thing)
        return thing

    def pick(self, number: int, among: list[Any] | None = None) -> Any:
        """The number-th newest; None where there is nothing yet."""
        found = self.things if among is None else among
        return found[-1 - number % len(found)] if found else None

    def picks(self, numbers: Iterable[int]) -> list[Any]:
        return [self.pick(number) for number in numbers if self.things]

    def is_circle(self, thing: Any) -> bool:
        """Would the current task wait for itself, by cancel()'s way down?"""
        current = asyncio.current_task()
        seen: set[int] = set()
        todo = [thing]
        while todo:
            item = todo.pop()
            if item is current:
                return True
            if id(item) not in seen:
                seen.add(id(item))
                todo += self.waits_for.get(id(item), [])
        return False

    async def wait(self, me: str, what: str, awaitable: Any, *on: Any) -> Any:
        """Await it and write down what came of it; `on` is what it is about."""
        for thing in on:
            if self.is_circle(thing):
                self.log(me, what, "would wait for itself")
                if asyncio.iscoroutine(awaitable):
                    awaitable.close()
                return None
        current = id(asyncio.current_task())
        before = self.waits_for.get(current, [])
        self.waits_for[current] = [*before, *on]
        try:
            value = await awaitable
        except BaseException as error:
            self.log(me, what, "raised", error, asyncio.current_task())
            raise
        finally:
            self.waits_for[current] = before
        self.log(me, what, value)
        return value

    # Scripts

    def act(self, me: str, statement: Any) -> None:
        """Do something that does not wait."""
        if self.closing:
            return
        name, *args = statement
        try:
            found = ACTS[name](self, me, *args)
        except Exception as error:
            if name == "raise":
                raise
            self.log(me, name, "failed", error)
        else:
            self.log(me, name, found)

    def call(self, me: str, body: Body, *args: Any) -> None:
        """A callback: only what does not wait."""
        self.log(me, "called", args, asyncio.current_task(self.loop))
        for statement in body:
            if statement[0] in ACTS:
                self.act(me, statement)

    def callback(self, body: Body) -> Callable[..., None]:
        me = f"c{next(self.numbers)}"

        def callback(*args: Any) -> None:
            self.call(me, body, *args)

        self.callbacks.append(callback)
        return callback

    async def run(self, me: str, body: Body) -> Any:
        """Run a body; returns the value in a list where it returned one."""
        for statement in body:
            if self.closing:
                break
            name, *args = statement
            if name in ACTS:
                self.act(me, statement)
            else:
                returned = await WAITS[name](self, me, *args)
                if returned is not None:
                    return returned
        return None

    def script(self, body: Body) -> Any:
        """The coroutine of a new task."""
        me = f"s{next(self.numbers)}"
        made_in = VAR.get()

        async def script() -> Any:
            task: Any = asyncio.current_task()
            self.add(task)
            self.log(me, "starts", task, made_in)
            VAR.set(next(self.numbers))
            try:
                returned = await self.run(me, body)
            except BaseException as error:
                self.log(me, "fails", error, task.cancelling())
                raise
            self.log(me, "ends", returned, task.cancelling())
            return me if returned is None else returned[0]

        coro: Any = script()
        coro.__qualname__ = me  # a repr tells them apart
        return coro

    # The whole

    def execute(self) -> list[Entry]:
        """Run the program; returns the trace."""
        self.start = self.loop.time()
        self.loop.set_exception_handler(self.on_report)
        self.loop.set_debug(bool(self.program["debug"]))
        self.loop.set_task_factory(
            odd.factory(self.program["factory"], self.task_class)
        )
        main = self.add(
            self.task_class(self.script(self.program["main"]), loop=self.loop)
        )
        self.drive("main", lambda: main)
        self.drive("rest", lambda: self.drained or self.drain())
        self.loop.set_task_factory(None)
        self.drive("asyncgens", self.loop.shutdown_asyncgens)
        for thing in self.things:
            self.finals(thing)
        self.closing = True
        return self.trace

    drained: Any = None

    def drive(self, what: str, make: Callable[[], Any]) -> None:
        """Run until it is done, whatever stops the loop meanwhile."""
        for _ in range(ROUNDS):
            limit = self.loop.call_later(PATIENCE * TICK * 50, self.give_up, what)
            try:
                value = self.loop.run_until_complete(make())
            except BaseException as error:
                self.log(what, "run ended", error)
                running = asyncio._get_running_loop()
                assert running is None and not self.loop.is_running()
                if isinstance(error, AssertionError):
                    raise
                if what == "main" and (make().done() or self.gave_up):
                    return
                if what == "rest" and self.drained and self.drained.done():
                    return
                if what == "asyncgens" and self.gave_up:
                    return
            else:
                self.log(what, "run done", value)
                return
            finally:
                limit.cancel()

    def give_up(self, what: str) -> None:
        """What was waited for does not come."""
        self.log(what, "gives up")
        self.gave_up = True
        self.loop.stop()

    gave_up = False

    def drain(self) -> Any:
        coro = self.drain_all()
        self.drained = self.task_class(coro, loop=self.loop)
        return self.drained

    async def drain_all(self) -> None:
        """Wait for all tasks; cancel those that have waited too long."""
        current = asyncio.current_task()
        for number in range(ROUNDS):
            limit = PATIENCE if number == 0 else 4
            for _ in range(limit):
                others = asyncio.all_tasks() - {current}
                if not others:
                    return
                await asyncio.sleep(TICK)
            self.log("drain", "cancels", number)
            for task in self.things:
                waits = not task.done() and task is not current
                if waits and (isinstance(task, asyncio.Task) or number > 5):
                    task.cancel(f"drain {number}")
        self.log("drain", "gives up", others)

    def forget(self) -> None:
        """Drop all references to what the program made."""
        self.closing = True
        kept = {"trace", "late", "closing"}
        for name in [name for name in vars(self) if name not in kept]:
            setattr(self, name, None)

    def finals(self, thing: Any) -> None:
        """Write down what became of a task or future."""
        said = [thing, shown(thing), thing.done()]
        if thing.done() and not thing.cancelled():
            said.append(thing.exception())
        if thing.done():
            try:
                said.append(thing.result())
            except BaseException as error:
                said.append(error)
        if isinstance(thing, asyncio.Task):
            said += [thing.cancelling(), thing.get_name()]
        self.log("final", *said)


def first_task_number(loop: Any) -> int:
    """From where the default names of tasks count."""

    async def nothing() -> None:
        pass

    task = loop.create_task(nothing())
    loop.run_until_complete(task)
    return int(task.get_name().removeprefix("Task-"))


def run_program(kind: str, loop: Any, program: dict[str, Any]) -> list[Entry]:
    """The trace of a program, and after it what the collector brought up."""
    hook = sys.unraisablehook
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        machine = Machine(kind, loop, program)
        warnings.showwarning = machine.on_warning  # type: ignore[assignment]
        sys.unraisablehook = machine.on_unraisable
        logger = logging.getLogger("asyncio")
        logger.addFilter(machine.on_record)
        try:
            contextvars.Context().run(machine.execute)
        finally:
            machine.forget()
            loop.close()
            gc.collect()
            sys.unraisablehook = hook
            logger.removeFilter(machine.on_record)
    return [*machine.trace, ("late", *sorted(map(repr, machine.late)))]


from .acts import ACTS  # noqa: E402  (they need Machine)
from .waits import WAITS  # noqa: E402

"""What asyncio itself tells: tasks lost, exceptions unread, tasks left behind."""

from __future__ import annotations

import asyncio
import asyncio.runners
import sys
from collections.abc import Callable
from typing import Any

from .._loop import Loop
from ._chain import chain_of
from ._findings import Notes, Place
from ._patches import Patches
from ._places import Finder, function_name
from ._tasks import Record, Tasks

_LOST = (
    "Keep a reference until the task has ended, in a set or an asyncio.TaskGroup: "
    "the loop itself has only a weak one."
)
_UNREAD = (
    "Await the task, in a TaskGroup or with asyncio.gather(), or give it a done "
    "callback that looks at task.exception()."
)
_LEFT = (
    "Await the task before main() returns, or cancel it and await that; a TaskGroup "
    "does so for all its tasks."
)


def raised_at(exception: BaseException, finder: Finder) -> Place | None:
    """The innermost line of the program in a traceback."""
    found = None
    trace = exception.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if finder.is_program(code.co_filename):
            found = Place(code.co_filename, trace.tb_lineno, function_name(code))
        trace = trace.tb_next
    return found


class Reports:
    """Listens to loops: their exception handler, their end, the end of runs."""

    def __init__(self, tasks: Tasks, notes: Notes, finder: Finder) -> None:
        self._tasks = tasks
        self._notes = notes
        self._finder = finder

    def install(self, patches: Patches) -> None:
        """Hear what goes to exception handlers, and of what is left at the end."""
        base = asyncio.BaseEventLoop
        patches.wrap(base, "call_exception_handler", self._handler)
        patches.wrap(asyncio.runners, "_cancel_all_tasks", self._runner)
        patches.wrap(Loop, "close", self._close)
        patches.wrap(asyncio.SelectorEventLoop, "close", self._close)

    # ---- exception handlers ----

    def _handler(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call_exception_handler(self_: Any, context: Any, /) -> Any:
            try:
                self._hear(context)
            except Exception as error:
                self._notes.fail(error)
            return original(self_, context)

        return call_exception_handler

    def _hear(self, context: dict[str, Any]) -> None:
        message = str(context.get("message"))
        if message.startswith("Task was destroyed but it is pending"):
            self._lost(context["task"])
        elif message.endswith("exception was never retrieved"):
            future = context.get("task") or context.get("future")
            exception = context.get("exception")
            if future is not None and exception is not None:
                self._unread(future, exception)

    def _lost(self, task: Any) -> None:
        record = self._tasks.of(task)
        if record is None or self._notes.has("left-behind", record.place):
            return
        self._notes.add(
            "task-lost",
            record.place,
            f"the task of {record.coroutine}() was collected before it ended: nobody "
            "had a reference to it",
            _LOST,
            task=task.get_name(),
            number=record.number,
        )

    def _unread(self, future: Any, exception: BaseException) -> None:
        record = self._tasks.of(future)
        raised = raised_at(exception, self._finder)
        where = "" if raised is None else f", raised in line {raised.line}"
        text = f"{type(exception).__name__}: {exception}".rstrip(": ")
        what = "a future" if record is None else f"the task of {record.coroutine}()"
        self._notes.add(
            "exception-unread",
            raised if record is None else record.place,
            f"{what} failed with {text[:200]}{where}, and nobody read it",
            _UNREAD,
            task="" if record is None else future.get_name(),
            number=0 if record is None else record.number,
        )

    # ---- ends ----

    def _runner(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def _cancel_all_tasks(loop: Any) -> Any:
            # One that fails leaves tasks behind as a matter of course.
            if sys.exc_info()[0] is None:
                self._leave(loop, "the main coroutine had ended, and was cancelled")
            return original(loop)

        return _cancel_all_tasks

    def _close(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def close(self_: Any) -> Any:
            if not self_.is_closed() and not self_.is_running():
                self._leave(self_, "the loop was closed, and never will be", "error")
            return original(self_)

        return close

    def _leave(self, loop: Any, when: str, severity: str = "") -> None:
        try:
            for task in asyncio.all_tasks(loop):
                record = self._tasks.of(task)
                if record is not None and not record.serves and not record.is_main:
                    self._left(record, task, when, severity)
        except Exception as error:
            self._notes.fail(error)

    def _left(self, record: Record, task: Any, when: str, severity: str) -> None:
        links = [
            link
            for link in chain_of(task).links
            if self._finder.is_program(link.frame.f_code.co_filename)
        ]
        record.see_name()
        where = ""
        if links:
            frame = links[-1].frame
            where = f" (in line {frame.f_lineno} of {function_name(frame.f_code)}())"
        self._notes.add(
            "left-behind",
            record.place,
            f"the task of {record.coroutine}() was not done{where} when {when}",
            _LEFT,
            task=record.name,
            number=record.number,
            severity=severity,
        )

"""Tasks that were cancelled, and went on."""

from __future__ import annotations

import ast
import asyncio
from typing import Any

from ._chain import Chain, Link, chain_of
from ._findings import Notes, Place
from ._places import Finder, function_name, function_node, nodes_of
from ._tasks import Record

_NAMES = {"CancelledError", "BaseException"}
_CHANGE = (
    "Let CancelledError through: raise it again after cleaning up. A task that "
    "means to go on has to call asyncio.current_task().uncancel()."
)


def _named(node: ast.AST | None) -> set[str]:
    """The last parts of the names in an expression of exception types."""
    if isinstance(node, ast.Tuple):
        return set().union(*(_named(each) for each in node.elts))
    if isinstance(node, ast.Attribute):
        return {node.attr}
    return {node.id} if isinstance(node, ast.Name) else set()


def _raises(body: list[ast.stmt]) -> bool:
    return any(
        isinstance(node, ast.Raise)
        for statement in body
        for node in [statement, *nodes_of(statement)]
    )


def _swallowing_line(node: ast.AST, unaware: bool) -> int:
    """Where a statement catches the cancellation and does not raise; 0 if it lets it.

    An earlier handler that names CancelledError and raises protects the later ones.
    Unaware are those that do not name it.
    """
    if isinstance(node, ast.Try):
        for handler in node.handlers:
            names = _named(handler.type)
            if handler.type is None or names & _NAMES:
                known = "CancelledError" in names and unaware
                return 0 if known or _raises(handler.body) else handler.lineno
    if isinstance(node, ast.With) and not unaware:
        for item in node.items:
            call = item.context_expr
            if not isinstance(call, ast.Call) or _named(call.func) != {"suppress"}:
                continue
            if any(_named(each) & _NAMES for each in call.args):
                return node.lineno
    return 0


def swallowed_at(link: Link, unaware: bool = False) -> Place | None:
    """The line of a coroutine's function that swallows cancellations.

    Of several, the last one that stands around or before the line that it waits in.
    """
    code = link.frame.f_code
    function = function_node(code)
    if function is None:
        return None
    here = link.frame.f_lineno or 0
    found = {_swallowing_line(node, unaware) for node in nodes_of(function)}
    lines = sorted(found - {0})
    if not lines:
        return None
    before = [line for line in lines if line <= here]
    line = before[-1] if before else lines[0]
    return Place(code.co_filename, line, function_name(code))


def is_cleaning_up(link: Link) -> bool:
    """Whether a coroutine is in a handler, in finally, or in the end of a with.

    So it may be on its way out, with the cancellation to follow.
    """
    function = function_node(link.frame.f_code)
    if function is None:
        return True  # nobody knows
    line = link.frame.f_lineno or 0
    for node in nodes_of(function):
        if isinstance(node, ast.AsyncWith | ast.With):
            if node.lineno <= line < node.body[0].lineno:
                return True
        elif isinstance(node, ast.Try):
            bodies = [handler.body for handler in node.handlers] + [node.finalbody]
            for body in filter(None, bodies):
                last = body[-1].end_lineno or body[-1].lineno
                if body[0].lineno <= line <= last:
                    return True
    return False


def _has_been_delivered(task: Any) -> bool:
    """Whether the task got its CancelledError, and waits for something new."""
    future = getattr(task, "_fut_waiter", None)
    if future is None or future.done() or getattr(task, "_must_cancel", False):
        return False
    if isinstance(future, asyncio.Task) and future.cancelling():
        return False  # it is told, and cleans up
    return not getattr(future, "_cancel_requested", False)


class Cancelling:
    """Looks for tasks that have swallowed a cancellation."""

    def __init__(self, notes: Notes, finder: Finder) -> None:
        self._notes = notes
        self._finder = finder
        self._suspects: set[int] = set()

    def look(self, pairs: list[tuple[Record, Any]]) -> None:
        """Judge tasks that wait although they were cancelled. Runs in the loop."""
        suspects: set[int] = set()
        for record, task in pairs:
            if record.is_main or not _is_cancelled_now(task):
                continue
            if not _has_been_delivered(task):
                continue
            chain = chain_of(task)
            place = self._place(chain)
            if place is None or any(map(is_cleaning_up, chain.links)):
                continue
            suspects.add(record.number)
            if record.number in self._suspects:
                self._report(record, place, chain)
        self._suspects = suspects

    def _place(self, chain: Chain) -> Place | None:
        for link in reversed(chain.links):
            if self._finder.is_program(link.frame.f_code.co_filename):
                place = swallowed_at(link)
                if place is not None:
                    return place
        return None

    def _report(self, record: Record, place: Place, chain: Chain) -> None:
        frame = chain.links[-1].frame
        for link in chain.links:
            if self._finder.is_program(link.frame.f_code.co_filename):
                frame = link.frame
        self._notes.add(
            "cancellation-swallowed",
            place,
            "a cancelled task caught CancelledError here and went on: now it waits "
            f"in line {frame.f_lineno} of {function_name(frame.f_code)}()",
            _CHANGE,
            task=record.name,
            number=record.number,
            weight=1.0,
        )

    def returning(self, record: Record) -> None:
        """Judge a task whose coroutine is about to return, although it was cancelled.

        Many do that knowingly, with nothing left to do: only a handler that does not
        name CancelledError is taken for a mistake.
        """
        task: Any = record.ref()
        if task is None or record.is_main or not _is_cancelled_now(task):
            return
        if getattr(task, "_must_cancel", False):
            return
        coroutine = task.get_coro()
        frame = getattr(coroutine, "cr_frame", None)
        if frame is None or not self._finder.is_program(frame.f_code.co_filename):
            return
        self._notes.add(
            "cancellation-swallowed",
            swallowed_at(Link(coroutine, frame), unaware=True),
            "a cancelled task ended as if it had finished: this caught CancelledError, "
            "too, and who waits for the task takes it for done",
            "Catch Exception, which CancelledError is none of, or raise it again.",
            task=record.name,
            number=record.number,
        )


def _is_cancelled_now(task: Any) -> bool:
    cancelling = getattr(task, "cancelling", None)
    return cancelling is not None and cancelling() > 0

"""What is known of the tasks: who made them, and when they ran."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import CodeType, CoroutineType
from typing import Any

from .._loop import Loop
from ._findings import Place
from ._patches import Patches
from ._places import Finder, function_name, is_loop

# The timeline has as many tasks, and of each as many stretches of running.
MOST_SHOWN = 20_000
MOST_STRETCHES = 400


def _nothing() -> None:
    return None


class _Ref(weakref.ref[Any]):
    """A reference to a task that knows its record."""

    __slots__ = ("record",)
    record: Record


class Record:
    """A task as the doctor remembers it. It does not keep the task alive."""

    name = ""
    ended = 0.0
    outcome = ""
    # The first task of a run; one that a server made for a connection.
    is_main = False
    serves = False
    frame_id = 0
    running_since = 0.0
    waits: Any = None  # of _waits.py
    _gap = 0.0

    def __init__(self, number: int, place: Place | None, coroutine: Any) -> None:
        self.number = number
        self.place = place
        self.made = time.monotonic()
        self.ref: Callable[[], asyncio.Task[Any] | None] = _nothing
        # Begin and end of each stretch of running, one after the other.
        self.stretches: list[float] = []
        # Its function, or its type.
        self._kind = getattr(coroutine, "cr_code", None) or type(coroutine)
        if type(self._kind) is not CodeType:
            self._name = getattr(coroutine, "__qualname__", self._kind.__qualname__)

    @property
    def coroutine(self) -> str:
        """The name of the coroutine function."""
        kind = self._kind
        return function_name(kind) if isinstance(kind, CodeType) else self._name

    def ran(self, begun: float, ended: float) -> None:
        """Keep a stretch of running; near ones become one if there are too many."""
        stretches = self.stretches
        if stretches and begun - stretches[-1] <= self._gap:
            stretches[-1] = ended
            return
        stretches += (begun, ended)
        if len(stretches) > 2 * MOST_STRETCHES:
            self._gap = max(2 * self._gap, (ended - self.made) / MOST_STRETCHES)
            kept, self.stretches = stretches, []
            for index in range(0, len(kept), 2):
                self._join(kept[index], kept[index + 1])

    def _join(self, begun: float, ended: float) -> None:
        stretches = self.stretches
        if stretches and begun - stretches[-1] <= self._gap:
            stretches[-1] = ended
        else:
            stretches += (begun, ended)

    def see_name(self) -> None:
        """Keep the name of the task, which may have been changed."""
        task = self.ref()
        if task is not None:
            self.name = task.get_name()

    def leave(self, outcome: str) -> None:
        """Note that the coroutine has ended, and how."""
        task = self.ref()
        if task is not None:
            self.name = task.get_name()
        self.ended = time.monotonic()
        self.outcome = outcome

    def finish(self, task: asyncio.Task[Any] | None) -> None:
        """Note the end of the task, and how it was."""
        if self.ended:
            return
        self.ended = time.monotonic()
        if task is None:
            self.outcome = "collected"
            return
        self.name = task.get_name()
        if task.cancelled():
            self.outcome = "cancelled"
        elif getattr(task, "_exception", None) is not None:
            self.outcome = "failed"
        else:
            self.outcome = "done"


class LoopRecord:
    """A loop that tasks were seen on, and the thread that runs it."""

    def __init__(self, loop: Any) -> None:
        self.ref = weakref.ref(loop)
        self.ident = threading.get_ident()
        self.native = threading.get_native_id()


class Tasks:
    """All tasks made while the doctor watches."""

    def __init__(self, finder: Finder) -> None:
        self.finder = finder
        self.live: dict[int, Record] = {}
        self.loops: dict[int, LoopRecord] = {}
        self.shown: list[Record] = []
        self.made = 0
        self.most = 0
        # By the address of the task, and of the frame of its coroutine.
        self._by_id: dict[int, Record] = {}
        self.by_frame: dict[int, Record] = {}
        self.watch_code: Callable[[CodeType], bool] = lambda code: False
        self.first_sight: Callable[[], None] = lambda: None
        # Called when the next task is made, once.
        self.first_made: Callable[[], None] | None = None

    def install(self, patches: Patches) -> None:
        """Have the loops tell of tasks that they make."""
        patches.wrap(Loop, "create_task", lambda made: self._wrapped(made, True))
        base = asyncio.BaseEventLoop
        patches.wrap(base, "create_task", lambda made: self._wrapped(made, False))

    def _wrapped(self, original: Callable[..., Any], ours: bool) -> Callable[..., Any]:
        def create_task(self_: Any, /, *args: Any, **kwargs: Any) -> Any:
            coro = args[0] if args else kwargs.get("coro")
            if isinstance(self_, Loop) is not ours or coro is None:
                return original(self_, *args, **kwargs)
            record = self._begin(self_, coro)
            task = original(self_, *args, **kwargs)
            self._made(record, task)
            return task

        return create_task

    def _begin(self, loop: Any, coro: Any) -> Record:
        """Know the task before it is made: an eager one runs at once."""
        if self.first_made is not None:
            call, self.first_made = self.first_made, None
            call()
        known = self.loops.get(id(loop))
        if known is None or known.ref() is not loop:
            known = self.loops[id(loop)] = LoopRecord(loop)
            self.first_sight()
        here = threading.get_ident()
        if known.ident != here and loop._thread_id == here:
            self.loops[id(loop)] = LoopRecord(loop)
        frame = sys._getframe(2)
        caller = frame.f_code
        self.made += 1
        record = Record(self.made, self.finder.above(frame), coro)
        if caller.co_name == "connection_made":
            record.serves = True
        if not loop.is_running() and is_loop(caller.co_filename):
            record.is_main = True
        if type(coro) is CoroutineType and coro.cr_frame is not None:
            record.frame_id = id(coro.cr_frame)
            self.by_frame[record.frame_id] = record
            self.watch_code(coro.cr_code)
        return record

    def _made(self, record: Record, task: Any) -> None:
        try:
            ref = _Ref(task, self._collected)
            record.name = task.get_name()
        except (AttributeError, TypeError):
            return  # a task factory's own thing
        ref.record = record
        record.ref = ref
        self._by_id[id(task)] = record
        self.live[record.number] = record
        if len(self.live) > self.most:
            self.most = len(self.live)
        if len(self.shown) < MOST_SHOWN:
            self.shown.append(record)

    def _collected(self, ref: Any) -> None:
        record: Record = ref.record
        record.finish(None)
        self.live.pop(record.number, None)
        if self.by_frame.get(record.frame_id) is record:
            del self.by_frame[record.frame_id]

    def of(self, task: Any) -> Record | None:
        """The record of a task, which may be in its last moments."""
        record = self._by_id.get(id(task))
        if record is None:
            return None
        known = record.ref()
        return record if known is task or known is None else None

    def each(self) -> Iterator[tuple[Record, asyncio.Task[Any]]]:
        """Those that have not ended. What has is forgotten."""
        for number, record in list(self.live.items()):
            task = record.ref()
            if task is None:
                continue
            if task.done():
                record.finish(task)
                self.live.pop(number, None)
                continue
            record.name = task.get_name()
            yield record, task


class Steps:
    """Learns from sys.monitoring when the coroutines of tasks run."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._tool = -1
        # By address: to compare code is slow, and finds equal functions.
        self._codes: dict[int, CodeType] = {}
        # When a function was entered or went on last.
        self.entered: dict[int, float] = {}
        self.returning: Callable[[Record], None] = lambda record: None

    @property
    def active(self) -> bool:
        """Whether it is known when coroutines run."""
        return self._tool >= 0

    def start(self) -> bool:
        """Begin, where Python has what it takes and a tool's number is free."""
        if sys.version_info < (3, 12):
            return False
        monitoring = sys.monitoring
        events = monitoring.events
        for tool in (4, 3, 2, 1, 0, 5):
            if monitoring.get_tool(tool) is None:
                break
        else:
            return False
        monitoring.use_tool_id(tool, "hotloop doctor")
        self._tool = tool
        enter = self._make_enter()
        for event in (events.PY_START, events.PY_RESUME, events.PY_THROW):
            monitoring.register_callback(tool, event, enter)
        monitoring.register_callback(tool, events.PY_YIELD, self._make_leave())
        monitoring.register_callback(tool, events.PY_UNWIND, self._unwind)
        monitoring.register_callback(tool, events.PY_RETURN, self._return)
        monitoring.set_events(tool, events.PY_THROW | events.PY_UNWIND)
        return True

    def watch(self, code: CodeType) -> bool:
        """Watch a function from now on; say whether that is possible."""
        if sys.version_info < (3, 12) or self._tool < 0:
            return False
        if id(code) not in self._codes:
            self._codes[id(code)] = code
            events = sys.monitoring.events
            wanted = (
                events.PY_START | events.PY_RESUME | events.PY_YIELD | events.PY_RETURN
            )
            sys.monitoring.set_local_events(self._tool, code, wanted)
        return True

    def stop(self) -> None:
        """Watch no longer."""
        if sys.version_info < (3, 12) or self._tool < 0:
            return
        monitoring = sys.monitoring
        tool, self._tool = self._tool, -1
        events = monitoring.events
        monitoring.set_events(tool, 0)
        for code in self._codes.values():
            monitoring.set_local_events(tool, code, 0)
        for event in ("START", "RESUME", "THROW", "YIELD", "UNWIND", "RETURN"):
            monitoring.register_callback(tool, getattr(events, f"PY_{event}"), None)
        monitoring.free_tool_id(tool)
        self._codes.clear()

    def _make_enter(self) -> Callable[..., None]:
        """What is called most often, with everything at hand."""
        by_frame, codes, entered = self._tasks.by_frame, self._codes, self.entered
        clock, frame_of = time.monotonic, sys._getframe

        def enter(code: CodeType, *_: Any) -> None:
            now = clock()
            key = id(code)
            if key in codes:
                entered[key] = now
            record = by_frame.get(id(frame_of(1)))
            if record is not None:
                record.running_since = now

        return enter

    def _make_leave(self) -> Callable[..., None]:
        by_frame, clock, frame_of = self._tasks.by_frame, time.monotonic, sys._getframe

        def leave(*_: Any) -> None:
            record = by_frame.get(id(frame_of(1)))
            if record is not None and record.running_since:
                record.ran(record.running_since, clock())
                record.running_since = 0.0

        return leave

    def _return(self, code: CodeType, *_: Any) -> None:
        record = self._tasks.by_frame.get(id(sys._getframe(1)))
        if record is not None:
            self._note_end(record)
            self.returning(record)
            record.leave("done")

    def _unwind(self, code: CodeType, offset: int, error: BaseException) -> None:
        record = self._tasks.by_frame.get(id(sys._getframe(1)))
        if record is not None:
            self._note_end(record)
            cancelled = isinstance(error, asyncio.CancelledError)
            record.leave("cancelled" if cancelled else "failed")

    def _note_end(self, record: Record) -> None:
        if record.running_since:
            record.ran(record.running_since, time.monotonic())
            record.running_since = 0.0

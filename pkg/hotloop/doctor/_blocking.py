"""Finds callbacks that block their loop, by looking at its thread from another one."""

from __future__ import annotations

import collections
import contextlib
import opcode
import os
import re
import sys
import time
from types import CodeType, FrameType
from typing import Any, NamedTuple

from ._findings import Notes, Place
from ._places import CALLS_BACK, ITSELF, Finder, call_text, is_doctor, place_of
from ._tasks import LoopRecord, Record, Steps, Tasks

_DEEPEST = 1000

# The instructions in which a thread may wait for something.
_WAITING = ("CALL", "FOR_ITER", "BEFORE_WITH", "IMPORT", "SEND", "PRECALL", "LOAD_ATTR")

THREAD = "await asyncio.to_thread(...) runs it in a thread"
# What the call says of itself, in the order of the questions: what it is, and what
# to use in its place.
_CAUSES = [
    (r"\bsleep\(", "sleeps", "Use await asyncio.sleep(...)."),
    (
        r"subprocess|Popen|os\.(system|popen|wait)|\bcommunicate\(",
        "waits for a process",
        "Use asyncio.create_subprocess_exec(), whose processes can be awaited.",
    ),
    (
        r"sqlite3|psycopg2|MySQLdb|pymysql|\b(execute|executemany|commit|fetchall)\(",
        "waits for a database",
        f"Use an asynchronous driver; else {THREAD}.",
    ),
    (
        r"socket\.py|ssl\.py|http/client\.py|urllib|requests|httpx|smtplib|ftplib"
        r"|\b(recv|recv_into|recvfrom|sendall|accept|connect|getaddrinfo|urlopen"
        r"|create_connection|gethostbyname|do_handshake)\(",
        "does network I/O that blocks",
        "Use asyncio's streams or an asynchronous client; else " + THREAD + ".",
    ),
    (
        r"queue\.py|threading\.py|concurrent/futures"
        r"|\.(acquire|join|wait|result|get|put)\(",
        "waits for another thread",
        "Use asyncio's Queue, Lock or Event, await asyncio.wrap_future(...) for a "
        f"future of an executor; else {THREAD}.",
    ),
    (
        r"pathlib|shutil|tempfile|zipfile|tarfile|gzip|\bos\.(fsync|read|write|listdir"
        r"|walk|stat)|\b(open|read|readline|readlines|write|flush|read_text|read_bytes"
        r"|write_text|write_bytes|input|copyfile|fsync)\(",
        "does file I/O that blocks",
        f"{THREAD[0].upper()}{THREAD[1:]}.",
    ),
]
_CPU = (
    "computes",
    "Run it in a process, await loop.run_in_executor(ProcessPoolExecutor(), ...), or "
    "divide it, with await asyncio.sleep(0) between the parts.",
)
# It happens once; and what a library imports late, the program may not know.
_IMPORTS = (
    "imports modules",
    "Import them before the loop runs, at the top of a module.",
)
_IMPORT = "<frozen importlib"
_OTHER = ("waits", f"Use an asynchronous form of it; else {THREAD}.")


class _Spot(NamedTuple):
    """Where a thread is: in which callback, and at what in it."""

    # Of the outermost frame: its function, and the address.
    bottom: tuple[CodeType, int]
    # Of the innermost: its function, and the instruction.
    code: CodeType
    offset: int
    place: Place | None
    imports: bool


class _Sample(NamedTuple):
    spot: _Spot
    # Since the sample before, or since the callback began.
    took: float
    used: float
    stopped: bool


class _Watch:
    """What the thread of a loop has been in, as far as it was seen."""

    def __init__(self) -> None:
        self.bottom: tuple[CodeType, int] | None = None
        self.since = 0.0
        self.turns = 0
        self.exact = False
        self.samples: list[_Sample] = []
        self.record: Record | None = None
        # As of the sample before.
        self.last = 0.0
        self.last_cpu = -1.0
        self.gap = 0.0


def cpu_time(ident: int) -> float:
    """How long a thread that exists has computed, in seconds; -1 if nobody tells."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return -1.0
    return time.clock_gettime(time.pthread_getcpuclockid(ident))


def is_stopped(native: int) -> bool:
    """Whether a thread sleeps, rather than runs or would like to; so if unknown."""
    try:
        file = os.open(f"/proc/self/task/{native}/stat", os.O_RDONLY)
    except OSError:
        return True
    try:
        text = os.read(file, 1000)
    finally:
        os.close(file)
    return text.rpartition(b")")[2].split()[:1] != [b"R"]


def callback_frames(frame: FrameType | None) -> list[FrameType]:
    """The frames of the callback that a loop runs, innermost first; none if idle."""
    found: list[FrameType] = []
    while frame is not None and len(found) < _DEEPEST:
        code = id(frame.f_code)
        if code in CALLS_BACK:
            return found
        if code in ITSELF:
            return []
        found.append(frame)
        frame = frame.f_back
    return []


class Blocking:
    """Watches the threads of loops. Everything here runs in the watching thread."""

    def __init__(
        self, tasks: Tasks, steps: Steps, notes: Notes, finder: Finder, slow: float
    ) -> None:
        self._tasks = tasks
        self._steps = steps
        self._notes = notes
        self._finder = finder
        self._slow = slow
        self._watches: dict[int, _Watch] = collections.defaultdict(_Watch)
        # Turns of the loops that were seen to begin, where nothing better tells.
        self.turns = 0
        self._asked = 0

    def look(self, known: LoopRecord) -> None:
        """Take a sample of what a loop's thread is doing."""
        now = time.monotonic()
        watch = self._watches[known.native]
        loop: Any = known.ref()
        # While it runs its thread exists, and cannot end before this one lets it.
        running = loop is not None and loop.is_running()
        ident = loop._thread_id if running else 0
        cpu = cpu_time(ident) if running else -1.0
        watch.gap = now - watch.last if watch.last else 0.0
        spot = self._find_spot(ident) if running else None
        if spot is None:
            self._end(watch)
        else:
            self._see(watch, spot, known, now, cpu)
        watch.last, watch.last_cpu = now, cpu

    def _find_spot(self, ident: int) -> _Spot | None:
        """Where a thread is. No frame is kept: its owner may want to be the last."""
        inside = callback_frames(sys._current_frames().get(ident))
        if not inside:
            return None
        innermost, bottom = inside[0], inside[-1]
        place = None
        for frame in inside:
            if self._finder.is_program(frame.f_code.co_filename):
                place = place_of(frame)
                break
        key = bottom.f_code, id(bottom)
        imports = any(f.f_code.co_filename.startswith(_IMPORT) for f in inside)
        return _Spot(key, innermost.f_code, innermost.f_lasti, place, imports)

    def _see(
        self, watch: _Watch, spot: _Spot, known: LoopRecord, now: float, cpu: float
    ) -> None:
        if not self._goes_on(watch, spot.bottom):
            self._end(watch)
            self._begin(watch, spot.bottom, now)
        elif not watch.exact and self._asked <= self.turns:
            # The next turn of the loop ends the callback for sure.
            self._asked = self.turns + 1
            loop: Any = known.ref()
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._count_turn)
        if watch.record is not None and not self._steps.active:
            watch.record.ran(watch.last or now, now)
        if is_doctor(spot.code.co_filename):
            return  # our own work is not the program's
        took = now - max(watch.since, watch.last)
        used = self._used(watch, took, now, cpu)
        # This gives the interpreter away for a moment, so that a thread that only
        # waits for it is not taken to sleep.
        stopped = is_stopped(known.native)
        watch.samples.append(_Sample(spot, took, used, stopped))

    def _used(self, watch: _Watch, took: float, now: float, cpu: float) -> float:
        """How long the callback has computed at least, since the last sample.

        What was before it may have taken all the time that there was before it.
        """
        if cpu < 0:
            return took  # nobody tells
        if watch.last_cpu < 0:
            return 0.0
        return min(took, max(0.0, cpu - watch.last_cpu - (now - watch.last - took)))

    def _count_turn(self) -> None:
        self.turns += 1

    def _goes_on(self, watch: _Watch, key: tuple[CodeType, int]) -> bool:
        """Whether the callback is the one that the last sample saw."""
        if key != watch.bottom:
            return False
        if watch.exact:
            return self._steps.entered.get(id(key[0]), 0.0) <= watch.since
        return self.turns == watch.turns

    def _begin(self, watch: _Watch, key: tuple[CodeType, int], now: float) -> None:
        entered = self._steps.entered.get(id(key[0]), 0.0)
        watch.bottom = key
        watch.record = self._tasks.by_frame.get(key[1])
        watch.exact = self._steps.watch(key[0])
        # Between the last sample and this one it began; if late, when is known only
        # of what was watched already, but a late sample means that one call of the
        # loop's thread, or of another, kept the interpreter to itself.
        watch.since = now
        if entered:
            watch.since = entered
        elif watch.gap >= self._slow:
            watch.since = watch.last
        watch.turns = self.turns

    def _end(self, watch: _Watch) -> None:
        """Judge the callback that has ended. It was seen until the last sample."""
        samples, watch.samples = watch.samples, []
        bottom, watch.bottom = watch.bottom, None
        if bottom is None or watch.last - watch.since < self._slow:
            return
        # Waits in one call each, and all the rest, which has to have computed: a slow
        # machine, or threads that compete, make a callback long but not at fault.
        spots: dict[tuple[int, int], list[_Sample]] = {}
        imports = [sample for sample in samples if sample.spot.imports]
        for sample in samples:
            spot = sample.spot
            if spot.imports:
                continue
            spots.setdefault((id(spot.code), spot.offset), []).append(sample)
        rest: list[_Sample] = []
        for seen in spots.values():
            spot = seen[0].spot
            stopped = [sample for sample in seen if sample.stopped]
            took, used = _sums(stopped)
            waits = len(stopped) >= 3 and used < took / 2 and _may_wait(spot)
            if waits and took >= self._slow:
                self._report(watch.record, stopped, *_cause(spot))
            else:
                rest += seen
        if _sums(rest)[1] >= self._slow:
            self._report(watch.record, rest, *_CPU)
        if _sums(imports)[1] >= self._slow:
            self._report(watch.record, imports, *_IMPORTS, severity="hint")

    def _report(
        self,
        record: Record | None,
        samples: list[_Sample],
        what: str,
        change: str,
        severity: str = "",
    ) -> None:
        took, used = _sums(samples)
        spots = [sample.spot for sample in samples]
        functions = collections.Counter(s.place and s.place[::2] for s in spots)
        function, count = functions.most_common(1)[0]
        inside = [s for s in spots if (s.place and s.place[::2]) == function]
        place = collections.Counter(s.place for s in inside).most_common(1)[0][0]
        code = next(s.code for s in inside if s.place == place)
        computed = f", {used:.2f} s of it computing for sure" if used >= 0.01 else ""
        seen = f"blocks the loop for {took:.2f} s{computed}: it {what}"
        if place is not None and code.co_filename != place.file:
            seen += f" in {code.co_qualname}()"
        if count < len(samples):
            seen += f" (here in {count} of {len(samples)} samples)"
        self._notes.add(
            "blocking-call",
            place,
            seen,
            change,
            task=record.name if record else "",
            number=record.number if record else 0,
            weight=took,
            severity=severity,
        )


def _sums(samples: list[_Sample]) -> tuple[float, float]:
    """How long the samples stand for, and how much of it was computing."""
    return sum(s.took for s in samples), sum(s.used for s in samples)


def _may_wait(spot: _Spot) -> bool:
    """Whether a thread can wait in an instruction."""
    code = spot.code.co_code
    if not 0 <= spot.offset < len(code):
        return False
    return opcode.opname[code[spot.offset]].startswith(_WAITING)


def _cause(spot: _Spot) -> tuple[str, str]:
    """What kind of wait a call is, by its text and by the library that makes it."""
    code = spot.code
    texts = [call_text(code, spot.offset)]
    if spot.place is None or code.co_filename != spot.place.file:
        texts = [f"{code.co_filename}:{code.co_name}(", *texts]
    for text in texts:
        for pattern, what, change in _CAUSES:
            if re.search(pattern, text):
                return what, change
    return _OTHER

"""One scenario with one call failing, and what is to be said of it."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import json
import logging
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from typing import Any

import support

from .connections import contexts
from .control import Control
from .scenarios import SCENARIOS

# Looks without one call of hotloop's between them, until a scenario is taken to wait
# for ever. Not a time: who looks is as slow as the machine is.
STUCK_LOOKS = 75  # a descriptor that was refused is tried again after a second
LOOK_SECONDS = 0.02
HUNG_SECONDS = 30.0  # after which a process is ended


class Failed(Exception):
    """What a scenario met is not what is expected of it."""


class Notes:
    """All that was told of what went wrong."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.texts: list[str] = []

    def add(self, error: BaseException | None, text: str = "") -> None:
        text = text or repr(error)
        if "wanted" in text:  # the scenario's own
            return
        if error is not None:
            self.errors.append(error)
        self.texts.append(text)

    @property
    def told(self) -> bool:
        """Whether anybody was told that there is no memory."""
        return any(map(is_of_memory, self.errors)) or any(
            "MemoryError" in text or "Cannot allocate" in text for text in self.texts
        )

    def traces(self) -> list[str]:
        return ["".join(traceback.format_exception(error)) for error in self.errors]


def is_of_memory(error: BaseException | None) -> bool:
    """Whether the error, or one that it came of, is about memory."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError):
            return True
        if isinstance(error, OSError) and error.errno == 12:  # ENOMEM
            return True
        if isinstance(error, BaseExceptionGroup):
            return any(map(is_of_memory, error.exceptions))
        error = error.__cause__ or error.__context__
    return False


class Faults:
    """Within it calls may fail: what a scenario gets."""

    def __init__(self, control: Control, first: int, window: int) -> None:
        self.control = control
        self.first = first
        self.window = window
        self.notes = Notes()
        self.loops: list[asyncio.AbstractEventLoop] = []
        self.stuck = False

    def __enter__(self) -> None:
        self.control.arm(self.first, self.window)

    def __exit__(self, *exc_info: object) -> None:
        self.control.disarm()

    def new_loop(self) -> asyncio.AbstractEventLoop:
        import hotloop

        loop = hotloop.new_event_loop()
        self.watch(loop)
        return loop

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hear of what is reported to this loop, and close it in the end."""
        loop.set_exception_handler(
            lambda loop, context: self.notes.add(context.get("exception"), str(context))
        )
        self.loops.append(loop)

    def guard(self, over: threading.Event) -> None:
        """Runs in a thread: ends what waits for something that never comes."""
        seen, looks, means = -1, 0, [cancel_all, stop]
        while not over.wait(LOOK_SECONDS) and means:
            looks += 1
            if not self.stuck and self.control.count != seen:
                seen, looks = self.control.count, 0
            elif looks > STUCK_LOOKS:
                self.stuck = True
                self.control.disarm()
                looks, act = 0, means.pop(0)
                for loop in self.loops:
                    with contextlib.suppress(RuntimeError):
                        loop.call_soon_threadsafe(act, loop)


def cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()


def stop(loop: asyncio.AbstractEventLoop) -> None:
    loop.stop()


@contextlib.contextmanager
def guarded(faults: Faults) -> Iterator[None]:
    over = threading.Event()
    thread = threading.Thread(target=faults.guard, args=(over,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def listening(notes: Notes) -> Iterator[None]:
    """Everything that is logged, warned of or unraisable goes into the notes."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            error = record.exc_info[1] if record.exc_info else None
            notes.add(error, record.getMessage())

    handler = Handler()
    logging.getLogger().addHandler(handler)
    sys.unraisablehook = lambda args: notes.add(args.exc_value, str(args.err_msg))
    threading.excepthook = lambda args: notes.add(args.exc_value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.getLogger().removeHandler(handler)


def run_main(faults: Faults, main: Any) -> None:
    loop = faults.new_loop()
    task = loop.create_task(main(faults))
    while not task.done():
        # What comes out of the loop itself is told, and the loop goes on.
        try:
            loop.run_until_complete(task)
        except BaseException as error:
            faults.notes.add(error)
            if not task.done() and not is_of_memory(error):
                break


def is_usable(faults: Faults) -> None:
    """The loop still runs callbacks, timers, tasks and wake-ups."""
    loop = faults.loops[0] if faults.loops else faults.new_loop()

    async def main() -> str:
        left, right = support.unix_pair()
        soon = loop.create_future()
        loop.call_soon(soon.set_result, None)
        await soon
        await asyncio.sleep(0.0005)
        later = loop.create_future()
        threading.Thread(
            target=loop.call_soon_threadsafe, args=(later.set_result, None)
        ).start()
        await later
        read = asyncio.ensure_future(loop.sock_recv(left, 10))
        await asyncio.sleep(0)
        right.send(b"still")
        got = (await asyncio.wait_for(read, 5)).decode()
        left.close()
        right.close()
        return got

    if loop.is_closed():
        return
    if loop.run_until_complete(main()) != "still":
        raise Failed("the loop is of no use any more")


def clean_up(faults: Faults) -> None:
    for loop in faults.loops:
        if loop.is_closed():
            continue
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=0.3))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    faults.loops.clear()


def play(name: str, control: Control, first: int, window: int) -> dict[str, Any]:
    """Play a scenario once; what happened."""
    scenario = SCENARIOS[name]
    before = set(support.open_fds())
    faults = Faults(control, first, window)
    with listening(faults.notes):
        try:
            with guarded(faults):
                if asyncio.iscoroutinefunction(scenario):
                    run_main(faults, scenario)
                else:
                    scenario(faults)
        except BaseException as error:
            faults.notes.add(error)
        control.disarm()
        count, failures = control.count, control.failures
        problem = verdict(faults, failures)
        traces, told = faults.notes.traces(), faults.notes.told
        faults.notes.errors.clear()  # which keep what they came through
        if not problem:
            try:
                is_usable(faults)
                clean_up(faults)
            except BaseException as error:
                problem = f"afterwards: {error!r}"
                traces += faults.notes.traces()
        faults.loops.clear()
        faults.notes.errors.clear()
        support.collect()
    leaked = {fd: what for fd, what in support.open_fds().items() if fd not in before}
    if leaked and not problem:
        problem = f"descriptors left open: {leaked}"
    return {
        "count": count,
        "failures": failures,
        "stuck": faults.stuck,
        "told": told,
        "problem": problem,
        "notes": faults.notes.texts,
        "traces": traces,
    }


def verdict(faults: Faults, failures: int) -> str:
    """What is wrong with what happened; "" where nothing is.

    A failed call may raise MemoryError to whoever called, or be reported, or do no
    harm. Then nothing may hang or break without a word: what a program sees must
    come of the MemoryError.
    """
    notes = faults.notes
    for error in notes.errors:
        if isinstance(error, (SystemError, AssertionError)):
            return f"{error!r}"
    if failures == 0 and (notes.texts or faults.stuck):
        return f"fails without a fault: {notes.texts}, stuck: {faults.stuck}"
    if faults.stuck and not notes.told:
        return "waits for ever, and nobody was told"
    if notes.texts and not notes.told:
        return f"something else than MemoryError alone: {notes.texts}"
    return ""


def in_child(name: str, control: Control, first: int, window: int) -> dict[str, Any]:
    """Play it in a forked process, so that a crash is seen."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        faulthandler.register(signal.SIGALRM, chain=True)
        signal.alarm(int(HUNG_SECONDS))
        os.close(reading)
        try:
            result = play(name, control, first, window)
            result["site"] = (
                list(control.site(first)) if first and result["failures"] else None
            )
            if not first:
                result["sites"] = [
                    list(control.site(number))
                    for number in range(1, result["count"] + 1)
                ]
        except BaseException:
            result = {"problem": traceback.format_exc(), "failures": 1, "count": 0}
        os.set_blocking(writing, True)
        with open(writing, "w") as file:
            json.dump(result, file)
        os._exit(0)
    os.close(writing)
    with open(reading) as file:
        text = file.read()
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if text and code == 0:
        found: dict[str, Any] = json.loads(text)
        return found
    what = "hangs" if code == -signal.SIGALRM else f"ended with {code}"
    return {"problem": f"the process {what}", "failures": 1, "count": 0}


def prepare() -> None:
    """What is made once in a process, before it is forked."""
    import hotloop

    async def main() -> None:
        await asyncio.get_running_loop().getaddrinfo("localhost", 80)

    contexts()
    # libuv keeps the pipe of its signals for good.
    hotloop.run(main())
    gc.freeze()

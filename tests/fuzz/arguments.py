"""Call everything that is public, with what no function wants.

    python -m fuzz.arguments [--calls N | --minutes M] [--seed S] [--jobs N]
                             [--replay SEED]

A case is a seed: an instance of one class, in some state (new, half made, made
twice, closed), a few calls, attributes set and deleted. Values are odd or hostile
(hostile.py); some calls come from another thread. Every fourth case has no hostile
objects and is played on asyncio as well: the types of the exceptions must be the
same, but for those that KNOWN lists.

Cases run by the hundred in processes of their own. What must not happen: a crash, a
SystemError (a result with an exception set, or none), a hang, or a descriptor left
over. Exit status 1 where it did; the seed is printed. Objects of hotloop that are left
over are printed, too: a hostile object may have put them where they stay.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import copy
import faulthandler
import gc
import inspect
import os
import pathlib
import pickle
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hotloop

from . import hostile, surface

BATCH = 100  # cases of one process
HANG = 60  # seconds for one case
COMPARED = {
    "Loop",
    "Future",
    "Task",
    "Handle",
    "TimerHandle",
    "SocketTransport",
    "DatagramTransport",
    "ReadPipeTransport",
    "WritePipeTransport",
    "StreamReader",
    "StreamWriter",
    "StreamReaderProtocol",
}
# (class, method): why another exception than asyncio's is right.
CLOSED_FIRST = "on a closed loop, that is said before what is wrong with arguments"
BY_TIME = "how far a coroutine got in a few turns"
KNOWN: dict[tuple[str, str], str] = {
    ("Loop", "call_soon"): CLOSED_FIRST,
    ("Loop", "call_soon_threadsafe"): CLOSED_FIRST,
    ("Loop", "create_task"): CLOSED_FIRST,
    ("Loop", "add_reader"): "a bad descriptor is found before the loop's state",
    ("Loop", "call_at"): "a time that is no number is refused at once",
    ("WritePipeTransport", "abort"): "asyncio's fails once the connection is lost",
    ("Loop", "create_connection"): BY_TIME,
    ("Loop", "sendfile"): BY_TIME,
    ("Loop", "sock_sendto"): BY_TIME,
    ("Future", "get_loop"): "CPython 3.12's takes any keyword argument",
}

PLAUSIBLE: dict[str, Callable[[hostile.Arena], Any]] = {
    "callback": lambda arena: lambda *args: None,
    "fn": lambda arena: lambda *args: None,
    "func": lambda arena: len,
    "delay": lambda arena: arena.rng.choice([0, 0.001, 1e9]),
    "when": lambda arena: arena.rng.choice([0, 1e12]),
    "protocol_factory": lambda arena: asyncio.Protocol,
    "protocol": lambda arena: asyncio.Protocol(),
    "sock": hostile.make_socket,
    "fd": lambda arena: hostile.make_socket(arena).fileno(),
    "data": lambda arena: b"data",
    "n": lambda arena: 5,
    "nbytes": lambda arena: 5,
    "context": lambda arena: __import__("contextvars").copy_context(),
    "coro": hostile.make_coroutine,
    "future": lambda arena: arena.loop.create_future(),
    "exception": lambda arena: ValueError("x"),
    "exc": lambda arena: ValueError("x"),
    "loop": lambda arena: arena.loop,
    "transport": lambda arena: arena.target,
    "name": lambda arena: "name",
    "msg": lambda arena: "message",
}
# Their arguments are those of system calls on this process, or they wait.
LEFT_OUT = {
    "add_signal_handler",
    "remove_signal_handler",
    "_handle_signal",
    "subprocess_exec",
    "subprocess_shell",
    "_make_subprocess_transport",
    "_child_watch_callback",
    "set_default_executor",
}


class FoundError(Exception):
    """What must not happen did."""


class Case:
    """One seed on one kind of loop."""

    def __init__(self, seed: int, kind: str) -> None:
        self.rng = random.Random(seed)
        self.kind = kind
        self.compared = seed % 4 == 0
        names = sorted(COMPARED) if self.compared else list(surface.classes())
        self.name = self.rng.choice([*names, *([] if self.compared else ["functions"])])
        states = ["new", "new", "new", "closed"]
        if not self.compared:
            states += ["half", "twice", "idle"]
        self.state = self.rng.choice(states)
        self.calls = 0
        self.outcomes: list[tuple[str, str]] = []
        self.bad: list[str] = []

    def note(self, name: str, error: BaseException | None) -> None:
        self.outcomes.append((name, "" if error is None else type(error).__name__))
        seen: BaseException | None = error
        for _ in range(10):
            if isinstance(seen, SystemError):
                self.bad.append(f"{name}: {seen!r}")
            seen = seen and (seen.__context__ or seen.__cause__)

    def on_report(self, loop: Any, context: dict[str, Any]) -> None:
        if isinstance(context.get("exception"), SystemError):
            self.bad.append(f"report: {context}")

    def on_unraisable(self, unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, SystemError):
            self.bad.append(f"unraisable: {unraisable.exc_value!r}")

    # ---- a call ----

    def arguments(self, function: Any) -> tuple[list[Any], dict[str, Any]]:
        arena, rng = self.arena, self.rng
        some = hostile.simple if self.compared else hostile.value
        if self.compared:  # the same for both kinds
            name = getattr(function, "__name__", "")
            names = shared_names(self.name).get(name, [])
        else:
            names = parameters(function)
        args = []
        for at in range(rng.choice([0, 1, 1, 2, 2, 3, 4, len(names)])):
            name = names[at] if at < len(names) else ""
            if name in PLAUSIBLE and rng.random() < 0.6:
                args.append(PLAUSIBLE[name](arena))
            else:
                args.append(some(arena))
        kwargs = {}
        if rng.random() < 0.25:
            for name in rng.sample(
                [*names, "context", "nonsense", "loop", "\udc80"], 1
            ):
                kwargs[name] = some(arena)
        return args, kwargs

    def call(self, name: str, function: Any) -> Any:
        args, kwargs = self.arguments(function)
        self.calls += 1
        if not self.compared and self.rng.random() < 0.04:
            return self.in_thread(lambda: function(*args, **kwargs))
        return function(*args, **kwargs)

    def in_thread(self, function: Callable[[], Any]) -> Any:
        box: list[Any] = []

        def run() -> None:
            try:
                box.append(function())
            except BaseException as error:
                self.note("thread", error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return box[0] if box else None

    def use(self, target: Any, name: str) -> Any:
        """Read, call, set or delete something; returns what a call gave."""
        rng = self.rng
        some = hostile.simple if self.compared else hostile.value
        how = rng.random()
        if not self.compared and how < 0.08:
            self.calls += 1
            return setattr(target, name, some(self.arena))
        if not self.compared and how < 0.11:
            self.calls += 1
            return delattr(target, name)
        if not self.compared and how < 0.15:
            self.calls += 1
            odd: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy, pickle.dumps]
            odd += [repr, hash, gc.get_referrers, gc.get_referents, iter, len, str]
            return rng.choice(odd)(target) and None
        found = getattr(target, name)
        if callable(found):
            return self.call(name, found)
        self.calls += 1
        return None

    async def drive(self, made: Any) -> None:
        """Let what a coroutine method gave go on for some turns."""
        task = asyncio.ensure_future(made)
        for _ in range(self.rng.randrange(4)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=0.05)
        if task.done() and not task.cancelled() and task.exception() is not None:
            raise task.exception()  # type: ignore[misc]

    async def step(self, target: Any, names: list[str]) -> None:
        name = self.rng.choice(names)
        error: BaseException | None = None
        try:
            made = self.use(target, name)
            if inspect.iscoroutine(made) or type(made).__name__ == "StreamOperation":
                await self.drive(made)
            elif isinstance(made, asyncio.Future):
                made.cancel()
        except BaseException as raised:
            error = raised
        self.note(name, error)
        if self.rng.random() < 0.4:
            await asyncio.sleep(0)

    # ---- a case ----

    def names(self, target: Any) -> list[str]:
        left_out = set(LEFT_OUT)
        if self.name == "Loop" and self.state not in ("idle", "closed"):
            left_out |= {"_run", *hostile.BLOCKING}  # would wait within the run
        names = [name for name in surface.names_of(target) if name not in left_out]
        if self.compared:
            names = [
                name
                for name in surface.names_of(type(target))
                if not name.startswith("_") and name in shared_names(self.name)
                if name not in left_out
            ]
        return names

    async def play(self) -> None:
        arena = self.arena
        if self.name == "functions":
            for _ in range(self.rng.randrange(1, 5)):
                found = surface.functions()
                name = self.rng.choice(sorted(found))
                await self.step(_Holder(found), [name])
            return
        target = arena.target = await surface.make(self.name, arena)
        if target is None:
            raise FoundError(f"no instance of {self.name} could be made")
        if self.state == "half":
            cls = type(target)
            with contextlib.suppress(TypeError):
                target = arena.target = cls.__new__(cls)
        elif self.state == "twice":
            with contextlib.suppress(BaseException):
                target.__init__(*self.arguments(target.__init__)[0])
        elif self.state == "closed" and self.name != "Loop":
            for name in ("close", "cancel"):
                with contextlib.suppress(BaseException):
                    getattr(target, name)()
            await asyncio.sleep(0)
        names = self.names(target)
        for _ in range(self.rng.randrange(1, 7)):
            await self.step(target, names)

    def idle(self) -> None:
        """The methods of a loop that does not run, or is closed."""
        loop = self.arena.target = self.arena.loop
        if self.state == "closed":
            loop.close()
        names = self.names(loop)
        for _ in range(self.rng.randrange(1, 6)):
            name = self.rng.choice(names)
            error = None
            try:
                with contextlib.suppress(RuntimeError):
                    loop.call_later(0.001, loop.stop)
                made = self.use(loop, name)
                if inspect.iscoroutine(made):
                    made.close()
            except BaseException as raised:
                error = raised
            self.note(name, error)

    def run(self) -> None:
        new = hotloop.new_event_loop
        loop: Any = new() if self.kind == "hotloop" else asyncio.SelectorEventLoop()
        self.arena = hostile.Arena(loop, self.rng)
        sys.unraisablehook = self.on_unraisable
        loop.set_exception_handler(self.on_report)
        try:
            if self.name == "Loop" and self.state in ("closed", "idle"):
                self.idle()
            else:
                loop.run_until_complete(self.play())
        except FoundError:
            raise
        except BaseException as error:  # the loop was stopped, or closed
            self.note("end", error)
            self.outcomes.pop()
        finally:
            self.clean_up(loop)
        if self.bad:
            raise FoundError(self.bad[0])

    def clean_up(self, loop: Any) -> None:
        """As a program would that has got into trouble."""
        base = hotloop.Loop if self.kind == "hotloop" else asyncio.SelectorEventLoop
        with contextlib.suppress(RuntimeError):
            hotloop.uninstall_streams()
        for thing in self.arena.kept:
            with contextlib.suppress(BaseException):
                thing.close()
        with contextlib.suppress(BaseException):
            for task in asyncio.all_tasks(loop):
                task.cancel()
        for _ in range(2):
            with contextlib.suppress(BaseException):
                base.call_soon(loop, lambda: base.stop(loop))
                base.run_forever(loop)
        for cut in self.cut_off():
            with contextlib.suppress(BaseException):
                cut()
        with contextlib.suppress(BaseException):
            base.close(loop)
        asyncio.events._set_running_loop(None)
        sys.set_asyncgen_hooks(None, None)  # a loop that was made twice forgot them
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            asyncio.set_event_loop(None)
            asyncio.set_event_loop_policy(None)
        self.arena.target = self.arena.loop = None
        self.arena.kept.clear()

    def cut_off(self) -> list[Callable[[], Any]]:
        target = self.arena.target
        found = [getattr(target, "abort", None), getattr(target, "close", None)]
        return [one for one in found if callable(one)]


class _Holder:
    """Functions as attributes."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.__dict__.update(found)


def parameters(function: Any) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except Exception:
        return []


SHARED: dict[str, dict[str, list[str]]] = {}


def shared_names(name: str) -> dict[str, list[str]]:
    """The public names that asyncio's class has as well as ours, with parameters."""
    if not SHARED:

        async def look(into: dict[str, dict[str, list[str]]]) -> None:
            for one in sorted(COMPARED):
                arena = hostile.Arena(asyncio.get_running_loop(), random.Random(1))
                target = await surface.make(one, arena)
                into[one] = {
                    name: parameters(getattr(target, name, None))
                    for name in surface.names_of(type(target))
                    if name not in LEFT_OUT
                }
                for thing in arena.kept:
                    thing.close()
                if hasattr(target, "abort"):
                    target.abort()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        theirs: dict[str, dict[str, list[str]]] = {}
        ours: dict[str, dict[str, list[str]]] = {}
        for found, factory in (
            (theirs, asyncio.SelectorEventLoop),
            (ours, hotloop.new_event_loop),
        ):
            loop = factory()
            thread = threading.Thread(
                target=loop.run_until_complete, args=[look(found)]
            )
            thread.start()
            thread.join()
            loop.close()
        for one, names in theirs.items():
            SHARED[one] = {
                name: names[name] for name in names.keys() & ours[one].keys()
            }
    return SHARED[name]


def compare(seed: int, ours: Case) -> str | None:
    """What differs from asyncio, unless it may."""
    theirs = Case(seed, "asyncio")
    theirs.run()
    for mine, other in zip(ours.outcomes, theirs.outcomes, strict=False):
        if mine != other:
            if "CancelledError" in (mine[1], other[1]) and mine[0] == other[0]:
                return None  # how far it got is a matter of time
            if mine[0] == other[0] and (ours.name, mine[0]) in KNOWN:
                return None
            return f"{ours.name}.{mine[0]} ({ours.state}): {mine[1]} for {other[1]}"
    return None


def numeric_only(*args: Any, **kwargs: Any) -> Any:
    """getaddrinfo() that asks nobody."""
    kwargs.pop("flags", None)
    args = args[:5]
    return REAL_GETADDRINFO(*args, **kwargs, flags=socket.AI_NUMERICHOST)


REAL_GETADDRINFO = socket.getaddrinfo


def left_over() -> list[str]:
    for _ in range(4):
        gc.collect()
    return [
        type(one).__name__
        for one in gc.get_objects()
        if type(one).__name__ not in surface.INTERNAL
        and surface.is_ours(type(one))
        and type(type(one)) is type
        and not isinstance(one, type)
    ]


def worker(path: str, first: int, count: int) -> int:
    """A batch; what was done so far stands in the file."""
    warnings.simplefilter("ignore")
    import logging

    logging.disable(logging.CRITICAL)
    socket.getaddrinfo = numeric_only
    socket.getnameinfo = lambda *args: ("", "")  # type: ignore[assignment]
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    file = os.open(path, os.O_RDWR)
    # What makes something once for the process does it now.
    shared_names("Loop")
    Case(4, "hotloop").run()
    Case(4, "asyncio").run()
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    calls = 0
    differences: collections.Counter[str] = collections.Counter()

    def tell(seed: int, what: str) -> None:
        text = f"{calls}\n{seed}\n{what}\n"
        text += "\n".join(f"{n} {one}" for one, n in differences.items())
        data = text.encode("utf-8", "backslashreplace")
        os.pwrite(file, data, 0)
        os.ftruncate(file, len(data))

    for seed in range(first, first + count):
        tell(seed, "running")
        faulthandler.dump_traceback_later(HANG, exit=True, file=sys.__stderr__)
        case = Case(seed, "hotloop")
        try:
            case.run()
            found = compare(seed, case) if case.compared else None
            if found is not None:
                differences[f"{found} [seed {seed}]"] += 1
        except FoundError as error:
            tell(seed, f"found: {case.name} ({case.state}): {error}")
            return 1
        except BaseException:
            tell(seed, f"found: {case.name} ({case.state}): {traceback.format_exc()}")
            return 1
        finally:
            calls += case.calls
            faulthandler.cancel_dump_traceback_later()
        sys.unraisablehook = lambda unraisable: None
        del case
        if seed % 50 == 0:
            gc.collect()
    leaks = collections.Counter(left_over())
    after = len(os.listdir("/proc/self/fd")) if before else 0
    if after > before:
        tell(seed, f"found: {after - before} descriptors left over")
        return 1
    tell(seed, f"left: {dict(leaks)}" if leaks else "done")
    return 0


class Parent:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.calls = self.cases = 0
        self.bad: list[str] = []
        self.left: collections.Counter[str] = collections.Counter()
        self.differences: list[str] = []

    def batch(self, first: int, count: int) -> None:
        with tempfile.NamedTemporaryFile() as file:
            env = dict(os.environ, PYTHONHASHSEED="0")
            command = [sys.executable, "-X", "faulthandler", "-m", "fuzz.arguments"]
            command += [f"--worker={file.name}", f"--seed={first}", f"--calls={count}"]
            done = subprocess.run(command, env=env, capture_output=True)
            said = pathlib.Path(file.name).read_text(errors="replace").split("\n")
        if len(said) < 3:
            self.bad.append(f"seed {first}: {done.stderr.decode()[-3000:]}")
            return
        calls, seed, what, *differences = said
        self.calls += int(calls)
        self.cases += int(seed) - first + 1
        self.differences += filter(None, differences)
        if done.returncode != 0 or what.startswith(("found", "running")):
            text = done.stderr.decode(errors="replace")[-4000:]
            self.bad.append(f"seed {seed}: {what}, exit {done.returncode}\n{text}")
        elif what.startswith("left"):
            self.left[f"{first}: {what}"] += 1

    def run(self) -> int:
        started = time.monotonic()
        first = (
            self.args.seed if self.args.seed is not None else int(time.time()) % 10**8
        )
        jobs = self.args.jobs

        def enough() -> bool:
            if self.bad and (not self.args.go_on or len(self.bad) > 20):
                return True
            if self.args.minutes:
                return time.monotonic() - started > self.args.minutes * 60
            return bool(self.calls >= self.args.calls)

        with ThreadPoolExecutor(jobs) as pool:
            while not enough():
                starts = [first + BATCH * job for job in range(jobs)]
                list(pool.map(lambda start: self.batch(start, BATCH), starts))
                first += BATCH * jobs
        for one in sorted(set(self.differences)):
            print("differs:", one)
        for one in self.left:
            print("left over:", one)
        for one in self.bad:
            print("FOUND", one)
        verdict = "nothing" if not self.bad else f"{len(self.bad)} found"
        print(f"{self.calls} calls in {self.cases} cases: {verdict}", flush=True)
        return 1 if self.bad or self.differences else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz.arguments")
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--go-on", action="store_true", help="after something is found")
    parser.add_argument("--replay", type=int, help="one case, with what it says")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return worker(args.worker, args.seed, args.calls)
    if args.replay is not None:
        socket.getaddrinfo = numeric_only
        case = Case(args.replay, "hotloop")
        print(case.name, case.state)
        case.run()
        print(case.outcomes)
        if case.compared:
            print(compare(args.replay, case))
        return 0
    return Parent(args).run()


if __name__ == "__main__":
    sys.exit(main())

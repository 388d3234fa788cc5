"""Random calls of transports, from every callback of random protocols.

    python -m fuzz.protocols [--sequences N | --minutes M] [--seed S] [--jobs N]
        [--only KIND] [--loop hotloop|asyncio] [--replay SEED | --program FILE]

A sequence is a seed, from which a program is made: the kind of connection, and for
each callback of each end what it does when it is called. What must hold is checked
by the ends themselves (Side). Sequences run by the hundred in processes of their
own; where one fails, actions are dropped from its program as long as it still does,
and what is left is printed.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import collections
import contextlib
import faulthandler
import gc
import logging
import os
import pathlib
import random
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from . import compare, tls
from .ends import (
    DatagramSide,
    FailedError,
    Program,
    ProvokedError,
    Side,
)

KINDS = ["tcp", "unix", "pair", "pipe", "tls", "udp"]
CALLBACKS = ["made", "data", "eof", "pause", "resume", "lost", "outside", "outside"]
SIZES = [1, 7, 100, 1000, 20_000, 70_000, 300_000]
QUIET = 0.005  # seconds until what keeps a connection open is looked for
PATIENCE = 100  # times of that until two that only send are taken to be stuck
BATCH = 500  # sequences of one process
LIMIT = 30.0  # seconds until a sequence is taken to hang
HANG = 120  # and until its process is
SHRINKS = 60  # attempts to leave something out

Action = tuple[Any, ...]  # (end, callback, name, *args)


# ---- programs ----


def make_action(rng: random.Random) -> tuple[Any, ...]:
    name = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    if name in ("write", "writelines", "sendfile"):
        return name, rng.choice(SIZES)
    if name == "limits":
        return name, rng.choice([0, 10, 1000, None]), rng.choice([0, 5, None])
    if name == "later":
        return name, make_action(rng)
    if name == "turns":
        return name, rng.randrange(1, 5)
    return (name,)


WEIGHTS = {
    "write": 14,
    "writelines": 5,
    "eof": 3,
    "pause": 4,
    "resume": 5,
    "limits": 2,
    "swap": 3,
    "close": 3,
    "abort": 2,
    "reset": 1,
    "look": 4,
    "raise": 2,
    "stop": 2,
    "later": 4,
    "task": 2,
    "shut": 1,
    "sendfile": 2,
    "start_tls": 1,
    "turns": 4,
    "collect": 1,
}


def make_program(seed: int, only: str | None = None) -> Program:
    rng = random.Random(seed)
    kind = only or rng.choice(KINDS)
    actions = [
        (rng.randrange(2), rng.choice(CALLBACKS), *make_action(rng))
        for _ in range(rng.randrange(1, 14))
    ]
    return {
        "kind": kind,
        "buffered": [rng.choice([0, 0, 1, 40, 5000]) for _ in range(2)],
        "keep_open": [rng.random() < 0.3 for _ in range(2)],
        "actions": actions,
    }


# ---- a sequence ----


class Sequence:
    def __init__(self, program: Program, folder: str) -> None:
        self.program = program
        self.folder = folder
        self.failed: str | None = None
        self.reports: list[dict[str, Any]] = []
        self.tasks: list[asyncio.Task[Any]] = []

    def fail(self, what: str) -> None:
        self.failed = self.failed or what

    def on_report(self, loop: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, (ProvokedError, ssl.SSLError, OSError)):
            self.reports.append(context)

    def start(self, coro: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coro)
        self.tasks.append(task)
        return task

    async def connect(self) -> tuple[Side, Side]:
        kind = self.program["kind"]
        make = DatagramSide if kind == "udp" else Side
        near, far = make(0, self.program, self), make(1, self.program, self)
        near.peer, far.peer = far, near
        await getattr(self, f"connect_{kind}")(near, far)
        return near, far

    async def connect_pair(self, near: Side, far: Side) -> None:
        loop = asyncio.get_running_loop()
        for sock, side in zip(socket.socketpair(), (near, far), strict=True):
            sock.setblocking(False)
            await loop.connect_accepted_socket(side.protocol, sock)

    async def connect_tcp(self, near: Side, far: Side, **options: Any) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(far.protocol, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        await loop.create_connection(near.protocol, host, port)
        await self.accepted(far)
        server.close()

    async def connect_unix(self, near: Side, far: Side) -> None:
        loop: Any = asyncio.get_running_loop()
        path = os.path.join(self.folder, "socket")
        server = await loop.create_unix_server(far.protocol, path)
        await loop.create_unix_connection(near.protocol, path)
        await self.accepted(far)
        server.close()
        os.unlink(path) if os.path.exists(path) else None

    async def accepted(self, side: Side) -> None:
        async with asyncio.timeout(LIMIT):
            while side.state == "new":
                await asyncio.sleep(0)

    async def connect_tls(self, near: Side, far: Side) -> None:
        """Both over one pair of sockets; one may break off the handshake."""
        loop = asyncio.get_running_loop()
        contexts = tls.contexts(ssl.TLSVersion.TLSv1_3)
        socks = socket.socketpair()
        for sock in socks:
            sock.setblocking(False)
        timeouts = {"ssl_handshake_timeout": LIMIT, "ssl_shutdown_timeout": 1}
        serving = self.start(
            loop.connect_accepted_socket(
                far.protocol, socks[1], ssl=contexts[0], **timeouts
            )
        )
        connecting = self.start(
            loop.create_connection(
                near.protocol,
                sock=socks[0],
                ssl=contexts[1],
                server_hostname="localhost",
                **timeouts,
            )
        )
        await asyncio.wait([serving, connecting])
        for task, side in ((serving, far), (connecting, near)):
            if task.exception() is not None and side.state == "new":
                side.state = "lost"
                side.lost.set_result(None)

    async def connect_pipe(self, near: Side, far: Side) -> None:
        loop = asyncio.get_running_loop()
        reading, writing = os.pipe()
        # The transports close them.
        files = os.fdopen(reading, "rb", 0), os.fdopen(writing, "wb", 0)
        await loop.connect_read_pipe(near.protocol, files[0])
        await loop.connect_write_pipe(far.protocol, files[1])

    async def connect_udp(self, near: Side, far: Side) -> None:
        loop = asyncio.get_running_loop()
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for sock in sockets:
            sock.setblocking(False)
            sock.bind(("127.0.0.1", 0))
        sockets[0].connect(sockets[1].getsockname())
        sockets[1].connect(sockets[0].getsockname())
        for sock, side in zip(sockets, (near, far), strict=True):
            await loop.create_datagram_endpoint(side.protocol, sock=sock)

    async def main(self) -> None:
        sides = await self.connect()
        loop = asyncio.get_running_loop()
        for number, callback, *action in self.program["actions"]:
            if callback != "outside" or self.failed:
                continue
            if action[0] == "turns":
                for _ in range(action[1]):
                    await asyncio.sleep(0)
            else:
                # Not from the task: what it raises is the loop's to report.
                loop.call_soon(sides[number].do, tuple(action))
                await asyncio.sleep(0)
        await self.finish(*sides)

    async def finish(self, near: Side, far: Side) -> None:
        deadline = time.monotonic() + LIMIT
        for side in (near, far):
            if side.transport is not None:
                side.do(("resume",))
                side.keep_open = False
                if side.sending or side.wild or self.program["kind"] == "udp":
                    continue
                side.do(("eof",))
        rounds = 0
        while not (near.lost.done() and far.lost.done()) and not self.failed:
            await asyncio.wait([near.lost, far.lost], timeout=QUIET)
            for side in (near, far):
                self.hurry(side, rounds)
            rounds += 1
            if time.monotonic() > deadline:
                self.fail(f"hangs: {near.state}, {far.state}")
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)
        for _ in range(3):
            await asyncio.sleep(0)
        self.check_complete(near, far)
        self.check_complete(far, near)
        for side in (near, far):
            if side.transport is not None:
                side.transport.close()
            side.transport = None

    def hurry(self, side: Side, rounds: int) -> None:
        """Close what its protocol keeps open; break the tie of two that do not read."""
        peer = side.peer
        closing = rounds > 0
        if side.lost.done() or side.transport is None:
            return
        if side.state == "open" and not side.sending:
            side.do(("resume",))  # its program may have paused it again
        if side.sending:
            # It does not read, and may wait for a resume_writing() that only
            # another write brings: nothing tells it that the other one is gone,
            # or does not read because it closes or sends a file as well.
            gone = peer.lost.done() or peer.transport is None
            tied = closing and (gone or peer.transport.is_closing())
            if gone or tied or (peer.sending and rounds > PATIENCE):
                side.do(("abort",))
            return
        tied = side.transport.is_closing() and peer.transport is not None
        tied = tied and (peer.transport.is_closing() or peer.lost.done())
        half = side.ended and peer.state != "lost" and not closing
        if tied and closing:
            side.rough = peer.rough = True
            getattr(side.transport, "abort", side.transport.close)()
        elif closing and not half:
            drained = getattr(side.transport, "get_write_buffer_size", int)() == 0
            arrived = peer.sent == side.got or side.rough or side.wild
            over = side.state == "eof" or peer.lost.done()
            if over or (drained and arrived) or self.program["kind"] in ("udp", "tls"):
                side.do(("close",))

    def check_complete(self, reader: Side, writer: Side) -> None:
        if self.program["kind"] in ("udp", "tls") or self.failed:
            return
        if reader.rough or writer.rough or reader.closed or reader.wild:
            return
        if writer.closed and writer.got < reader.sent:
            return  # the system resets what is closed with bytes unread
        if reader.got != writer.sent or reader.error is not None:
            said = f"got {reader.got} of {writer.sent}, {reader.error!r}"
            self.fail(f"end {reader.number}: {said}")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def stop_loop(task: asyncio.Task[Any]) -> None:
    task.get_loop().stop()


def play(program: Program, kind: str, folder: str) -> None:
    """FailedError where something does not hold."""
    before = descriptors()
    loop = compare.new_loop(kind)
    sequence = Sequence(program, folder)
    loop.set_exception_handler(sequence.on_report)
    main = loop.create_task(sequence.main())
    stops = 0
    try:
        while not main.done() and stops < 1000:
            # A stop() in the middle: it goes on with the next run.
            main.add_done_callback(stop_loop)
            loop.run_forever()
            stops += 1
        error = None if not main.done() or main.cancelled() else main.exception()
        if error is not None:
            raise FailedError(f"{error!r}") from error
        left = asyncio.all_tasks(loop)
        if left:
            sequence.fail(f"tasks left over: {left}")
    finally:
        loop.close()
    del main, loop
    if descriptors() != before:
        gc.collect()
        if descriptors() != before:
            sequence.fail("descriptors left over")
    if sequence.failed:
        raise FailedError(sequence.failed)
    if sequence.reports and not known(sequence.reports[0]):
        raise FailedError(f"reported: {sequence.reports[0]}")


def known(report: dict[str, Any]) -> bool:
    """Whether asyncio reports this itself; see tls.is_known()."""
    error = report.get("exception")
    # What stands in for the protocol during a sendfile() says so at an end.
    texts = ["Invalid state: reading should be paused"]
    # TLS was begun on what the program then half-closed.
    texts += ["Cannot call write() after write_eof()"]
    return tls.is_known(report) or str(error) in texts


# ---- processes ----


def warm_up(kind: str, folder: str) -> None:
    """What a process makes once is made now."""
    with contextlib.suppress(FailedError):
        play({**make_program(0, "tls"), "actions": []}, kind, folder)


def worker(args: argparse.Namespace) -> int:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    file = os.open(args.worker, os.O_RDWR)
    tls.contexts(ssl.TLSVersion.TLSv1_3)
    counts: collections.Counter[str] = collections.Counter()

    def tell(seed: int, what: str) -> None:
        text = f"{seed}\n{dict(counts)}\n{what}".encode()
        os.pwrite(file, text, 0)
        os.ftruncate(file, len(text))

    with tempfile.TemporaryDirectory() as folder:
        warm_up(args.loop, folder)
        for seed in range(args.seed, args.seed + args.sequences):
            program = args.one or make_program(seed, args.only)
            tell(seed, "running")
            faulthandler.dump_traceback_later(HANG, exit=True)
            try:
                play(program, args.loop, folder)
            except FailedError as error:
                tell(seed, f"found: {error}")
                return 1
            faulthandler.cancel_dump_traceback_later()
            counts[program["kind"]] += 1
    tell(seed, "done")
    return 0


def in_process(args: argparse.Namespace, *more: str) -> tuple[int, list[str], str]:
    """Run a worker: its exit status, what it told and what it said."""
    with tempfile.NamedTemporaryFile() as file:
        command = [sys.executable, "-X", "faulthandler", "-m", "fuzz.protocols"]
        command += [f"--worker={file.name}", f"--loop={args.loop}", *more]
        done = subprocess.run(command, capture_output=True)
        told = pathlib.Path(file.name).read_text(errors="replace").split("\n", 2)
    return done.returncode, told, done.stderr.decode(errors="replace")[-4000:]


def fails(args: argparse.Namespace, program: Program) -> bool:
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(repr(program))
        file.flush()
        return any(in_process(args, f"--program={file.name}")[0] for _ in range(2))


def shrink(args: argparse.Namespace, program: Program) -> Program:
    """Leave out what is not needed to fail."""
    tries = 0
    at = 0
    while at < len(program["actions"]) and tries < SHRINKS:
        actions = program["actions"][:at] + program["actions"][at + 1 :]
        less = {**program, "actions": actions}
        tries += 1
        if fails(args, less):
            program = less
        else:
            at += 1
    return program


def launch(args: argparse.Namespace) -> int:
    started = time.monotonic()
    first = args.seed if args.seed is not None else int(time.time()) % 10**8
    counts: collections.Counter[str] = collections.Counter()
    bad = 0
    size = BATCH
    if not args.minutes:
        size = min(size, max(1, args.sequences // args.jobs))

    def batch(start: int) -> int:
        nonlocal bad
        more = [f"--seed={start}", f"--sequences={size}"]
        if args.only:
            more.append(f"--only={args.only}")
        code, told, said = in_process(args, *more)
        if len(told) == 3:
            counts.update(ast.literal_eval(told[1]))
        if code == 0:
            return 0
        bad += 1
        print(f"exit status {code}: {' '.join(told)}\n{said}", flush=True)
        if told[0]:
            program = make_program(int(told[0]), args.only)
            print(f"seed {told[0]}: {shrink(args, program)}", flush=True)
        return code

    def enough() -> bool:
        if bad and (not args.go_on or bad > 20):
            return True
        if args.minutes:
            return time.monotonic() - started > args.minutes * 60
        return counts.total() >= args.sequences

    with ThreadPoolExecutor(args.jobs) as pool:
        while not enough():
            list(pool.map(batch, [first + size * job for job in range(args.jobs)]))
            first += size * args.jobs
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    verdict = "nothing" if not bad else f"{bad} found"
    print(f"{counts.total()} sequences ({kinds}): {verdict}", flush=True)
    return 1 if bad else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz.protocols")
    parser.add_argument("--sequences", type=int, default=1000)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", choices=KINDS)
    parser.add_argument("--loop", default="hotloop")
    parser.add_argument("--go-on", action="store_true", help="after something is found")
    parser.add_argument("--replay", type=int, help="one seed, in this process")
    parser.add_argument("--program", help="a file with one program")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.one = None
    if args.program:
        args.one = ast.literal_eval(pathlib.Path(args.program).read_text())
        args.seed, args.sequences = args.seed or 0, 1
    if args.worker:
        return worker(args)
    if args.replay is not None or args.one:
        program = args.one or make_program(args.replay, args.only)
        print(program)
        with tempfile.TemporaryDirectory() as folder:
            warm_up(args.loop, folder)
            play(program, args.loop, folder)
        return 0
    return launch(args)


if __name__ == "__main__":
    sys.exit(main())

"""Look for differences for a while.

    python -m fuzz [--minutes M] [--jobs N] [--seed S]
                   [--only programs|traffic|tls]

Exit status 1 where something was found; what was found is printed, shrunk to
what is needed, in the form that tests/fuzz/found.py keeps. Programs, traffic on
sockets and broken TLS take turns; a case of the last is a seed.
"""

from __future__ import annotations

import argparse
import ast
import gc
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase

from . import clock, compare, programs, sockets, tls

ROOT = pathlib.Path(__file__).resolve().parents[2]
CASES = {
    "programs": programs.programs,
    "traffic": lambda: sockets.CONNECTIONS,
    "tls": lambda: st.integers(0, 2**32 - 1),
}
DATABASE = ROOT / ".hypothesis" / "fuzz"
ROUNDS = {"programs": 400, "traffic": 200, "tls": 300}  # cases per run of hypothesis
HANG = 120  # seconds until one program is taken to hang


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fuzz")
    parser.add_argument("--minutes", type=float, default=1.25)
    parser.add_argument("--examples", type=int, help="instead of --minutes")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, help="for the same cases again")
    parser.add_argument("--only", choices=ROUNDS)
    parser.add_argument("--against", default="hotloop", help="or uvloop, testing")
    parser.add_argument("--replay", help="a file with one case")
    parser.add_argument("--fresh", action="store_true", help="without the database")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def play(case: Any, kind: str) -> None:
    """Traffic, or a seed of TLS, on a loop of this kind, in the system's time."""
    loop = compare.new_loop(kind)
    if isinstance(case, int):
        try:
            tls.run_tls(loop, case)
        finally:
            loop.close()
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            sockets.run_traffic(loop, case, folder)
        finally:
            loop.close()


class Worker:
    """Runs cases in this process, which has the clock."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.kind: str = args.against
        self.last = os.open(args.worker, os.O_RDWR)
        self.only = [args.only] if args.only else list(ROUNDS)
        self.counts = dict.fromkeys(self.only, 0)
        self.fresh: bool = args.fresh

    def check(self, what: str, case: Any) -> None:
        self.counts[what] += 1
        # What is in the file when the process dies was its end.
        text = repr(case).encode()
        os.pwrite(self.last, text, 0)
        os.ftruncate(self.last, len(text))
        signal.alarm(HANG)
        if what == "programs":
            compare.compare(case, self.kind)
        else:
            play(case, self.kind)
        signal.alarm(0)

    def round(self, what: str, number: int, examples: int) -> str | None:
        """Some hundred cases; returns a report of what was found."""
        failing: list[Any] = []
        folder = DATABASE / what
        gc.unfreeze()
        gc.collect()

        @seed(number)
        @settings(
            max_examples=examples,
            database=None if self.fresh else DirectoryBasedExampleDatabase(folder),
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.reuse, Phase.generate, Phase.shrink],
            print_blob=False,
            report_multiple_bugs=False,
        )
        @given(CASES[what]())
        def check(case: Any) -> None:
            try:
                self.check(what, case)
            except BaseException as error:
                failing[:] = [case, error]
                raise

        try:
            check()
        except Exception as error:
            if not failing:
                raise
            case, first = failing
            text = f"{compare.show(case)}\n{type(first).__name__}: {first}"
            if error is not first:  # it did not fail again
                text += f"\n{type(error).__name__}"
            return text
        return None

    def said(self) -> str:
        return ", ".join(f"{count} {what}" for what, count in self.counts.items())

    def run(self, args: argparse.Namespace) -> int:
        started = time.monotonic()
        number = args.seed or 0
        while True:
            for what in self.only:
                left = args.examples or ROUNDS[what] + self.counts[what]
                examples = min(ROUNDS[what], left - self.counts[what])
                report = examples > 0 and self.round(what, number, examples)
                if report:
                    print(f"found after {self.said()}:\n{report}", flush=True)
                    return 1
            number += 1
            spent = time.monotonic() - started
            if args.examples:
                enough = min(self.counts.values()) >= args.examples
            else:
                enough = spent >= args.minutes * 60
            if enough:
                print(f"{self.said()}: no difference", flush=True)
                return 0


def replay(path: str, kind: str) -> int:
    """Run one program on both loops and show the traces; or traffic, or TLS."""
    program = ast.literal_eval(pathlib.Path(path).read_text())
    if isinstance(program, (list, int)):
        play(program, kind)
        return 0
    expected = compare.trace_of("asyncio", program)
    found = compare.trace_of(kind, program)
    for entry in expected:
        print("  ", entry)
    if expected == found:
        print("the same on both")
        return 0
    print(compare.difference(expected, found, kind))
    return 1


def launch(args: argparse.Namespace) -> int:
    """Start the workers, and tell what a worker died of."""
    first = args.seed if args.seed is not None else int(time.time()) % 10**6 * 1000
    status = 0
    with tempfile.TemporaryDirectory() as folder:
        env = clock.preloaded(folder)
        running = []
        for job in range(args.jobs):
            path = os.path.join(folder, f"case-{job}")
            pathlib.Path(path).touch()
            command = [sys.executable, "-X", "faulthandler", "-m", "fuzz"]
            command += [*sys.argv[1:], f"--worker={path}"]
            command.append(f"--seed={first + job * 100000}")
            running.append((path, subprocess.Popen(command, env=env)))
        for path, process in running:
            code = process.wait()
            status = status or code
            if code not in (0, 1):
                print(f"exit status {code} in this case:")
                print(pathlib.Path(path).read_text(), flush=True)
    return 1 if status else 0


def main() -> int:
    args = arguments()
    if not clock.is_preloaded():
        return launch(args)
    if args.replay:
        return replay(args.replay, args.against)
    return Worker(args).run(args)


if __name__ == "__main__":
    sys.exit(main())

"""A process that is stopped: the clock goes on, but nothing has blocked its loop."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import support

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("hotloop" not in support.wanted_kinds(), reason="hotloop's own"),
    pytest.mark.skipif(sys.platform != "linux", reason="/proc tells of the stop"),
]

LIMIT = 3.0
STOPPED = 3.5  # seconds: longer than the limit

# Ends when its input does, and says then what was reported.
PROGRAM = f"""
import sys, threading, time

reports = []
blocked = threading.Event()

def report(what):
    reports.append(what.stack[0].name)
    blocked.set()

def idle():
    pass

def working():
    for step in range(8):  # two fifths of the limit
        time.sleep(0.15)
        if step == 5:
            print("seen by the watchdog", flush=True)

def block():
    blocked.wait()

def ends():
    sys.stdin.read()
    loop.call_soon_threadsafe(loop.stop)

loop = new_loop()
loop.enable_watchdog({LIMIT}, report)
threading.Thread(target=ends).start()
loop.call_soon(lambda: print("ready", flush=True))
loop.call_soon(SUBJECT)
loop.run_forever()
loop.close()
print(reports)
"""


@contextmanager
def running(subject: str) -> Iterator[subprocess.Popen[str]]:
    started = support.start_script(
        "hotloop", PROGRAM.replace("SUBJECT", subject), stdin=subprocess.PIPE
    )
    with support.once_ready(started) as process:
        yield process


def stop(process: subprocess.Popen[str]) -> None:
    """Have it stand still for longer than the limit."""
    process.send_signal(signal.SIGSTOP)
    state = ""
    while state != "T":
        with open(f"/proc/{process.pid}/stat") as file:
            state = file.read().rpartition(")")[2].split()[0]
    time.sleep(STOPPED)
    process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("subject", ["idle", "working"])
def test_nothing_is_reported(subject: str) -> None:
    with running(subject) as process:
        if subject == "working":
            assert process.stdout is not None
            assert process.stdout.readline() == "seen by the watchdog\n"
        stop(process)
        assert process.poll() is None
        assert support.finish_script(process) == (0, "[]\n", "")


def test_what_blocks_is_reported_all_the_same() -> None:
    with running("block") as process:
        stop(process)
        assert support.finish_script(process) == (0, "['block']\n", "")

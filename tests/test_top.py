"""``python -m hotloop top``, ``record``: programs that run, watched from outside."""

# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support import wanted_kinds
from watching import TIMEOUT, command, environment, program, short_folder

if "hotloop" not in wanted_kinds():
    pytest.skip("hotloop is not wanted", allow_module_level=True)

from hotloop import _program
from hotloop._watch import page, plain, record

pytestmark = pytest.mark.slow

HOTLOOP = (sys.executable, "-m", "hotloop")

BLOCKS = """
import asyncio, sys, threading
async def main():
    loop = asyncio.get_running_loop()
    ends = threading.Event()
    def watch():
        sys.stdin.read()
        ends.set()
    threading.Thread(target=watch, daemon=True).start()
    print("ready", flush=True)
    await asyncio.sleep(0.01)
    blocks_the_loop(ends)
def blocks_the_loop(event):
    event.wait()
asyncio.run(main())
"""


@pytest.fixture
def folder() -> Iterator[str]:
    with short_folder() as path:
        yield path


@pytest.fixture
def busy(folder: str) -> Iterator[subprocess.Popen[str]]:
    """A program that is watched."""
    with program(folder) as process:
        yield process


def top(folder: str, *words: str, **kwargs: Any) -> str:
    code, out, err = command(folder, "top", *words, **kwargs)
    assert (code, err) == (0, "")
    return out


Here = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(folder: str, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> Here:
    """Runs a command in this process; returns (exit code, stdout, stderr)."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
    monkeypatch.delenv("HOTLOOP_CONTROL", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", folder)

    def run(*words: str) -> tuple[int, str, str]:
        try:
            _program.main(list(words))
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        return code, *capsys.readouterr()

    return run


# ---- once, as text and as JSON ----


def test_once(folder: str, busy: Any) -> None:
    out = top(folder, str(busy.pid), "--once", "--interval", "0.3")
    first, time_line, *_ = out.splitlines()
    assert first.startswith(f"{busy.pid} ") and "-m hotloop -c" in first
    parts = dict(re.findall(r"(busy|waiting|for the GIL) ([\d.]+) %", time_line))
    assert len(parts) == 3 and 99 < sum(map(float, parts.values())) < 101
    for name in ("rates", "lag", "queues", "network"):
        assert re.search(rf"^{name} ", out, re.MULTILINE)
    assert re.search(r"callbacks/s [\d,]*[1-9]", out)
    assert "connections 2 " in out
    # The coroutines by their cost, the tasks by their place and by name.
    assert re.search(r"% .* task +nap +<string>:\d+$", out, re.MULTILINE)
    assert re.search(r"^ +5  nap +<string>:6 sleep$", out, re.MULTILINE)
    nap = r"^nap-4 +nap +waiting +Future +[\d.]+ m?s  <string>:6 sleep$"
    assert re.search(nap, out, re.MULTILINE)
    assert re.search(r"^forever +Event.wait +waiting", out, re.MULTILINE)


def test_json(busy: Any, here: Here) -> None:
    words = ("--json", "--once", "--interval", "0.3", "--no-profile")
    told = json.loads(here("top", str(busy.pid), *words)[1])
    assert told["about"]["pid"] == busy.pid
    assert 0.2 < told["seconds"] < TIMEOUT
    assert told["rates"]["callbacks"] > told["rates"]["turns"] > 0
    assert told["rates"]["bytes_received"] > 0
    assert 0 < told["utilization"] <= 1
    assert told["metrics"]["connections_open"] == 2
    assert told["metrics"]["profiling"] is False and told["costs"] == []
    assert {task["name"] for task in told["tasks"]["tasks"]} >= {"nap-0", "forever"}


def test_again_and_again(folder: str, busy: Any) -> None:
    process = subprocess.Popen(
        [*HOTLOOP, "top", str(busy.pid), "--json", "--interval", "0.05"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(folder),
    )
    with process:
        assert process.stdout is not None
        told = [json.loads(process.stdout.readline()) for _ in range(3)]
        times = [each["metrics"]["time"] for each in told]
        assert sorted(times) == times
        shares = {cost["name"]: cost["share"] for cost in told[-1]["costs"]}
        assert 0 < shares["nap"] < 1
        standing = {task["name"]: task for task in told[-1]["tasks"]["tasks"]}
        assert standing["forever"]["unchanged"] > 0
        busy.communicate("", timeout=TIMEOUT)
        _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    assert err == f"{busy.pid}: it has ended\n" or "the loop is closed" in err


def test_sorted(busy: Any, here: Here) -> None:
    words = ("--once", "--interval", "0.2", "--sort", "name")
    _, out, _ = here("top", str(busy.pid), *words)
    body = out.partition("by name:\n")[2].partition("\n\n")[0]
    heading, *lines = body.splitlines()
    place = heading.index("function")
    names = [line[place:] for line in lines]
    assert len(names) > 2 and names == sorted(names)


def test_a_reader_that_leaves(folder: str, busy: Any) -> None:
    words = [*HOTLOOP, "top", str(busy.pid), "--plain"]
    with subprocess.Popen(
        [*words, "--interval", "0.05"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(folder),
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(TIMEOUT) == 0


def test_a_blocked_loop(folder: str, here: Here) -> None:
    with program(folder, BLOCKS) as process:
        deadline = time.monotonic() + TIMEOUT
        told: dict[str, Any] = {"blocked": []}
        while not told["blocked"] and time.monotonic() < deadline:
            words = ("--once", "--json", "--interval", "0.1")
            told = json.loads(here("top", str(process.pid), *words)[1])
        functions = [frame["function"] for frame in told["blocked"]]
        assert "blocks_the_loop" in functions and told["blocked_seconds"] > 0
        _, out, _ = here("top", str(process.pid), "--once", "--interval", "0.1")
        assert "one callback has blocked the loop for" in out
        assert "in blocks_the_loop" in out
        process.communicate("", timeout=TIMEOUT)


# ---- which there are ----


def test_listing(folder: str, busy: Any, here: Here) -> None:
    with program(folder) as other:
        out = here("top")[1]
        for process in (busy, other):
            pattern = rf"^{process.pid}-1 +running +[\d.]+ % +\d+ +[12] +python"
            assert re.search(pattern, out, re.MULTILINE), out
        other.communicate("", timeout=TIMEOUT)
        out = here("top")[1]
        assert str(busy.pid) in out and str(other.pid) not in out


def test_what_is_not_there(here: Here) -> None:
    cases = {
        (): "no loop with a control socket was found",
        (str(os.getpid()),): f"process {os.getpid()} has no control socket",
        (f"{os.getpid()}-3",): f"process {os.getpid()} has no control socket 3",
        ("99999999",): "there is no process 99999999",
        ("/no/such.sock",): "/no/such.sock: No such file or directory",
        ("/",): "/: Connection refused",
    }
    for words, said in cases.items():
        code, out, err = here("top", *words)
        assert (code, out) == (1, "") and said in err, err
        assert ("HOTLOOP_CONTROL=1" in err) == ("control socket" in said)
    code, _, err = here("top", "--interval", "0")
    assert code == 2 and "from 0.01" in err


def test_several_loops_of_a_process(folder: str, here: Here) -> None:
    source = """
import asyncio, sys
other = asyncio.new_event_loop()
async def main():
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
asyncio.run(main())
other.close()
"""
    with program(folder, source) as process:
        pid = process.pid
        code, _, err = here("top", str(pid), "--once")
        assert code == 1 and f"choose one of {pid}-1, {pid}-2" in err
        out = here("top", f"{pid}-1", "--once", "--interval", "0.05")[1]
        assert "(not running)" in out.splitlines()[0]


# ---- on a terminal ----


class Terminal:
    """A command on a pseudo-terminal."""

    def __init__(self, folder: str, *words: str) -> None:
        self.master, slave = os.openpty()
        size = struct.pack("HHHH", 50, 150, 0, 0)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, size)
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.process = subprocess.Popen(
            [*HOTLOOP, *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env=environment(folder, TERM="xterm-256color"),
        )
        self.seen = ""

    def until(self, text: str) -> str:
        """Read until a text comes; return all up to it."""
        self.wait(lambda: text in self.seen, text)
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < deadline, (what, self.seen)
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 65536).decode("utf-8", "replace")

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def end(self) -> int:
        """Wait for the command while reading on."""
        self.wait(lambda: self.process.poll() is not None, "the end")
        assert termios.tcgetattr(self.slave) == self.before
        return self.process.returncode


@contextlib.contextmanager
def terminal(folder: str, *words: str) -> Iterator[Terminal]:
    made = Terminal(folder, *words)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
        made.process.wait()
        os.close(made.master)
        os.close(made.slave)


def test_full_screen(folder: str, busy: Any) -> None:
    pytest.importorskip("rich")
    with terminal(folder, "top", str(busy.pid), "--interval", "0.2") as screen:
        seen = screen.until("by time")
        assert "\x1b[?1049h" in seen and "busy" in seen
        screen.until("nap-0")
        screen.press("n")
        screen.until("by name")
        screen.press("p")
        screen.until("(not profiled)")
        screen.press("z")  # means nothing
        screen.press("q")
        assert "\x1b[?1049l" in screen.until("\x1b[?1049l")
        assert screen.end() == 0


def test_full_screen_interrupted(folder: str, busy: Any) -> None:
    pytest.importorskip("rich")
    with terminal(folder, "top", str(busy.pid)) as screen:
        screen.until("by time")
        screen.process.send_signal(signal.SIGINT)
        seen = screen.until("\x1b[?1049l")
        assert "Traceback" not in seen and screen.end() == 0


def test_full_screen_when_the_program_ends(folder: str, busy: Any) -> None:
    pytest.importorskip("rich")
    with terminal(folder, "top", str(busy.pid), "--interval", "0.1") as screen:
        screen.until("by time")
        busy.communicate("", timeout=TIMEOUT)
        screen.until("\x1b[?1049l")
        screen.wait(lambda: bool(re.search("ended|closed", screen.seen)), "ended")
        assert screen.end() == 0


def test_a_terminal_without_rich(folder: str, busy: Any) -> None:
    (pathlib.Path(folder) / "rich.py").write_text("raise ImportError('rich')\n")
    env_path = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = f"{folder}{os.pathsep}{env_path}"
    try:
        words = ("top", str(busy.pid), "--interval", "0.1")
        with terminal(folder, *words) as screen:
            assert "\x1b" not in screen.until("by time")
            screen.until("by time")
            screen.process.send_signal(signal.SIGINT)
            assert screen.end() == 0
    finally:
        os.environ["PYTHONPATH"] = env_path


# ---- recordings ----


def test_record(folder: str, busy: Any, here: Here) -> None:
    out = pathlib.Path(folder, "run.jsonl")
    words = ("--interval", "0.05", "--seconds", "0.22", "--out", str(out))
    code, _, err = here("record", str(busy.pid), *words)
    recording = record.read(out)
    count = len(recording.snapshots)
    assert (code, err) == (0, f"{count} snapshots in {out}\n")
    assert recording.about["pid"] == busy.pid and 2 <= count <= 5
    first, last = recording.snapshots[0], recording.snapshots[-1]
    assert last.since(first).callbacks > 0 and last.since(first).lag.count > 0
    assert recording.times == sorted(recording.times)
    # One that was cut off in the middle of a line.
    out.write_text(out.read_text()[:-20])
    assert len(record.read(out).snapshots) == count - 1


def test_record_until_the_program_ends(folder: str, busy: Any) -> None:
    out = pathlib.Path(folder, "run.jsonl")
    process = subprocess.Popen(
        [*HOTLOOP, "record", str(busy.pid), "--interval", "0.05", "--out", str(out)],
        env=environment(folder),
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        deadline = time.monotonic() + TIMEOUT
        while not (out.exists() and out.read_text().count("\n") > 3):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        busy.communicate("", timeout=TIMEOUT)
        _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0 and "snapshots in" in err
    assert len(record.read(out).snapshots) >= 3


def test_what_is_no_recording(folder: str, here: Here) -> None:
    for text in ("", "x", "[]", "{}", '{"hotloop_recording": 2, "about": {}}\n'):
        path = pathlib.Path(folder, "other")
        path.write_text(text)
        with pytest.raises(ValueError, match="is no recording"):
            record.read(path)
        code, _, err = here("plot", str(path))
        assert code == 1 and "is no recording" in err
    code, _, err = here("record", str(os.getpid()), "--out", "/dev/null")
    assert code == 1 and "has no control socket" in err


# ---- values as text ----


def test_values() -> None:
    counts = {0: "0", 0.25: "0.2", 12: "12", 12345.6: "12,346", 3.2e6: "3.20 M"}
    assert {value: page.count(value) for value in counts} == counts
    sizes = {0: "0 B", 999: "999 B", 1500: "1.5 kB", 2e6: "2.0 MB", 3e9: "3.0 GB"}
    assert {value: page.size(value) for value in sizes} == sizes
    times = {0.0: "0 ns", 5e-5: "50.0 µs", 0.0123: "12.30 ms", 75.0: "75.00 s"}
    assert {value: page.duration(value) for value in times} == times
    assert page.place("/a/b/c.py", 3) == "b/c.py:3" and page.place("", 0) == "-"


def test_wide_cells_keep_their_end() -> None:
    table = page.Table("t", ["name", ">n"], [["x" * 90 + "end", "1"], ["b", "22"]])
    lines = plain.table(table)
    assert lines[1].startswith("…x") and "end" in lines[1]
    assert {len(line) for line in lines} == {64}


def test_the_commands_say_how(here: Here) -> None:
    for name in ("top", "record", "plot"):
        code, out, err = here(name, "--help")
        assert (code, err) == (0, "") and f"python -m hotloop {name}" in out

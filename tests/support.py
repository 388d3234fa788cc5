"""Helpers shared by the tests: loop kinds, protocols that record, scripts."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import textwrap
import time
import tty
from collections.abc import Callable, Iterator
from typing import Any

import pytest

PY = sys.version_info[:2]
PY_FULL = sys.version_info[:3]
HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def wanted_kinds() -> list[str]:
    """The loops to test, from HOTLOOP_TEST_LOOPS (asyncio and hotloop by default).

    uvloop may be asked for, to see tests of what it does otherwise fail.
    """
    text = os.environ.get("HOTLOOP_TEST_LOOPS", "asyncio,hotloop")
    kinds = [word.strip() for word in text.split(",") if word.strip()]
    unknown = set(kinds) - {"asyncio", "hotloop", "uvloop"}
    if unknown or not kinds:
        raise RuntimeError(f"HOTLOOP_TEST_LOOPS={text!r}: asyncio, hotloop, uvloop")
    return kinds


def loop_factory(kind: str) -> LoopFactory:
    """The function that makes a loop of this kind."""
    if kind == "asyncio":
        return asyncio.SelectorEventLoop
    factory: LoopFactory = importlib.import_module(kind).new_event_loop
    return factory


def open_fds() -> dict[int, str]:
    """The open descriptors of this process and what each one is."""
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    found = {}
    for name in os.listdir(folder):
        try:
            found[int(name)] = os.readlink(f"{folder}/{name}")
        except OSError:
            # The listing's own descriptor is gone; a Mac has no link to read.
            if folder == "/dev/fd" and fd_is_open(int(name)):
                found[int(name)] = "?"
    return found


def fd_is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def collect() -> None:
    """Run the collector until finalizers of finalizers have run too."""
    for _ in range(3):
        gc.collect()


async def turns(count: int = 1) -> None:
    """Let the loop make this many turns."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait until the condition holds; fail the test if it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {condition}"
        await asyncio.sleep(0.002)


async def settle() -> None:
    """Wait until every other task of the running loop has ended."""
    await until(lambda: len(asyncio.all_tasks()) == 1)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected, non-blocking TCP sockets."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        left = socket.create_connection(listener.getsockname())
        right, _ = listener.accept()
    left.setblocking(False)
    right.setblocking(False)
    return left, right


def unix_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected, non-blocking Unix stream sockets."""
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    return left, right


def terminal() -> tuple[int, int]:
    """The two sides of a pseudo-terminal in raw mode; skips where is none."""
    try:
        master, slave = os.openpty()
    except OSError as error:
        pytest.skip(f"no terminals here: {error}")
    tty.setraw(slave)
    return master, slave


def reset(sock: socket.socket) -> None:
    """Close the socket so that its peer gets a RST."""
    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    sock.close()


class _Events:
    """What the recorders share: all that is not about data."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.events: list[str] = []
        self.data = bytearray()
        self.transport: Any = None
        self.error: BaseException | None = None
        self.keep_open = False
        loop = loop or asyncio.get_running_loop()
        self.connected = loop.create_future()
        self.eof = loop.create_future()
        self.closed = loop.create_future()

    def connection_made(self, transport: Any) -> None:
        self.events.append("made")
        self.transport = transport
        self.connected.set_result(transport)

    def eof_received(self) -> bool:
        self.events.append("eof")
        self.eof.set_result(None)
        return self.keep_open

    def connection_lost(self, exc: BaseException | None) -> None:
        self.events.append("lost")
        self.error = exc
        self.closed.set_result(exc)


class Recorder(_Events, asyncio.Protocol):
    """A protocol that writes down everything that happens to it."""

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes and data
        if self.events[-1] != "data":
            self.events.append("data")
        self.data += data

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")


class BufferedRecorder(_Events, asyncio.BufferedProtocol):
    """As Recorder, reading into its own small buffer."""

    def __init__(self, size: int = 1024) -> None:
        super().__init__()
        self.buffer = bytearray(size)
        self.hints: list[int] = []

    def get_buffer(self, sizehint: int) -> bytearray:
        self.hints.append(sizehint)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        assert nbytes > 0
        self.data += self.buffer[:nbytes]


async def connected(
    protocol: Any | None = None, pair: Callable[[], Any] = tcp_pair
) -> tuple[Any, Any, socket.socket]:
    """A transport of the running loop and the plain socket at its far end.

    Returns (transport, protocol, peer); the test closes both ends.
    """
    loop = asyncio.get_running_loop()
    near, far = pair()
    protocol = Recorder(loop) if protocol is None else protocol
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, near)
    return transport, protocol, far


async def finish(transport: Any, peer: socket.socket | None = None) -> None:
    """Close what connected() made, and let connection_lost run."""
    transport.abort()
    if peer is not None:
        peer.close()
    await turns(3)


async def read_all(peer: socket.socket, size: int) -> bytes:
    """Read exactly size bytes (or up to the end) from a plain socket."""
    loop = asyncio.get_running_loop()
    got = bytearray()
    while len(got) < size:
        chunk = await loop.sock_recv(peer, min(size - len(got), 1 << 20))
        if not chunk:
            break
        got += chunk
    return bytes(got)


PRELUDE = """
import asyncio, contextvars, gc, os, signal, socket, sys, threading, time
KIND = os.environ["HOTLOOP_TEST_KIND"]
if KIND == "hotloop":
    import hotloop
    new_loop = hotloop.new_event_loop
elif KIND == "uvloop":
    import uvloop
    new_loop = uvloop.new_event_loop
else:
    new_loop = asyncio.SelectorEventLoop

def run(main, **kwargs):
    with asyncio.Runner(loop_factory=new_loop, **kwargs) as runner:
        return runner.run(main)
"""


def script_env(kind: str) -> dict[str, str]:
    env = dict(os.environ, HOTLOOP_TEST_KIND=kind, PYTHONUNBUFFERED="1")
    env.pop("PYTHONASYNCIODEBUG", None)
    return env


def start_script(
    kind: str, body: str, *flags: str, prelude: bool = True, **kwargs: Any
) -> subprocess.Popen[str]:
    """Start Python on a script that can call new_loop() and run(main())."""
    source = (PRELUDE if prelude else "") + textwrap.dedent(body)
    return subprocess.Popen(
        [sys.executable, *flags, "-c", source],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env=script_env(kind),
        **kwargs,
    )


@contextlib.contextmanager
def once_ready(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """A process, once it has said that it is ready; it is killed in the end."""
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def finish_script(
    process: subprocess.Popen[str], timeout: float = 30
) -> tuple[int, str, str]:
    """Wait for a script; returns (exit code, stdout, stderr)."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        out, err = process.communicate()
        raise AssertionError(f"script hung\n{out}\n{err}") from None
    return process.returncode, out, err


def run_script(
    kind: str,
    body: str,
    *flags: str,
    code: int | None = 0,
    quiet: bool = True,
    timeout: float = 30,
    prelude: bool = True,
) -> tuple[str, str]:
    """Run a script; returns (stdout, stderr).

    Fails unless it exits with `code` (None: any exit but a crash) and, if
    `quiet`, with nothing on stderr.
    """
    process = start_script(kind, body, "-X", "faulthandler", *flags, prelude=prelude)
    status, out, err = finish_script(process, timeout)
    if code is None:
        assert status >= 0, f"killed by signal {-status}\n{out}\n{err}"
    else:
        assert status == code, f"exit {status}\n{out}\n{err}"
    if quiet:
        assert err == "", err
    return out, err

"""Helpers of the tests of web servers: programs, load generators, raw HTTP."""

from __future__ import annotations

import asyncio
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from support import script_env

START = 50.0  # seconds that a server of many imports may take on a slow machine

# What the users of a server write, for each kind of loop.
FACTORIES = {
    "asyncio": "asyncio:SelectorEventLoop",
    "hotloop": "hotloop:new_event_loop",
    "uvloop": "uvloop:new_event_loop",
}


def loop_name() -> str:
    """The package that the running loop comes from."""
    return type(asyncio.get_running_loop()).__module__.split(".")[0]


class Program:
    """A server in a process of its own, which leads a process group."""

    def __init__(
        self, kind: str, command: Sequence[Any], folder: pathlib.Path, **options: Any
    ) -> None:
        self.command = [str(word) for word in command]
        self.path = folder / f"log-{time.monotonic_ns()}.txt"
        environment = script_env(kind) | {"PYTHONPATH": str(folder)}
        with self.path.open("wb") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=environment | options.pop("env", {}),
                start_new_session=True,
                **options,
            )

    def log(self) -> str:
        return self.path.read_text()

    def wait_until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for a condition while the program runs; returns its value."""
        deadline = time.monotonic() + START
        while not (value := condition()):
            code = self.process.poll()
            assert code is None, f"{what}: exit {code}\n{self.log()}"
            assert time.monotonic() < deadline, f"never: {what}\n{self.log()}"
            time.sleep(0.01)
        return value

    def wait_for(self, text: str, count: int = 1) -> None:
        """Wait until the log holds a text so many times."""
        self.wait_until(lambda: self.log().count(text) >= count, text)

    def wait_for_port(self, port: int) -> None:
        """Wait until connections to a port of this machine are taken."""

        def answers() -> bool:
            try:
                socket.create_connection(("127.0.0.1", port), 10).close()
            except ConnectionRefusedError:
                return False
            return True

        self.wait_until(answers, f"port {port}")

    def send_signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for the end; returns the exit status."""
        try:
            return self.process.wait(START)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.command} hangs\n{self.log()}") from None

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        self.send_signal(number)
        return self.wait()

    def group_lives(self) -> bool:
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def cleanup(self) -> bool:
        """Kill what still runs of the process group; returns whether it did."""
        deadline = time.monotonic() + 5
        if self.process.poll() is not None:
            # Helpers such as multiprocessing's tracker end a moment later.
            while self.group_lives() and time.monotonic() < deadline:
                time.sleep(0.01)
        lived = self.group_lives()
        if lived:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return lived


def python_module(name: str) -> list[str]:
    """The command that runs a module of the environment under test."""
    return [sys.executable, "-X", "faulthandler", "-m", name]


def need(command: str) -> str:
    path = shutil.which(command)
    if path is None:
        pytest.skip(f"{command} is not installed")
    return path


def run_wrk(url: str, *flags: str, connections: int = 20, seconds: int = 1) -> int:
    """Load an HTTP/1.1 server; returns how many responses came, all good."""
    command = [need("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s"]
    command += ["--timeout", "40s", *flags, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    out = done.stdout + done.stderr
    assert done.returncode == 0, out
    for line in ("Socket errors", "Non-2xx", "unable to connect"):
        assert line not in out, out
    count = re.search(r"(\d+) requests in", out)
    assert count is not None, out
    assert int(count[1]) >= connections, out
    return int(count[1])


async def wrk(url: str, *flags: str, **options: Any) -> int:
    """As run_wrk, beside the running loop."""
    return await asyncio.to_thread(lambda: run_wrk(url, *flags, **options))


def run_h2load(url: str, *flags: str, requests: int = 1000) -> None:
    """Send so many HTTP/2 requests, 5 connections with 10 streams; all succeed."""
    command = [need("h2load"), "-n", str(requests), "-c5", "-m10", *flags, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    out = done.stdout + done.stderr
    assert done.returncode == 0, out
    n = requests
    assert f"{n} total, {n} started, {n} done, {n} succeeded, 0 failed" in out, out
    assert f"status codes: {n} 2xx, 0 3xx, 0 4xx, 0 5xx" in out, out
    assert "Application protocol: h2" in out or "-p" in flags, out


async def h2load(url: str, *flags: str, **options: Any) -> None:
    """As run_h2load, beside the running loop."""
    await asyncio.to_thread(lambda: run_h2load(url, *flags, **options))


def request(path: str, *headers: str, method: str = "GET", body: bytes = b"") -> bytes:
    """The bytes of an HTTP/1.1 request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def read_response(reader: Any) -> tuple[int, dict[str, str], bytes]:
    """Read one response; returns (status, headers, body)."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *rest = head[:-4].split("\r\n")
    headers = {}
    for line in rest:
        key, _, value = line.partition(":")
        headers[key.lower()] = value.strip()
    status = int(first.split()[1])
    if status == 100 or status == 304:
        return status, headers, b""
    if headers.get("transfer-encoding") == "chunked":
        return status, headers, await read_chunks(reader)
    return status, headers, await reader.readexactly(int(headers["content-length"]))


async def read_chunks(reader: Any) -> bytes:
    """Read the chunks of a body up to the last one."""
    body = bytearray()
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
    assert await reader.readline() == b"\r\n"
    return bytes(body)


def ask(address: Any, data: bytes, family: int = socket.AF_INET) -> bytes:
    """Send bytes from a new blocking socket and read up to the end."""
    with socket.socket(family) as sock:
        sock.settimeout(START)
        sock.connect(address)
        sock.sendall(data)
        got = bytearray()
        while part := sock.recv(1 << 16):
            got += part
        return bytes(got)


def get(port: int, path: str = "/") -> str:
    """The body of a plain GET on a connection of its own; it must succeed."""
    answer = ask(("127.0.0.1", port), request(path, "Connection: close"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split(None, 2)[1] == b"200", answer
    if b"chunked" in head.lower():
        size, _, rest = body.partition(b"\r\n")
        body = rest[: int(size, 16)]
    return body.decode()


def signal_while_busy(
    program: Program, port: int, number: int = signal.SIGTERM, *headers: str
) -> bytes:
    """Send a signal while /slow is asked for; the answer, which still comes whole."""
    with socket.create_connection(("127.0.0.1", port), START) as sock:
        sock.sendall(request("/slow", *headers))
        program.wait_for("begun")
        program.send_signal(number)
        answer = b""
        while part := sock.recv(1000):
            answer += part
    assert answer.startswith(b"HTTP/1.1 200"), answer
    return answer


def ended_well(program: Program, code: int, *others: int) -> None:
    """With status 0, or one of these, and without a word of complaint."""
    assert code in (0, *others), program.log()
    assert "Traceback" not in program.log()


def processes(port: int, count: int, program: Program) -> set[str]:
    """Ask until so many processes have answered; the second word is theirs."""
    found: set[str] = set()

    def all_answered() -> bool:
        found.add(get(port).split()[1])
        return len(found) >= count

    program.wait_until(all_answered, f"answers of {count} processes")
    return found

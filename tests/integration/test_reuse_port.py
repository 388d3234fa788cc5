"""Several processes that accept from one port, by SO_REUSEPORT."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import sys
from typing import Any

import pytest
from webpeers import get, run_wrk

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "SO_REUSEPORT"), reason="no SO_REUSEPORT here"
)

PROGRAM = """
import asyncio, os, signal, sys

class Http(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.data = b""

    def data_received(self, data):
        self.data += data
        *heads, self.data = self.data.split(b"\\r\\n\\r\\n")
        for head in heads:
            name = type(asyncio.get_running_loop()).__module__.split(".")[0]
            text = f"{name} {os.getpid()}".encode()
            start = b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(text)
            self.transport.write(start + text)
            if b"Connection: close" in head:
                self.transport.close()

async def main():
    loop = asyncio.get_running_loop()
    port = int(sys.argv[1])
    server = await loop.create_server(Http, "127.0.0.1", port, reuse_port=True)
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    print("ready", flush=True)
    await ended.wait()
    server.close()
    await server.wait_closed()

if os.environ["HOTLOOP_TEST_KIND"] == "hotloop":
    import hotloop
    hotloop.run(main())
else:
    asyncio.run(main())
"""


def test_one_of_many_is_killed(
    loop_kind: str, start: Any, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    with socket.socket() as reserved:
        # Bound, not listening: the port stays free for the programs alone.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        programs = {}
        for _ in range(4):
            program = start(sys.executable, "program.py", str(port))
            programs[str(program.process.pid)] = program
        for program in programs.values():
            program.wait_for("ready")
        answered(port, set(programs), loop_kind, program)
        assert run_wrk(f"http://127.0.0.1:{port}/", connections=40) > 0
        victim = next(iter(programs))
        dead = programs.pop(victim)
        os.kill(int(victim), signal.SIGKILL)
        assert dead.wait() == -signal.SIGKILL
        answered(port, set(programs), loop_kind, program)
        assert run_wrk(f"http://127.0.0.1:{port}/", connections=40) > 0
        for program in programs.values():
            assert program.stop() == 0, program.log()
            assert program.log() == "ready\n"


def answered(port: int, wanted: set[str], kind: str, program: Any) -> None:
    """Ask until each process has answered, none but them, all on this loop."""
    found: set[str] = set()

    def all_answered() -> bool:
        name, pid = get(port).split()
        assert name == kind and pid in wanted
        found.add(pid)
        return found == wanted

    program.wait_until(all_answered, "an answer of each process")

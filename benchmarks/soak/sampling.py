"""What a run looks at from outside: memory, descriptors, and a probe's latency."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
import zlib
from pathlib import Path
from typing import Any

from ..servers.serve import HOST
from .wire import HEADER, message

PROBE_SECONDS = 0.02
PROBE_BYTES = 64
PROBE_TIMEOUT = 120.0


def memory(pid: int) -> dict[str, int]:
    """Return resident bytes of a process: all, and those of its own."""
    found = {"private": 0}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, size, *_ = line.split()
        if name == "Rss:":
            found["resident"] = int(size) * 1024
        elif name in ("Private_Clean:", "Private_Dirty:"):
            found["private"] += int(size) * 1024
    return found


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def dropped_datagrams(port: int) -> int:
    """Return how many datagrams the kernel had no room for in a server's socket."""
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == port:
            return int(fields[-1])
    return 0


def look_at(pid: int) -> dict[str, Any]:
    """Return all figures that the kernel has of a process."""
    return {
        **memory(pid),
        "descriptors": descriptors(pid),
        "cpu": cpu_seconds(pid),
    }


class Probe:
    """One connection that asks again and again, in a thread, without a loop."""

    def __init__(self, port: int) -> None:
        self.error: str | None = None
        self._sock = socket.create_connection((HOST, port), PROBE_TIMEOUT)
        self._seconds: list[float] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stopping.wait(PROBE_SECONDS):
                began = time.perf_counter()
                self._ask()
                self._seconds.append(time.perf_counter() - began)
        except (OSError, EOFError, struct.error) as exc:
            self.error = f"{type(exc).__name__}: {exc}"

    def _ask(self) -> None:
        self._sock.sendall(message(os.urandom(PROBE_BYTES), PROBE_BYTES))
        data = self._exactly(HEADER.size + PROBE_BYTES)
        _, _, crc = HEADER.unpack_from(data)
        if zlib.crc32(data[HEADER.size :]) != crc:
            raise EOFError("another checksum")

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._sock.recv(size - len(data))
            if not piece:
                raise EOFError("the server hung up")
            data += piece
        return data

    def percentiles(self) -> dict[str, float]:
        """Return latencies since the last call, in milliseconds."""
        found, self._seconds = sorted(self._seconds), []
        if not found:
            return {"p50": 0.0, "p99": 0.0, "worst": 0.0}
        return {
            "p50": found[len(found) // 2] * 1e3,
            "p99": found[len(found) * 99 // 100] * 1e3,
            "worst": found[-1] * 1e3,
        }

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._sock.close()

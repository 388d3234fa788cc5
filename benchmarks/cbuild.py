"""Builds the C programs on demand into ``benchmarks/build``."""

from __future__ import annotations

import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "csrc"
BUILD = HERE / "build"
FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra"]
TIMEOUT = 120.0
# What load generators are made of, beside themselves.
SHARED = ["support.c", "window.c", "histogram.c", "proctime.c"]


class BuildError(Exception):
    """A C program cannot be built; the text says what is missing."""


@functools.cache
def loadgen() -> Path:
    """Return the load generator, built if need be."""
    if sys.platform != "linux":
        raise BuildError("the load generator needs Linux (epoll)")
    return _built("loadgen", ["loadgen.c", "client.c", "websocket.c", *SHARED], [])


@functools.cache
def storm() -> Path:
    """Return the client that connects in storms, built if need be."""
    if sys.platform != "linux":
        raise BuildError("accept storms need Linux (epoll)")
    return _built("storm", ["storm.c"], [])


@functools.cache
def uvecho() -> Path:
    """Return the plain C libuv echo server, built if need be."""
    return _built("uvecho", ["uvecho.c"], _flags_of("libuv"))


@functools.cache
def udpload() -> Path:
    """Return the load generator for UDP, built if need be."""
    if sys.platform != "linux":
        raise BuildError("the load generator needs Linux (epoll)")
    return _built("udpload", ["udpload.c", "proctime.c"], [])


@functools.cache
def udpecho() -> Path:
    """Return the plain C UDP server, built if need be."""
    if sys.platform != "linux":
        raise BuildError("the C server needs Linux (recvmmsg)")
    return _built("udpecho", ["udpecho.c"], [])


@functools.cache
def tlsload() -> Path:
    """Return the load generator for TLS, built if need be."""
    return _built_tls("tlsload", SHARED)


@functools.cache
def tlsstorm() -> Path:
    """Return the client that shakes hands and closes, built if need be."""
    return _built_tls("tlsstorm", SHARED)


@functools.cache
def tlshold() -> Path:
    """Return the client that holds TLS connections, built if need be."""
    return _built_tls("tlshold", ["support.c"])


@functools.cache
def tlsserver() -> Path:
    """Return the plain C TLS server, built if need be."""
    return _built_tls("tlsserver", ["support.c"])


def _built_tls(name: str, shared: list[str]) -> Path:
    if sys.platform != "linux":
        raise BuildError("the C programs for TLS need Linux (epoll)")
    return _built(name, [f"{name}.c", "tlsconn.c", *shared], _flags_of("openssl"))


def _built(name: str, files: list[str], extra: list[str]) -> Path:
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        raise BuildError(f"no C compiler ({compiler[0]}): install gcc or clang")
    paths = [str(SOURCE / file) for file in files]
    target = BUILD / f"{name}-{_digest([*compiler, *FLAGS, *extra])}"
    if not target.exists():
        BUILD.mkdir(exist_ok=True)
        unfinished = target.with_suffix(f".{os.getpid()}")
        _run([*compiler, *FLAGS, *paths, "-o", str(unfinished), *extra])
        unfinished.replace(target)
    return target


def _digest(command: list[str]) -> str:
    """Identify a build: its sources and how they are compiled."""
    found = hashlib.sha256("\0".join(command).encode())
    for source in sorted(SOURCE.iterdir()):
        found.update(source.read_bytes())
    return found.hexdigest()[:12]


def _flags_of(library: str) -> list[str]:
    pkg_config = os.environ.get("PKG_CONFIG", "pkg-config")
    if shutil.which(pkg_config) is None:
        raise BuildError(f"no pkg-config: install it, and {library}'s headers")
    return shlex.split(_run([pkg_config, "--cflags", "--libs", library]))


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise BuildError(f"{command[0]} took longer than {TIMEOUT:.0f} s") from None
    if done.returncode:
        errors = done.stderr.strip().splitlines()
        raise BuildError(errors[0] if errors else f"{command[0]} failed")
    return done.stdout

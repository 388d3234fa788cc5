"""Where control sockets are, and who may speak through them.

A socket of the process 123 is ``123-1.sock`` in a folder that its user alone may
enter; the number after the dash tells the loops of a process apart.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import socket
import stat
import struct
import sys
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

_NAME = re.compile(r"([0-9]+)-([0-9]+)\.sock")
_BACKLOG = 8


class Place(NamedTuple):
    """A control socket that was found."""

    pid: int
    number: int
    path: str


# ---- folders ----


def _is_private(folder: str, uid: int) -> bool:
    """Whether this is a true folder of the user that nobody else may enter."""
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    return (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid == uid
        and not stat.S_IMODE(found.st_mode) & 0o077
    )


def private_folder(folder: str | None = None) -> str:
    """The folder for the sockets of this process, made where it is missing.

    Raise PermissionError if there is one that others own or may enter.
    """
    uid = os.geteuid()
    if folder is None:
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        if _is_private(runtime, uid):
            folder = os.path.join(runtime, "hotloop")
        else:
            folder = os.path.join(tempfile.gettempdir(), f"hotloop-{uid}")
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    if not _is_private(folder, uid):
        raise PermissionError(
            errno.EPERM, "not a folder of this user alone (mode 0700)", folder
        )
    return folder


def _folders(uid: int) -> list[str]:
    """Where programs of a user may have their sockets, as far as we can know."""
    found = []
    setting = os.environ.get("HOTLOOP_CONTROL", "")
    if os.sep in setting:
        found.append(setting)
    runtimes = [f"/run/user/{uid}"]
    if uid == os.geteuid():
        runtimes.insert(0, os.environ.get("XDG_RUNTIME_DIR", ""))
    found += [os.path.join(runtime, "hotloop") for runtime in runtimes if runtime]
    for temporary in (tempfile.gettempdir(), "/tmp"):
        found.append(os.path.join(temporary, f"hotloop-{uid}"))
    return [folder for folder in dict.fromkeys(found) if _is_private(folder, uid)]


def _listed(folder: str) -> Iterator[Place]:
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            match = _NAME.fullmatch(name)
            if match is not None:
                path = os.path.join(folder, name)
                yield Place(int(match[1]), int(match[2]), path)


def _owner(pid: int) -> int:
    """The user of a process; ours where the system does not say."""
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return os.geteuid()


def find(pid: int | None = None) -> list[Place]:
    """The control sockets of a process, or of all processes of this user.

    Those that nobody answers at any more are left out.
    """
    uid = os.geteuid() if pid is None else _owner(pid)
    places = [place for folder in _folders(uid) for place in _listed(folder)]
    return sorted(
        place
        for place in places
        if pid in (None, place.pid) and not _is_abandoned(place.path)
    )


# ---- sockets ----


def _is_abandoned(path: str) -> bool:
    """Whether this is a socket that nobody listens at."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            probe.connect(path)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False  # it went away, or somebody is there and busy
    return False


def _process_is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def remove_stale(folder: str) -> None:
    """Remove the sockets of processes that ended without closing theirs."""
    for place in _listed(folder):
        # Both: one that binds its socket does not listen yet, and another container
        # that shares the folder has processes that we cannot see.
        if _process_is_gone(place.pid) and _is_abandoned(place.path):
            with contextlib.suppress(OSError):
                os.unlink(place.path)


def _listen(path: str) -> socket.socket:
    """Listen at a path, in place of a socket there that nobody listens at."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        # Linux makes the file with the mode of the socket. bind() follows no link.
        os.fchmod(listener.fileno(), 0o600)
        try:
            listener.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_abandoned(path):
                raise
            os.unlink(path)
            listener.bind(path)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno is None:  # of Python, for a path that is too long
            raise OSError(errno.ENAMETOOLONG, str(error), path) from None
        raise OSError(error.errno, error.strerror, path) from None
    return listener


def listen(path: str | None, folder: str | None = None) -> tuple[socket.socket, str]:
    """Make the listening socket, at a path or at a free name of the folder.

    Return it and its path.
    """
    if path is not None:
        return _listen(path), path
    folder = private_folder(folder)
    remove_stale(folder)
    for number in itertools.count(1):
        path = os.path.join(folder, f"{os.getpid()}-{number}.sock")
        try:
            return _listen(path), path
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise AssertionError


def identity(path: str) -> tuple[int, int] | None:
    """What tells this file from a later one of the same name."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


# ---- peers ----


def peer_uid(sock: socket.socket) -> int:
    """The user at the other end of a connection."""
    if sys.platform == "darwin":
        # struct xucred: its version, then the user.
        found = sock.getsockopt(0, 1, 76)
        return int(struct.unpack_from("=II", found)[1])
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("=iII", found)[1])


def may_ask(uid: int) -> bool:
    """Whether a user may look into this process: its own, and root."""
    return uid in (0, os.geteuid())


def may_answer(uid: int) -> bool:
    """Whether to believe what a program of this user says; root looks at all."""
    return uid in (0, os.geteuid()) or os.geteuid() == 0

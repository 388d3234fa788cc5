"""The other end of a control socket."""

from __future__ import annotations

import errno
import json
import os
import socket
from typing import Any

from . import _places

TIMEOUT = 10.0
LONGEST_ANSWER = 64 << 20


class ControlError(Exception):
    """The program answered that it cannot do what was asked."""


class Client:
    """A connection to the control socket of a running loop.

    Raise OSError where there is none, PermissionError if somebody else's program is
    behind it, and ConnectionResetError once the program or its loop has ended.
    """

    def __init__(self, path: str | os.PathLike[str], timeout: float = TIMEOUT) -> None:
        """Connect to the socket at a path; wait up to timeout seconds for answers."""
        self.path: str = os.fspath(path)
        self._sock = socket.socket(socket.AF_UNIX)
        try:
            self._sock.settimeout(timeout)
            self._sock.connect(self.path)
            if not _places.may_answer(_places.peer_uid(self._sock)):
                reason = "the program behind it is another user's"
                raise PermissionError(errno.EPERM, reason, self.path)
        except BaseException:
            self._sock.close()
            raise
        self._file = self._sock.makefile("rb")

    def ask(self, request: str, /, **arguments: Any) -> Any:
        """Send a request and return the answer; raise ControlError if it is refused."""
        line = json.dumps({"request": request, **arguments}).encode() + b"\n"
        try:
            self._sock.sendall(line)
            answer = self._file.readline(LONGEST_ANSWER)
        except TimeoutError:
            self.close()
            raise TimeoutError(errno.ETIMEDOUT, "no answer", self.path) from None
        except ConnectionError:
            answer = b""
        if not answer.endswith(b"\n"):
            self.close()
            raise ConnectionResetError(errno.ECONNRESET, "it has ended", self.path)
        said = json.loads(answer)
        if "error" in said:
            raise ControlError(said["error"])
        return said["ok"]

    def close(self) -> None:
        """Hang up; what the client switched on is switched off again."""
        self._sock.close()
        if hasattr(self, "_file"):
            self._file.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

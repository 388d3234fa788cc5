"""The thread that answers at a control socket, whatever the loop does meanwhile.

What a client can hold is bounded: the length of a request, one answer that it has not
read, the time that it takes for either, and the number of clients.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import selectors
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from . import _places

MOST_CLIENTS = 8
LONGEST_REQUEST = 4096
PATIENCE = 10.0  # seconds for a request that has begun, and for reading an answer

# A process that forks while the thread works would leave the child with whatever the
# thread holds: fork() waits for the thread to be waiting itself.
_working = threading.RLock()
_servers: weakref.WeakSet[Server] = weakref.WeakSet()


class RequestError(Exception):
    """A request that cannot be answered; its text goes to the client."""


class Session:
    """What a server keeps for one client: subclassed by who answers."""

    def answer(self, request: dict[str, Any]) -> Any:
        """Return what to send as JSON; raise RequestError for a bad request."""
        raise NotImplementedError

    def close(self) -> None:
        """Forget the client, which is gone."""


def _encoded(answer: dict[str, Any]) -> bytes:
    return json.dumps(answer, separators=(",", ":"), default=str).encode() + b"\n"


class _Client:
    """A connection: bytes that came, and bytes of an answer that must go yet."""

    def __init__(self, sock: socket.socket, session: Session) -> None:
        self.sock = sock
        self.session = session
        self.received = bytearray()
        self.unsent = memoryview(b"")
        self.used = time.monotonic()
        self.deadline: float | None = None
        self.last = False  # nothing more is read

    def step(self, readable: bool) -> bool:
        """Read, answer one request, write; return False at the end."""
        try:
            if readable:
                data = self.sock.recv(LONGEST_REQUEST)
                self.last = not data
                self.received += data
            if not self.unsent:
                self._answer()
            if self.unsent:
                self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            return False
        self.used = time.monotonic()
        if not self.unsent and not self.received:
            self.deadline = None
        elif self.deadline is None:
            self.deadline = self.used + PATIENCE
        return bool(self.unsent) or not self.last or self.has_request()

    def has_request(self) -> bool:
        return b"\n" in self.received

    def _answer(self) -> None:
        line, end, rest = self.received.partition(b"\n")
        if not end and len(line) <= LONGEST_REQUEST:
            return
        if len(line) > LONGEST_REQUEST:
            self.last = True
            rest = bytearray()
            said: dict[str, Any] = {"error": "the request is too long"}
        else:
            said = self._say(bytes(line))
        self.received = rest
        self.unsent = memoryview(_encoded(said))
        self.deadline = time.monotonic() + PATIENCE

    def _say(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return {"error": "the request is not JSON"}
        if type(request) is not dict:
            return {"error": "the request is not an object"}
        try:
            return {"ok": self.session.answer(request)}
        except RequestError as error:
            return {"error": str(error)}
        except Exception as error:
            return {"error": f"the answer failed: {type(error).__name__}: {error}"}

    def close(self) -> None:
        self.sock.close()
        self.session.close()


class Server:
    """Answers at a listening socket, in a thread, until it is closed."""

    def __init__(
        self, listener: socket.socket, path: str, greet: Callable[[], Session]
    ) -> None:
        self._listener = listener
        self._path = path
        self._identity = _places.identity(path)
        self._greet = greet
        self._clients: dict[int, _Client] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._woken, self._wake = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._closed = False
        self._thread = threading.Thread(
            target=self._serve, name="hotloop-control", daemon=True
        )
        _servers.add(self)
        self._thread.start()

    @property
    def closed(self) -> bool:
        """Whether it was closed, here or by a fork, which leaves it to the parent."""
        return self._closed

    def close(self) -> None:
        """Stop answering, and remove the socket's file."""
        if self._closed:
            return
        self._closed = True
        # Nobody reads it if the thread has seen that it is to end: it may be gone.
        with contextlib.suppress(OSError):
            self._wake.send(b"x")
        self._wake.close()
        # A finalizer that closes the loop may run in this very thread, or so late that
        # threads have been stopped where they were.
        mine = threading.current_thread() is self._thread
        if not mine and not sys.is_finalizing():
            self._thread.join()
        if self._identity == _places.identity(self._path):
            os.unlink(self._path)

    # ---- forks ----

    def _forget(self) -> None:
        # In a child, which has the descriptors and no such thread. The selector is
        # the parent's as well: it is closed and never asked to change.
        if not self._closed:
            self._closed = True
            self._wake.close()
            self._close_all()

    # ---- in the thread ----

    def _serve(self) -> None:
        while not self._closed:
            ready = self._selector.select(self._timeout())
            with _working:
                for key, events in ready:
                    self._handle(key, events)
                self._drop_late()
        with _working:
            self._close_all()

    def _close_all(self) -> None:
        for client in list(self._clients.values()):
            client.close()
        self._clients.clear()
        self._selector.close()
        for sock in (self._listener, self._woken):
            sock.close()

    def _handle(self, key: selectors.SelectorKey, events: int) -> None:
        if key.fileobj is self._listener:
            self._accept()
        elif key.fd in self._clients:
            self._step(key.fd, bool(events & selectors.EVENT_READ))

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:
            time.sleep(0.05)  # no descriptor is left: do not spin on it
            return
        try:
            sock.setblocking(False)
            known = _places.may_ask(_places.peer_uid(sock))
        except OSError:
            known = False
        if not known:
            sock.close()
            return
        if len(self._clients) >= MOST_CLIENTS:
            self._drop(min(self._clients, key=lambda fd: self._clients[fd].used))
        self._clients[sock.fileno()] = _Client(sock, self._greet())
        self._selector.register(sock, selectors.EVENT_READ)

    def _step(self, fd: int, readable: bool) -> None:
        client = self._clients[fd]
        if not client.step(readable):
            self._drop(fd)
            return
        # Nothing is read from who does not read its answer. A request that is here
        # already is answered when the client can be written to, after the others had
        # their turn.
        writes = bool(client.unsent) or client.has_request()
        events = selectors.EVENT_WRITE if writes else selectors.EVENT_READ
        if self._selector.get_key(fd).events != events:
            self._selector.modify(fd, events)

    def _drop(self, fd: int) -> None:
        self._selector.unregister(fd)
        self._clients.pop(fd).close()

    def _timeout(self) -> float | None:
        deadlines = [c.deadline for c in self._clients.values() if c.deadline]
        if not deadlines:
            return None
        return max(0.0, min(deadlines) - time.monotonic())

    def _drop_late(self) -> None:
        now = time.monotonic()
        for fd, client in list(self._clients.items()):
            if client.deadline is not None and client.deadline < now:
                self._drop(fd)


@atexit.register
def _at_exit() -> None:
    for server in list(_servers):
        server.close()


def _after_in_child() -> None:
    for server in list(_servers):
        server._forget()
    _working.release()


os.register_at_fork(
    before=_working.acquire,
    after_in_parent=_working.release,
    after_in_child=_after_in_child,
)

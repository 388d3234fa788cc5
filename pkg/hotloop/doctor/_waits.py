"""Awaits that last: of the network without a timeout, and one after the other."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
import weakref
from types import CodeType
from typing import Any, NamedTuple

from .. import _core
from ._chain import Chain, Link, chain_of
from ._findings import Notes
from ._places import Finder, is_loop, is_package, place_of
from ._tasks import LoopRecord, Record, Tasks
from ._timeouts import limited_tasks

_READS = {"read", "readline", "readexactly", "readuntil", "readinto"}
_CONNECTS = {
    "open_connection",
    "open_unix_connection",
    "create_connection",
    "create_unix_connection",
    "sock_connect",
}
_LOOKUPS = {"getaddrinfo", "getnameinfo"}
_RECEIVES = {"sock_recv", "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into"}
# A function that uses one of these asks for something, and waits for the answer.
_ASKS = {"write", "writelines", "drain", "send", "sendall", "sock_sendall"}
_ASKS |= {"sock_sendto", "sendto"}

_LIMIT = (
    "Put it into async with asyncio.timeout(...), or asyncio.wait_for(...): a peer "
    "that is silent would have it wait for ever."
)
_TOGETHER = (
    "If the answers do not depend on each other, ask for them at once: "
    "asyncio.gather(...) or a TaskGroup."
)
# Of the hint: so many peers in turn, and so long altogether.
_IN_TURN = 3
_TOO_LONG = 0.2


class Wait(NamedTuple):
    """An await of the network, and who it is that is waited for."""

    what: str
    link: Link  # the program's innermost
    reads: bool
    peer: Any


class _Asking:
    """The peers that a coroutine has waited for, one after the other."""

    def __init__(self, coroutine: Any) -> None:
        self.ref = weakref.ref(coroutine)
        self.peers: list[Any] = []
        self.waited = 0.0


class _State:
    """Of one task: what it is waiting for, and since when."""

    def __init__(self) -> None:
        self.future: Any = lambda: None
        self.since = 0.0
        self.seen = 0.0
        self.wait: Wait | None = None
        self.reported = False
        self.asking: dict[int, _Asking] = {}


class Waits:
    """Looks at what the tasks await, now and then."""

    def __init__(
        self, tasks: Tasks, notes: Notes, finder: Finder, await_limit: float
    ) -> None:
        self._tasks = tasks
        self._notes = notes
        self._finder = finder
        self._limit = await_limit
        # Sockets that the program has connected by itself.
        self.connected: weakref.WeakSet[Any] = weakref.WeakSet()

    def look(self, known: LoopRecord, pairs: list[tuple[Record, Any]]) -> None:
        """See how long the tasks of a loop have waited. Runs in the loop."""
        now = time.monotonic()
        limited: set[Any] | None = None
        for record, task in pairs:
            state: _State = record.waits
            if state is None:
                state = record.waits = _State()
            future = getattr(task, "_fut_waiter", None)
            if future is None or future.done():
                state.future = lambda: None
                continue
            if state.future() is not future:
                self._begin(state, record, task, future, now)
            self._go_on(state, record, now)
            if self._is_long(state, now):
                if limited is None:
                    limited = limited_tasks(known.ref())
                state.reported = True
                if task not in limited:
                    self._report(state, record, now)

    def _begin(
        self, state: _State, record: Record, task: Any, future: Any, now: float
    ) -> None:
        try:
            state.future = weakref.ref(future)
        except TypeError:
            state.future = lambda: future
        state.since = state.seen = now
        state.reported = False
        chain = chain_of(task)
        state.wait = self._classify(chain)
        if state.wait is not None and state.wait.reads:
            self._ask(state, record, chain, state.wait)

    def _go_on(self, state: _State, record: Record, now: float) -> None:
        if state.wait is not None and state.wait.reads:
            for asking in state.asking.values():
                asking.waited += now - state.seen
        state.seen = now

    # ---- what it is ----

    def _classify(self, chain: Chain) -> Wait | None:
        """Which await of the network a task is in, if the program awaits one itself."""
        found: Link | None = None
        for position in range(len(chain.links) - 1, -1, -1):
            file = chain.links[position].frame.f_code.co_filename
            if self._finder.is_program(file):
                found = chain.links[position]
                inner = chain.links[position + 1 :]
                break
            if is_package(file):
                return None  # its own affair, with timeouts that one cannot see
        if found is None:
            return None
        if isinstance(chain.last, _core.StreamOperation) and not inner:
            return self._of_operation(chain.last, found)
        for link in inner:
            wait = self._of_function(link, found)
            if wait is not None:
                return wait
        return None

    def _of_operation(self, operation: Any, link: Link) -> Wait | None:
        name = operation.__name__
        for each in gc.get_referents(operation):
            if isinstance(each, asyncio.StreamReader) and name in _READS:
                return self._of_reader(f"StreamReader.{name}()", each, link)
        return None

    def _of_function(self, inner: Link, link: Link) -> Wait | None:
        code: CodeType = inner.frame.f_code
        name = code.co_name
        if not is_loop(code.co_filename):
            return None
        if name in _READS and "StreamReader" in code.co_qualname:
            reader = inner.holds(asyncio.StreamReader)
            return self._of_reader(f"StreamReader.{name}()", reader, link)
        if name in _CONNECTS:
            return Wait(f"{name}()", link, False, None)
        if name in _LOOKUPS:
            return Wait(f"loop.{name}()", link, False, None)
        if name in _RECEIVES:
            sock = inner.holds(socket.socket)
            if sock in self.connected and self._asks(link):
                return Wait(f"loop.{name}()", link, True, id(sock))
        return None

    def _of_reader(self, what: str, reader: Any, link: Link) -> Wait | None:
        """A wait for data, if the reader is of a connection that this side made."""
        transport = getattr(reader, "_transport", None)
        if transport is None or transport.get_extra_info("socket") is None:
            return None  # a pipe, say
        protocol = transport.get_protocol()
        if not isinstance(protocol, asyncio.StreamReaderProtocol):
            return None
        if getattr(protocol, "_client_connected_cb", None) is not None:
            return None  # a server's
        if not self._asks(link):
            return None
        peer = transport.get_extra_info("peername")
        return Wait(what, link, True, peer or id(transport))

    def _asks(self, link: Link) -> bool:
        """Whether the function also sends, rather than being told whatever comes."""
        return not _ASKS.isdisjoint(link.frame.f_code.co_names)

    # ---- without a timeout ----

    def _is_long(self, state: _State, now: float) -> bool:
        return (
            state.wait is not None
            and not state.reported
            and now - state.since >= self._limit
        )

    def _report(self, state: _State, record: Record, now: float) -> None:
        assert state.wait is not None
        took = now - state.since
        self._notes.add(
            "await-without-timeout",
            place_of(state.wait.link.frame),
            f"has waited in {state.wait.what} for {took:.1f} s and would wait for "
            "ever: no timeout is there, here or around it",
            _LIMIT,
            task=record.name,
            number=record.number,
            weight=took,
        )

    # ---- one after the other ----

    def _ask(self, state: _State, record: Record, chain: Chain, wait: Wait) -> None:
        alive: dict[int, _Asking] = {}
        for link in chain.links:
            if not self._finder.is_program(link.frame.f_code.co_filename):
                continue
            asking = state.asking.get(id(link.coroutine))
            if asking is None or asking.ref() is not link.coroutine:
                asking = _Asking(link.coroutine)
            alive[id(link.coroutine)] = asking
            if wait.peer not in asking.peers:
                asking.peers.append(wait.peer)
            elif asking.peers[-1] != wait.peer:
                asking.peers = [wait.peer]  # back to one it had: a conversation
                asking.waited = 0.0
        state.asking = alive
        for link in reversed(chain.links):
            asking = alive.get(id(link.coroutine))
            if asking is None or len(asking.peers) < _IN_TURN:
                continue
            if asking.waited >= _TOO_LONG:
                self._hint(asking, link, record)
            break

    def _hint(self, asking: _Asking, link: Link, record: Record) -> None:
        count = len(asking.peers)
        self._notes.add(
            "sequential-awaits",
            place_of(link.frame),
            f"waited for {count} peers one after the other, each on a connection of "
            f"its own, {asking.waited:.2f} s until here",
            _TOGETHER,
            task=record.name,
            number=record.number,
            weight=count,
        )

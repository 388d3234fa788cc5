"""Callbacks of a TLS connection that raise, or that act on their transport.

Each scene is played on asyncio first. The loop must do the same: the calls and
their order, the errors, and what its exception handler is given.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from typing import Any

import pytest

from support import tcp_pair, turns, until
from tlspeers import SECONDS, WAYS, Peer, describe, leave, open_tls

TLS12 = ssl.TLSVersion.TLSv1_2
VERSIONS = [TLS12, ssl.TLSVersion.TLSv1_3]
STUCK = 0.3  # seconds after which a scene is aborted


class ProvokedError(Exception):
    """Raised by a callback because the scene says so."""


class Other(asyncio.Protocol):
    """Takes over when set_protocol() is called."""

    def __init__(self, actor: Actor) -> None:
        self.actor = actor

    def data_received(self, data: bytes) -> None:
        self.actor.note("other.data_received")
        self.actor.heard.set()

    def eof_received(self) -> None:
        self.actor.note("other.eof_received")

    def pause_writing(self) -> None:
        self.actor.note("other.pause_writing")

    def resume_writing(self) -> None:
        self.actor.note("other.resume_writing")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.actor.note("other.connection_lost", describe(exc))
        self.actor.closed.set_result(None)


class Actor:
    """A protocol that does one thing in one of its callbacks, the first time."""

    def __init__(self, callback: str, action: str) -> None:
        self.plan = (callback, action)
        self.calls: list[Any] = []
        self.transport: Any = None
        self.closed = asyncio.get_running_loop().create_future()
        self.heard = asyncio.Event()
        self.got = b""
        self.done = False
        # asyncio asks for a buffer before there is anything to read.
        self.armed = callback != "get_buffer"

    def note(self, name: str, *what: Any) -> None:
        self.calls.append((name, *what))

    def act(self, name: str, *what: Any) -> None:
        self.note(name, *what)
        callback, action = self.plan
        if callback != name or self.done or not self.armed:
            return
        self.done = True
        transport = self.transport
        for one in action.split("+"):
            if one == "raise":
                raise ProvokedError(name)
            if one == "cancel":
                raise asyncio.CancelledError(name)
            if one == "write":
                transport.write(b"extra")
                transport.writelines([b"more", b"and more"])
            elif one == "pause":
                transport.pause_reading()
                asyncio.get_running_loop().call_soon(transport.resume_reading)
            elif one == "switch":
                transport.set_protocol(Other(self))
            elif one == "limits":
                transport.set_write_buffer_limits(high=0)
                transport.set_write_buffer_limits()
            elif one == "true":
                assert name == "eof_received"
            else:
                getattr(transport, one)()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.act("connection_made")

    def eof_received(self) -> bool:
        self.act("eof_received")
        return self.plan == ("eof_received", "true")

    def pause_writing(self) -> None:
        self.act("pause_writing")

    def resume_writing(self) -> None:
        self.act("resume_writing")

    def connection_lost(self, exc: BaseException | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)
        self.act("connection_lost", describe(exc))


class Plain(Actor, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self.got += data
        if self.got == b"hello":
            self.heard.set()
        self.act("data_received", data)


class Buffered(Actor, asyncio.BufferedProtocol):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.buffer = bytearray(100)

    def get_buffer(self, sizehint: int) -> Any:
        if self.plan[0] == "get_buffer" and self.armed and not self.done:
            self.done = self.plan[1] in ("nothing", "small")
            if self.plan[1] == "nothing":
                return None
            if self.plan[1] == "small":
                return self.buffer[:0]
        self.act("get_buffer")
        self.calls.pop()  # how often it is called is nobody's business
        return memoryview(self.buffer)

    def buffer_updated(self, nbytes: int) -> None:
        self.got += self.buffer[:nbytes]
        if self.got == b"hello":
            self.heard.set()
        self.act("buffer_updated", nbytes)


class Visitor:
    """The work of the peer: when it is let, greet; hear, and say goodbye."""

    def __init__(self, contexts: Any, way: str) -> None:
        self.contexts = contexts
        self.way = way
        self.ready = threading.Event()  # it has sent all of the handshake
        self.let = threading.Event()
        self.got = b""

    def __call__(self, sock: Any) -> None:
        server, client = self.contexts
        try:
            if self.way.endswith("server"):
                tls = client.wrap_socket(sock, server_hostname="localhost")
            else:
                tls = server.wrap_socket(sock, server_side=True)
        except OSError:
            return
        finally:
            self.ready.set()
        self.let.wait(SECONDS)
        with contextlib.suppress(OSError):
            tls.sendall(b"hello")
            while b"world" not in self.got and (data := tls.recv(1000)):
                self.got += data
        leave(tls)


async def play(contexts: Any, way: str, callback: str, action: str) -> Any:
    """One scene; returns all that could be seen."""
    loop = asyncio.get_running_loop()
    reports: list[Any] = []

    def on_report(_: Any, context: dict[str, Any]) -> None:
        seen = sorted(context), context["message"]
        reports.append((*seen, describe(context.get("exception"))))

    loop.set_exception_handler(on_report)
    buffered = callback in ("get_buffer", "buffer_updated")
    actor = (Buffered if buffered else Plain)(callback, action)
    near, far = tcp_pair()
    visitor = Visitor(contexts, way)
    peer = Peer(far, visitor)
    opened: Any = None
    stuck = False
    try:
        transport = await asyncio.wait_for(open_tls(near, contexts, way, actor), 5)
    except (Exception, asyncio.CancelledError) as error:
        opened = describe(error.with_traceback(None))
        transport = actor.transport
    else:
        await until(visitor.ready.is_set)
        await turns(6)
        actor.armed = True
        visitor.let.set()
        waiting = asyncio.ensure_future(actor.heard.wait())
        await asyncio.wait(
            [waiting, actor.closed], timeout=STUCK, return_when="FIRST_COMPLETED"
        )
        waiting.cancel()
        # Of what was closed twice, asyncio's transport can do nothing more.
        if callback.endswith("_writing") and not transport.is_closing():
            transport.set_write_buffer_limits(high=0)
            with contextlib.suppress(AttributeError):
                transport.set_write_buffer_limits()
        if not transport.is_closing():
            transport.write(b"world")
    if not actor.closed.done():
        await asyncio.wait([actor.closed], timeout=STUCK)
    if not actor.closed.done() and opened is None:
        stuck = True
        transport.abort()
        await asyncio.wait([actor.closed], timeout=STUCK)
    visitor.let.set()
    near.close()
    await peer.ended()
    await turns(3)
    closing = transport.is_closing() if transport is not None else None
    whole = visitor.got
    if "abort" in action or "raise" in action or "cancel" in action or stuck:
        whole = b""  # how much of it arrived is up to the system
    loop.set_exception_handler(None)
    # asyncio asks None to pause when limits are set after the end.
    reports = [one for one in reports if "'NoneType' object" not in str(one[2])]
    return actor.calls, opened, stuck, closing, whole, reports, actor.done


ACTIONS = ["raise", "cancel", "write", "close", "abort", "pause", "switch", "limits"]
ACTIONS += ["close+close", "close+abort", "abort+close", "write+close", "write+abort"]
ACTIONS += ["close+raise", "abort+raise", "switch+close", "pause+close", "pause+raise"]
MORE = {"eof_received": ["true"], "get_buffer": ["nothing", "small"]}
CALLBACKS = [
    "connection_made",
    "data_received",
    "get_buffer",
    "buffer_updated",
    "eof_received",
    "pause_writing",
    "resume_writing",
    "connection_lost",
]


PLAYED: dict[Any, Any] = {}  # what asyncio did, for the next loop


def on_asyncio(name: Any, scene: Any, log: Any) -> Any:
    if name not in PLAYED:
        loop = asyncio.SelectorEventLoop()
        try:
            PLAYED[name] = loop.run_until_complete(play(*scene)), log.take()
        finally:
            loop.close()
    return PLAYED[name]


KINDS = [(way, version) for way in WAYS for version in VERSIONS]
KINDS = [kind for kind in KINDS if kind[0] in ("client", "server") or kind[1] > TLS12]


@pytest.mark.parametrize(("way", "version"), KINDS)
@pytest.mark.parametrize("callback", CALLBACKS)
def test_callback(
    loop: Any, tls: Any, version: Any, way: str, callback: str, log: Any
) -> None:
    if way.startswith("start_tls") and callback == "connection_made":
        pytest.skip("is called before there is TLS")
    for context in tls:
        context.maximum_version = version
    for action in [*ACTIONS, *MORE.get(callback, [])]:
        scene = (tls, way, callback, action)
        expected, said = on_asyncio((way, version, callback, action), scene, log)
        found = loop.run_until_complete(play(*scene))
        if action == "small":
            # asyncio takes a buffer without room for the end of the stream; an
            # error will do as well.
            assert found[0][-1][0] == "connection_lost" and not found[2]
            continue
        assert found == expected, action
        assert log.take() == said, action
        assert found[-1], f"{action} was not done"
        if action == "true":
            warning = "returning true from eof_received() has no effect when using ssl"
            assert said == [warning]

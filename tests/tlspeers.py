"""Peers of the TLS tests: the standard library's blocking TLS, in threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

from support import Recorder, tcp_pair

SECONDS = 20.0  # until a peer gives up
LINE = re.compile(r"\(_ssl\.c:\d+\)")


def describe(error: BaseException | None) -> Any:
    """What a program can see of an error, without the line of _ssl.c."""
    if error is None:
        return None
    found: dict[str, Any] = {"type": type(error), "str": LINE.sub("", str(error))}
    for name in ("verify_code", "verify_message", "reason", "library", "errno"):
        if hasattr(error, name):
            found[name] = getattr(error, name)
    return found


def without_delay(sock: socket.socket) -> None:
    """Let the socket block for a while, and send small segments at once."""
    sock.settimeout(SECONDS)
    if sock.family != socket.AF_UNIX and sock.type == socket.SOCK_STREAM:
        with contextlib.suppress(OSError):  # it may listen
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Peer:
    """Runs work(sock) in a thread and closes the socket afterwards."""

    def __init__(self, sock: socket.socket, work: Callable[[Any], Any]) -> None:
        without_delay(sock)
        self.sock: socket.socket = sock
        self.work = work
        self.future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            found = self.work(self.sock)
        except BaseException as error:
            self.sock.close()
            self.future.set_exception(error)
        else:
            self.sock.close()
            self.future.set_result(found)

    async def result(self) -> Any:
        """What the work returned; raises what it raised."""
        try:
            waiting = asyncio.wrap_future(self.future)
            return await asyncio.wait_for(waiting, SECONDS + 5)
        finally:
            self.thread.join()

    async def ended(self) -> Any:
        """As result(), where the peer may have seen the connection break."""
        try:
            return await self.result()
        except OSError as error:
            return error

    def wait(self) -> Any:
        """As result(), where no loop runs."""
        try:
            return self.future.result(SECONDS + 5)
        finally:
            self.thread.join()


def end(tls: ssl.SSLSocket) -> None:
    """Close a TLS socket in the polite way, as far as the peer lets it."""
    with contextlib.suppress(OSError, ValueError):
        tls.unwrap()
    tls.close()


def drain(sock: socket.socket, half_close: bool = True) -> None:
    """Read what is left, so that no reset overtakes what was written."""
    with contextlib.suppress(OSError):
        if half_close:
            sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass


def notify(tls: ssl.SSLSocket) -> None:
    """Send close_notify, and wait for no answer."""
    tls.settimeout(0)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.unwrap()
    tls.settimeout(SECONDS)


def leave(tls: ssl.SSLSocket) -> None:
    """Send close_notify, then take whatever comes until the end."""
    with socket.fromfd(tls.fileno(), tls.family, tls.type) as raw, tls:
        raw.settimeout(SECONDS)
        with contextlib.suppress(OSError):
            notify(tls)
        drain(raw, half_close=False)


def shake(
    sock: socket.socket, context: ssl.SSLContext, **kwargs: Any
) -> tuple[Any, Any]:
    """Handshake and be polite: (the peer's certificate, the error)."""
    with sock.dup() as spare:
        try:
            # Arguments that are wrong: wrap_socket() leaves a socket open.
            context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), **kwargs)
            tls = context.wrap_socket(sock, **kwargs)
        except (OSError, ValueError, AttributeError, TypeError) as error:
            drain(spare)
            sock.close()
            return None, error.with_traceback(None)
        try:
            found = tls.getpeercert()
            # Of TLS 1.3, what the server thinks of the client comes after.
            if kwargs.get("server_side"):
                tls.sendall(b"!")
                while tls.recv(1000):
                    pass
            elif not tls.recv(1):
                raise EOFError("the server says nothing")
        except (OSError, EOFError) as error:
            drain(spare)
            return None, error.with_traceback(None)
        finally:
            end(tls)
        return found, None


def shaking(context: ssl.SSLContext, **kwargs: Any) -> Callable[[Any], Any]:
    """The work of a peer that handshakes."""
    return lambda sock: shake(sock, context, **kwargs)


@contextlib.contextmanager
def listener(family: int = socket.AF_INET, address: Any = None) -> Iterator[Any]:
    """A blocking, listening socket."""
    with socket.socket(family) as sock:
        sock.settimeout(SECONDS)
        sock.bind(address or ("127.0.0.1", 0))
        sock.listen(8)
        yield sock


def handshaken(
    context: ssl.SSLContext, work: Callable[[ssl.SSLSocket], Any], **kwargs: Any
) -> Callable[[Any], Any]:
    """The work of a peer that handshakes first; it is polite at the end."""

    def run(sock: socket.socket) -> Any:
        tls = context.wrap_socket(sock, **kwargs)
        try:
            return work(tls)
        finally:
            end(tls)

    return run


def echo(tls: ssl.SSLSocket) -> int:
    """Send back what comes; returns how much that was."""
    count = 0
    while data := tls.recv(65536):
        tls.sendall(data)
        count += len(data)
    return count


def recv_exactly(tls: Any, size: int) -> bytes:
    """So many bytes, or what came before the end."""
    got = bytearray()
    while len(got) < size and (data := tls.recv(size - len(got))):
        got += data
    return bytes(got)


Contexts = tuple[ssl.SSLContext, ssl.SSLContext]  # server's, client's
WAYS = ["client", "server", "start_tls client", "start_tls server"]


async def open_tls(
    sock: socket.socket, tls: Contexts, way: str, protocol: Any, **kwargs: Any
) -> Any:
    """A TLS transport on the socket, made in one of the WAYS."""
    loop = asyncio.get_running_loop()
    server_side = way.endswith("server")
    if not server_side:
        kwargs.setdefault("server_hostname", "localhost")
    context = tls[0] if server_side else tls[1]
    if way.startswith("start_tls"):
        plain, _ = await loop.connect_accepted_socket(lambda: protocol, sock)
        transport: Any = await loop.start_tls(
            plain, protocol, context, server_side=server_side, **kwargs
        )
        protocol.transport = transport
    elif server_side:
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, sock, ssl=context, **kwargs
        )
    else:
        transport, _ = await loop.create_connection(
            lambda: protocol, sock=sock, ssl=context, **kwargs
        )
    return transport


async def with_peer(
    tls: Contexts,
    work: Callable[[ssl.SSLSocket], Any],
    way: str = "client",
    protocol: Any = None,
    pair: Any = tcp_pair,
    **kwargs: Any,
) -> tuple[Any, Any, Peer]:
    """A TLS transport, its protocol, and a blocking peer that does the work."""
    near, far = pair()
    if way.endswith("server"):
        run = handshaken(tls[1], work, server_hostname="localhost")
    else:
        run = handshaken(tls[0], work, server_side=True)
    peer = Peer(far, run)
    protocol = Recorder() if protocol is None else protocol
    return await open_tls(near, tls, way, protocol, **kwargs), protocol, peer


async def both_ends(
    tls: Contexts, client: Any = None, server: Any = None, pair: Any = tcp_pair
) -> tuple[Any, Any]:
    """Two transports of the loop that speak TLS to each other: client, server."""
    near, far = pair()
    return tuple(  # type: ignore[return-value]
        await asyncio.gather(
            open_tls(near, tls, "client", client or Recorder()),
            open_tls(far, tls, "server", server or Recorder()),
        )
    )

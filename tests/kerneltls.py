"""What the tests of kernel TLS ask of the kernel, and what their peers do."""

from __future__ import annotations

import _ssl
import contextlib
import ctypes
import os
import socket
import ssl
import struct
import threading
from typing import Any

from support import tcp_pair
from tlspeers import SECONDS, notify

OP_ENABLE_KTLS: Any = getattr(ssl, "OP_ENABLE_KTLS", 8)  # has a name since 3.12
TCP_ULP, SOL_TLS, TLS_TX = 31, 282, 1


def missing() -> str | None:
    """Why the kernel cannot encrypt here; None if it can."""
    if os.environ.get("HOTLOOP_TLS") == "object":
        return "kernel TLS is the direct engine's"
    left, right = tcp_pair()
    try:
        left.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
    except OSError as error:
        return f"this kernel has no TLS: {error}"
    finally:
        left.close()
        right.close()
    return None


# The cipher as the kernel knows it, and the size of its keys and the like.
CIPHERS = {
    "TLSv1.3": (52, 52),  # OpenSSL's first choice
    "AES128-GCM-SHA256": (51, 36),
    "AES256-GCM-SHA384": (52, 52),
    "CHACHA20-POLY1305": (54, 52),
}


def kernel_has(cipher: str) -> bool:
    """Would the kernel take keys for it?"""
    number, size = CIPHERS[cipher]
    version = 0x304 if cipher == "TLSv1.3" else 0x303
    left, right = tcp_pair()
    try:
        left.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
        left.setsockopt(
            SOL_TLS, TLS_TX, struct.pack("=HH", version, number) + bytes(size)
        )
    except OSError:
        return False
    finally:
        left.close()
        right.close()
    return True


def restrict(contexts: Any, cipher: str) -> None:
    """Leave the contexts this protocol version, or of TLS 1.2 these ciphers."""
    for context in contexts:
        if cipher == "TLSv1.3":
            context.minimum_version = ssl.TLSVersion.TLSv1_3
        else:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(f"ECDHE-ECDSA-{cipher}:ECDHE-RSA-{cipher}")


def ask(tls: Any, way: str) -> None:
    """Have the loop's side of the connection leave it to the kernel."""
    tls[0 if way.endswith("server") else 1].options |= OP_ENABLE_KTLS


def small_pair() -> Any:
    """Sockets that hold little, so that sending takes several turns."""
    near, far = tcp_pair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    return near, far


def take_all(tls: Any) -> bytes:
    """Read until the peer says goodbye; its absence is an error."""
    tls.suppress_ragged_eofs = False
    got = bytearray()
    with contextlib.suppress(ssl.SSLZeroReturnError):  # after our own
        while data := tls.recv(1 << 20):
            got += data
    return bytes(got)


class Gate:
    """A peer that takes everything, but not before it is told to."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def __call__(self, tls: Any) -> bytes:
        assert self.open.wait(SECONDS)
        return take_all(tls)


class Goodbye(Gate):
    """A peer that says goodbye when it is told to, and then takes everything."""

    def __init__(self, last_words: bytes = b"") -> None:
        super().__init__()
        self.last_words = last_words
        self.begin, self.said = threading.Event(), threading.Event()

    def say(self, tls: Any) -> None:
        assert self.begin.wait(SECONDS)
        if self.last_words:
            tls.sendall(self.last_words)
        self.leave(tls)
        self.said.set()

    def leave(self, tls: Any) -> None:
        notify(tls)

    def __call__(self, tls: Any) -> bytes:
        self.say(tls)
        return super().__call__(tls)


async def over(transport: Any, protocol: Any, peer: Any) -> Any:
    transport.close()
    assert await protocol.closed is None
    return await peer.result()


def key_update(tls: Any, requested: bool) -> None:
    """Have OpenSSL change the keys of this side, and ask the other for it."""
    library = ctypes.CDLL(_ssl.__file__)
    library.SSL_key_update.argtypes = [ctypes.c_void_p, ctypes.c_int]
    # PyObject_HEAD, a weak reference to the socket, the SSL.
    inner = ctypes.cast(id(tls._sslobj), ctypes.POINTER(ctypes.c_void_p))
    position = object.__basicsize__ // ctypes.sizeof(ctypes.c_void_p) + 1
    assert library.SSL_key_update(inner[position], 1 if requested else 0) == 1
    tls.sendall(b"with new keys")

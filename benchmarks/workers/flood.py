"""The far end of suite *fairness*: sends or connects as fast as it can, for good.

``python -m benchmarks.workers.flood stream|streamN|tls|connect|datagram PORT``
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import sys

from ..child import die_with_parent

HOST = "127.0.0.1"
BLOCK = bytes(256 * 1024)
DATAGRAM = bytes(100)
# Connections end with a reset: none is left behind to wait for its timeout.
RESET = struct.pack("ii", 1, 0)


def stream(port: int, count: int) -> None:
    """Keep connections full."""
    socks = [socket.create_connection((HOST, port)) for _ in range(count)]
    for sock in socks:
        sock.setblocking(False)
    while True:
        _, ready, _ = select.select([], socks, [])
        for sock in ready:
            with contextlib.suppress(BlockingIOError):
                sock.send(BLOCK)


def tls(port: int) -> None:
    """Keep a TLS connection full."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    plain = socket.create_connection((HOST, port))
    with context.wrap_socket(plain) as sock:
        while True:
            sock.sendall(BLOCK)


def connect(port: int) -> None:
    """Connect, and connect again."""
    while True:
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            sock.connect((HOST, port))


def datagram(port: int) -> None:
    """Send datagrams."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((HOST, port))
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                sock.send(DATAGRAM)


def main() -> None:
    """Flood until killed."""
    die_with_parent()
    kind, port = sys.argv[1], int(sys.argv[2])
    with contextlib.suppress(ConnectionError):
        if kind.startswith("stream"):
            stream(port, int(kind.removeprefix("stream") or 1))
        {"tls": tls, "connect": connect, "datagram": datagram}[kind](port)


if __name__ == "__main__":
    main()

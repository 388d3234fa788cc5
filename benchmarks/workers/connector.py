"""Opens idle connections: ``python -m benchmarks.workers.connector PORT``.

Every line on standard input says how many more. Source addresses vary, so
that the local ports of one address do not run out.
"""

from __future__ import annotations

import socket
import struct
import sys

from ..child import die_with_parent
from ..limits import raise_descriptor_limit

HOST = "127.0.0.1"
PER_ADDRESS = 15_000
TIMEOUT = 30.0
RESET = struct.pack("ii", 1, 0)
IP_BIND_ADDRESS_NO_PORT = 24


def source_address(number: int) -> str:
    """Return where connection number so-and-so comes from."""
    if sys.platform != "linux":
        return HOST
    return f"127.0.0.{2 + number // PER_ADDRESS}"


def connect(target: tuple[str, int], number: int) -> socket.socket:
    """Open one connection, reset when closed so that no port stays taken."""
    result = socket.socket()
    result.settimeout(TIMEOUT)
    result.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    if sys.platform == "linux":
        result.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    result.bind((source_address(number), 0))
    result.connect(target)
    return result


def main() -> None:
    """Connect as asked until standard input ends."""
    die_with_parent()
    raise_descriptor_limit()
    target = (HOST, int(sys.argv[1]))
    kept: list[socket.socket] = []
    for line in sys.stdin:
        for _ in range(int(line)):
            kept.append(connect(target, len(kept)))


if __name__ == "__main__":
    main()

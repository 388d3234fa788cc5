"""Telling sockets from what only looks like one."""

from __future__ import annotations

import socket
from typing import Any

# What a stream transport and a listener do to the descriptor itself.
STREAM_METHODS = frozenset({"recv", "recv_into", "send", "sendmsg", "shutdown"})
LISTENER_METHODS = frozenset({"accept"})


def is_plain(sock: Any, methods: frozenset[str]) -> bool:
    """Do these methods of sock do what system calls on its descriptor do?

    Not if a subclass of socket.socket (for a proxy, to count or to limit)
    overrides one of them, nor for any other object with a fileno().
    """
    kind = type(sock)
    if kind is socket.socket:
        return True
    return (
        isinstance(sock, socket.socket)
        and methods.isdisjoint(getattr(sock, "__dict__", ()))
        and all(
            getattr(kind, name, None) is getattr(socket.socket, name)
            for name in methods
        )
    )

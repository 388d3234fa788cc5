"""Telling sockets from what only looks like one."""

from __future__ import annotations

import _socket
import socket
from types import FunctionType
from typing import Any

# What transports and listeners do to the descriptor itself.
STREAM_METHODS = frozenset({"recv", "recv_into", "send", "sendmsg", "shutdown"})
DATAGRAM_METHODS = frozenset({"recvfrom", "send", "sendto"})
LISTENER_METHODS = frozenset({"accept"})


# The class, whatever a program puts in its place in the module later.
Socket = socket.socket


def genuine(name: str) -> Any:
    """Return the method of socket.socket that the core stands in for.

    Programs replace these on the class to see, to limit or to refuse traffic, perhaps
    before this import: then what is returned is the method of no socket.
    """
    method = getattr(Socket, name)
    if type(method) is FunctionType and method.__globals__ is vars(socket):
        return method
    return getattr(_socket.socket, name, None)


_GENUINE = {
    name: genuine(name) for name in STREAM_METHODS | DATAGRAM_METHODS | LISTENER_METHODS
}


def keeps(kind: type, methods: frozenset[str]) -> bool:
    """Has a class these methods from the standard library?"""
    return all(getattr(kind, name, None) is _GENUINE[name] for name in methods)


def is_plain(sock: Any, methods: frozenset[str]) -> bool:
    """Do these methods of sock do what system calls on its descriptor do?

    Not if a subclass of socket.socket (for a proxy, to count or to limit)
    overrides one of them, or a program replaced it, nor for any other object
    with a fileno().
    """
    return (
        isinstance(sock, Socket)
        and methods.isdisjoint(getattr(sock, "__dict__", ()))
        and keeps(type(sock), methods)
    )

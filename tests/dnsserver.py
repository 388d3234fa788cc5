"""A DNS server of our own: the names it is given, over UDP, and nothing else."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

A, AAAA = 1, 28
NXDOMAIN, REFUSED = 3, 5
HEADER = struct.Struct("!6H")


def question_of(query: bytes) -> tuple[str, int, int]:
    """The name and type asked for, and where the question ends."""
    labels, at = [], HEADER.size
    while size := query[at]:
        labels.append(query[at + 1 : at + 1 + size].decode("ascii"))
        at += 1 + size
    kind = struct.unpack_from("!H", query, at + 1)[0]
    return ".".join(labels).lower(), kind, at + 5


class Names(asyncio.DatagramProtocol):
    """Answers from a dict of name -> addresses; counts what it was asked."""

    def __init__(self, names: dict[str, list[str]]) -> None:
        self.names = names
        self.asked: list[str] = []
        self.silent = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        name, kind, end = question_of(data)
        self.asked.append(name)
        if not self.silent:
            self.transport.sendto(self.answer(data, name, kind, end), addr)

    def answer(self, query: bytes, name: str, kind: int, end: int) -> bytes:
        number = struct.unpack_from("!H", query)[0]
        family = {A: socket.AF_INET, AAAA: socket.AF_INET6}.get(kind)
        found = [
            socket.inet_pton(family, text)
            for text in self.names.get(name, [])
            if family is not None and (":" in text) == (family == socket.AF_INET6)
        ]
        code = 0 if name in self.names else NXDOMAIN
        header = HEADER.pack(number, 0x8580 | code, 1, len(found), 0, 0)
        records = [
            struct.pack("!HHHIH", 0xC00C, kind, 1, 60, len(raw)) + raw for raw in found
        ]
        return header + query[HEADER.size : end] + b"".join(records)


async def serve_names(names: dict[str, list[str]]) -> Names:
    """A server on the running loop; the test closes its transport."""
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_datagram_endpoint(
        lambda: Names(names), local_addr=("127.0.0.1", 0)
    )
    return protocol

"""What the server and the load say to each other, and how both check it.

A message is a header (length of the payload, length of the answer that is asked
for, checksum of the payload) and the payload. Each side keeps running checksums of
all payloads; the last message of an orderly end has those of the sender.
"""

from __future__ import annotations

import asyncio
import random
import struct
import zlib
from collections import Counter
from dataclasses import dataclass, field

HEADER = struct.Struct("!III")
SUMS = struct.Struct("!QQII")
# In place of the length of an answer.
END = 0xFFFFFFFF  # the payload has the sums; the answer, too
HANG_UP = 0xFFFFFFFE  # the server shall abort the connection
LIMIT = 1 << 20
LARGE_SHARE = 0.01
LARGE = 256 * 1024
SMALL = 4 * 1024

NOISE = random.Random(5).randbytes(2 * LARGE)


class Damage(Exception):
    """What arrived is not what was sent."""


def some_bytes(size: int) -> memoryview:
    """Return bytes that differ from call to call."""
    start = random.randrange(len(NOISE) - size)
    return memoryview(NOISE)[start : start + size]


def some_size() -> int:
    """Return a size of a payload: small as a rule, sometimes large."""
    limit = LARGE if random.random() < LARGE_SHARE else SMALL
    return random.randrange(limit)


@dataclass
class Sums:
    """The payloads of one connection, both ways."""

    sent: int = 0
    received: int = 0
    sent_crc: int = 0
    received_crc: int = 0

    def sending(self, payload: bytes | memoryview) -> None:
        self.sent += len(payload)
        self.sent_crc = zlib.crc32(payload, self.sent_crc)

    def receiving(self, payload: bytes) -> None:
        self.received += len(payload)
        self.received_crc = zlib.crc32(payload, self.received_crc)

    def packed(self) -> bytes:
        return SUMS.pack(self.sent, self.received, self.sent_crc, self.received_crc)

    def compare(self, packed: bytes) -> None:
        """Raise Damage unless these are the same, seen from the other side."""
        sent, received, sent_crc, received_crc = SUMS.unpack(packed)
        theirs = Sums(received, sent, received_crc, sent_crc)
        if theirs != self:
            raise Damage(f"here {self}, there {theirs}")


def message(payload: bytes | memoryview, wanted: int) -> bytes:
    """Return one message."""
    return b"".join((HEADER.pack(len(payload), wanted, zlib.crc32(payload)), payload))


def check(payload: bytes, crc: int) -> None:
    """Raise Damage if this is not the payload that was sent."""
    if zlib.crc32(payload) != crc:
        raise Damage(f"a payload of {len(payload)} bytes has another checksum")


def split(data: bytes) -> tuple[bytes, int]:
    """Take one whole message apart: its payload, and the answer's length."""
    length, wanted, crc = HEADER.unpack_from(data)
    payload = data[HEADER.size :]
    if len(payload) != length:
        raise Damage(f"{len(payload)} bytes of a payload of {length}")
    check(payload, crc)
    return payload, wanted


async def read_message(reader: asyncio.StreamReader) -> tuple[bytes, int]:
    """Read one message of a stream, as `split`."""
    length, wanted, crc = HEADER.unpack(await reader.readexactly(HEADER.size))
    if length > LIMIT:
        raise Damage(f"a header of {length} bytes")
    payload = await reader.readexactly(length)
    check(payload, crc)
    return payload, wanted


@dataclass
class Account:
    """What a process counted, to be compared at the end."""

    counts: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, number: int = 1) -> None:
        self.counts[name] += number

    def error(self, where: str, exc: BaseException) -> None:
        """Count what must not happen."""
        self.errors[f"{where}: {type(exc).__name__}: {exc}"[:200]] += 1

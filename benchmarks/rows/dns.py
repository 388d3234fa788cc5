"""Rows of suite *dns*: lookups, one after the other."""

from __future__ import annotations

import asyncio
import socket


async def numeric(rounds: int) -> None:
    """An IPv4 address, as clients give it."""
    loop = asyncio.get_running_loop()
    for _ in range(rounds):
        await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)


async def numeric_ipv6(rounds: int) -> None:
    """An IPv6 address, the port in digits."""
    loop = asyncio.get_running_loop()
    for _ in range(rounds):
        await loop.getaddrinfo("2001:db8::1", "80", type=socket.SOCK_STREAM)


async def numeric_zone(rounds: int) -> None:
    """A link-local address, whose zone the C library asks the kernel for."""
    loop = asyncio.get_running_loop()
    for _ in range(rounds):
        await loop.getaddrinfo("fe80::1%1", 80, type=socket.SOCK_STREAM)


async def numeric_name(rounds: int) -> None:
    """An address back into text."""
    loop = asyncio.get_running_loop()
    flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    for _ in range(rounds):
        await loop.getnameinfo(("127.0.0.1", 80), flags)


async def localhost(rounds: int) -> None:
    """A name from the hosts file, which takes a thread."""
    loop = asyncio.get_running_loop()
    for _ in range(rounds):
        await loop.getaddrinfo("localhost", 80, family=socket.AF_INET)

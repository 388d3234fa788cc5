"""Resolve host names with aiodns (c-ares) instead of threads.

    pip install aiodns
    python examples/resolver_aiodns.py HOST...

AresResolver is all an application needs: it has the two coroutine methods that
loop.set_resolver() takes. See docs/dns.md.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import aiodns
import pycares

import hotloop

# c-ares has codes of its own; asyncio's callers expect those of socket.gaierror.
EAI_OF_ARES = {
    aiodns.error.ARES_ENODATA: socket.EAI_NONAME,
    aiodns.error.ARES_ENOTFOUND: socket.EAI_NONAME,
    aiodns.error.ARES_EBADNAME: socket.EAI_NONAME,
    aiodns.error.ARES_EBADFLAGS: socket.EAI_BADFLAGS,
    aiodns.error.ARES_EBADFAMILY: socket.EAI_FAMILY,
    aiodns.error.ARES_ESERVICE: socket.EAI_SERVICE,
    aiodns.error.ARES_ENOMEM: socket.EAI_MEMORY,
    aiodns.error.ARES_ETIMEOUT: socket.EAI_AGAIN,
    aiodns.error.ARES_ECONNREFUSED: socket.EAI_AGAIN,
    aiodns.error.ARES_ESERVFAIL: socket.EAI_AGAIN,
}

# c-ares finds addresses; what kinds of sockets they serve is the same for all.
PROTOCOLS = {
    socket.SOCK_STREAM: socket.IPPROTO_TCP,
    socket.SOCK_DGRAM: socket.IPPROTO_UDP,
    socket.SOCK_RAW: socket.IPPROTO_IP,
}

# The flags of getnameinfo() have other numbers in c-ares.
NAME_FLAGS = {
    socket.NI_NUMERICHOST: pycares.ARES_NI_NUMERICHOST,
    socket.NI_NUMERICSERV: pycares.ARES_NI_NUMERICSERV,
    socket.NI_NOFQDN: pycares.ARES_NI_NOFQDN,
    socket.NI_NAMEREQD: pycares.ARES_NI_NAMEREQD,
    socket.NI_DGRAM: pycares.ARES_NI_DGRAM,
}


def gaierror(exc: aiodns.error.DNSError) -> socket.gaierror:
    """The exception that socket.getaddrinfo() would raise."""
    code, text = exc.args[0], str(exc.args[-1])
    return socket.gaierror(EAI_OF_ARES.get(code, socket.EAI_FAIL), text)


def text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


class AresResolver:
    """What loop.set_resolver() takes, by c-ares."""

    def __init__(self, **options: Any) -> None:
        self._ares = aiodns.DNSResolver(loop=asyncio.get_running_loop(), **options)

    async def getaddrinfo(
        self, host: Any, port: Any, *, family: int, type: int, proto: int, flags: int
    ) -> list[Any]:
        """As socket.getaddrinfo()."""
        try:
            result = await self._ares.getaddrinfo(
                host,
                port=port,
                family=socket.AddressFamily(family),
                type=type,
                proto=proto,
                flags=flags,
            )
        except aiodns.error.DNSError as exc:
            raise gaierror(exc) from None
        kinds = [
            (kind, number)
            for kind, number in PROTOCOLS.items()
            if type in (0, kind) and proto in (0, number)
        ]
        return [
            (
                socket.AddressFamily(node.family),
                kind,
                number,
                "",
                (text(node.addr[0]), *node.addr[1:]),
            )
            for node in result.nodes
            for kind, number in kinds
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        """As socket.getnameinfo()."""
        wanted = pycares.ARES_NI_LOOKUPHOST | pycares.ARES_NI_LOOKUPSERVICE
        for flag, number in NAME_FLAGS.items():
            wanted |= number if flags & flag else 0
        try:
            result = await self._ares.getnameinfo(sockaddr, wanted)
        except aiodns.error.DNSError as exc:
            raise gaierror(exc) from None
        return text(result.node), text(result.service or "")

    async def close(self) -> None:
        await self._ares.close()


async def main(hosts: list[str]) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, hotloop.Loop)
    resolver = AresResolver()
    loop.set_resolver(resolver.getaddrinfo, resolver.getnameinfo)
    try:
        for host in hosts:
            try:
                infos = await loop.getaddrinfo(host, 443, type=socket.SOCK_STREAM)
            except socket.gaierror as exc:
                print(f"{host}: {exc}")
            else:
                print(f"{host}:", ", ".join(info[4][0] for info in infos))
    finally:
        loop.set_resolver()
        await resolver.close()


if __name__ == "__main__":
    hotloop.run(main(sys.argv[1:] or ["localhost"]))

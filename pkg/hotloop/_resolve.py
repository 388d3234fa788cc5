"""Name resolution: numeric addresses at once, a resolver of your own, or threads."""

from __future__ import annotations

import socket
from asyncio.log import logger
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from . import _core

AddrInfo = tuple[int, int, int, str, Any]
GetAddrInfo = Callable[..., Awaitable[Iterable[AddrInfo]]]
GetNameInfo = Callable[..., Awaitable[tuple[str, str]]]

NUMERIC_NAMES = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV

# Programs (and tests) replace these functions to steer what asyncio resolves; then
# the replacements are called.
_getaddrinfo = socket.getaddrinfo
_getnameinfo = socket.getnameinfo


class ResolvingLoop(_core.Loop):
    """The part of Loop that turns names into addresses and back."""

    __slots__ = ("_resolve_address", "_resolve_name")

    def __init__(self, *args: Any) -> None:
        self._resolve_name: GetAddrInfo | None = None
        self._resolve_address: GetNameInfo | None = None
        super().__init__(*args)

    def set_resolver(
        self,
        getaddrinfo: GetAddrInfo | None = None,
        getnameinfo: GetNameInfo | None = None,
    ) -> None:
        """Resolve by these coroutine functions instead of threads.

        They are called as loop.getaddrinfo() and loop.getnameinfo() are, every
        argument given, and return or raise what those do; see docs/dns.md. None, the
        default of both, stands for asyncio's way: the socket module's function in the
        default executor. Numeric addresses never get to a resolver.

        Raise TypeError for what is not callable.
        """
        for function in (getaddrinfo, getnameinfo):
            if function is not None and not callable(function):
                raise TypeError(f"a resolver must be callable, not {function!r}")
        self._resolve_name = getaddrinfo
        self._resolve_address = getnameinfo

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """Resolve a host and a port; as socket.getaddrinfo(), without blocking.

        Numeric addresses take no thread. Raise socket.gaierror.
        """
        self._check_closed()
        resolver = self._resolve_name
        if socket.getaddrinfo is _getaddrinfo and not (self._debug and not resolver):
            infos = self._numeric_addrinfo(host, port, family, type, proto, flags)
            if infos is not None:
                return infos
        if resolver is None:
            return await super().getaddrinfo(
                host, port, family=family, type=type, proto=proto, flags=flags
            )
        start = self.time()
        found = list(
            await resolver(
                host, port, family=family, type=type, proto=proto, flags=flags
            )
        )
        if self._debug:
            self._log_resolved(f"{host}:{port!r}", self.time() - start, found)
        return found

    def _log_resolved(self, asked: str, seconds: float, found: list[AddrInfo]) -> None:
        slow = seconds >= self.slow_callback_duration
        log = logger.info if slow else logger.debug
        log(f"Getting address info {asked} took {seconds * 1e3:.3f}ms: {found!r}")

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> tuple[str, str]:
        """Resolve an address; as socket.getnameinfo(), without blocking.

        With NI_NUMERICHOST and NI_NUMERICSERV it takes no thread. Raise
        socket.gaierror, OSError for an address of the wrong shape.
        """
        self._check_closed()
        if (
            isinstance(flags, int)
            and flags & NUMERIC_NAMES == NUMERIC_NAMES
            and socket.getnameinfo is _getnameinfo
        ):
            return socket.getnameinfo(sockaddr, flags)
        if self._resolve_address is not None:
            return await self._resolve_address(sockaddr, flags)
        return await super().getnameinfo(sockaddr, flags)

    async def _ensure_resolved(
        self,
        address: Any,
        *,
        family: int = 0,
        type: int = socket.SOCK_STREAM,
        proto: int = 0,
        flags: int = 0,
        loop: Any,
    ) -> Any:
        infos = self._numeric_resolved(address, family, type, proto)
        if infos is not None:
            return infos
        return await super()._ensure_resolved(
            address, family=family, type=type, proto=proto, flags=flags, loop=loop
        )

"""Client connections: a short way for the common ones, asyncio's for the rest.

The standard library's create_connection() stays in charge of what is tried, in which
order and with which errors. What stands in front are its two halves: connecting one
socket, and making the transport. Between them a Connector of the core takes the place
of the Python socket, which a plain connection never needs.
"""

from __future__ import annotations

import asyncio
import asyncio.base_events
import contextvars
import functools
import inspect
import os
import socket
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from . import _core
from ._sockets import STREAM_METHODS, Socket, genuine, keeps
from ._tls import TLSLoop, replaced

# Replaced by programs (and tests) to see or refuse connections, as is the module in the
# eyes of asyncio: then the connections are made through the replacements.
_base_events: Any = asyncio.base_events
_connect = genuine("connect")

_Stock = TypeVar("_Stock", bound=Callable[..., Any])
_P = TypeVar("_P", bound=asyncio.BaseProtocol)

_create_connection = asyncio.SelectorEventLoop.create_connection
# Those whose None says nothing; a family or protocol of None is an error.
_OPTIONS = frozenset(inspect.signature(_create_connection).parameters)
_OPTIONS -= {"family", "proto"}

_SEAMS = (
    "sock_connect",
    "_connect_sock",
    "_create_connection_transport",
    "_ensure_resolved",
    "_make_socket_transport",
    "_make_ssl_transport",
)


def _keeps_seams(cls: type) -> bool:
    """Are the methods that the short way leaves out those of asyncio or ours?"""
    owners = (next(c for c in cls.__mro__ if name in vars(c)) for name in _SEAMS)
    return all(c.__module__.split(".")[0] in ("asyncio", "hotloop") for c in owners)


def _tls_arguments(
    ssl: Any,
    server_hostname: str | None,
    server_side: bool = False,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    context: Any = None,
) -> dict[str, Any]:
    """Those of TLSLoop._tls(), from the ones of _create_connection_transport()."""
    return {
        "sslcontext": None if isinstance(ssl, bool) else ssl,
        "server_side": server_side,
        "server_hostname": server_hostname,
        "ssl_handshake_timeout": ssl_handshake_timeout,
        "ssl_shutdown_timeout": ssl_shutdown_timeout,
    }


def _in_place_of(stock: _Stock) -> Callable[[Callable[..., Any]], _Stock]:
    """Give a method the signature and the declared type of the one it overrides."""
    wraps: Any = functools.wraps(stock)
    declared: Callable[[Callable[..., Any]], _Stock] = wraps
    return declared


class ConnectingLoop(TLSLoop):
    """The part of Loop that makes client connections."""

    __slots__ = ("_connects_directly",)

    def __init__(self, *args: Any) -> None:
        self._connects_directly = (
            _keeps_seams(type(self)) and Socket.__module__ == "socket"
        )
        super().__init__(*args)

    def _may_connect(self) -> bool:
        """Is nothing in place that wants to see asyncio's way of connecting?"""
        return (
            self._connects_directly
            and not self._debug
            and _base_events.socket is socket
            and socket.socket is Socket
            and Socket.connect is _connect
            and keeps(Socket, STREAM_METHODS)
        )

    async def _connector(
        self, family: int, kind: int, proto: int, address: Any
    ) -> _core.Connector | None:
        """Connect to a numeric address, or say that asyncio has to."""
        connector = None
        if self._may_connect():
            connector = self._connect(family, kind, proto, address)
            if connector is not None and connector.waiter is not None:
                await self._connecting(connector)
        return connector

    async def _connecting(self, connector: _core.Connector) -> None:
        waiter = connector.waiter
        try:
            if waiter is not None:
                await waiter
        except BaseException:
            connector.close()
            raise
        finally:
            del waiter

    async def _connected(
        self,
        connector: _core.Connector,
        protocol_factory: Callable[[], _P],
        context: contextvars.Context | None = None,
        tls: dict[str, Any] | None = None,
    ) -> tuple[asyncio.Transport, _P]:
        """Make the transport and wait until connection_made() was called.

        tls is None or the arguments of a TLS connection, whose waiter is told of the
        end of the handshake.
        """
        if sys.version_info >= (3, 15) and context is None:
            context = contextvars.copy_context()
        try:
            protocol = protocol_factory()
            waiter = self.create_future()
            if tls is None:
                transport: Any = self._finish_connect(
                    connector, protocol, waiter, context
                )
            else:
                transport = self._tls(protocol, waiter=waiter, **tls)
                self._finish_connect(connector, transport, None, context)
        except BaseException:
            connector.close()
            raise
        try:
            await waiter
        except BaseException:
            transport.close()
            raise
        finally:
            del waiter  # its exception has this frame
        return transport, protocol

    @_in_place_of(_create_connection)
    async def create_connection(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: Any = None,
        port: Any = None,
        **options: Any,
    ) -> Any:
        plain = not options or (
            _OPTIONS.issuperset(options)
            and all(option is None for option in options.values())
        )
        if plain and host is not None and port is not None and self._may_connect():
            connector = self._connect(0, socket.SOCK_STREAM, 0, (host, port))
            if connector is not None:
                if connector.waiter is not None:
                    await self._connecting(connector)
                return await self._connected(connector, protocol_factory)
        return await super().create_connection(protocol_factory, host, port, **options)

    async def _connect_sock(
        self, exceptions: Any, addr_info: Any, local_addr_infos: Any = None
    ) -> Any:
        try:
            if local_addr_infos is None:
                family, kind, proto, _, address = addr_info
                try:
                    connector = await self._connector(family, kind, proto, address)
                except OSError as exc:
                    exceptions.append([exc])
                    raise
                if connector is not None:
                    return connector
            return await super()._connect_sock(exceptions, addr_info, local_addr_infos)
        finally:
            del exceptions  # they hold this frame

    async def _create_connection_transport(
        self,
        sock: Any,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        ssl: Any,
        server_hostname: str | None,
        *args: Any,
        context: contextvars.Context | None = None,
        **kwargs: Any,
    ) -> Any:
        if context is not None:
            kwargs["context"] = context
        if not isinstance(sock, _core.Connector):
            return await super()._create_connection_transport(
                sock, protocol_factory, ssl, server_hostname, *args, **kwargs
            )
        tls = None
        if ssl and replaced():
            return await super()._create_connection_transport(
                sock.socket(), protocol_factory, ssl, server_hostname, *args, **kwargs
            )
        if ssl:
            tls = _tls_arguments(ssl, server_hostname, *args, **kwargs)
        return await self._connected(sock, protocol_factory, context, tls)

    async def create_unix_connection(
        self,
        protocol_factory: Callable[[], _P],
        path: Any = None,
        *,
        ssl: Any = None,
        sock: socket.socket | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> tuple[asyncio.Transport, _P]:
        """Connect to a Unix stream socket; return (transport, protocol)."""
        if (
            path is not None
            and not ssl
            and sock is None
            and server_hostname is None
            and ssl_handshake_timeout is None
            and ssl_shutdown_timeout is None
        ):
            path = os.fspath(path)
            connector = await self._connector(
                socket.AF_UNIX, socket.SOCK_STREAM, 0, path
            )
            if connector is not None:
                return await self._connected(connector, protocol_factory)
        return await super().create_unix_connection(
            protocol_factory,
            path,
            ssl=ssl,
            sock=sock,
            server_hostname=server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )

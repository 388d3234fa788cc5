"""TLS: the core's SSLTransport where asyncio has its SSLProtocol."""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import contextvars
import functools
import socket
from typing import IO, TYPE_CHECKING, Any, cast

from . import _core
from ._resolve import ResolvingLoop

if TYPE_CHECKING:
    import ssl
else:
    try:
        import ssl
    except ImportError:  # a Python that was built without
        ssl = None

# What a program puts in the place of asyncio's class, or of a method of it, is used,
# as asyncio would.
_sslproto: Any = asyncio.sslproto
_SSLProtocol = _sslproto.SSLProtocol
_METHODS = dict(vars(_SSLProtocol))


def is_ssl_socket(sock: Any) -> bool:
    return ssl is not None and isinstance(sock, ssl.SSLSocket)


def replaced() -> bool:
    """Is TLS up to asyncio, as far as there is any?

    Because a program has put something in the place of asyncio's SSLProtocol, or
    because without the ssl module there is nothing but asyncio's errors.
    """
    if ssl is None:
        return True
    return _sslproto.SSLProtocol is not _SSLProtocol or any(
        value is not _METHODS.get(name) for name, value in vars(_SSLProtocol).items()
    )


def _replay(protocol: Any, tls: _core.SSLTransport) -> None:
    """What a StreamReader has of the peer's handshake belongs to TLS.

    Nothing that came in the clear may pass for data that came encrypted.
    """
    if isinstance(protocol, asyncio.StreamReaderProtocol):
        reader: Any = getattr(protocol, "_stream_reader", None)
        if reader is not None and reader._buffer:
            data = bytes(reader._buffer)
            reader._buffer.clear()  # may raise, with nothing done yet
            tls._feed(data)


class TLSLoop(ResolvingLoop):
    """The part of Loop that makes TLS connections."""

    __slots__ = ()

    def _tls(
        self,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext | None,
        waiter: Any,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        call_connection_made: bool = True,
    ) -> _core.SSLTransport:
        """Make the protocol that stands between a transport and protocol."""
        if not sslcontext:
            sslcontext = _sslproto._create_transport_context(
                server_side, server_hostname
            )
        return self._make_tls(
            protocol,
            sslcontext,
            waiter,
            server_side,
            server_hostname,
            call_connection_made,
            ssl_handshake_timeout,
            ssl_shutdown_timeout,
        )

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext | None,
        waiter: Any = None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        extra: dict[str, Any] | None = None,
        server: asyncio.AbstractServer | None = None,
        context: contextvars.Context | None = None,
        **timeouts: Any,
    ) -> asyncio.Transport:
        self._ensure_fd_no_transport(rawsock)
        make = self._tls
        if replaced():
            make = functools.partial(_sslproto.SSLProtocol, self)
        tls = make(
            protocol,
            sslcontext,
            waiter,
            server_side=server_side,
            server_hostname=server_hostname,
            **timeouts,
        )
        self._make_socket_transport(
            rawsock, tls, extra=extra, server=server, context=context
        )
        # There is one: nothing can have been lost yet.
        return cast("asyncio.Transport", tls._app_transport)

    async def start_tls(
        self,
        transport: Any,
        protocol: Any,
        sslcontext: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> asyncio.Transport | None:
        """Upgrade a transport to TLS; return the transport to use from now on.

        As asyncio's: None if the connection was closed meanwhile. What a StreamReader
        has buffered goes to TLS, on both sides: it is a part of the handshake, or an
        error.
        """
        if replaced():
            stock: Any = super()
            upgraded: asyncio.Transport | None = await stock.start_tls(
                transport,
                protocol,
                sslcontext,
                server_side=server_side,
                server_hostname=server_hostname,
                ssl_handshake_timeout=ssl_handshake_timeout,
                ssl_shutdown_timeout=ssl_shutdown_timeout,
            )
            return upgraded
        if not isinstance(sslcontext, ssl.SSLContext):
            raise TypeError(
                f"sslcontext is expected to be an instance of ssl.SSLContext, "
                f"got {sslcontext!r}"
            )
        if not getattr(transport, "_start_tls_compatible", False):
            raise TypeError(f"transport {transport!r} is not supported by start_tls()")
        waiter = self.create_future()
        tls = self._tls(
            protocol,
            sslcontext,
            waiter,
            server_side=server_side,
            server_hostname=server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
            call_connection_made=False,
        )
        # Nothing may arrive before connection_made() has begun the handshake.
        was_reading = transport.is_reading()
        transport.pause_reading()
        try:
            _replay(protocol, tls)
        except BaseException:
            tls.abort()  # it never had a connection
            if was_reading:
                transport.resume_reading()
            raise
        transport.set_protocol(tls)
        made = self.call_soon(tls.connection_made, transport)
        resumed = self.call_soon(transport.resume_reading)
        try:
            await waiter
        except BaseException:
            transport.close()
            made.cancel()
            resumed.cancel()
            raise
        finally:
            del waiter  # its exception has this frame
        return tls._app_transport

    async def _sendfile_tls(
        self,
        transp: _core.SSLTransport,
        file: IO[bytes],
        offset: int,
        count: int | None,
    ) -> int:
        """Send a file through a connection whose data the kernel encrypts.

        As through a plain transport, but for what is written meanwhile: it follows
        the file, and close() stops that.
        """
        below = transp._transport
        empty = transp._begin_sendfile()
        reading = transp.is_reading()
        transp.pause_reading()
        cancelled = _cancellations()
        lent = ended = False
        try:
            await empty
            below._lend_socket(True)
            lent = True
            sock = below._sock
            if sock is None:
                raise ConnectionError("Connection closed by peer")
            sending = self.sock_sendfile(sock, file, offset, count, fallback=False)
            return await transp._sendfile_waits(self.create_task(sending))
        except asyncio.CancelledError:
            ended = _cancellations() == cancelled
            raise
        finally:
            if lent:
                below._lend_socket(False)
            if reading:
                transp.resume_reading()
            if transp._end_sendfile() and ended:
                raise ConnectionError("Connection closed by peer") from None


def _cancellations() -> int:
    """How often the running task has been cancelled, whatever it made of that."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def serve_options(
    sslcontext: ssl.SSLContext | None, args: tuple[Any, ...], options: dict[str, Any]
) -> tuple[Any, Any, Any] | None:
    """The last argument of Loop._serve(), from those of _start_serving()."""
    if not sslcontext:
        return None
    handshake, shutdown = (*args, None, None)[:2]
    return (
        sslcontext,
        options.get("ssl_handshake_timeout", handshake),
        options.get("ssl_shutdown_timeout", shutdown),
    )

"""Loop: the C core in front of the running interpreter's selector loop."""

from __future__ import annotations

import asyncio
import asyncio.base_events
import asyncio.events
import concurrent.futures
import contextlib
import contextvars
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from . import _children, _core, _fork, _release  # noqa: F401  # tells the core
from ._executor import hand_over
from ._insight import InsightLoop, wishes
from ._selector import CoreSelector
from ._sockets import (
    DATAGRAM_METHODS,
    LISTENER_METHODS,
    STREAM_METHODS,
    Socket,
    genuine,
    is_plain,
    keeps,
)
from ._tls import is_ssl_socket, replaced, serve_options

if TYPE_CHECKING:
    import ssl

    from . import control

_CoreLoop = _core.Loop
_SockWait = _core.SockWait
_recv = genuine("recv")
_recv_into = genuine("recv_into")
_recvfrom = genuine("recvfrom")
_recvfrom_into = genuine("recvfrom_into")
_send = genuine("send")
_sendto = genuine("sendto")
_connect = genuine("connect")
_accept = genuine("accept")
_StockLoop: Any = asyncio.SelectorEventLoop
_T = TypeVar("_T")
_P = TypeVar("_P", bound=asyncio.BaseProtocol)
_Ts = TypeVarTuple("_Ts")


class Loop(InsightLoop, asyncio.SelectorEventLoop):
    """An asyncio event loop whose hot paths are in C, over libuv.

    What the core does not override is the standard library's own selector loop,
    so that every method, error and corner is that of the running Python.
    """

    # The attributes that asyncio's loop classes keep on self. In slots they leave
    # the instance without a dict, so that the interpreter can specialise calls of
    # loop methods. A name missing here lands in the dict, which is only slower.
    __slots__ = (
        "_asyncgens",
        "_asyncgens_shutdown_called",
        "_clock_resolution",
        "_control",
        "_coroutine_origin_tracking_enabled",
        "_coroutine_origin_tracking_saved_depth",
        "_csock",
        "_current_handle",
        "_default_executor",
        "_exception_handler",
        "_executor_shutdown_called",
        "_internal_fds",
        "_old_agen_hooks",
        "_selector",
        "_signal_handlers",
        "_ssock",
        "_timer_cancelled_count",
        "_transports",
        "_unix_server_sockets",
        "_watcher",
    )

    _ssock: socket.socket | None
    _csock: socket.socket | None
    _control: control.Control | None

    def __init__(self) -> None:
        self._control = None
        try:
            insight = wishes()
        except ValueError:
            self._close_core()
            raise
        self._old_agen_hooks = None  # before 3.13 the inherited loop has none
        if self._inside_run:  # called again by a callback: this run goes on
            self._signal_handlers.clear()
            self._end_signals()
        super().__init__(CoreSelector(self))
        if self._inside_run:
            self._begin_signals()
        self._mark_internal(self._ssock)
        if _children.may_replace(getattr(self, "_watcher", None)):
            self._watcher = _children.ChildWatcher(self)
        _fork.track(self)
        self._grant(insight)
        if "HOTLOOP_CONTROL" in os.environ:
            from . import control

            control.serve_if_asked(self)

    # Running

    def run_forever(self) -> None:
        """Run until stop() is called."""
        # Checked first: a beginning that fails half way is undone below, a loop
        # that runs already must not be.
        self._check_closed()
        self._check_running()
        try:
            self._run_forever_setup()
            if type(self)._run_once is _CoreLoop._run_once:
                self._run()
            else:
                while True:
                    self._run_once()
                    if self._stopping:
                        break
        finally:
            self._run_forever_cleanup()

    if sys.version_info >= (3, 13):

        def _run_forever_setup(self) -> None:
            super()._run_forever_setup()
            self._begin_signals()

        def _run_forever_cleanup(self) -> None:
            try:
                self._end_signals()
            finally:
                super()._run_forever_cleanup()

    else:

        def _run_forever_setup(self) -> None:
            self._set_coroutine_origin_tracking(self._debug)
            self._old_agen_hooks = sys.get_asyncgen_hooks()
            self._thread_id = threading.get_ident()
            sys.set_asyncgen_hooks(
                firstiter=self._asyncgen_firstiter_hook,
                finalizer=self._asyncgen_finalizer_hook,
            )
            asyncio.events._set_running_loop(self)
            self._begin_signals()

        def _run_forever_cleanup(self) -> None:
            try:
                self._end_signals()
            finally:
                self._stopping = False
                self._thread_id = None
                asyncio.events._set_running_loop(None)
                self._set_coroutine_origin_tracking(False)
                if self._old_agen_hooks is not None:
                    sys.set_asyncgen_hooks(*self._old_agen_hooks)
                    self._old_agen_hooks = None

    def close(self) -> None:
        """Close the loop. It must not be running; closing twice is harmless."""
        if self.is_running() or self._inside_run:
            raise RuntimeError("Cannot close a running event loop")
        if self.is_closed():
            return
        try:
            if self._control is not None:
                self._control.close()
            if isinstance(self._watcher, _children.ChildWatcher):
                self._watcher.close()
            super().close()
        finally:
            self._close_core()

    # Signals

    def _begin_signals(self) -> None:
        # A signal ends the wait for I/O through the self-pipe: without that
        # Ctrl-C would wait for the next event.
        self._poll_sees_signals = self._csock is None
        if self._csock is None:
            return  # a forked child had no descriptors left for a pipe
        fd = self._csock.fileno()
        try:
            before = signal.set_wakeup_fd(fd)
        except ValueError:
            return  # not the main thread, which alone gets signals
        elsewhere = before not in (-1, fd)
        if elsewhere:
            signal.set_wakeup_fd(before)
        self._poll_sees_signals = elsewhere

    def _end_signals(self) -> None:
        self._poll_sees_signals = False
        if self._signal_handlers:
            return  # their signals arrive here between runs, too
        if self._csock is None:
            return
        try:
            now = signal.set_wakeup_fd(-1)
        except ValueError:
            return
        if now not in (-1, self._csock.fileno()):
            # It may have been closed meanwhile: then nobody listens there.
            with contextlib.suppress(OSError, ValueError):
                signal.set_wakeup_fd(now)

    def add_signal_handler(
        self, sig: int, callback: Callable[[*_Ts], object], *args: *_Ts
    ) -> None:
        """Call callback(*args) in the loop when the signal comes."""
        if (
            self._ssock is not None
            and threading.current_thread() is threading.main_thread()
        ):
            # A run sees signals that nobody handles in the loop, too: those that
            # came before are not for this handler.
            self._read_from_self()  # type: ignore[attr-defined]
        super().add_signal_handler(sig, callback, *args)
        self._handles_signals = True

    def remove_signal_handler(self, sig: int) -> bool:
        """Remove the handler of a signal; return True if there was one."""
        removed = super().remove_signal_handler(sig)
        self._handles_signals = bool(self._signal_handlers)
        # The last removal gives the wake-up descriptor back, which a running
        # loop needs.
        if removed and self.is_running():
            self._begin_signals()
        return removed

    # Priorities

    def create_priority_task(
        self, coro: Coroutine[Any, Any, _T], *, high: bool = True, **kwargs: Any
    ) -> asyncio.Task[_T]:
        """Schedule a coroutine as a task that goes before others; return the task.

        Each of its steps runs before all that is not urgent, and so does what it
        schedules: callbacks, timers, tasks, connections. With ``high`` false, an
        urgent task makes one that is not. Other arguments and errors are those of
        ``create_task()``.
        """
        before = self._set_urgent(high)
        try:
            return self.create_task(coro, **kwargs)
        finally:
            self._set_urgent(before)

    # Executors

    def run_in_executor(
        self, executor: Any, func: Callable[[*_Ts], _T], *args: *_Ts
    ) -> asyncio.Future[_T]:
        """Call func(*args) in an executor; return a future to await."""
        # Debug mode and a subclass's own methods get asyncio's way of it.
        if self._debug or type(self) is not Loop:
            self._count_job()
            return super().run_in_executor(executor, func, *args)
        self._check_closed()
        if executor is None:
            self._check_default_executor()
            executor = self._default_executor
            if executor is None:
                self._count_job()
                return super().run_in_executor(None, func, *args)
        if type(executor) is ThreadPoolExecutor:
            work = self._work(func, args)
            waiter = work.waiter
            if hand_over(executor, work):
                return waiter
        else:
            self._count_job()
        source = executor.submit(func, *args)
        if type(source) is concurrent.futures.Future and not source.done():
            return self._wrap_work(source)
        return asyncio.wrap_future(source, loop=self)

    # Child processes: from 3.14 on the inherited loop asks its _watcher itself

    if sys.version_info < (3, 14):

        async def _make_subprocess_transport(
            self, *args: Any, **kwargs: Any
        ) -> asyncio.SubprocessTransport:
            if _children.program_has_its_own():
                return await super()._make_subprocess_transport(*args, **kwargs)
            return await _children.make_transport(self, self._watcher, *args, **kwargs)

    # Forks

    def _after_fork(self) -> None:
        # In the child, which must not take what is meant for the parent, nor
        # touch what the parent watches.
        self._renew_poller()
        if self.is_closed():
            return
        self._close_self_pipe()
        self._make_self_pipe()
        self._mark_internal(self._ssock)
        # A run that began in the parent has lost its wake-up descriptor.
        self._poll_sees_signals = self.is_running()

    def _close_self_pipe(self) -> None:
        if self._ssock is not None:
            super()._close_self_pipe()

    # Descriptors and transports

    def _ensure_fd_no_transport(self, fd: Any) -> None:
        super()._ensure_fd_no_transport(fd)
        transport = self._core_transport(fd)
        if transport is not None:
            raise RuntimeError(
                f"File descriptor {fd!r} is used by transport {transport!r}"
            )

    def _make_socket_transport(  # type: ignore[override]  # the running Python's
        self, sock: Any, protocol: asyncio.BaseProtocol, *args: Any, **kwargs: Any
    ) -> asyncio.Transport:
        # What a program made of its socket, asyncio's transport calls.
        core = _CoreLoop if is_plain(sock, STREAM_METHODS) else _StockLoop
        return core._make_socket_transport(self, sock, protocol, *args, **kwargs)

    def _make_datagram_transport(  # type: ignore[override]
        self, sock: Any, protocol: asyncio.BaseProtocol, *args: Any, **kwargs: Any
    ) -> asyncio.DatagramTransport:
        core = _CoreLoop if is_plain(sock, DATAGRAM_METHODS) else _StockLoop
        return core._make_datagram_transport(self, sock, protocol, *args, **kwargs)

    def _start_serving(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        sock: socket.socket,
        sslcontext: ssl.SSLContext | None = None,
        server: asyncio.AbstractServer | None = None,
        backlog: int = 100,
        *args: Any,
        context: contextvars.Context | None = None,
        **kwargs: Any,
    ) -> None:
        direct = is_plain(sock, LISTENER_METHODS) and keeps(Socket, STREAM_METHODS)
        if sslcontext and (replaced() or not self._connects_directly):
            direct = False  # somebody wants to see asyncio's way
        if direct and not self._debug:
            if context is None and len(args) == 3:
                context = args[2]
            tls = serve_options(sslcontext, args, kwargs)
            self._serve(protocol_factory, sock, server, backlog, context, tls)
            return
        if context is not None:
            kwargs["context"] = context
        super()._start_serving(
            protocol_factory, sock, sslcontext, server, backlog, *args, **kwargs
        )

    async def create_datagram_endpoint(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], _P],
        local_addr: Any = None,
        remote_addr: Any = None,
        *,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        reuse_port: bool | None = None,
        allow_broadcast: bool | None = None,
        sock: socket.socket | None = None,
    ) -> tuple[asyncio.DatagramTransport, _P]:
        """Create a datagram endpoint, as asyncio does."""
        transport, protocol = await super().create_datagram_endpoint(
            protocol_factory,
            local_addr,
            remote_addr,
            family=family,
            proto=proto,
            flags=flags,
            reuse_port=reuse_port,
            allow_broadcast=allow_broadcast,
            sock=sock,
        )
        # A socket that was handed in may be shared with others, who would not
        # know what to do with datagrams that the kernel joined.
        if sock is None and isinstance(transport, _core.DatagramTransport):
            transport._join_segments(True)
        return transport, protocol

    async def _sendfile_native(
        self,
        transp: Any,
        file: IO[bytes],
        offset: int,
        count: int | None,
    ) -> int:
        if isinstance(transp, _core.SSLTransport):
            return await self._sendfile_tls(transp, file, offset, count)
        if not isinstance(transp, _core.SocketTransport):
            return await super()._sendfile_native(transp, file, offset, count)
        reading = transp.is_reading()
        transp.pause_reading()
        await transp._make_empty_waiter()
        transp._lend_socket(True)
        try:
            return await self.sock_sendfile(
                transp._sock, file, offset, count, fallback=False
            )
        finally:
            transp._lend_socket(False)
            transp._reset_empty_waiter()
            if reading:
                transp.resume_reading()

    # Sockets. The core makes the system call and, when that would block, gives a
    # SockWait to await. Whatever is unusual it leaves to the inherited method, and so
    # are sockets whose method a program replaced.

    async def sock_recv(self, sock: socket.socket, n: int) -> bytes:
        """Receive up to n bytes from a non-blocking socket.

        An empty result is the end of the stream. What is cancelled has received
        nothing. Raise OSError as socket.recv() does.
        """
        if Socket.recv is not _recv:
            return await super().sock_recv(sock, n)
        data = self._try_recv(sock, n)
        while type(data) is _SockWait:
            await data
            data = self._try_recv(sock, n)
        if data is NotImplemented:
            return await super().sock_recv(sock, n)
        return data

    async def sock_recv_into(self, sock: socket.socket, buf: Any) -> int:
        """Receive into a writable buffer; return how many bytes came.

        As socket.recv_into(); what is cancelled has received nothing.
        """
        if Socket.recv_into is not _recv_into:
            return await super().sock_recv_into(sock, buf)
        size = self._try_recv_into(sock, buf)
        while type(size) is _SockWait:
            await size
            size = self._try_recv_into(sock, buf)
        if size is NotImplemented:
            return await super().sock_recv_into(sock, buf)
        return size

    async def sock_recvfrom(
        self, sock: socket.socket, bufsize: int
    ) -> tuple[bytes, Any]:
        """Receive a datagram of up to bufsize bytes; return (bytes, address).

        As socket.recvfrom(); what is cancelled has received nothing.
        """
        if Socket.recvfrom is not _recvfrom:
            return await super().sock_recvfrom(sock, bufsize)
        pair = self._try_recvfrom(sock, bufsize)
        while type(pair) is _SockWait:
            await pair
            pair = self._try_recvfrom(sock, bufsize)
        if pair is NotImplemented:
            return await super().sock_recvfrom(sock, bufsize)
        return pair

    async def sock_recvfrom_into(
        self, sock: socket.socket, buf: Any, nbytes: int = 0
    ) -> tuple[int, Any]:
        """Receive a datagram into a writable buffer; return (size, address).

        nbytes is the most to receive, 0 the length of the buffer. As
        socket.recvfrom_into(); what is cancelled has received nothing.
        """
        size = nbytes
        if not size and not is_ssl_socket(sock):
            size = len(buf)
        if Socket.recvfrom_into is not _recvfrom_into:
            return await super().sock_recvfrom_into(sock, buf, size)
        pair = self._try_recvfrom_into(sock, buf, size)
        while type(pair) is _SockWait:
            await pair
            pair = self._try_recvfrom_into(sock, buf, size)
        if pair is NotImplemented:
            return await super().sock_recvfrom_into(sock, buf, size)
        return pair

    async def sock_sendall(self, sock: socket.socket, data: Any) -> None:
        """Send all of data, a bytes-like object, to a connected socket.

        On error or when cancelled, some of it may have been sent. Raise OSError
        as socket.send() does.
        """
        if Socket.send is not _send:
            return await super().sock_sendall(sock, data)
        rest = self._try_sendall(sock, data)
        try:
            if rest is NotImplemented:
                await super().sock_sendall(sock, data)
            elif rest is not None:
                await rest
        finally:
            rest = None  # it has the exception, which has this frame

    async def sock_sendto(self, sock: socket.socket, data: Any, address: Any) -> int:
        """Send a datagram to an address; return its size in bytes.

        As socket.sendto().
        """
        if Socket.sendto is not _sendto:
            return await super().sock_sendto(sock, data, address)
        size = self._try_sendto(sock, data, address)
        while type(size) is _SockWait:
            await size
            size = self._try_sendto(sock, data, address)
        if size is NotImplemented:
            return await super().sock_sendto(sock, data, address)
        return size

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect a non-blocking socket; names are resolved by getaddrinfo().

        Raise OSError when that fails.
        """
        if Socket.connect is not _connect:
            return await super().sock_connect(sock, address)  # replaced by a tool
        rest = self._try_connect(sock, address)
        try:
            if rest is NotImplemented:
                await super().sock_connect(sock, address)
            elif rest is not None:
                await rest
        finally:
            rest = None  # it has the exception, which has this frame

    async def sock_accept(self, sock: socket.socket) -> tuple[socket.socket, Any]:
        """Accept a connection; return (socket, address).

        The new socket is non-blocking and not inheritable. What is cancelled has
        accepted nothing. Raise OSError as socket.accept() does.
        """
        if Socket.accept is not _accept:
            return await super().sock_accept(sock)
        pair = self._try_accept(sock)
        while type(pair) is _SockWait:
            await pair
            pair = self._try_accept(sock)
        if pair is NotImplemented:
            return await super().sock_accept(sock)
        return pair

    def _sock_sendfile_native_impl(
        self,
        fut: asyncio.Future[int],
        registered_fd: int | None,
        sock: socket.socket,
        fileno: int,
        offset: int,
        count: int | None,
        blocksize: int,
        total_sent: int,
    ) -> None:
        if (
            registered_fd is not None
            or total_sent
            or not self._try_sendfile(fut, sock, fileno, offset, count, blocksize)
        ):
            super()._sock_sendfile_native_impl(
                fut, registered_fd, sock, fileno, offset, count, blocksize, total_sent
            )

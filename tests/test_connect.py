"""Client connections: what is tried, with which errors, and what is left behind."""

# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import asyncio
import contextvars
import errno
import os
import pathlib
import socket
import sys
from typing import Any

import pytest

from servers import Echo, Keeper, leave, serve, stop, unused_port, visit
from support import (
    PY,
    Recorder,
    run_script,
    settle,
    turns,
    until,
)

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("VAR", default="-")


@pytest.fixture
def path(tmp_path: pathlib.Path) -> str:
    return str(tmp_path / "s")


HAS_IPV6 = True
try:
    unused_port(socket.AF_INET6, "::1")
except OSError:
    HAS_IPV6 = False


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "localhost"])
async def test_facts(loop: Any, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if family == socket.AF_INET6 and not HAS_IPV6:
        pytest.skip("no IPv6")
    keeper = Keeper()
    where = {"::1": "::1", "::ffff:127.0.0.1": "::"}.get(host, "127.0.0.1")
    server = await loop.create_server(keeper, where, 0, family=family)
    if where == "::":
        await stop(server)
        sock = socket.socket(socket.AF_INET6)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((where, 0))
        server = await loop.create_server(keeper, sock=sock)
    port = server.sockets[0].getsockname()[1]
    transport, protocol = await loop.create_connection(Recorder, host, port)
    assert protocol.events == ["made"] and protocol.transport is transport
    sock = transport.get_extra_info("socket")
    assert (sock.family, sock.type, sock.proto) == (family, socket.SOCK_STREAM, 6)
    assert sock.gettimeout() == 0 and sock.get_inheritable() is False
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    assert transport.get_extra_info("peername") == sock.getpeername()
    assert transport.get_extra_info("sockname") == sock.getsockname()
    await keeper.connected()
    other = keeper.protocols[0].transport
    assert other.get_extra_info("peername") == sock.getsockname()
    transport.close()
    await protocol.closed
    assert transport.get_extra_info("peername")[1] == port
    assert transport.get_extra_info("sockname")[1] > 0
    await keeper.closed()
    await stop(server)


async def test_address_that_stands_for_another(loop: Any) -> None:
    """Connecting to 0.0.0.0 reaches this machine, and the peer says so."""
    server, (_, port) = await serve(Echo)
    transport, protocol = await loop.create_connection(Recorder, "0.0.0.0", port)
    assert transport.get_extra_info("peername") == ("127.0.0.1", port)
    transport.close()
    await protocol.closed
    await stop(server)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"local_addr": None, "ssl": None},
        {"family": socket.AF_INET},
        {"proto": socket.IPPROTO_TCP},
        {"flags": socket.AI_NUMERICHOST},
        {"local_addr": ("127.0.0.1", 0)},
        {"local_addr": ("127.0.0.2", 0)},
        {"happy_eyeballs_delay": 0.25},
        {"happy_eyeballs_delay": 0.25, "interleave": 2},
        {"interleave": 1},
    ],
    ids=str,
)
async def test_options(loop: Any, options: Any) -> None:
    server, address = await serve(Echo)
    transport, protocol = await loop.create_connection(Recorder, *address, **options)
    local = options.get("local_addr")
    if local:
        assert transport.get_extra_info("sockname")[0] == local[0]
    transport.write(b"hello")
    await until(lambda: protocol.data == b"hello")
    transport.close()
    await protocol.closed
    await stop(server)
    await settle()


@pytest.mark.parametrize("kind", ["str", "bytes", "digits"])
async def test_ports_and_hosts_of_other_types(loop: Any, kind: str) -> None:
    server, (host, port) = await serve(Echo)
    args: Any = {
        "str": (host, str(port)),
        "bytes": (host.encode(), port),
        "digits": (host, str(port).encode()),
    }[kind]
    await leave((await asyncio.open_connection(*args))[1])
    await stop(server)


async def test_refused(loop: Any) -> None:
    port = unused_port()
    with pytest.raises(ConnectionRefusedError) as caught:
        await loop.create_connection(Recorder, "127.0.0.1", port)
    assert caught.value.errno == errno.ECONNREFUSED
    assert caught.value.strerror == f"Connect call failed ('127.0.0.1', {port})"
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


@pytest.mark.skipif(not HAS_IPV6, reason="no IPv6")
async def test_refused_by_ipv6(loop: Any) -> None:
    port = unused_port(socket.AF_INET6, "::1")
    for options in ({}, {"family": socket.AF_INET6}):
        with pytest.raises(ConnectionRefusedError) as caught:
            await loop.create_connection(Recorder, "::1", port, **options)
        assert caught.value.strerror == f"Connect call failed ('::1', {port}, 0, 0)"


async def test_unreachable(loop: Any) -> None:
    """What connect() refuses at once is worded by the system."""
    with pytest.raises(OSError) as caught:
        await loop.create_connection(Recorder, "255.255.255.255", 9)
    code = caught.value.errno
    assert code in (errno.EACCES, errno.ENETUNREACH, errno.EHOSTUNREACH)
    assert caught.value.strerror == os.strerror(code)


async def test_port_out_of_range(loop: Any) -> None:
    for port in (65536, -1, 1 << 70):
        with pytest.raises(OverflowError):
            await loop.create_connection(Recorder, "127.0.0.1", port)
    with pytest.raises(OSError):
        await loop.create_connection(Recorder, "127.0.0.1", None)


async def test_several_addresses(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server, (_, port) = await serve(Echo)
    dead = unused_port()

    def info(number: int, host: str = "127.0.0.1") -> Any:
        return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, number))

    found: list[Any] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: list(found))
    found[:] = [info(dead), info(port)]
    await leave((await asyncio.open_connection("name.test", 1))[1])
    found[:] = [info(dead), info(dead)]
    with pytest.raises(ConnectionRefusedError, match="Connect call failed"):
        await asyncio.open_connection("name.test", 1)
    found[:] = [info(dead), info(dead, "127.0.0.2")]
    with pytest.raises(OSError, match=r"Multiple exceptions: .*, .*127\.0\.0\.2"):
        await asyncio.open_connection("name.test", 1)
    if PY >= (3, 12):
        with pytest.raises(ExceptionGroup) as caught:
            await asyncio.open_connection("name.test", 1, all_errors=True)
        assert [type(e) for e in caught.value.exceptions] == [
            ConnectionRefusedError,
            ConnectionRefusedError,
        ]
    found[:] = []
    with pytest.raises(OSError, match=r"getaddrinfo\(\) returned empty list"):
        await asyncio.open_connection("name.test", 1)
    await stop(server)


async def test_order_and_context(loop: Any) -> None:
    """connection_made() before the return, in a copy of the caller's context."""
    server, address = await serve(Echo)
    seen: list[str] = []

    class Sees(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            seen.append(f"made {VAR.get()}")
            VAR.set("set in made")

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            seen.append(f"data {VAR.get()}")

        def connection_lost(self, exc: BaseException | None) -> None:
            super().connection_lost(exc)
            seen.append(f"lost {VAR.get()}")

    VAR.set("caller")
    loop.call_soon(seen.append, "earlier callback")
    transport, protocol = await loop.create_connection(Sees, *address)
    seen.append("returned")
    transport.write(b"x")
    await until(lambda: protocol.data)
    transport.close()
    await protocol.closed
    later = "set in made" if PY >= (3, 15) else "caller"
    assert seen == [
        *("earlier callback", "made caller", "returned"),
        *(f"data {later}", f"lost {later}"),
    ]
    await stop(server)


async def test_given_socket(loop: Any) -> None:
    server, address = await serve(Echo)
    sock = socket.create_connection(address)
    transport, protocol = await loop.create_connection(Recorder, sock=sock)
    transport.write(b"given")
    await until(lambda: protocol.data == b"given")
    assert transport.get_extra_info("socket").fileno() == sock.fileno()
    transport.close()
    await protocol.closed
    await turns(2)
    assert sock.fileno() == -1
    await stop(server)


async def test_wrong_arguments(loop: Any) -> None:
    create = loop.create_connection
    with socket.socket() as sock, pytest.raises(ValueError, match="host/port and sock"):
        await create(Recorder, "127.0.0.1", 1, sock=sock)
    with pytest.raises(ValueError, match="host and port was not specified"):
        await create(Recorder)
    with pytest.raises(ValueError, match="server_hostname is only meaningful"):
        await create(Recorder, "127.0.0.1", 1, server_hostname="")
    with pytest.raises(ValueError, match="ssl_handshake_timeout is only meaningful"):
        await create(Recorder, "127.0.0.1", 1, ssl_handshake_timeout=1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
        await create(Recorder, "127.0.0.1", 1, nonsense=None)
    with pytest.raises(TypeError, match="protocol_factory"):
        await create()


@pytest.mark.parametrize("function", ["socket", "connect"])
async def test_replaced_sockets_are_used(
    loop: Any, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    """Tools that forbid or redirect connections replace parts of the module."""
    server, address = await serve(Echo)
    real = socket.socket
    seen = []

    class Watching(real):  # type: ignore[misc,valid-type]
        def connect(self, address: Any) -> None:
            seen.append(address)
            super().connect(address)

    if function == "socket":
        monkeypatch.setattr(socket, "socket", Watching)
    else:
        stock = real.connect

        def connect(self: Any, address: Any) -> None:
            seen.append(address)
            stock(self, address)

        monkeypatch.setattr(real, "connect", connect, raising=False)
    await visit(address)
    assert seen == [address]
    monkeypatch.undo()
    await stop(server)


def test_audit_hooks_are_shown_a_socket(loop_kind: str) -> None:
    out, _ = run_script(
        loop_kind,
        """
        import socket
        def hook(event, args):
            if event == "socket.connect":
                sock, address = args
                print(repr(sock.family), repr(sock.type), sock.proto)
                print(address == wanted, sock.fileno() >= 0)
                if refuse:
                    sock.close()
        async def main():
            global wanted, refuse
            refuse = False
            server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
            wanted = server.sockets[0].getsockname()
            sys.addaudithook(hook)
            _, writer = await asyncio.open_connection(*wanted)
            writer.close()
            refuse = True
            try:
                await asyncio.open_connection(*wanted)
            except OSError as exc:
                print(exc)
            server.close()
        run(main())
        """,
    )
    seen = f"{socket.AF_INET!r} {socket.SOCK_STREAM!r} 6\nTrue True\n"
    assert out == seen + seen + "[Errno 9] Bad file descriptor\n"


@pytest.mark.parametrize("where", ["class", "instance"])
def test_an_overridden_sock_connect_is_called(loop_kind: str, where: str) -> None:
    base = "hotloop.Loop" if loop_kind == "hotloop" else "asyncio.SelectorEventLoop"
    script = f"""
    class Loop({base}):
        async def sock_connect(self, sock, address):
            print("connects to", address[0])
            return await super().sock_connect(sock, address)

    async def main():
        loop = asyncio.get_running_loop()
        if {where == "instance"}:
            async def connect(sock, address):
                print("connects to", address[0])
                return await type(loop).sock_connect(loop, sock, address)
            loop.sock_connect = connect
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        transport, _ = await loop.create_connection(asyncio.Protocol, *address)
        transport.close()
        await asyncio.sleep(0.01)
        server.close()
        await server.wait_closed()

    factory = Loop if {where == "class"} else new_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    """
    out, _ = run_script(loop_kind, script)
    assert out == "connects to 127.0.0.1\n"


async def test_tls_over_numeric_hosts(loop: Any, tls: Any) -> None:
    server, address = await serve(Echo, ssl=tls[0])
    for options in ({}, {"happy_eyeballs_delay": 0.1}):
        transport, protocol = await loop.create_connection(
            Recorder, *address, ssl=tls[1], **options
        )
        transport.write(b"secret")
        await until(lambda p=protocol: p.data == b"secret")
        assert transport.get_extra_info("peername") == address
        transport.close()
        await protocol.closed
    await stop(server)
    await settle()


async def test_debug_mode(loop: Any) -> None:
    loop.set_debug(True)
    server, address = await serve(Echo)
    await visit(address)
    with pytest.raises(ConnectionRefusedError, match="Connect call failed"):
        await asyncio.open_connection("127.0.0.1", unused_port())
    await stop(server)
    loop.set_debug(False)


# Unix sockets


@pytest.mark.parametrize("kind", ["str", "bytes", "path"])
async def test_unix(loop: Any, path: str, kind: str) -> None:
    keeper = Keeper()
    server = await loop.create_unix_server(keeper, path)
    where: Any = {"str": path, "bytes": path.encode(), "path": pathlib.Path(path)}[kind]
    transport, protocol = await loop.create_unix_connection(Recorder, where)
    assert protocol.events == ["made"]
    sock = transport.get_extra_info("socket")
    assert (sock.family, sock.type, sock.proto) == (
        *(socket.AF_UNIX, socket.SOCK_STREAM, 0),
    )
    assert sock.gettimeout() == 0 and sock.get_inheritable() is False
    assert transport.get_extra_info("peername") == path
    assert transport.get_extra_info("sockname") == ""
    await keeper.connected()
    transport.close()
    await protocol.closed
    await keeper.closed()
    await stop(server)


async def test_unix_peer_has_the_name_it_was_bound_to(
    loop: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    server = await loop.create_unix_server(Echo, "s")
    _, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
    assert writer.get_extra_info("peername") == "s"
    await leave(writer)
    await stop(server)


async def test_unix_errors(loop: Any, path: str) -> None:
    create = loop.create_unix_connection
    with pytest.raises(FileNotFoundError) as caught:
        await create(Recorder, path)
    assert caught.value.strerror == os.strerror(errno.ENOENT)
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    with pytest.raises(ConnectionRefusedError) as refused:
        await create(Recorder, path)
    assert refused.value.strerror == os.strerror(errno.ECONNREFUSED)
    sock.close()
    with pytest.raises(OSError, match="too long"):
        await create(Recorder, "x" * 200)
    with pytest.raises((ValueError, OSError)):
        await create(Recorder, "a\0b" + path)
    with pytest.raises(TypeError):
        await create(Recorder, 5)
    with pytest.raises(ValueError, match="server_hostname is only meaningful"):
        await create(Recorder, path, server_hostname="x")
    with pytest.raises(ValueError, match="ssl_shutdown_timeout is only meaningful"):
        await create(Recorder, path, ssl_shutdown_timeout=1)
    with pytest.raises(ValueError, match="you have to pass server_hostname"):
        await create(Recorder, path, ssl=True)


@pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's")
@pytest.mark.parametrize("kind", [str, bytes])
async def test_unix_abstract_names(loop: Any, kind: Any) -> None:
    name = f"\0hotloop-connect-{os.getpid()}"
    server = await loop.create_unix_server(Echo, name)
    where = name if kind is str else name.encode()
    transport, protocol = await loop.create_unix_connection(Recorder, where)
    assert transport.get_extra_info("peername") == name.encode()
    transport.close()
    await protocol.closed
    await stop(server)


@pytest.mark.parametrize("option", ["family", "proto"])
async def test_numbers_that_are_none(loop: Any, option: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, pytest.raises(TypeError):
        await loop.create_connection(
            asyncio.Protocol, *listener.getsockname(), **{option: None}
        )

"""Datagram endpoints: what asyncio promises, on every kind of socket."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import gc
import os
import pathlib
import socket
import struct
import sys
import weakref
from typing import Any

import pytest

from datagrams import Echo, Recorder, address, adopt, endpoint, finish, udp_socket
from support import PY, run_script, turns, until

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


IPV6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")


async def test_echo(loop: Any) -> None:
    server, echo = await endpoint(Echo())
    client, recorder = await endpoint(remote_addr=address(server))
    client.sendto(b"one")
    client.sendto(bytearray(b"two"))
    client.sendto(memoryview(b"three"), address(server))
    await until(lambda: len(recorder.got) == 3)
    assert recorder.data == [b"one", b"two", b"three"]
    assert all(type(data) is bytes for data in recorder.data)
    assert {addr for _, addr in recorder.got} == {address(server)}
    assert {addr for _, addr in echo.got} == {address(client)}
    await finish(server, client)
    assert recorder.events == ["made", "lost"]
    assert recorder.lost == [None]


async def test_types(loop: Any, loop_kind: str) -> None:
    transport, protocol = await endpoint()
    assert isinstance(transport, asyncio.Transport)
    if PY >= (3, 12) or loop_kind == "hotloop":
        assert isinstance(transport, asyncio.DatagramTransport)
    assert transport.get_protocol() is protocol
    assert transport.max_size == 256 * 1024
    assert transport.is_reading() and not transport.is_closing()
    for call in (transport.write, transport.writelines):
        with pytest.raises(NotImplementedError):
            call(b"")
    await finish(transport)
    assert transport.get_protocol() is None


async def test_extra_info(loop: Any) -> None:
    server, _ = await endpoint()
    client, _ = await endpoint(remote_addr=address(server))
    sock = client.get_extra_info("socket")
    assert sock.type == socket.SOCK_DGRAM and sock.getpeername() == address(server)
    assert client.get_extra_info("peername") == address(server)
    assert server.get_extra_info("peername") is None
    assert server.get_extra_info("nothing", 7) == 7
    name = address(client)
    await finish(server, client)
    assert client.get_extra_info("peername") == address(server)
    assert address(client) == name


async def test_repr(loop: Any) -> None:
    transport, _ = await endpoint()
    fd = transport.get_extra_info("socket").fileno()
    text = repr(transport).replace("_Selector", "")
    assert text == (f"<DatagramTransport fd={fd} read=polling write=<idle, bufsize=0>>")
    transport.pause_reading()
    assert "read=idle" in repr(transport)
    transport.close()
    assert "Transport closing fd=" in repr(transport)
    await turns(2)
    text = repr(transport).replace("_Selector", "")
    assert text == f"<DatagramTransport closed fd={fd}>"


async def test_empty_datagrams(loop: Any) -> None:
    server, recorder = await endpoint()
    peer = udp_socket()
    peer.sendto(b"", address(server))
    await until(lambda: recorder.got)
    assert recorder.got == [(b"", peer.getsockname())]
    # asyncio sends them itself from 3.13 on.
    server.sendto(b"", peer.getsockname())
    server.sendto(b"end", peer.getsockname())
    await turns(2)
    wanted = [b"", b"end"] if PY >= (3, 13) else [b"end"]
    assert [peer.recv(10) for _ in wanted] == wanted
    peer.close()
    await finish(server)


@pytest.mark.parametrize("data", ["text", None, 7, [b"x"], (1, 2)])
async def test_wrong_data(loop: Any, data: Any) -> None:
    transport, _ = await endpoint()
    with pytest.raises(TypeError) as caught:
        transport.sendto(data, address(transport))
    assert str(caught.value) == (
        f"data argument must be a bytes-like object, not {type(data).__name__!r}"
    )
    await finish(transport)


async def test_another_address_than_the_remote_one(loop: Any) -> None:
    server, recorder = await endpoint()
    client, _ = await endpoint(remote_addr=address(server))
    host, port = address(server)
    client.sendto(b"equal", ("".join(host), port))
    with pytest.raises(ValueError) as caught:
        client.sendto(b"x", ("127.0.0.1", 1))
    assert str(caught.value) == (f"Invalid address: must be None or {address(server)}")
    await until(lambda: recorder.got)
    await finish(server, client)


WRONG = [
    ("name", TypeError),
    (None, TypeError),
    (("127.0.0.1",), TypeError),
    (("127.0.0.1", "80"), TypeError),
    (("127.0.0.1", 70000), OverflowError),
    (("127.0.0.1", -1), OverflowError),
    ((127, 80), TypeError),
    (("127.0.0.1\0", 80), (ValueError, TypeError)),
]


@pytest.mark.parametrize(("addr", "error"), WRONG)
async def test_wrong_addresses_are_fatal(
    loop: Any, reports: Any, addr: Any, error: Any
) -> None:
    transport, recorder = await endpoint()
    transport.sendto(b"x", addr)
    assert transport.is_closing()
    await turns(2)
    assert len(recorder.lost) == 1 and isinstance(recorder.lost[0], error)
    report = reports.one()
    assert report["message"] == "Fatal write error on datagram transport"
    assert report["exception"] is recorder.lost[0]
    assert report["transport"] is transport and report["protocol"] is recorder
    with udp_socket() as sock, pytest.raises(error) as caught:
        sock.sendto(b"x", addr)
    assert str(caught.value) == str(recorder.lost[0])


@pytest.mark.parametrize("before", [0, 1, 2])
async def test_memory_that_was_released(loop: Any, reports: Any, before: int) -> None:
    transport, recorder = await endpoint()
    for _ in range(before):
        transport.sendto(b"before", address(transport))
    view = memoryview(bytearray(b"gone"))
    view.release()
    if PY < (3, 13):
        with pytest.raises(ValueError):
            transport.sendto(view, address(transport))
        return await finish(transport)
    transport.sendto(view, address(transport))
    assert transport.is_closing()
    await turns(2)
    assert [type(error) for error in recorder.lost] == [ValueError]
    assert reports.one()["exception"] is recorder.lost[0]


async def test_a_name_that_is_not_found(loop: Any) -> None:
    transport, recorder = await endpoint()
    transport.sendto(b"x", ("no.such.host.invalid", 9))
    assert [type(exc) for exc in recorder.errors] == [socket.gaierror]
    assert not transport.is_closing()
    await finish(transport)


async def test_a_name_is_resolved(loop: Any) -> None:
    server, recorder = await endpoint()
    client, _ = await endpoint()
    client.sendto(b"first", address(server))
    client.sendto(b"deferred", address(server))
    client.sendto(b"by name", ("localhost", address(server)[1]))
    client.sendto(b"any", ("", address(server)[1]))
    await until(lambda: len(recorder.got) == 4)
    assert recorder.data == [b"first", b"deferred", b"by name", b"any"]
    await finish(server, client)


async def test_too_long_is_told_at_once(loop: Any) -> None:
    transport, recorder = await endpoint()
    transport.sendto(b"x" * 70000, address(transport))
    assert [exc.errno for exc in recorder.errors] == [errno.EMSGSIZE]
    transport.sendto(bytearray(70000), address(transport))
    assert len(recorder.errors) == 2
    assert not transport.is_closing()
    await finish(transport)


async def test_broadcast_without_permission(loop: Any) -> None:
    transport, recorder = await endpoint(local_addr=("0.0.0.0", 0))
    transport.sendto(b"x", ("255.255.255.255", 9))
    await turns(1)
    # EACCES, or where there is no such route at all.
    assert recorder.errors[0].errno in (errno.EACCES, errno.ENETUNREACH)
    assert not transport.is_closing()
    await finish(transport)


async def test_broadcast_on_the_loopback(loop: Any) -> None:
    server, recorder = await endpoint(local_addr=("0.0.0.0", 0))
    client, errors = await endpoint(local_addr=("127.0.0.1", 0), allow_broadcast=True)
    client.sendto(b"to all", ("127.255.255.255", address(server)[1]))
    await until(lambda: recorder.got or errors.errors)
    if not errors.errors:
        assert recorder.got == [(b"to all", address(client))]
    await finish(server, client)


async def test_multicast(loop: Any) -> None:
    group = "239.255.70.77"
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("", 0))
    own = socket.inet_aton("127.0.0.1")
    join = struct.pack("4s4s", socket.inet_aton(group), own)
    try:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, join)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own)
    except OSError as exc:
        sock.close()
        pytest.skip(f"no multicast here: {exc}")
    transport, recorder = await adopt(sock)
    port = address(transport)[1]
    for number in range(3):
        transport.sendto(b"%d" % number, (group, port))
    await until(lambda: len(recorder.got) == 3)
    assert recorder.data == [b"0", b"1", b"2"]
    await finish(transport)


@IPV6
async def test_ipv6_addresses(loop: Any) -> None:
    server, echo = await endpoint(Echo(), local_addr=("::1", 0))
    client, recorder = await endpoint(local_addr=("::1", 0))
    own = address(server)
    assert len(own) == 4
    for addr in (own, own[:2], own[:3], ("0:0:0:0:0:0:0:1", own[1], 0, 0)):
        client.sendto(b"x", addr)
    await until(lambda: len(recorder.got) == 4)
    assert {addr for _, addr in recorder.got} == {own}
    assert {addr for _, addr in echo.got} == {address(client)}
    await finish(server, client)


@IPV6
@LINUX
async def test_ipv6_scope(loop: Any) -> None:
    scope = next(
        (
            index
            for index, name in socket.if_nameindex()
            for line in pathlib.Path("/proc/net/if_inet6").read_text().splitlines()
            if line.split()[5] == name and line.startswith("fe80")
        ),
        None,
    )
    if scope is None:
        pytest.skip("no link-local address here")
    line = next(
        line
        for line in pathlib.Path("/proc/net/if_inet6").read_text().splitlines()
        if line.startswith("fe80") and int(line.split()[1], 16) == scope
    )
    host = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(line.split()[0]))
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.bind((host, 0, 0, scope))
    transport, recorder = await adopt(sock)
    own = address(transport)
    assert own[3] == scope
    transport.sendto(b"scoped", own)
    transport.sendto(b"by name", (f"{host}%{scope}", own[1]))
    await until(lambda: len(recorder.got) == 2)
    assert recorder.got == [(b"scoped", own), (b"by name", own)]
    await finish(transport)


@IPV6
async def test_an_ipv4_address_on_an_ipv6_socket(loop: Any) -> None:
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::", 0))
    transport, recorder = await adopt(sock)
    with udp_socket() as peer:
        peer.sendto(b"mapped", ("127.0.0.1", address(transport)[1]))
        await until(lambda: recorder.got)
        data, addr = recorder.got[0]
        assert data == b"mapped"
        assert addr == ("::ffff:127.0.0.1", peer.getsockname()[1], 0, 0)
        transport.sendto(b"back", addr)
        await turns(2)
        assert peer.recv(10) == b"back"
    await finish(transport)


async def test_unix_paths(loop: Any, tmp_path: pathlib.Path) -> None:
    names = [str(tmp_path / name) for name in ("server", "client")]
    server, echo = await endpoint(Echo(), local_addr=names[0], family=socket.AF_UNIX)
    client, recorder = await endpoint(
        local_addr=names[1], remote_addr=names[0], family=socket.AF_UNIX
    )
    nobody, _ = await endpoint(remote_addr=names[0], family=socket.AF_UNIX)
    client.sendto(b"with a name")
    await until(lambda: recorder.got)
    assert recorder.got == [(b"with a name", names[0])]
    assert echo.got == [(b"with a name", names[1])]
    echo.got.clear()
    server.set_protocol(quiet := Recorder())
    nobody.sendto(b"without")
    await until(lambda: quiet.got)
    assert quiet.got == [(b"without", None)]
    await finish(server, client, nobody)


@LINUX
async def test_unix_abstract_names(loop: Any) -> None:
    name = f"\0hotloop-test-{os.getpid()}"
    server, echo = await endpoint(Echo(), local_addr=name, family=socket.AF_UNIX)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
        peer.bind(b"\0hotloop-peer-%d" % os.getpid())
        peer.sendto(b"abstract", name)
        await until(lambda: echo.got)
        assert echo.got == [(b"abstract", b"\0hotloop-peer-%d" % os.getpid())]
        await turns(2)
        assert peer.recv(20) == b"abstract"
        server.sendto(b"1", f"\0hotloop-peer-{os.getpid()}")
        server.sendto(b"2", b"\0hotloop-peer-%d" % os.getpid())
        await turns(2)
        assert [peer.recv(20), peer.recv(20)] == [b"1", b"2"]
    await finish(server)


async def test_unix_errors(loop: Any, tmp_path: pathlib.Path) -> None:
    server, recorder = await endpoint(
        local_addr=str(tmp_path / "server"), family=socket.AF_UNIX
    )
    server.sendto(b"x", str(tmp_path / "nothing"))
    server.sendto(b"x", "p" * 200)
    server.sendto(b"x", str(tmp_path))
    await turns(2)
    kinds = [type(exc) for exc in recorder.errors]
    assert kinds[0] is FileNotFoundError and kinds[1] is OSError
    assert kinds[2] in (ConnectionRefusedError, PermissionError)
    await finish(server)


async def test_a_socketpair(loop: Any) -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    transport, recorder = await adopt(near)
    big = os.urandom(100_000)
    for data in (b"a", big, b"b"):
        far.send(data)
    await until(lambda: len(recorder.got) == 3)
    assert recorder.got == [(b"a", None), (big, None), (b"b", None)]
    far.close()
    await finish(transport)


@LINUX
async def test_netlink(loop: Any) -> None:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 0)
    if PY < (3, 13):
        sock.close()
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 0)
    sock.bind((0, 0))
    transport, recorder = await adopt(sock)
    # RTM_GETLINK of all interfaces
    request = struct.pack("=IHHIIBxHiII", 32, 18, 0x301, 1, 0, 0, 0, 0, 0, 0)
    transport.sendto(request, (0, 0))
    await until(lambda: recorder.got)
    data, addr = recorder.got[0]
    assert addr == (0, 0) and struct.unpack_from("=IH", data)[1] == 16
    await finish(transport)


@LINUX
@pytest.mark.skipif(PY < (3, 13), reason="SOCK_DGRAM only")
async def test_raw_socket(loop: Any) -> None:
    try:
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, 253)
    except PermissionError:
        pytest.skip("raw sockets are not permitted")
    sock.bind(("127.0.0.1", 0))
    transport, recorder = await adopt(sock)
    transport.sendto(b"raw", ("127.0.0.1", 0))
    transport.sendto(b"second", ("127.0.0.1", 0))
    await until(lambda: len(recorder.got) == 2)
    assert [data[20:] for data in recorder.data] == [b"raw", b"second"]
    assert {addr for _, addr in recorder.got} == {("127.0.0.1", 0)}
    await finish(transport)


async def test_max_size_of_an_instance(loop: Any) -> None:
    transport, recorder = await endpoint()
    transport.max_size = 4
    with udp_socket() as peer:
        for _ in range(3):
            peer.sendto(b"0123456789", address(transport))
        await until(lambda: len(recorder.got) == 3)
    assert recorder.data == [b"0123"] * 3
    await finish(transport)


async def test_contexts(loop: Any) -> None:
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="none")
    seen: list[str] = []

    class Protocol(Recorder):
        def connection_made(self, transport: Any) -> None:
            seen.append("made " + var.get())
            var.set("of made")

        def datagram_received(self, data: bytes, addr: Any) -> None:
            seen.append("data " + var.get())
            var.set("of data")

        def connection_lost(self, exc: BaseException | None) -> None:
            seen.append("lost " + var.get())

    var.set("of maker")
    transport, _ = await endpoint(Protocol())
    var.set("later")
    with udp_socket() as peer:
        for _ in range(2):
            peer.sendto(b"x", address(transport))
            await turns(3)
            await asyncio.sleep(0.01)
    transport.close()
    await turns(2)
    assert seen == ["made of maker", "data of maker", "data of data", "lost later"]


async def test_the_socket_of_a_transport_is_taken(loop: Any) -> None:
    transport, _ = await endpoint()
    fd = transport.get_extra_info("socket").fileno()
    with pytest.raises(RuntimeError, match="is used by transport"):
        loop.add_reader(fd, print)
    with pytest.raises(RuntimeError, match="is used by transport"):
        loop.remove_writer(fd)
    await finish(transport)


async def test_stream_sockets_are_refused(loop: Any) -> None:
    with socket.socket() as sock, pytest.raises(ValueError, match="was expected"):
        await adopt(sock)


def test_a_forgotten_transport(loop: Any, no_warnings: Any) -> None:
    async def main() -> None:
        transport, _ = await endpoint()
        transport.pause_reading()
        await turns(2)

    loop.run_until_complete(main())
    for _ in range(3):
        gc.collect()
    texts = no_warnings()
    wanted = "ResourceWarning: unclosed transport <"
    assert sum(text.startswith(wanted) for text in texts) == 1


async def test_nobody_but_the_loop_needs_to_keep_it(loop: Any) -> None:
    server, recorder = await endpoint()
    addr = address(server)
    recorder.transport = None
    server = weakref.ref(server)
    gc.collect()
    with udp_socket() as client:
        client.sendto(b"still there", addr)
        await until(lambda: recorder.got)
    await finish(server())


def test_debug_mode(loop: Any, log: Any) -> None:
    async def main() -> None:
        server, _ = await endpoint(Echo())
        client, recorder = await endpoint(remote_addr=address(server))
        for number in range(10):
            client.sendto(b"%d" % number)
        await until(lambda: len(recorder.got) == 10)
        assert recorder.data == [b"%d" % number for number in range(10)]
        server.pause_reading()
        server.resume_reading()
        await finish(server, client)

    loop.set_debug(True)
    loop.run_until_complete(main())


async def test_closed_between_creation_and_the_first_turn(loop: Any) -> None:
    sock = udp_socket()
    recorder = Recorder()
    waiter = loop.create_future()
    transport = loop._make_datagram_transport(sock, recorder, None, waiter)
    transport.close()
    await waiter
    await turns(2)
    assert recorder.events == ["made", "lost"]


def test_a_loop_that_ends_with_open_endpoints(loop_kind: str) -> None:
    out, _ = run_script(
        loop_kind,
        """
        class P(asyncio.DatagramProtocol):
            def connection_made(self, transport):
                self.transport = transport
        async def main():
            loop = asyncio.get_running_loop()
            kept.append(await loop.create_datagram_endpoint(
                P, local_addr=("127.0.0.1", 0)))
            kept[0][0].sendto(b"1", kept[0][0].get_extra_info("sockname"))
            kept[0][0].sendto(b"2", kept[0][0].get_extra_info("sockname"))
        kept = []
        run(main())
        kept.clear()
        gc.collect()
        print("done")
        """,
        "-W",
        "ignore",
    )
    assert out == "done\n"


async def test_many_endpoints(loop: Any) -> None:
    server, _ = await endpoint(Echo())
    clients = [await endpoint(remote_addr=address(server)) for _ in range(60)]
    for round_number in range(3):
        for transport, _ in clients:
            transport.sendto(b"%d" % round_number)
        await until(lambda n=round_number: all(len(p.got) == n + 1 for _, p in clients))
    assert all(p.data == [b"0", b"1", b"2"] for _, p in clients)
    await finish(server, *(transport for transport, _ in clients))


async def test_socket_with_methods_of_its_own(loop: Any) -> None:
    """What a program made of its socket is called."""
    calls: list[str] = []

    class Counting(socket.socket):
        def recvfrom(self, *args: Any) -> Any:
            calls.append("recvfrom")
            return super().recvfrom(*args)

        def sendto(self, *args: Any) -> int:
            calls.append("sendto")
            return super().sendto(*args)

    sock = Counting(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(("127.0.0.1", 0))
    got = loop.create_future()

    class Once(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            if not got.done():
                got.set_result(data)

    transport, _ = await loop.create_datagram_endpoint(Once, sock=sock)
    transport.sendto(b"mine", sock.getsockname())
    assert await got == b"mine"
    assert calls[:2] == ["sendto", "recvfrom"]
    transport.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)

"""Datagram endpoints: batches, what the kernel joins and cuts, fallbacks."""

from __future__ import annotations

import contextlib
import gc
import platform
import socket
import struct
import sys
from typing import Any

import pytest

from datagrams import (
    Echo,
    Recorder,
    address,
    adopt,
    endpoint,
    finish,
    received,
    udp_socket,
)
from support import run_script, turns, until

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104


@pytest.fixture(autouse=True)
def only_hotloop(request: pytest.FixtureRequest) -> None:
    if "asyncio" in str(request.node.callspec.params.get("loop_kind")):
        pytest.skip("of hotloop alone")


def gro_is_on(transport: Any) -> bool:
    sock = transport.get_extra_info("socket")
    return bool(sock.getsockopt(SOL_UDP, UDP_GRO))


@pytest.mark.parametrize("many", [True, False])
async def test_without_the_calls_for_many(loop: Any, many: bool) -> None:
    server, echo = await endpoint(Echo())
    client, recorder = await endpoint()
    for transport in (server, client):
        transport._mmsg = many
        assert transport._mmsg is many
    for _ in range(3):
        for number in range(60):
            client.sendto(b"%d" % number * (number % 3 + 1), address(server))
        await until(lambda: len(recorder.got) == 60)
        assert recorder.data == [b"%d" % n * (n % 3 + 1) for n in range(60)]
        assert {addr for _, addr in recorder.got} == {address(server)}
        recorder.got.clear()
    assert len(echo.got) == 180
    await finish(server, client)


SECCOMP = """
    import ctypes, struct
    # A kernel without recvmmsg and sendmmsg: both answer ENOSYS.
    calls = {"x86_64": (299, 307), "aarch64": (243, 269)}[os.uname().machine]
    def step(code, yes, no, k):
        return struct.pack("=HBBI", code, yes, no, k)
    program = step(0x20, 0, 0, 0)
    program += step(0x15, 1, 0, calls[0]) + step(0x15, 0, 1, calls[1])
    program += step(0x06, 0, 0, 0x00050000 | 38) + step(0x06, 0, 0, 0x7FFF0000)
    text = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HP", len(program) // 8, ctypes.addressof(text))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    if libc.prctl(22, 2, ctypes.create_string_buffer(head, len(head)), 0, 0):
        print("no seccomp")
        raise SystemExit

    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport):
            self.transport, self.got = transport, []
        def datagram_received(self, data, addr):
            self.got.append(data)
            if ECHO:
                self.transport.sendto(data, addr)

    async def main():
        global ECHO
        loop = asyncio.get_running_loop()
        ends = []
        for _ in range(2):
            ends.append(await loop.create_datagram_endpoint(
                Echo, local_addr=("127.0.0.1", 0)))
        (one, p), (two, q) = ends
        ECHO = False
        for turn in range(4):
            for number in range(40):
                one.sendto(b"%d" % number * (number % 2 + 1),
                           two.get_extra_info("sockname"))
            while len(q.got) < 40:
                await asyncio.sleep(0)
            assert q.got == [b"%d" % n * (n % 2 + 1) for n in range(40)], q.got
            q.got.clear()
        print(one._mmsg, two._mmsg)
        one.close(), two.close()
        await asyncio.sleep(0)
    run(main())
"""


@LINUX
def test_a_kernel_without_the_calls(loop_kind: str) -> None:
    if platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("system call numbers unknown")
    out, _ = run_script(loop_kind, SECCOMP)
    if out == "no seccomp\n":
        pytest.skip("seccomp is not permitted")
    assert out == "False False\n"


@LINUX
async def test_joined_datagrams_come_one_by_one(loop: Any) -> None:
    server, recorder = await endpoint()
    if not gro_is_on(server):
        pytest.skip("no GRO in this kernel")
    data = b"".join(bytes([n]) * 100 for n in range(40)) + b"short"
    with udp_socket(connected_to=address(server)) as peer:
        peer.setsockopt(SOL_UDP, UDP_SEGMENT, 100)
        peer.send(data)
        peer.setsockopt(SOL_UDP, UDP_SEGMENT, 0)
        peer.send(b"single")
        await until(lambda: len(recorder.got) == 42)
        assert recorder.data == [
            *(bytes([n]) * 100 for n in range(40)),
            b"short",
            b"single",
        ]
        assert {addr for _, addr in recorder.got} == {peer.getsockname()}
    await finish(server)


@LINUX
async def test_a_pause_among_joined_datagrams(loop: Any) -> None:
    class Pauses(Recorder):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            if len(self.got) == 10:
                self.transport.pause_reading()

    server, recorder = await endpoint(Pauses())
    with udp_socket(connected_to=address(server)) as peer:
        peer.setsockopt(SOL_UDP, UDP_SEGMENT, 10)
        peer.send(b"0123456789" * 60)
        await until(lambda: len(recorder.got) == 10)
        await turns(5)
        assert len(recorder.got) == 10
        server.resume_reading()
        await until(lambda: len(recorder.got) == 60)
    assert recorder.data == [b"0123456789"] * 60
    await finish(server)


@LINUX
async def test_max_size_of_joined_datagrams(loop: Any) -> None:
    server, recorder = await endpoint()
    server.max_size = 4
    with udp_socket(connected_to=address(server)) as peer:
        peer.setsockopt(SOL_UDP, UDP_SEGMENT, 10)
        peer.send(b"0123456789" * 5 + b"abc")
        await until(lambda: len(recorder.got) == 6)
    assert recorder.data == [b"0123"] * 5 + [b"abc"]
    await finish(server)


@LINUX
async def test_joined_datagrams_with_time_stamps(loop: Any) -> None:
    server, recorder = await endpoint()
    sock = server.get_extra_info("socket")
    so_timestampns, so_timestamping, so_rxq_ovfl = 35, 37, 40
    sock.setsockopt(socket.SOL_SOCKET, so_timestampns, 1)
    sock.setsockopt(socket.SOL_SOCKET, so_timestamping, 0x18)
    sock.setsockopt(socket.SOL_SOCKET, so_rxq_ovfl, 1)
    with udp_socket(connected_to=address(server)) as peer:
        peer.setsockopt(SOL_UDP, UDP_SEGMENT, 10)
        peer.send(b"0123456789" * 5)
        await until(lambda: len(recorder.got) == 5)
    assert recorder.data == [b"0123456789"] * 5
    await finish(server)


@LINUX
async def test_sockets_that_were_handed_in_are_left_alone(loop: Any) -> None:
    sock = udp_socket()
    transport, _ = await adopt(sock)
    assert not gro_is_on(transport)
    await finish(transport)


@LINUX
async def test_who_joins_by_himself_gets_what_he_asked_for(loop: Any) -> None:
    sock = udp_socket()
    try:
        sock.setsockopt(SOL_UDP, UDP_GRO, 1)
    except OSError:
        sock.close()
        pytest.skip("no GRO in this kernel")
    transport, recorder = await adopt(sock)
    with udp_socket(connected_to=address(transport)) as peer:
        peer.setsockopt(SOL_UDP, UDP_SEGMENT, 10)
        peer.send(b"0123456789" * 6)
        await until(lambda: recorder.got)
    assert recorder.data == [b"0123456789" * 6]
    await finish(transport)


async def test_bursts_of_equal_size(loop: Any) -> None:
    """Through the segments of the kernel where it has them."""
    with udp_socket() as one, udp_socket() as two:
        transport, recorder = await endpoint()
        for number in range(40):
            peer = one if number < 30 else two
            transport.sendto(b"%04d" % number, peer.getsockname())
        transport.sendto(b"end", two.getsockname())
        transport.sendto(b"0041", two.getsockname())
        await turns(2)
        assert received(one) == [b"%04d" % number for number in range(30)]
        assert received(two) == [
            *(b"%04d" % number for number in range(30, 40)),
            b"end",
            b"0041",
        ]
        assert recorder.errors == []
        await finish(transport)


@LINUX
async def test_equal_datagrams_that_the_kernel_will_not_cut(loop: Any) -> None:
    """No checksum, no segments: the datagrams leave one by one."""
    so_no_check = 11
    with udp_socket() as peer:
        sock = udp_socket()
        sock.setsockopt(socket.SOL_SOCKET, so_no_check, 1)
        transport, recorder = await adopt(sock)
        for round_number in range(6):
            for number in range(20):
                transport.sendto(b"%04d" % number, peer.getsockname())
            await turns(2)
            found = received(peer)
            assert found == [b"%04d" % number for number in range(20)], round_number
        assert recorder.errors == []
        await finish(transport)


@LINUX
async def test_larger_than_a_packet(loop: Any) -> None:
    with udp_socket() as peer:
        sock = udp_socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        transport, recorder = await adopt(sock)
        for number in range(8):
            transport.sendto(b"%04d" % number * 1900, peer.getsockname())
        await turns(2)
        assert received(peer) == [b"%04d" % number * 1900 for number in range(8)]
        assert recorder.errors == []
        await finish(transport)


@LINUX
async def test_who_cuts_by_himself_is_not_interfered_with(loop: Any) -> None:
    with udp_socket() as peer:
        transport, _ = await endpoint()
        sock = transport.get_extra_info("socket")
        sock.setsockopt(SOL_UDP, UDP_SEGMENT, 100)
        for _ in range(10):
            transport.sendto(b"x" * 250, peer.getsockname())
        await turns(2)
        assert [len(data) for data in received(peer)] == [100, 100, 50] * 10
        await finish(transport)


async def test_an_error_that_causes_itself(loop: Any, reports: Any) -> None:
    """It may end in a RecursionError as under asyncio, but the loop goes on."""

    class Stubborn(Recorder):
        def error_received(self, exc: BaseException) -> None:
            super().error_received(exc)
            for _ in range(2 if len(self.errors) < 50 else 1):
                self.transport.sendto(b"x", ("255.255.255.255", 9))

    with udp_socket() as peer:
        transport, recorder = await endpoint(Stubborn())
        transport.sendto(b"good", peer.getsockname())
        transport.sendto(b"bad", ("255.255.255.255", 9))
        transport.sendto(b"good", peer.getsockname())
        await turns(30)
        assert received(peer) == [b"good"] * 2
        assert 20 < len(recorder.errors) < 100_000
        await finish(transport)
        kinds = {type(report["exception"]) for report in reports.take()}
        assert kinds <= {RecursionError}


async def test_the_same_address_object_for_the_same_peer(loop: Any) -> None:
    server, recorder = await endpoint()
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(udp_socket()) for _ in range(40)]
        for _ in range(3):
            for peer in peers:
                peer.sendto(b"x", address(server))
            await until(lambda: len(recorder.got) % 40 == 0 and recorder.got)
            await turns(2)
        await until(lambda: len(recorder.got) == 120)
    assert len({id(addr) for _, addr in recorder.got}) == 40
    await finish(server)


async def test_very_many_peers(loop: Any) -> None:
    """More than are remembered: addresses stay right, memory stays small."""
    transport, _ = await endpoint()
    with udp_socket() as peer:
        port = peer.getsockname()[1]
        # All of 127/8 is this machine; the peer hears one of them only.
        for number in range(5000):
            transport.sendto(b"x", (f"127.1.{number >> 8}.{number & 255}", port))
            if number % 100 == 0:
                transport.sendto(b"%d" % number, ("127.0.0.1", port))
                await turns(1)
        got = received(peer)
    assert got == [b"%d" % number for number in range(0, 5000, 100)]
    gc.collect()
    assert sum(type(o) is tuple and o[1:] == (port,) for o in gc.get_objects()) < 1100
    await finish(transport)


class Views(Recorder):
    datagram_memoryview = True

    def __init__(self, keep: bool) -> None:
        super().__init__()
        self.keep: list[memoryview] | None = [] if keep else None
        self.types: set[type] = set()

    def datagram_received(self, data: Any, addr: Any) -> None:
        self.types.add(type(data))
        self.got.append((bytes(data), addr))
        if self.keep is not None:
            self.keep.append(data)


@pytest.mark.parametrize("keep", [False, True])
async def test_memoryviews(loop: Any, keep: bool) -> None:
    server, recorder = await endpoint(Views(keep))
    sent = [b"%d" % number * (number % 50) for number in range(150)]
    with udp_socket() as peer:
        for start in range(0, 150, 50):
            for data in sent[start : start + 50]:
                peer.sendto(data, address(server))
            await until(lambda n=start: len(recorder.got) == n + 50)
    assert recorder.data == sent
    assert recorder.types == {memoryview}
    if keep:
        # Who keeps a view keeps its contents.
        assert [bytes(view) for view in recorder.keep] == sent
    server.set_protocol(plain := Recorder())
    with udp_socket() as peer:
        peer.sendto(b"bytes", address(server))
        await until(lambda: plain.got)
    assert [type(data) for data in plain.data] == [bytes]
    await finish(server)


async def test_sending_a_view_back(loop: Any) -> None:
    class Reply(Views):
        def datagram_received(self, data: Any, addr: Any) -> None:
            self.got.append((bytes(data), addr))
            self.transport.sendto(data[1:], addr)

    server, recorder = await endpoint(Reply(False))
    with udp_socket() as peer:
        for number in range(30):
            peer.sendto(b"x%d" % number, address(server))
        await until(lambda: len(recorder.got) == 30)
        await turns(1)
        assert received(peer) == [b"%d" % number for number in range(30)]
    await finish(server)


class Messages(Recorder):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[Any] = []

    def datagram_msg_received(
        self, data: bytes, ancdata: list[Any], flags: int, addr: Any
    ) -> None:
        self.got.append((data, addr))
        self.messages.append((ancdata, flags))


@LINUX
async def test_ancillary_data(loop: Any) -> None:
    sock = udp_socket()
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    pktinfo = 8
    sock.setsockopt(socket.IPPROTO_IP, pktinfo, 1)
    server, recorder = await adopt(sock, Messages())
    client, _ = await endpoint()
    for tos in (0, 1, 2, 0x2E << 2):
        ancdata = [(socket.IPPROTO_IP, socket.IP_TOS, struct.pack("i", tos))]
        client.sendmsg(b"%d" % tos, ancdata, address(server))
    client.sendmsg(b"plain", [], address(server))
    await until(lambda: len(recorder.got) == 5)
    assert recorder.data == [b"0", b"1", b"2", b"184", b"plain"]
    for (data, addr), (ancdata, flags) in zip(
        recorder.got, recorder.messages, strict=True
    ):
        found = {kind: value for level, kind, value in ancdata if level == 0}
        wanted = 0 if data == b"plain" else int(data)
        assert found[socket.IP_TOS][0] == wanted
        index, _, destination = struct.unpack("i4s4s", found[pktinfo])
        assert destination == socket.inet_aton("127.0.0.1") and index > 0
        assert flags == 0 and addr == address(client)
    await finish(server, client)


@LINUX
async def test_sendmsg_arguments(loop: Any) -> None:
    transport, recorder = await endpoint()
    own = address(transport)
    with pytest.raises(ValueError, match="takes no address like"):
        transport.sendmsg(b"x", [], ("localhost", 9))
    for wrong in ([1], [(1, 2)], [("a", 1, b"")], 5, [(0, 1, "text")]):
        with pytest.raises(TypeError):
            transport.sendmsg(b"x", wrong, own)
    with pytest.raises(TypeError, match="bytes-like"):
        transport.sendmsg("x", [], own)
    # What the kernel does not know is an error of the network.
    transport.sendmsg(b"x", [(socket.IPPROTO_IP, 999, b"data")], own)
    assert len(recorder.errors) == 1
    await finish(transport)


@LINUX
async def test_descriptors_in_a_datagram(loop: Any) -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    transport, recorder = await adopt(near, Messages())
    socket.send_fds(far, [b"two"], [0, 1])
    far.send(b"none")
    await until(lambda: len(recorder.got) == 2)
    ((level, kind, value),) = recorder.messages[0][0]
    assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
    fds = struct.unpack("2i", value)
    for fd in fds:
        socket.close(fd)
    assert recorder.messages[1] == ([], 0)
    far.close()
    await finish(transport)


@LINUX
async def test_descriptors_that_nobody_asked_for(loop: Any) -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    transport, recorder = await adopt(near)
    for _ in range(5):
        socket.send_fds(far, [b"x"], [0, 1])
    await until(lambda: len(recorder.got) == 5)
    far.close()
    await finish(transport)


def test_every_send_is_audited(loop_kind: str) -> None:
    out, _ = run_script(
        loop_kind,
        """
        seen = []
        def hook(event, args):
            if event == "socket.sendto":
                seen.append(args[1])
        class P(asyncio.DatagramProtocol):
            def error_received(self, exc): pass
        async def main():
            loop = asyncio.get_running_loop()
            t, _ = await loop.create_datagram_endpoint(
                P, local_addr=("127.0.0.1", 0))
            addr = t.get_extra_info("sockname")
            sys.addaudithook(hook)
            t.sendto(b"1", addr)
            t.sendto(b"2", addr)
            t.sendto(b"3", ("localhost", addr[1]))
            t.close()
            await asyncio.sleep(0)
            print(seen == [addr, addr, ("localhost", addr[1])])
        run(main())
        """,
    )
    assert out == "True\n"

"""The two sides of test_netem.py, each a process in a network of its own.

``client`` starts ``server`` in another network namespace, joins the two with a pair
of virtual interfaces whose kernel loses, delays, doubles and reorders packets, and
prints what arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import signal
import socket
import subprocess
import sys
from typing import Any

import support
from faultprograms import Mirror, contexts
from servers import Echo

HERE, THERE = "10.77.0.1", "10.77.0.2"
NETEM = (
    *("netem", "limit", "10000", "loss", "3%", "delay", "10ms", "5ms"),
    *("duplicate", "2%", "reorder", "20%", "50%"),
)
SIZE = 150_000
CONNECTIONS = 4
DATAGRAMS = 200
PORTS = {"tcp": 5001, "tls": 5002, "udp": 5003}


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class Link:
    """The client's side of the wire, and what it does to packets."""

    def __init__(self, server: int) -> None:
        inside = ("nsenter", "-t", str(server), "-n")
        run(*["ip", "link", "set", "lo", "up"])
        run(*["ip", "link", "add", "hot0", "type", "veth", "peer", "name", "hot1"])
        run(*f"ip link set hot1 netns {server}".split())
        for prefix, name, address in ((), "hot0", HERE), (inside, "hot1", THERE):
            run(*prefix, *f"ip addr add {address}/24 dev {name}".split())
            run(*prefix, *f"ip link set {name} up".split())
            run(*prefix, *f"tc qdisc add dev {name} root".split(), *NETEM)

    def cut(self) -> None:
        """Lose everything that is sent from here."""
        run(*["tc", "qdisc", "change", "dev", "hot0", "root", "netem", "loss", "100%"])

    def mend(self) -> None:
        run(*["tc", "qdisc", "change", "dev", "hot0", "root"], *NETEM)


async def serve(certificate: str) -> None:
    loop = asyncio.get_running_loop()

    print("started", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)  # the wire is there
    context = contexts(certificate)[0]
    await loop.create_server(Echo, THERE, PORTS["tcp"])
    await loop.create_server(Echo, THERE, PORTS["tls"], ssl=context)
    await loop.create_datagram_endpoint(Mirror, (THERE, PORTS["udp"]))
    print("serving", flush=True)
    await loop.create_future()


async def echo(seed: int, context: Any) -> str:
    """Send noise, and see it come back whole."""
    data = random.Random(seed).randbytes(SIZE)
    reader, writer = await asyncio.open_connection(
        *(THERE, PORTS["tls" if context else "tcp"]),
        ssl=context,
        server_hostname="localhost" if context else None,
    )

    async def send() -> None:
        for start in range(0, SIZE, 10_000):
            writer.write(data[start : start + 10_000])
            await writer.drain()

    sending = asyncio.create_task(send())
    got = await reader.readexactly(SIZE)
    await sending
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return "whole" if got == data else "BROKEN"


async def streams(certificate: str) -> None:
    context = contexts(certificate)[1]
    for name, used in (("tcp", None), ("tls", context)):
        found = await asyncio.gather(*(echo(i, used) for i in range(CONNECTIONS)))
        print(name, *found)


async def datagrams() -> None:
    """What is lost is sent again; what comes twice is taken once."""
    loop = asyncio.get_running_loop()
    missing = {b"%d" % number for number in range(DATAGRAMS)}
    came = 0

    class Asker(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, address: Any) -> None:
            nonlocal came
            came += 1
            missing.discard(data)

    transport, _ = await loop.create_datagram_endpoint(
        Asker, remote_addr=(THERE, PORTS["udp"])
    )
    sent = 0
    while missing:
        for data in sorted(missing):
            transport.sendto(data)
            sent += 1
        await asyncio.sleep(0.2)
    print("datagrams", "lost some" if sent > DATAGRAMS else "lost none")
    transport.close()


async def outage(link: Link) -> None:
    """The wire is cut in the middle: half-open for a while, for one for good."""
    reader, writer = await asyncio.open_connection(THERE, PORTS["tcp"])
    writer.write(b"before")
    assert await reader.readexactly(6) == b"before"
    other_reader, other = await asyncio.open_connection(THERE, PORTS["tcp"])
    sock = other.get_extra_info("socket")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 300)
    link.cut()
    writer.write(b"while it was cut")
    other.write(b"for nobody")
    try:
        await other_reader.read()
    except OSError as exc:
        print("half-open", errno.errorcode[exc.errno or 0])
    other.close()
    with contextlib.suppress(OSError):
        await other.wait_closed()
    try:
        async with asyncio.timeout(0.2):
            await asyncio.open_connection(THERE, PORTS["tcp"])
    except TimeoutError:
        print("connect timed out")
    link.mend()
    print((await reader.readexactly(16)).decode())
    writer.close()
    await writer.wait_closed()


async def client(kind: str, certificate: str) -> None:
    command = [sys.executable, __file__, "server", kind, certificate]
    server = subprocess.Popen(
        ["unshare", "--net", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None and server.stdout is not None
    try:
        assert server.stdout.readline() == "started\n"
        link = Link(server.pid)
        print("wire", file=server.stdin, flush=True)
        assert server.stdout.readline() == "serving\n"
        await streams(certificate)
        await datagrams()
        await outage(link)
        await support.settle()
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()
        server.stdin.close()
        server.stdout.close()


if __name__ == "__main__":
    side, kind, certificate = sys.argv[1:]
    os.environ["HOTLOOP_TEST_KIND"] = kind
    with asyncio.Runner(loop_factory=support.loop_factory(kind)) as runner:
        if side == "server":
            runner.run(serve(certificate))
        else:
            runner.run(client(kind, certificate))

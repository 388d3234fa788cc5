"""asyncio's contract, row by row: datagram endpoints. See contract.toml."""

# mypy: disable-error-code="misc"

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from support import PY, turns, until


class Inbox(asyncio.DatagramProtocol):
    """Keeps what arrives and how it ended."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.errors: list[Exception] = []
        self.lost: list[Any] = []

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.got.append(data)

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)

    def connection_lost(self, exc: Any) -> None:
        self.lost.append(exc)


async def endpoint(**kwargs: Any) -> tuple[Any, Inbox]:
    loop = asyncio.get_running_loop()
    if not kwargs:
        kwargs = {"local_addr": ("127.0.0.1", 0)}
    return await loop.create_datagram_endpoint(Inbox, **kwargs)


async def close(*transports: Any) -> None:
    for transport in transports:
        transport.close()
    await turns(3)


async def test_type_and_limits_of_a_datagram_transport(loop: Any) -> None:
    """2.3: asyncio's type and its limits of 16 and 64 KiB."""
    transport, _ = await endpoint()
    assert isinstance(transport, asyncio.DatagramTransport) or PY < (3, 12)
    assert isinstance(transport, asyncio.BaseTransport)
    assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
    assert transport.get_write_buffer_size() == 0
    await close(transport)


async def test_d26_reading_may_be_paused(loop: Any) -> None:
    """D26: pause_reading(), resume_reading() and is_reading() are there."""
    receiver, inbox = await endpoint()
    sender, _ = await endpoint(remote_addr=receiver.get_extra_info("sockname"))
    assert receiver.is_reading() is True
    receiver.pause_reading()
    assert receiver.is_reading() is False
    sender.sendto(b"first")
    await asyncio.sleep(0.01)
    assert inbox.got == []
    receiver.resume_reading()
    await until(lambda: inbox.got)
    assert inbox.got == [b"first"]
    await close(receiver, sender)


async def test_d26_a_host_name_is_an_address(loop: Any) -> None:
    """D26: sendto() takes what socket.sendto() takes."""
    receiver, inbox = await endpoint()
    sender, _ = await endpoint()
    port = receiver.get_extra_info("sockname")[1]
    sender.sendto(b"by name", ("localhost", port))
    await until(lambda: inbox.got)
    assert inbox.got == [b"by name"]
    await close(receiver, sender)


@pytest.mark.skipif(PY < (3, 13), reason="datagram sockets only before 3.13")
async def test_sockets_that_are_no_datagram_sockets(loop: Any) -> None:
    """create_datagram_endpoint: any socket that is not a stream, from 3.13 on."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.setblocking(False)
    transport, inbox = await endpoint(sock=near)
    far.send(b"a packet")
    await until(lambda: inbox.got)
    assert inbox.got == [b"a packet"]
    await close(transport)
    far.close()


async def test_d27_sending_to_nobody_is_fatal(loop: Any, reports: Any) -> None:
    """D27: an error that is no OSError closes the transport."""
    transport, inbox = await endpoint()
    transport.sendto(b"whereto")
    await until(lambda: inbox.lost)
    assert isinstance(inbox.lost[0], TypeError) and inbox.errors == []
    assert transport.is_closing()
    report = reports.one()
    assert report["message"] == "Fatal write error on datagram transport"
    assert report["exception"] is inbox.lost[0]

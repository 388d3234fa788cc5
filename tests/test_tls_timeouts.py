"""What the two timeouts of TLS do, and what debug mode tells of TLS."""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import Any

import pytest

from support import Recorder, tcp_pair, turns
from tlspeers import WAYS, drain, open_tls, with_peer

BAD = [
    ("handshake", 0),
    ("handshake", -1),
    ("shutdown", 0),
    ("shutdown", -0.5),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "value"), BAD)
async def test_timeouts_that_are_none(
    loop: Any, tls: Any, way: str, name: str, value: Any
) -> None:
    near, far = tcp_pair()
    protocol = Recorder()
    with pytest.raises(ValueError) as caught:
        await open_tls(near, tls, way, protocol, **{f"ssl_{name}_timeout": value})
    expected = f"ssl_{name}_timeout should be a positive number, got {value}"
    assert str(caught.value) == expected
    if protocol.transport is not None:
        protocol.transport.close()
        await protocol.closed
    near.close()
    far.close()


async def test_timeouts_without_tls(loop: Any) -> None:
    near, far = tcp_pair()
    with near, far:
        for name in ("ssl_handshake_timeout", "ssl_shutdown_timeout"):
            with pytest.raises(ValueError) as caught:
                await loop.connect_accepted_socket(Recorder, near, **{name: 1})
            assert str(caught.value) == f"{name} is only meaningful with ssl"
            with pytest.raises(ValueError) as caught:
                await loop.create_connection(Recorder, sock=near, **{name: 1})
            assert str(caught.value) == f"{name} is only meaningful with ssl"


@pytest.mark.parametrize("way", WAYS)
async def test_handshake_takes_too_long(loop: Any, tls: Any, way: str) -> None:
    near, far = tcp_pair()
    protocol = Recorder()
    started = loop.time()
    with pytest.raises(ConnectionAbortedError) as caught:
        await open_tls(near, tls, way, protocol, ssl_handshake_timeout=0.05)
    assert str(caught.value) == (
        "SSL handshake is taking longer than 0.05 seconds: aborting the connection"
    )
    assert 0.04 < loop.time() - started < 5
    if way.startswith("start_tls"):
        # The protocol is not told: asyncio takes it for not yet connected.
        await turns(3)
        assert protocol.events == ["made"]
    else:
        assert protocol.events == []
    far.setblocking(True)
    drain(far)
    far.close()


@pytest.mark.parametrize("way", WAYS)
async def test_shutdown_takes_too_long(loop: Any, tls: Any, way: str) -> None:
    ended = asyncio.Event()

    def work(sock: Any) -> Any:
        # Reads nothing, so that it never answers.
        asyncio.run_coroutine_threadsafe(ended.wait(), loop).result(20)

    transport, protocol, peer = await with_peer(
        tls, work, way, ssl_shutdown_timeout=0.05
    )
    started = loop.time()
    transport.close()
    error = await protocol.closed
    assert type(error) is TimeoutError and str(error) == "SSL shutdown timed out"
    assert 0.04 < loop.time() - started < 5
    assert protocol.events == ["made", "lost"]
    ended.set()
    await peer.ended()


@pytest.mark.parametrize("way", WAYS)
async def test_debug_mode_tells(loop: Any, tls: Any, way: str, caplog: Any) -> None:
    loop.set_debug(True)
    loop.slow_callback_duration = 10.0
    caplog.set_level(logging.DEBUG, "asyncio")

    def work(sock: Any) -> Any:
        sock.recv(5)

    transport, protocol, peer = await with_peer(tls, work, way)
    transport.write(b"hello")
    await peer.result()
    assert await protocol.closed is None
    lines = [record.getMessage() for record in caplog.records]
    lines = [line for line in lines if "SSL" in line or "received EOF" in line]
    shapes = [("starts SSL handshake", 1), ("SSL handshake took ", 1)]
    for text, count in shapes:
        assert sum(text in line for line in lines) == count, lines
    assert any(line.endswith(" ms") for line in lines)
    loop.set_debug(False)


async def test_debug_mode_tells_of_failures(
    loop: Any, tls: Any, caplog: Any, reports: Any
) -> None:
    """An OSError is no more than a line of the log, and only in debug mode."""
    for debug in (False, True):
        loop.set_debug(debug)
        caplog.set_level(logging.DEBUG, "asyncio")
        caplog.clear()
        near, far = tcp_pair()
        far.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with pytest.raises(ssl.SSLError):
            await open_tls(near, tls, "client", Recorder())
        far.close()
        lines = [one.getMessage() for one in caplog.records if one.exc_info]
        assert len(lines) == (1 if debug else 0)
        assert all(line.endswith(": SSL handshake failed") for line in lines)
    loop.set_debug(False)
    assert reports == []

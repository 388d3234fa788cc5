"""WebSockets of aiohttp: its server and client, on one loop, and raw peers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

aiohttp = pytest.importorskip("aiohttp")

from aiohttp import WSCloseCode, WSMsgType, web  # noqa: E402

from servers import leave  # noqa: E402
from support import reset, until  # noqa: E402
from webpeers import request  # noqa: E402

BIG = random.Random(2).randbytes(3 << 20)
Handler = Callable[[web.WebSocketResponse], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(handler: Handler, **options: Any) -> AsyncIterator[tuple[str, Any]]:
    """Serve WebSockets with a handler; (URL, address)."""
    context = options.pop("ssl_context", None)

    async def accept(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(max_msg_size=1 << 23, **options)
        await ws.prepare(request)
        await handler(ws)
        return ws

    app = web.Application()
    app.router.add_get("/", accept)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    address = runner.addresses[0]
    scheme = "ws" if context is None else "wss"
    try:
        yield f"{scheme}://localhost:{address[1]}/", address
    finally:
        await runner.cleanup()


async def echo(ws: web.WebSocketResponse) -> None:
    async for message in ws:
        if message.type is WSMsgType.TEXT:
            await ws.send_str(message.data)
        else:
            await ws.send_bytes(message.data)


@pytest.mark.parametrize("compress", [0, 15])
@pytest.mark.parametrize("secure", [False, True])
async def test_echo(
    loop: Any,
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
    secure: bool,
    compress: int,
) -> None:
    context = tls[0] if secure else None
    async with (
        serving(echo, ssl_context=context) as (url, _),
        aiohttp.ClientSession() as session,
    ):
        options = {"ssl": tls[1], "compress": compress, "max_msg_size": 1 << 23}
        async with session.ws_connect(url, **options) as ws:
            for n in range(200):
                await ws.send_str(f"message {n}")
            for n in range(200):
                assert await ws.receive_str() == f"message {n}"
            send = asyncio.create_task(ws.send_bytes(BIG))
            assert await ws.receive_bytes() == BIG
            await send
            await ws.send_json({"a": ["é", None]})
            assert await ws.receive_json() == {"a": ["é", None]}
        assert ws.close_code == WSCloseCode.OK


async def test_ping_and_pong_both_ways(loop: Any) -> None:
    seen: list[tuple[WSMsgType, bytes]] = []

    async def handler(ws: web.WebSocketResponse) -> None:
        await ws.ping(b"from the server")
        async for message in ws:
            seen.append((message.type, message.data))
            if message.type is WSMsgType.PING:
                await ws.pong(message.data)

    async with (
        serving(handler, autoping=False) as (url, _),
        aiohttp.ClientSession() as session,
        session.ws_connect(url, autoping=False) as ws,
    ):
        message = await ws.receive()
        assert message[:2] == (WSMsgType.PING, b"from the server")
        await ws.pong(message.data)
        await ws.ping(b"from the client")
        message = await ws.receive()
        assert message[:2] == (WSMsgType.PONG, b"from the client")
    assert seen == [
        (WSMsgType.PONG, b"from the server"),
        (WSMsgType.PING, b"from the client"),
    ]


async def test_the_client_closes_with_a_code(loop: Any) -> None:
    seen: list[Any] = []

    async def handler(ws: web.WebSocketResponse) -> None:
        message = await ws.receive()
        seen.extend([message.type, message.data, message.extra, ws.close_code])

    async with serving(handler) as (url, _), aiohttp.ClientSession() as session:
        ws = await session.ws_connect(url)
        assert await ws.close(code=4321, message=b"enough")
        await until(lambda: seen)
    assert seen == [WSMsgType.CLOSE, 4321, "enough", 4321]


async def test_the_server_closes_with_a_code(loop: Any) -> None:
    async def handler(ws: web.WebSocketResponse) -> None:
        await ws.send_str("last words")
        await ws.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"later")

    async with serving(handler) as (url, _), aiohttp.ClientSession() as session:
        ws = await session.ws_connect(url)
        assert await ws.receive_str() == "last words"
        message = await ws.receive()
        assert message[:3] == (WSMsgType.CLOSE, 1013, "later")
        assert ws.closed and ws.close_code == 1013


async def test_a_failing_handler_ends_the_connection(
    loop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(ws: web.WebSocketResponse) -> None:
        await ws.receive()
        raise LookupError("lost in the handler")

    async with serving(handler) as (url, _), aiohttp.ClientSession() as session:
        ws = await session.ws_connect(url)
        await ws.send_str("go")
        message = await ws.receive()
        assert message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED)
        assert ws.close_code == WSCloseCode.ABNORMAL_CLOSURE
        await ws.close()
    assert "lost in the handler" in caplog.text


async def test_a_broadcast_to_many(loop: Any) -> None:
    members: set[web.WebSocketResponse] = set()

    async def handler(ws: web.WebSocketResponse) -> None:
        members.add(ws)
        async for message in ws:
            await asyncio.gather(*[one.send_str(message.data) for one in members])
        members.discard(ws)

    async with serving(handler) as (url, _), aiohttp.ClientSession() as session:
        clients = [await session.ws_connect(url) for _ in range(60)]
        await until(lambda: len(members) == 60)
        for n, client in enumerate(clients[:10]):
            await client.send_str(str(n))
        for client in clients:
            got = {await client.receive_str() for _ in range(10)}
            assert got == {str(n) for n in range(10)}
        await asyncio.gather(*[client.close() for client in clients])
        await until(lambda: not members)


def handshake(address: Any) -> socket.socket:
    """A blocking socket that has become a WebSocket."""
    sock = socket.create_connection(address)
    key = base64.b64encode(os.urandom(16)).decode()
    headers = ["Upgrade: websocket", "Connection: Upgrade"]
    headers += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"]
    sock.sendall(request("/", *headers))
    sock.setblocking(False)
    return sock


async def test_the_client_vanishes(loop: Any) -> None:
    ended: list[tuple[Any, Any]] = []
    began: list[web.WebSocketResponse] = []

    async def handler(ws: web.WebSocketResponse) -> None:
        began.append(ws)
        async for _ in ws:
            pass
        ended.append((ws.close_code, type(ws.exception()).__name__))

    async with serving(handler) as (_, address):
        for end in (reset, socket.socket.close):
            sock = handshake(address)
            assert b" 101 " in await loop.sock_recv(sock, 1000)
            await loop.sock_sendall(sock, b"\x81\xfe\x01\x00")  # a frame's beginning
            end(sock)
        await until(lambda: len(ended) == 2)
    assert {code for code, _ in ended} == {WSCloseCode.ABNORMAL_CLOSURE}


async def test_a_reader_that_stops_holds_the_writer_back(loop: Any) -> None:
    sent: list[int] = []
    errors: list[str] = []

    async def handler(ws: web.WebSocketResponse) -> None:
        try:
            while True:
                await ws.send_bytes(bytes(100_000))
                sent.append(1)
        except ConnectionError as error:
            errors.append(type(error).__name__)

    async with serving(handler) as (_, address):
        sock = handshake(address)
        before = -1
        while len(sent) != before:
            before = len(sent)
            await asyncio.sleep(0.3)
        assert 0 < before < 300
        for _ in range(100):
            await loop.sock_recv(sock, 1 << 20)
        await until(lambda: len(sent) > before)
        reset(sock)
        await until(lambda: errors)


async def test_heartbeat_finds_a_dead_client(loop: Any) -> None:
    codes: list[Any] = []

    async def handler(ws: web.WebSocketResponse) -> None:
        async for _ in ws:
            pass
        codes.append(ws.close_code)

    async with serving(handler, heartbeat=0.2) as (_, address):
        sock = handshake(address)  # never answers a ping
        await until(lambda: codes == [WSCloseCode.ABNORMAL_CLOSURE])
        sock.close()


async def test_heartbeat_keeps_a_living_client(loop: Any) -> None:
    pings: list[bytes] = []

    async def handler(ws: web.WebSocketResponse) -> None:
        async for message in ws:
            if message.type is WSMsgType.PING:
                pings.append(message.data)
                await ws.pong(message.data)
            else:
                await ws.send_str(message.data)

    async with (
        serving(handler, autoping=False) as (url, _),
        aiohttp.ClientSession() as session,
        session.ws_connect(url, heartbeat=0.05) as ws,
    ):
        ws._pong_heartbeat = 20.0  # a slow machine may take long for a pong
        receiving = asyncio.create_task(ws.receive_str())
        await until(lambda: len(pings) >= 5)
        assert not receiving.done()
        await ws.send_str("alive")
        assert await receiving == "alive"


async def test_cancelled_while_receiving(loop: Any) -> None:
    async with (
        serving(echo) as (url, _),
        aiohttp.ClientSession() as session,
        session.ws_connect(url) as ws,
    ):
        for _ in range(50):
            task = asyncio.create_task(ws.receive())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await ws.send_str("still here")
        assert await ws.receive_str() == "still here"


async def test_shutdown_says_goodbye(loop: Any) -> None:
    """As aiohttp's documentation does it: close what is open on shutdown."""
    members: set[web.WebSocketResponse] = set()

    async def accept(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        members.add(ws)
        async for _ in ws:
            pass
        members.discard(ws)
        return ws

    async def goodbye(_: web.Application) -> None:
        for ws in set(members):
            await ws.close(code=WSCloseCode.GOING_AWAY, message=b"shutdown")

    app = web.Application()
    app.router.add_get("/", accept)
    app.on_shutdown.append(goodbye)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        clients = [await session.ws_connect(url) for _ in range(5)]
        await until(lambda: len(members) == 5)
        ends = [asyncio.create_task(client.receive()) for client in clients]
        await runner.cleanup()
        for message in await asyncio.gather(*ends):
            assert message[:3] == (WSMsgType.CLOSE, 1001, "shutdown")
    assert not members


async def test_a_bad_frame_gets_a_protocol_error(loop: Any) -> None:
    async with serving(echo) as (_, address):
        sock = handshake(address)
        reader, writer = await asyncio.open_connection(sock=sock)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\xf3\x80\x00\x00\x00\x00")  # reserved bits, unknown opcode
        head = await reader.readexactly(4)
        assert head[0] == 0x88 and int.from_bytes(head[2:]) == 1002
        await leave(writer)

"""websockets: client and server, new API and legacy, on one loop."""

from __future__ import annotations

import asyncio
import contextlib
import http
import warnings
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import connect, unix_connect
from websockets.asyncio.server import ServerConnection, broadcast, serve, unix_serve
from websockets.exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    PayloadTooBig,
)

from clientpeers import MIB, block, full_listener, standstill
from servers import serve as serve_raw
from servers import stop
from support import Recorder, until

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from websockets.legacy.client import connect as legacy_connect
    from websockets.legacy.server import broadcast as legacy_broadcast
    from websockets.legacy.server import serve as legacy_serve


async def echo(ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


def url_of(server: Any, scheme: str = "ws") -> str:
    return f"{scheme}://localhost:{server.sockets[0].getsockname()[1]}/"


async def talk(url: str, number: int, make: Any = connect, **options: Any) -> None:
    """One user: texts in a row, and some bytes."""
    async with make(url, max_size=None, **options) as ws:
        texts = [f"{number}: {count}" for count in range(20)]
        for text in texts:
            await ws.send(text)
        assert [await ws.recv() for _ in texts] == texts
        data = block(number, number * 3001)
        await ws.send(data)
        assert await ws.recv() == data


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("secure", [False, True])
async def test_many_users(loop: Any, tls: Any, compression: Any, secure: bool) -> None:
    near = {"compression": compression}
    far = {"compression": compression}
    if secure:
        near["ssl"], far["ssl"] = tls
    async with serve(echo, "127.0.0.1", 0, max_size=None, **near) as server:
        url = url_of(server, "wss" if secure else "ws")
        await asyncio.gather(*(talk(url, n, **far) for n in range(60)))


async def test_legacy(loop: Any, tls: Any) -> None:
    """The old API, against itself and against the new one."""
    async with legacy_serve(echo, "127.0.0.1", 0, max_size=None, ssl=tls[0]) as server:
        url = url_of(server, "wss")
        users = [talk(url, n, legacy_connect, ssl=tls[1]) for n in range(20)]
        users += [talk(url, n, ssl=tls[1]) for n in range(20)]
        await asyncio.gather(*users)
    async with serve(echo, "127.0.0.1", 0, max_size=None) as server:
        url = url_of(server)
        await asyncio.gather(*(talk(url, n, legacy_connect) for n in range(20)))


async def test_legacy_broadcast_and_end(loop: Any) -> None:
    connections: set[Any] = set()

    async def keep(ws: Any) -> None:
        connections.add(ws)
        await ws.wait_closed()

    async with legacy_serve(keep, "127.0.0.1", 0) as server:
        users = [await legacy_connect(url_of(server)) for _ in range(50)]
        await until(lambda: len(connections) == 50)
        legacy_broadcast(connections, "to all")
        assert [await ws.recv() for ws in users] == ["to all"] * 50
        waiting = [asyncio.create_task(ws.recv()) for ws in users]
        await asyncio.sleep(0)
        server.close()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(result) for result in results} == {ConnectionClosedOK}
        assert {ws.close_code for ws in users} == {1001}


async def test_unix(loop: Any, tmp_path: Any) -> None:
    path = str(tmp_path / "socket")
    async with unix_serve(echo, path), unix_connect(path) as ws:
        await ws.send("unix")
        assert await ws.recv() == "unix"


async def test_big_messages(loop: Any) -> None:
    data = block(1, 24 * MIB)
    async with serve(echo, "127.0.0.1", 0, max_size=None, compression=None) as server:
        options = {"max_size": None, "compression": None}
        async with connect(url_of(server), **options) as ws:
            sending = asyncio.create_task(ws.send(data))
            assert await ws.recv() == data
            await sending
        async with connect(url_of(server), max_size=MIB, compression=None) as ws:
            sending = asyncio.create_task(ws.send(block(2, 2 * MIB)))
            with pytest.raises(ConnectionClosedError) as caught:
                await ws.recv()
            assert caught.value.sent is not None and caught.value.sent.code == 1009
            assert isinstance(caught.value.__cause__, PayloadTooBig)
            with contextlib.suppress(ConnectionClosed):
                await sending


async def test_fragments(loop: Any) -> None:
    """Messages sent in parts, read in parts, by several users at once."""

    async def relay(ws: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosedOK):
            while True:
                await ws.send(ws.recv_streaming())

    async def parts(number: int) -> AsyncIterator[str]:
        for part in range(number):
            await asyncio.sleep(0)
            yield f"{number}/{part} "

    async with serve(relay, "127.0.0.1", 0) as server:

        async def user(number: int) -> None:
            async with connect(url_of(server)) as ws:
                await ws.send(parts(number))
                got = [part async for part in ws.recv_streaming()]
                wanted = [part async for part in parts(number)]
                assert "".join(got) == "".join(wanted)
                assert len(got) >= number

        await asyncio.gather(*(user(n) for n in range(1, 40)))


async def test_a_reader_that_waits_stops_the_writer(loop: Any) -> None:
    """Nobody reads: send() waits. Then all of it arrives."""
    sent = 0

    async def pour(ws: Any) -> None:
        nonlocal sent
        for number in range(400):
            await ws.send(block(number, 1 << 17))
            sent += 1

    async with (
        serve(pour, "127.0.0.1", 0, compression=None) as server,
        connect(url_of(server), compression=None) as ws,
    ):
        await standstill(lambda: sent)
        assert sent < 200
        number = 0
        async for message in ws:
            assert message == block(number, 1 << 17)
            number += 1
        assert number == 400


async def test_broadcast(loop: Any) -> None:
    """Two hundred users; those that leave in the middle do not matter."""

    async def keep(ws: Any) -> None:
        await ws.wait_closed()

    async with serve(keep, "127.0.0.1", 0) as server:
        users = await asyncio.gather(*(connect(url_of(server)) for _ in range(200)))
        await until(lambda: len(server.connections) == 200)
        broadcast(server.connections, "one")
        for ws in users[::4]:
            ws.transport.abort()
        for number in range(20):
            broadcast(server.connections, f"{number}")
            await asyncio.sleep(0)
        stayed = [ws for index, ws in enumerate(users) if index % 4]
        wanted = ["one", *map(str, range(20))]
        for ws in stayed:
            assert [await ws.recv() for _ in wanted] == wanted
        await until(lambda: len(server.connections) == 150)
        await asyncio.gather(*(ws.close() for ws in stayed))


async def test_pings(loop: Any) -> None:
    async with (
        serve(echo, "127.0.0.1", 0) as server,
        connect(url_of(server)) as ws,
    ):
        latency = await (await ws.ping())
        assert latency >= 0
        waiters = [await ws.ping(f"{n}") for n in range(50)]
        await asyncio.gather(*waiters)


async def test_no_pong(loop: Any) -> None:
    """A user that stopped reading is given up by the server."""
    ended = loop.create_future()

    async def keep(ws: Any) -> None:
        await ws.wait_closed()
        ended.set_result((ws.close_code, ws.close_reason))

    options = {"ping_interval": 0.05, "ping_timeout": 0.05, "close_timeout": 0.05}
    async with (
        serve(keep, "127.0.0.1", 0, **options) as server,
        connect(url_of(server), ping_interval=None) as ws,
    ):
        ws.transport.pause_reading()
        assert await ended == (1006, "")
        ws.transport.resume_reading()
        with pytest.raises(ConnectionClosedError):
            await ws.recv()
        assert (ws.close_code, ws.close_reason) == (
            1011,
            "keepalive ping timeout",
        )


@pytest.mark.parametrize("end", ["abort", "eof", "close", "raise"])
async def test_the_server_ends(loop: Any, end: str) -> None:
    async def handler(ws: Any) -> None:
        assert await ws.recv() == "end"
        if end == "abort":
            ws.transport.abort()
        elif end == "eof":
            ws.transport.write_eof()
        elif end == "close":
            await ws.close(4000, "enough")
        else:
            raise LookupError

    async with serve(handler, "127.0.0.1", 0) as server:
        for _ in range(20):
            async with connect(url_of(server), close_timeout=5) as ws:
                await ws.send("end")
                with pytest.raises(ConnectionClosed) as caught:
                    await ws.recv()
                code = {"close": 4000, "raise": 1011}.get(end)
                received = caught.value.rcvd
                assert (received.code if received else None) == code
                with pytest.raises(ConnectionClosed):
                    await ws.send("more")


async def test_the_user_vanishes(loop: Any) -> None:
    ended: list[Any] = []

    async def handler(ws: Any) -> None:
        try:
            await echo(ws)
        except ConnectionClosedError as error:
            ended.append(error)

    async with serve(handler, "127.0.0.1", 0) as server:
        for _ in range(20):
            ws = await connect(url_of(server))
            await ws.send("x")
            ws.transport.abort()
        await until(lambda: len(ended) == 20)


async def test_process_request(loop: Any) -> None:
    """Refusing, answering as plain HTTP, and going on."""

    async def ask(connection: Any, request: Any) -> Any:
        await asyncio.sleep(0)
        if request.path == "/health":
            return connection.respond(http.HTTPStatus.OK, "fine\n")
        if request.headers.get("Secret") != "word":
            return connection.respond(http.HTTPStatus.FORBIDDEN, "no\n")
        return None

    async with serve(echo, "127.0.0.1", 0, process_request=ask) as server:
        url = url_of(server)
        with pytest.raises(InvalidStatus) as caught:
            await connect(url)
        assert caught.value.response.status_code == 403
        async with connect(url, additional_headers={"Secret": "word"}) as ws:
            await ws.send("in")
            assert await ws.recv() == "in"
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        writer.write(b"")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 ") and answer.endswith(b"fine\n")
        writer.close()
        await writer.wait_closed()


async def test_not_a_server_of_web_sockets(loop: Any) -> None:
    def closing() -> Recorder:
        made = Recorder(loop)
        made.connected.add_done_callback(lambda future: future.result().close())
        return made

    server, (_, port) = await serve_raw(closing)
    with pytest.raises((InvalidMessage, InvalidHandshake)):
        await connect(f"ws://127.0.0.1:{port}/")
    await stop(server)
    with pytest.raises(ConnectionRefusedError):
        await connect(f"ws://127.0.0.1:{port}/")
    with full_listener() as full, pytest.raises(TimeoutError):
        await connect(f"ws://127.0.0.1:{full}/", open_timeout=0.05)


async def test_cancelled_in_recv(loop: Any) -> None:
    """No message is lost to a recv() that was cancelled."""
    async with (
        serve(echo, "127.0.0.1", 0) as server,
        connect(url_of(server)) as ws,
    ):
        got: list[Any] = []
        for number in range(200):
            await ws.send(str(number))
            task = asyncio.create_task(ws.recv())
            for _ in range(number % 6):
                await asyncio.sleep(0)
            task.cancel()
            try:
                got.append(await task)
            except asyncio.CancelledError:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.0005 * (number % 3)):
                        got.append(await ws.recv())
        while len(got) < 200:
            got.append(await ws.recv())
        assert got == [str(number) for number in range(200)]


async def test_cancelled_in_connect(loop: Any, tls: Any) -> None:
    async with serve(echo, "127.0.0.1", 0, ssl=tls[0]) as server:
        turn, finished = 0, 0
        while finished < 3:
            opening = connect(url_of(server, "wss"), ssl=tls[1])
            task = asyncio.create_task(opening.__aenter__())
            for _ in range(turn):
                await asyncio.sleep(0)
            task.cancel()
            turn += 1
            try:
                ws = await task
            except asyncio.CancelledError:
                continue
            finished += 1
            await ws.close()
    assert turn > 3


async def test_graceful_end_of_the_server(loop: Any) -> None:
    """Handlers may finish what they do, users are told, nobody new gets in."""
    finished = 0

    async def handler(ws: Any) -> None:
        nonlocal finished
        try:
            await echo(ws)
        finally:
            await asyncio.sleep(0.01)
            finished += 1

    server = await serve(handler, "127.0.0.1", 0)
    url = url_of(server)
    users = await asyncio.gather(*(connect(url) for _ in range(100)))
    waiting = [asyncio.create_task(ws.recv()) for ws in users]
    await asyncio.sleep(0)
    server.close(code=1012, reason="again soon")
    await server.wait_closed()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(result) for result in results} == {ConnectionClosedError}
    assert {(ws.close_code, ws.close_reason) for ws in users} == {(1012, "again soon")}
    assert finished == 100
    with pytest.raises(OSError):
        await connect(url)


async def test_the_client_comes_again(loop: Any) -> None:
    """`async for` of connect() outlives a server that ends and comes back."""
    seen: list[Any] = []

    async def once(ws: Any) -> None:
        await ws.send("hello")

    async with serve(once, "127.0.0.1", 0) as server:
        async for ws in connect(url_of(server)):
            with contextlib.suppress(ConnectionClosed):
                while True:
                    seen.append(await ws.recv())
            if len(seen) == 5:
                break
    assert seen == ["hello"] * 5

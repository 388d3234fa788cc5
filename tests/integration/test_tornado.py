"""tornado: its IOLoop is a coat over the loop of asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import pathlib
import socket
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest
import tornado.gen
import tornado.httpclient
import tornado.httpserver
import tornado.ioloop
import tornado.iostream
import tornado.netutil
import tornado.process
import tornado.queues
import tornado.tcpserver
import tornado.web
import tornado.websocket

from clientpeers import MIB, block, checksum_of
from support import run_script, until

TYPE = {"Content-Type": "application/octet-stream"}


class Echo(tornado.web.RequestHandler):
    """The digest of a body; GET waits for the query's milliseconds."""

    async def get(self) -> None:
        await tornado.gen.sleep(float(self.get_argument("ms", "0")) / 1000)
        self.write(self.get_argument("text", ""))

    def post(self) -> None:
        self.write(hashlib.sha256(self.request.body).hexdigest())


@tornado.web.stream_request_body
class Upload(tornado.web.RequestHandler):
    """Takes a body in parts and answers its digest."""

    def prepare(self) -> None:
        self.request.connection.set_max_body_size(1 << 30)
        self.digest = hashlib.sha256()

    async def data_received(self, chunk: bytes) -> None:
        await asyncio.sleep(0)
        self.digest.update(chunk)

    def put(self) -> None:
        self.write(self.digest.hexdigest())


class Download(tornado.web.RequestHandler):
    """Sends a body in parts, each when the one before has gone."""

    async def get(self) -> None:
        for number in range(24):
            self.write(block(number, MIB))
            await self.flush()


class Forever(tornado.web.RequestHandler):
    """Never answers; notes that the client has left."""

    waiting = left = 0

    async def get(self) -> None:
        type(self).waiting += 1
        self.gone = asyncio.Event()
        await self.gone.wait()

    def on_connection_close(self) -> None:
        type(self).left += 1
        self.gone.set()


class Chat(tornado.websocket.WebSocketHandler):
    users: ClassVar[set[Chat]] = set()

    def open(self) -> None:
        self.users.add(self)

    async def on_message(self, message: Any) -> None:
        for user in list(self.users):
            with contextlib.suppress(tornado.websocket.WebSocketClosedError):
                await user.write_message(message)

    def on_close(self) -> None:
        self.users.discard(self)


@contextlib.asynccontextmanager
async def serving(tls: Any = None) -> AsyncIterator[str]:
    """An application on the running loop; gives its URL."""
    routes = [("/echo", Echo), ("/upload", Upload), ("/download", Download)]
    routes += [("/forever", Forever), ("/chat", Chat)]
    app = tornado.web.Application(routes, log_function=lambda handler: None)
    server = tornado.httpserver.HTTPServer(app, ssl_options=tls)
    (sock,) = tornado.netutil.bind_sockets(0, "127.0.0.1")
    server.add_sockets([sock])
    scheme = "https" if tls else "http"
    try:
        yield f"{scheme}://localhost:{sock.getsockname()[1]}"
    finally:
        server.stop()
        await server.close_all_connections()


def new_client(**options: Any) -> Any:
    return tornado.httpclient.AsyncHTTPClient(
        force_instance=True, max_clients=20, max_body_size=1 << 30, **options
    )


@contextlib.contextmanager
def client(**options: Any) -> Any:
    made = new_client(**options)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("secure", [False, True])
async def test_requests(loop: Any, tls: Any, secure: bool) -> None:
    """Two hundred requests of twenty clients at once, bodies checked."""
    options = {"ssl_options": tls[1]} if secure else {}
    async with serving(tls[0] if secure else None) as url:
        with client() as http:
            assert tornado.ioloop.IOLoop.current().asyncio_loop is loop  # type: ignore[attr-defined]

            async def get(number: int) -> None:
                path = f"{url}/echo?text={number}&ms={number % 5}"
                answer = await http.fetch(path, **options)
                assert answer.body == str(number).encode()

            async def post(number: int) -> None:
                data = block(number, number * 3000)
                answer = await http.fetch(
                    f"{url}/echo", method="POST", body=data, headers=TYPE, **options
                )
                assert answer.body.decode() == hashlib.sha256(data).hexdigest()

            await asyncio.gather(*map(get, range(100)), *map(post, range(50)))


async def test_big_bodies(loop: Any) -> None:
    """Up from a producer and down to a callback, in parts."""

    async def produce(write: Any) -> None:
        for number in range(24):
            await write(block(number, MIB))

    async with serving() as url:
        with client() as http:
            answer = await http.fetch(
                f"{url}/upload", method="PUT", body_producer=produce, request_timeout=50
            )
            assert answer.body.decode() == checksum_of(24, MIB)
            digest = hashlib.sha256()
            await http.fetch(
                f"{url}/download", streaming_callback=digest.update, request_timeout=50
            )
            assert digest.hexdigest() == checksum_of(24, MIB)


async def test_timeouts_and_ends(loop: Any) -> None:
    Forever.waiting = Forever.left = 0
    async with serving() as url:
        with client() as http:
            with pytest.raises(tornado.httpclient.HTTPError) as caught:
                await http.fetch(f"{url}/forever", request_timeout=0.05)
            assert caught.value.code == 599
            await until(lambda: Forever.left == Forever.waiting)
            before = Forever.waiting
            tasks = [
                asyncio.ensure_future(http.fetch(f"{url}/forever", request_timeout=0.5))
                for _ in range(10)
            ]
            await until(lambda: Forever.waiting == before + 10)
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(result) for result in results} == {
                tornado.simple_httpclient.HTTPTimeoutError
            }
            await until(lambda: Forever.left == before + 10)
            with pytest.raises(tornado.httpclient.HTTPClientError) as missing:
                await http.fetch(f"{url}/nothing")
            assert missing.value.code == 404
    with client() as http, pytest.raises(ConnectionRefusedError):
        await http.fetch(f"{url}/echo")


async def test_unverified_certificate(loop: Any, tls: Any, caplog: Any) -> None:
    async with serving(tls[0]) as url:
        with client() as http, pytest.raises(Exception, match="CERTIFICATE_VERIFY"):
            await http.fetch(f"{url}/echo")


async def test_web_sockets(loop: Any) -> None:
    """Each message goes to all of fifty users, some of whom leave."""
    async with serving() as url:
        connect = tornado.websocket.websocket_connect
        address = url.replace("http", "ws") + "/chat"
        users = await asyncio.gather(*(connect(address) for _ in range(50)))
        await until(lambda: len(Chat.users) == 50)
        for user in users[::5]:
            user.close()
        await until(lambda: len(Chat.users) == 40)
        stayed = [user for index, user in enumerate(users) if index % 5]
        for number in range(10):
            await stayed[number].write_message(f"message {number}")
        wanted = {f"message {number}" for number in range(10)}
        for user in stayed:
            assert {await user.read_message() for _ in wanted} == wanted
            user.close()
        await until(lambda: not Chat.users)
        assert await users[0].read_message() is None


class LineServer(tornado.tcpserver.TCPServer):
    """Turns lines around."""

    ended = 0

    async def handle_stream(self, stream: Any, address: Any) -> None:
        with contextlib.suppress(tornado.iostream.StreamClosedError):
            while True:
                line = await stream.read_until(b"\n")
                await stream.write(line[-2::-1] + b"\n")
        self.ended += 1


async def test_streams(loop: Any) -> None:
    """IOStream: add_handler() with descriptors, by lines and until the end."""
    server = LineServer()
    (sock,) = tornado.netutil.bind_sockets(0, "127.0.0.1")
    server.add_socket(sock)

    async def user(number: int) -> None:
        stream = tornado.iostream.IOStream(socket.socket())
        await stream.connect(("127.0.0.1", sock.getsockname()[1]))
        for count in range(20):
            await stream.write(b"%d-%d\n" % (number, count))
            turned = f"{number}-{count}"[::-1] + "\n"
            assert await stream.read_until(b"\n") == turned.encode()
        stream.close()

    await asyncio.gather(*map(user, range(50)))
    await until(lambda: server.ended == 50)
    server.stop()


async def test_ioloop(loop: Any) -> None:
    """Callbacks, timers, periodic callbacks, executors, queues, processes."""
    io = tornado.ioloop.IOLoop.current()
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1

    periodic = tornado.ioloop.PeriodicCallback(tick, 2)
    periodic.start()
    await until(lambda: ticks >= 5)
    periodic.stop()
    seen: list[str] = []
    io.add_callback(seen.append, "callback")
    removed = io.call_later(0.001, seen.append, "removed")
    io.call_later(0.002, seen.append, "later")
    io.add_timeout(io.time() + 0.003, seen.append, "last")
    io.remove_timeout(removed)
    await until(lambda: len(seen) == 3)
    assert seen == ["callback", "later", "last"]
    assert await io.run_in_executor(None, lambda: 7) == 7
    queue: Any = tornado.queues.Queue(2)

    async def produce() -> None:
        for number in range(100):
            await queue.put(number)

    task = asyncio.create_task(produce())
    assert [await queue.get() for _ in range(100)] == list(range(100))
    await task
    with pytest.raises(tornado.gen.TimeoutError):
        await tornado.gen.with_timeout(io.time() + 0.002, asyncio.Future())
    process = tornado.process.Subprocess(
        ["cat"],
        stdin=tornado.process.Subprocess.STREAM,
        stdout=tornado.process.Subprocess.STREAM,
    )
    await process.stdin.write(b"through")
    process.stdin.close()
    assert await process.stdout.read_until_close() == b"through"
    assert await process.wait_for_exit() == 0
    tornado.process.Subprocess.uninitialize()


def test_program(loop_kind: str, tmp_path: pathlib.Path) -> None:
    """A program that never heard of hotloop: IOLoop.current().start()."""
    out, _ = run_script(
        loop_kind,
        """
        if KIND == "hotloop":
            hotloop.install()
        import tornado.ioloop, tornado.web, tornado.httpclient, tornado.netutil
        import tornado.httpserver

        class Hello(tornado.web.RequestHandler):
            def get(self):
                self.write(type(asyncio.get_running_loop()).__module__)

        async def main():
            server = tornado.httpserver.HTTPServer(
                tornado.web.Application([("/", Hello)]))
            (sock,) = tornado.netutil.bind_sockets(0, "127.0.0.1")
            server.add_sockets([sock])
            http = tornado.httpclient.AsyncHTTPClient()
            port = sock.getsockname()[1]
            answer = await http.fetch(f"http://127.0.0.1:{port}/")
            print(answer.body.decode().split(".")[0])
            server.stop()
            await server.close_all_connections()
            tornado.ioloop.IOLoop.current().stop()

        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        io = tornado.ioloop.IOLoop.current()
        io.spawn_callback(main)
        io.start()
        io.close(all_fds=True)
        """,
        "-W",
        "ignore::DeprecationWarning",
    )
    assert out == loop_kind + "\n"

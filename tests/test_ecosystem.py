"""Unchanged programs of other people: aiohttp, uvicorn, httpx, anyio."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from support import finish_script, run_script, script_env


def test_aiohttp_server_and_client(loop_kind: str) -> None:
    pytest.importorskip("aiohttp")
    out, _ = run_script(
        loop_kind,
        """
        from aiohttp import web, ClientSession

        async def hello(request):
            return web.Response(text="hello " + request.match_info["name"])

        async def upload(request):
            data = await request.read()
            return web.json_response({"size": len(data)})

        async def stream(request):
            response = web.StreamResponse()
            await response.prepare(request)
            for number in range(100):
                await response.write(b"%d\\n" % number)
            await response.write_eof()
            return response

        async def chat(request):
            ws = web.WebSocketResponse()
            await ws.prepare(request)
            async for message in ws:
                await ws.send_str(message.data.upper())
            return ws

        async def main():
            app = web.Application(client_max_size=1 << 25)
            app.add_routes([
                web.get("/hello/{name}", hello), web.post("/upload", upload),
                web.get("/stream", stream), web.get("/ws", chat),
            ])
            runner = web.AppRunner(app)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port = site._server.sockets[0].getsockname()[1]
            url = f"http://127.0.0.1:{port}"
            async with ClientSession() as session:
                async def get(n):
                    async with session.get(f"{url}/hello/{n}") as response:
                        return await response.text()
                texts = await asyncio.gather(*(get(n) for n in range(100)))
                assert texts == [f"hello {n}" for n in range(100)]
                async with session.post(url + "/upload", data=b"x" * 5_000_000) as r:
                    print(await r.json())
                async with session.get(url + "/stream") as r:
                    lines = [line async for line in r.content]
                    print(len(lines))
                async with session.ws_connect(url + "/ws") as ws:
                    await ws.send_str("shout")
                    print((await ws.receive()).data)
            await runner.cleanup()

        run(main())
        """,
        timeout=50,
    )
    assert out.splitlines() == ["{'size': 5000000}", "100", "SHOUT"]


UVICORN = """
import uvicorn

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "more_body": True,
                "body": type(asyncio.get_running_loop()).__module__.encode()})
    await send({"type": "http.response.body", "body": b" %d" % len(body)})

async def main():
    config = uvicorn.Config(app, port=0, http="httptools", log_level="warning",
                            lifespan="off")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    await client(url)
    server.should_exit = True
    await task
"""


def test_uvicorn_and_httpx(loop_kind: str) -> None:
    for name in ("uvicorn", "httptools", "httpx"):
        pytest.importorskip(name)
    script = UVICORN + (
        """
import httpx
async def client(url):
    async with httpx.AsyncClient(trust_env=False) as session:
        async def post(n):
            response = await session.post(url, content=b"x" * n)
            return response.text.split()[1]
        sizes = [n * 1000 for n in range(40)]
        assert await asyncio.gather(*map(post, sizes)) == [str(n) for n in sizes]
        print((await session.get(url)).text)
run(main())
"""
    )
    out, _ = run_script(loop_kind, script, timeout=50)
    assert out.startswith(loop_kind) and out.endswith(" 0\n")


def test_uvicorn_and_aiohttp_client(loop_kind: str) -> None:
    for name in ("uvicorn", "httptools", "aiohttp"):
        pytest.importorskip(name)
    script = UVICORN + (
        """
import aiohttp
async def client(url):
    async with aiohttp.ClientSession() as session:
        for n in range(50):
            async with session.post(url, data=b"y" * n * 5000) as response:
                assert (await response.text()).split()[1] == str(n * 5000)
    print("done")
run(main())
"""
    )
    out, _ = run_script(loop_kind, script, timeout=50)
    assert out == "done\n"


@pytest.fixture
def application(tmp_path: Any) -> Iterator[str]:
    (tmp_path / "webapp.py").write_text(
        "import asyncio\n"
        "async def app(scope, receive, send):\n"
        "    assert scope['type'] == 'http'\n"
        "    name = type(asyncio.get_running_loop()).__module__.encode()\n"
        "    await send({'type': 'http.response.start', 'status': 200,\n"
        "                'headers': [(b'content-length', b'%d' % len(name))]})\n"
        "    await send({'type': 'http.response.body', 'body': name})\n"
    )
    yield str(tmp_path)


def fetch(port: int) -> bytes:
    deadline = time.monotonic() + 20
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 10) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                data = b""
                while part := sock.recv(1000):
                    data += part
                return data
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "the server never came up"
            time.sleep(0.05)


def test_uvicorn_command_line(loop_kind: str, application: str) -> None:
    pytest.importorskip("uvicorn")
    pytest.importorskip("httptools")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    choice = {
        "asyncio": "asyncio",
        "hotloop": "hotloop:new_event_loop",
    }[loop_kind]
    command = [sys.executable, "-m", "uvicorn", "webapp:app", "--loop", choice]
    command += ["--http", "httptools", "--port", str(port), "--lifespan", "off"]
    command += ["--app-dir", application]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=application,
        env=script_env(loop_kind),
    )
    answers = [fetch(port) for _ in range(5)]
    process.send_signal(signal.SIGTERM)
    code, _, err = finish_script(process)
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert answer.rsplit(b"\r\n\r\n", 1)[1].startswith(loop_kind.encode())
    assert code in (0, -signal.SIGTERM), err
    assert "Traceback" not in err and "Finished server process" in err


def test_anyio(loop_kind: str) -> None:
    pytest.importorskip("anyio")
    out, _ = run_script(
        loop_kind,
        """
        import anyio, anyio.from_thread, anyio.to_thread
        async def worker(n, send):
            async with send:
                await anyio.sleep(0.001 * n)
                await send.send(n)
        async def echo(stream):
            async with stream:
                async for data in stream:
                    await stream.send(data)
        async def main():
            send, receive = anyio.create_memory_object_stream(10)
            async with anyio.create_task_group() as group:
                for n in range(5):
                    group.start_soon(worker, n, send.clone())
                send.close()
                got = sorted([n async for n in receive])
            print(got)
            with anyio.move_on_after(0.01) as scope:
                await anyio.sleep(10)
            print(scope.cancelled_caught)
            try:
                async with anyio.create_task_group() as group:
                    group.start_soon(anyio.sleep, 10)
                    raise LookupError
            except* LookupError:
                print("group")
            print(await anyio.to_thread.run_sync(
                lambda: anyio.from_thread.run(anyio.sleep, 0)))
            listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
            async with anyio.create_task_group() as group:
                group.start_soon(listener.serve, echo)
                port = listener.extra(anyio.abc.SocketAttribute.local_port)
                async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                    await stream.send(b"x" * 100_000)
                    total = 0
                    while total < 100_000:
                        total += len(await stream.receive())
                print(total)
                group.cancel_scope.cancel()
            await listener.aclose()
            result = await anyio.run_process(["echo", "process"])
            print(result.stdout.decode().strip())
        options = {"loop_factory": new_loop}
        anyio.run(main, backend="asyncio", backend_options=options)
        """,
        timeout=50,
    )
    assert out.splitlines() == [
        "[0, 1, 2, 3, 4]",
        "True",
        "group",
        "None",
        "100000",
        "process",
    ]


def test_asyncio_repl_like_use(loop_kind: str) -> None:
    out, _ = run_script(
        loop_kind,
        """
        import warnings
        warnings.simplefilter("ignore")
        loop = new_loop()
        asyncio.set_event_loop(loop)
        assert asyncio.get_event_loop() is loop
        async def value(n):
            await asyncio.sleep(0)
            return n
        print([loop.run_until_complete(value(n)) for n in range(3)])
        asyncio.set_event_loop(None)
        loop.close()
        """,
    )
    assert out == "[0, 1, 2]\n"


async def test_isolated_asyncio_test_case(loop_kind: str, loop: Any) -> None:
    out, err = await asyncio.to_thread(
        run_script,
        loop_kind,
        """
        import unittest
        class Case(unittest.IsolatedAsyncioTestCase):
            def _setupAsyncioRunner(self):
                self._asyncioRunner = asyncio.Runner(
                    debug=True, loop_factory=new_loop)
            async def asyncSetUp(self):
                self.event = asyncio.Event()
            async def test_one(self):
                asyncio.get_running_loop().call_soon(self.event.set)
                await self.event.wait()
                self.addAsyncCleanup(asyncio.sleep, 0)
        unittest.main(argv=["x"])
        """,
        quiet=False,
    )
    assert "OK" in err and out == ""

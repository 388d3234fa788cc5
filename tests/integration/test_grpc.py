"""grpc.aio: it polls in a thread of its own and wakes the loop by a descriptor."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from clientpeers import MIB, block
from support import run_script, until


class Service:
    """Methods of bytes, without generated code."""

    def __init__(self) -> None:
        self.cancelled = self.begun = self.ended = self.sent = 0
        self.go_on = asyncio.Event()

    async def upper(self, request: bytes, context: Any) -> bytes:
        metadata = dict(context.invocation_metadata())
        if metadata.get("fail"):
            await context.abort(grpc.StatusCode.DATA_LOSS, metadata["fail"])
        context.set_trailing_metadata((("size", str(len(request))),))
        return request.upper()

    async def crash(self, request: bytes, context: Any) -> bytes:
        raise LookupError("inside")

    async def wait(self, request: bytes, context: Any) -> bytes:
        self.begun += 1
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return b"waited"

    async def count(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            self.sent += 1
            yield block(number, 1 << 16)

    async def total(self, requests: Any, context: Any) -> bytes:
        digest = hashlib.sha256()
        async for request in requests:
            digest.update(request)
        return digest.hexdigest().encode()

    async def chat(self, requests: Any, context: Any) -> AsyncIterator[bytes]:
        try:
            async for request in requests:
                yield request.upper()
        finally:
            self.ended += 1


def handlers(service: Service) -> Any:
    return grpc.method_handlers_generic_handler(
        "test.Service",
        {
            "Upper": grpc.unary_unary_rpc_method_handler(service.upper),
            "Crash": grpc.unary_unary_rpc_method_handler(service.crash),
            "Wait": grpc.unary_unary_rpc_method_handler(service.wait),
            "Count": grpc.unary_stream_rpc_method_handler(service.count),
            "Total": grpc.stream_unary_rpc_method_handler(service.total),
            "Chat": grpc.stream_stream_rpc_method_handler(service.chat),
        },
    )


@contextlib.asynccontextmanager
async def serving(service: Service) -> AsyncIterator[Any]:
    """A server of the running loop and a channel to it."""
    options = [("grpc.max_receive_message_length", -1)]
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((handlers(service),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{port}", options=options
        ) as channel:
            yield channel
    finally:
        await server.stop(None)
        # It does not wait for the handlers that it has cancelled.
        await until(lambda: "rpc_task" not in names_of_tasks())


def names_of_tasks() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks()}


@pytest.fixture(scope="module", autouse=True)
def poller() -> None:
    """What grpc keeps open for good is opened before the first test."""

    async def first_call() -> None:
        grpc.aio.init_grpc_aio()  # so that the poller does not end in between
        async with serving(Service()) as channel:
            await channel.unary_unary("/test.Service/Upper")(b"")

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(first_call())


async def test_unary(loop: Any) -> None:
    service = Service()
    async with serving(service) as channel:
        upper = channel.unary_unary("/test.Service/Upper")

        async def ask(number: int) -> None:
            data = b"%d abc " % number * number
            call = upper(data)
            assert await call == data.upper()
            assert await call.code() == grpc.StatusCode.OK
            trailing = dict(await call.trailing_metadata())
            assert trailing["size"] == str(len(data))

        await asyncio.gather(*map(ask, range(300)))
        data = block(1, 16 * MIB)
        assert await upper(data) == data.upper()


async def test_errors(loop: Any, caplog: Any) -> None:
    service = Service()
    async with serving(service) as channel:
        upper = channel.unary_unary("/test.Service/Upper")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await upper(b"", metadata=(("fail", "lost it"),))
        assert caught.value.code() == grpc.StatusCode.DATA_LOSS
        assert caught.value.details() == "lost it"
        for method, code in (
            ("Crash", grpc.StatusCode.UNKNOWN),
            ("Nothing", grpc.StatusCode.UNIMPLEMENTED),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(f"/test.Service/{method}")(b"")
            assert caught.value.code() == code
    assert "LookupError: inside" in caplog.text


async def test_deadlines_and_cancellation(loop: Any) -> None:
    service = Service()
    async with serving(service) as channel:
        wait = channel.unary_unary("/test.Service/Wait")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wait(b"", timeout=0.05)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: service.cancelled == service.begun)
        before = service.begun

        async def ask() -> bytes:
            return bytes(await wait(b""))

        tasks = [asyncio.create_task(ask()) for _ in range(40)]
        await until(lambda: service.begun == before + 40)
        for task in tasks[::2]:
            task.cancel()
        await until(lambda: service.cancelled == before + 20)
        service.go_on.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results[::2]} == {asyncio.CancelledError}
        assert results[1::2] == [b"waited"] * 20
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                service.go_on.clear()
                await wait(b"")
        await until(lambda: service.cancelled == before + 21)


async def test_cancelled_at_every_moment(loop: Any) -> None:
    service = Service()
    async with serving(service) as channel:
        upper = channel.unary_unary("/test.Service/Upper")

        async def ask() -> bytes:
            return bytes(await upper(b"abc"))

        for turn in range(60):
            task = asyncio.create_task(ask())
            for _ in range(turn % 30):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                assert await task == b"ABC"
        assert await ask() == b"ABC"


async def test_streams_of_the_server(loop: Any) -> None:
    """A reader that waits stops the writer; a call that is left is cancelled."""
    service = Service()
    async with serving(service) as channel:
        count = channel.unary_stream("/test.Service/Count")
        call = count(b"600")
        assert await call.read() == block(0, 1 << 16)
        await until(lambda: service.sent > 1)
        assert service.sent < 300
        number = 1
        while (data := await call.read()) is not grpc.aio.EOF:
            assert data == block(number, 1 << 16)
            number += 1
        assert number == 600

        async def some(wanted: int) -> int:
            got = 0
            reading = count(b"100000")
            async for _ in reading:
                got += 1
                if got == wanted:
                    break
            reading.cancel()
            return got

        assert await asyncio.gather(*map(some, range(1, 20))) == list(range(1, 20))


async def test_streams_of_the_client(loop: Any) -> None:
    service = Service()
    async with serving(service) as channel:
        total = channel.stream_unary("/test.Service/Total")

        async def parts(count: int) -> AsyncIterator[bytes]:
            for number in range(count):
                yield block(number, 1 << 16)

        async def upload(count: int) -> None:
            digest = hashlib.sha256()
            async for part in parts(count):
                digest.update(part)
            assert await total(parts(count)) == digest.hexdigest().encode()

        await asyncio.gather(*map(upload, (0, 1, 10, 100, 300)))

        async def breaks() -> AsyncIterator[bytes]:
            yield b"one"
            raise LookupError("in the middle")

        with pytest.raises(asyncio.CancelledError):
            await total(breaks())


async def test_both_ways(loop: Any) -> None:
    service = Service()
    async with serving(service) as channel:
        chat = channel.stream_stream("/test.Service/Chat")

        async def user(number: int) -> None:
            call = chat()
            for count in range(20):
                await call.write(b"u%d-%d" % (number, count))
                assert await call.read() == b"U%d-%d" % (number, count)
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            assert await call.code() == grpc.StatusCode.OK

        await asyncio.gather(*map(user, range(40)))
        call = chat()
        await call.write(b"x")
        assert await call.read() == b"X"
        reading = asyncio.create_task(call.read())
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await until(lambda: service.ended == 41)


async def test_graceful_stop(loop: Any) -> None:
    """What runs may end, what comes is refused; after the grace it is cut off."""
    service = Service()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handlers(service),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        wait = channel.unary_unary("/test.Service/Wait")
        calls = [wait(b"") for _ in range(10)]
        await until(lambda: service.begun == 10)
        stopping = asyncio.create_task(server.stop(30))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as late:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                while True:
                    await late.unary_unary("/test.Service/Upper")(b"", timeout=20)
            # Cancelled: it got in just before, and had not begun.
            refused = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
            assert caught.value.code() in refused
        service.go_on.set()
        assert await asyncio.gather(*calls) == [b"waited"] * 10
        await stopping
        await server.wait_for_termination()


async def test_stop_that_cuts_off(loop: Any) -> None:
    service = Service()
    async with serving(service) as channel:
        call = channel.unary_unary("/test.Service/Wait")(b"")
        waiting = asyncio.ensure_future(call)
        await until(lambda: service.begun == 1)
    results = await asyncio.gather(waiting, return_exceptions=True)
    assert isinstance(results[0], (grpc.aio.AioRpcError, asyncio.CancelledError))
    await until(lambda: service.cancelled == 1)


async def test_tls(loop: Any, certificate: Any) -> None:
    pem = certificate.read_bytes()
    server = grpc.aio.server()
    service = Service()
    server.add_generic_rpc_handlers((handlers(service),))
    keys = grpc.ssl_server_credentials([(pem, pem)])
    port = server.add_secure_port("127.0.0.1:0", keys)
    await server.start()
    trust = grpc.ssl_channel_credentials(root_certificates=pem)
    async with grpc.aio.secure_channel(f"localhost:{port}", trust) as channel:
        upper = channel.unary_unary("/test.Service/Upper")
        got = await asyncio.gather(*(upper(b"abc") for _ in range(100)))
        assert got == [b"ABC"] * 100
    strange = grpc.ssl_channel_credentials()
    async with grpc.aio.secure_channel(f"localhost:{port}", strange) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/test.Service/Upper")(b"")
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    await server.stop(None)


def test_loops_one_after_the_other(loop_kind: str) -> None:
    """grpc keeps its poller between loops; and a child process starts beside it."""
    out, _ = run_script(
        loop_kind,
        """
        import grpc, grpc.aio, sys

        async def upper(request, context):
            return request.upper()

        async def main():
            server = grpc.aio.server()
            method = grpc.unary_unary_rpc_method_handler(upper)
            handler = grpc.method_handlers_generic_handler("s.S", {"U": method})
            server.add_generic_rpc_handlers((handler,))
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                print(await channel.unary_unary("/s.S/U")(b"abc"))
                child = await asyncio.create_subprocess_exec(
                    sys.executable, "-c", "print('child')",
                    stdout=asyncio.subprocess.PIPE)
                print((await child.communicate())[0])
                print(await channel.unary_unary("/s.S/U")(b"abc"))
            await server.stop(None)

        for _ in range(3):
            run(main())
        """,
    )
    assert out == "b'ABC'\nb'child\\n'\nb'ABC'\n" * 3

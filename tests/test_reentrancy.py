"""Callees that do the worst thing at the worst moment."""

# mypy: disable-error-code="misc"

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from support import (
    PY_FULL,
    BufferedRecorder,
    Recorder,
    collect,
    connected,
    finish,
    turns,
    until,
)


def spin(loop: Any) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()


class OnDel:
    """Runs an action when it dies."""

    def __init__(self, action: Any) -> None:
        self.action = action

    def __call__(self, *args: Any) -> None:
        """Does nothing: it is its end that counts."""

    def __del__(self) -> None:
        self.action()


def test_finalizer_of_a_callback_schedules(loop: Any) -> None:
    seen: list[int] = []
    for number in range(100):
        loop.call_soon(OnDel(lambda n=number: loop.call_soon(seen.append, n)))
    spin(loop)
    spin(loop)
    assert seen == list(range(100))


def test_finalizer_of_a_cancelled_handle(loop: Any) -> None:
    seen: list[int] = []
    handles = [loop.call_later(100, OnDel(lambda: seen.append(1))) for _ in range(300)]
    for handle in handles:
        handle.cancel()
    assert len(seen) == 300
    spin(loop)


def test_finalizer_cancels_its_own_handle(loop: Any) -> None:
    box: list[Any] = []
    seen: list[int] = []

    def end() -> None:
        box[0].cancel()
        seen.append(1)

    box.append(loop.call_soon(OnDel(end)))
    box[0].cancel()
    assert seen == [1]
    spin(loop)


def test_finalizers_while_the_loop_closes(new_loop: Any) -> None:
    loop = new_loop()
    errors: list[str] = []

    def end() -> None:
        try:
            loop.call_soon(print)
        except RuntimeError as error:
            errors.append(str(error))
        loop.close()

    for _ in range(5):
        loop.call_soon(OnDel(end))
        loop.call_later(100, OnDel(end))
    loop.close()
    collect()
    assert len(errors) <= 10 and set(errors) <= {"Event loop is closed"}


def test_callback_that_closes_the_loop(loop: Any, reports: Any) -> None:
    loop.call_soon(loop.close)
    spin(loop)
    report = reports.one()
    assert str(report["exception"]) == "Cannot close a running event loop"


def test_handler_that_breaks_everything(loop: Any) -> None:
    calls: list[Any] = []

    def handler(loop: Any, context: Any) -> None:
        calls.append(context["message"])
        loop.stop()
        context["handle"].cancel()
        context.clear()
        gc.collect()

    loop.set_exception_handler(handler)
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(lambda: 1 / 0)
    loop.run_forever()
    assert len(calls) == 2


def test_broken_repr_of_a_callback(loop: Any, log: Any) -> None:
    class Broken:
        def __call__(self) -> None:
            raise ValueError("called")

        def __repr__(self) -> str:
            raise LookupError("repr")

    loop.set_exception_handler(None)
    handle = loop.call_soon(Broken())
    try:
        spin(loop)
    except LookupError as error:
        assert error.args == ("repr",)
    else:
        assert log.take()
    log.take()
    handle.cancel()
    spin(loop)
    spin(loop)


def test_exception_that_cannot_be_shown(loop: Any, log: Any) -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise LookupError

        __repr__ = __str__

    def fail() -> None:
        raise Broken

    loop.set_exception_handler(None)
    loop.call_soon(fail)
    spin(loop)
    assert "Exception in callback" in log.one()


@pytest.mark.parametrize("method", ["get_loop", "add_done_callback", "blocking"])
def test_foreign_future_that_raises(new_loop: Any, reports: Any, method: str) -> None:
    loop = new_loop()

    class Foreign:
        def __init__(self) -> None:
            self.flag = True

        @property
        def _asyncio_future_blocking(self) -> bool:
            if method == "blocking" and self.flag:
                raise LookupError("blocking")
            return True

        @_asyncio_future_blocking.setter
        def _asyncio_future_blocking(self, value: bool) -> None:
            self.flag = value

        def get_loop(self) -> Any:
            if method == "get_loop":
                raise LookupError("get_loop")
            return loop

        def add_done_callback(self, fn: Any, *, context: Any) -> None:
            if method == "add_done_callback":
                raise LookupError("add_done_callback")

        def __await__(self) -> Any:
            yield self

    async def main() -> None:
        await Foreign()

    task = loop.create_task(main())
    loop.run_until_complete(turns(3))
    # asyncio's step fails as a callback then, and the task never ends.
    errors = [report["exception"] for report in reports.take()]
    if task.done():
        errors.append(task.exception())
    task._log_destroy_pending = False
    loop.close()
    assert [error.args for error in errors] == [(method,)]


def test_coroutine_that_cancels_its_task_in_send(loop: Any) -> None:
    async def main() -> str:
        task: Any = asyncio.current_task()
        task.cancel()
        gc.collect()
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            return "seen"
        return "not seen"

    assert loop.run_until_complete(main()) == "seen"


def test_done_callback_that_changes_the_callbacks(loop: Any) -> None:
    future = loop.create_future()
    seen: list[str] = []

    def first(f: Any) -> None:
        seen.append("first")
        f.remove_done_callback(second)
        f.add_done_callback(third)

    def second(f: Any) -> None:
        seen.append("second")

    def third(f: Any) -> None:
        seen.append("third")

    future.add_done_callback(first)
    future.add_done_callback(second)
    future.set_result(None)
    spin(loop)
    spin(loop)
    # They were all scheduled when the result came.
    assert seen == ["first", "second", "third"]


def test_call_soon_that_interferes(new_loop: Any) -> None:
    base = type(probe := new_loop())
    probe.close()

    class Interferes(base):  # type: ignore[valid-type]
        future: Any = None

        def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
            future = self.future
            if future is not None:
                self.future = None
                future.remove_done_callback(id)
                future.add_done_callback(repr)
            return super().call_soon(callback, *args, context=context)

    loop = Interferes()
    future = loop.create_future()
    for callback in (str, id, bool):
        future.add_done_callback(callback)
    loop.future = future
    future.set_result(None)
    spin(loop)
    loop.close()


def test_task_that_comes_back_to_life(loop: Any, task_class: Any) -> None:
    saved: list[Any] = []

    class Phoenix(task_class):
        def __del__(self) -> None:
            saved.append(self)

    async def main() -> int:
        return 1

    task = Phoenix(main(), loop=loop)
    assert loop.run_until_complete(task) == 1
    del task
    collect()
    assert len(saved) == 1 and saved[0].result() == 1
    saved[0].add_done_callback(id)
    spin(loop)
    saved.clear()


def test_future_that_comes_back_to_life(loop: Any, future_class: Any) -> None:
    saved: list[Any] = []

    class Phoenix(future_class):
        def __del__(self) -> None:
            saved.append(self)

    for _ in range(50):
        Phoenix(loop=loop).set_result("x")
    assert [future.result() for future in saved] == ["x"] * 50
    saved.clear()
    collect()


def test_collector_at_every_allocation(loop: Any) -> None:
    async def child(number: int) -> int:
        future = loop.create_future()
        loop.call_soon(future.set_result, number)
        return int(await future)

    async def main() -> int:
        results = await asyncio.gather(*(child(n) for n in range(50)))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(child(n)) for n in range(20)]
        async with asyncio.timeout(10):
            await asyncio.sleep(0.001)
        handles = [loop.call_later(10, id) for _ in range(150)]
        for handle in handles:
            handle.cancel()
        return sum(results) + sum(task.result() for task in tasks)

    old = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        assert loop.run_until_complete(main()) == sum(range(50)) + sum(range(20))
    finally:
        gc.set_threshold(*old)


async def test_collector_during_traffic(loop: Any) -> None:
    class Collects(Recorder):
        def data_received(self, data: bytes) -> None:
            gc.collect()
            super().data_received(data)
            self.transport.write(data)

    transport, protocol, peer = await connected(Collects())
    for number in range(20):
        peer.send(b"%d" % number)
        await until(lambda n=number: protocol.data.endswith(b"%d" % n))
    await finish(transport, peer)


@pytest.mark.parametrize("action", ["close", "abort", "pause_reading"])
@pytest.mark.parametrize("where", ["get_buffer", "buffer_updated"])
async def test_buffered_protocol_that_acts(loop: Any, action: str, where: str) -> None:
    class Acts(BufferedRecorder):
        def get_buffer(self, sizehint: int) -> bytearray:
            if where == "get_buffer":
                getattr(self.transport, action)()
            return super().get_buffer(sizehint)

        def buffer_updated(self, nbytes: int) -> None:
            super().buffer_updated(nbytes)
            if where == "buffer_updated":
                getattr(self.transport, action)()

    transport, protocol, peer = await connected(Acts())
    peer.send(b"data")
    await asyncio.sleep(0.01)
    assert protocol.data in (b"", b"data")
    await finish(transport, peer)
    assert protocol.events[-1] == "lost"


async def test_get_buffer_that_switches_the_protocol(loop: Any, reports: Any) -> None:
    class Switches(BufferedRecorder):
        def get_buffer(self, sizehint: int) -> bytearray:
            self.transport.set_protocol(after)
            return super().get_buffer(sizehint)

    after = Recorder(loop)
    after.events.append("set")
    transport, protocol, peer = await connected(Switches())
    peer.send(b"data")
    # asyncio tells the new protocol, which has no such method, of the read.
    await until(lambda: protocol.data or after.data or after.events[-1] == "lost")
    assert all(type(r["exception"]) is AttributeError for r in reports.take())
    await finish(transport, peer)


async def test_buffer_that_is_dropped(loop: Any) -> None:
    class Drops(BufferedRecorder):
        def get_buffer(self, sizehint: int) -> Any:
            self.buffer = bytearray(10)
            return memoryview(self.buffer)

        def buffer_updated(self, nbytes: int) -> None:
            self.data += self.buffer[:nbytes]
            del self.buffer
            gc.collect()

    transport, protocol, peer = await connected(Drops())
    peer.send(b"0123456789abc")
    await until(lambda: protocol.data == b"0123456789abc")
    await finish(transport, peer)


async def test_pause_writing_that_aborts(loop: Any) -> None:
    class Aborts(Recorder):
        def pause_writing(self) -> None:
            super().pause_writing()
            self.transport.abort()

    transport, protocol, peer = await connected(Aborts())
    while "pause" not in protocol.events:
        transport.write(b"x" * 100_000)
        transport.writelines([b"y" * 100_000])
        await turns(1)
    transport.write(b"ignored")
    await protocol.closed
    assert protocol.events == ["made", "pause", "lost"]
    peer.close()


@pytest.mark.parametrize("action", ["abort", "close", "write", "write_eof"])
async def test_resume_writing_that_acts(
    loop: Any, action: str, loop_kind: str, reports: Any
) -> None:
    class Acts(Recorder):
        def resume_writing(self) -> None:
            super().resume_writing()
            if action != "write":
                getattr(self.transport, action)()
            elif self.events.count("resume") < 5:
                self.transport.write(b"z" * 30_000_000)

    transport, protocol, peer = await connected(Acts())
    while "pause" not in protocol.events:
        transport.write(b"x" * 100_000)
    while protocol.events.count("resume") < (5 if action == "write" else 1):
        assert await loop.sock_recv(peer, 1 << 20)
    if action == "write":
        assert protocol.events[1:] == ["pause", "resume"] * 5
    elif action != "write_eof":
        await protocol.closed
    await finish(transport, peer)
    # asyncio ends such a connection twice.
    assert reports.take() == [] or (
        loop_kind == "asyncio" and action in ("abort", "close")
    )


async def test_write_in_connection_lost(loop: Any) -> None:
    class Writes(Recorder):
        def connection_lost(self, exc: Any) -> None:
            self.transport.write(b"too late")
            self.transport.close()
            self.transport.abort()
            self.transport.resume_reading()
            super().connection_lost(exc)

    transport, protocol, peer = await connected(Writes())
    transport.close()
    await protocol.closed
    assert await loop.sock_recv(peer, 10) == b""
    peer.close()


async def test_data_received_that_runs_the_loop(loop: Any, loop_kind: str) -> None:
    if loop_kind == "asyncio" and PY_FULL == (3, 13, 0):
        pytest.skip("3.13.0 forgets that its loop runs when it refuses to nest")

    class Nested(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            with pytest.raises(RuntimeError, match="already running"):
                loop.run_forever()

    transport, protocol, peer = await connected(Nested())
    peer.send(b"x")
    await until(lambda: protocol.data)
    assert asyncio.get_running_loop() is loop
    await finish(transport, peer)


async def test_transports_closed_by_each_other(loop: Any) -> None:
    class Closes(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            for transport, _, _ in everything:
                transport.abort()

    everything = [await connected(Closes()) for _ in range(10)]
    for _, _, peer in everything:
        peer.send(b"x")
    for _, protocol, _ in everything:
        await protocol.closed
    assert sum(bool(protocol.data) for _, protocol, _ in everything) == 1
    for _, _, peer in everything:
        peer.close()


async def test_accept_and_close_storm(loop: Any) -> None:
    class Closes(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.write(b"bye")
            transport.close()

    server = await loop.create_server(Closes, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()

    async def client() -> bytes:
        reader, writer = await asyncio.open_connection(*address)
        data = await reader.read()
        writer.close()
        await writer.wait_closed()
        return data

    for _ in range(10):
        assert await asyncio.gather(*(client() for _ in range(30))) == [b"bye"] * 30
    server.close()
    await server.wait_closed()

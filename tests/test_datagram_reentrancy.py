"""Datagram endpoints: callbacks that close, send, pause, raise and stop."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable
from typing import Any

import pytest

from datagrams import Echo, Recorder, address, endpoint, finish, udp_socket
from support import run_script, turns, until


class Hooked(Recorder):
    """Calls a function at every datagram."""

    def __init__(self, hook: Callable[[Any], object]) -> None:
        super().__init__()
        self.hook = hook

    def datagram_received(self, data: bytes, addr: Any) -> None:
        super().datagram_received(data, addr)
        self.hook(self)


async def hooked(hook: Callable[[Any], object], count: int = 20) -> tuple[Any, Any]:
    """An endpoint with datagrams waiting when it begins to read."""
    transport, protocol = await endpoint(Hooked(hook))
    with udp_socket() as peer:
        for number in range(count):
            peer.sendto(b"%d" % number, address(transport))
    return transport, protocol


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_ended_by_datagram_received(loop: Any, end: str) -> None:
    _, recorder = await hooked(lambda p: getattr(p.transport, end)())
    await until(lambda: recorder.lost)
    assert len(recorder.got) == 1
    assert recorder.events == ["made", "lost"]


async def test_paused_by_datagram_received(loop: Any) -> None:
    def hook(protocol: Any) -> None:
        if len(protocol.got) % 7 == 0:
            protocol.transport.pause_reading()

    transport, recorder = await hooked(hook)
    for wanted in (7, 14, 20):
        await until(lambda n=wanted: len(recorder.got) == n)
        await turns(5)
        assert len(recorder.got) == wanted
        transport.resume_reading()
        transport.resume_reading()
        assert len(recorder.got) == wanted
    assert recorder.data == [b"%d" % number for number in range(20)]
    assert transport.is_reading()
    await finish(transport)


async def test_paused_and_resumed_at_once(loop: Any) -> None:
    def hook(protocol: Any) -> None:
        protocol.transport.pause_reading()
        protocol.transport.resume_reading()

    transport, recorder = await hooked(hook)
    await until(lambda: len(recorder.got) == 20)
    assert recorder.data == [b"%d" % number for number in range(20)]
    await finish(transport)


async def test_closed_while_paused(loop: Any) -> None:
    transport, recorder = await hooked(lambda p: p.transport.pause_reading())
    await until(lambda: recorder.got)
    transport.close()
    await turns(3)
    transport.resume_reading()
    assert len(recorder.got) == 1 and recorder.lost == [None]


async def test_forgotten_while_paused(loop: Any, no_warnings: Any) -> None:
    transport, recorder = await hooked(lambda p: p.transport.pause_reading())
    await until(lambda: recorder.got)
    recorder.transport = None
    del transport
    for _ in range(3):
        gc.collect()
        await turns(1)
    assert any("unclosed transport" in text for text in no_warnings())


async def test_what_datagram_received_raises(loop: Any, reports: Any) -> None:
    def hook(protocol: Any) -> None:
        if len(protocol.got) % 5 == 0:
            raise ZeroDivisionError(len(protocol.got))

    transport, recorder = await hooked(hook)
    await until(lambda: len(recorder.got) == 20)
    await turns(2)
    found = reports.take()
    assert [report["exception"].args for report in found] == [(5,), (10,), (15,), (20,)]
    assert all("_read_ready" in report["message"] for report in found)
    assert not transport.is_closing()
    assert recorder.data == [b"%d" % number for number in range(20)]
    await finish(transport)


async def test_what_the_other_callbacks_raise(loop: Any, reports: Any) -> None:
    class Bad(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            raise ZeroDivisionError("made")

        def error_received(self, exc: BaseException) -> None:
            raise ZeroDivisionError("error")

        def connection_lost(self, exc: BaseException | None) -> None:
            super().connection_lost(exc)
            raise ZeroDivisionError("lost")

    transport, _ = await endpoint(Bad())
    with pytest.raises(ZeroDivisionError, match="error"):
        transport.sendto(b"x" * 70000, address(transport))
    assert not transport.is_closing()
    transport.close()
    await turns(2)
    found = [str(report["exception"]) for report in reports.take()]
    assert found == ["made", "lost"]
    assert transport.get_extra_info("socket").fileno() == -1


async def test_error_received_that_sends(loop: Any) -> None:
    class Sends(Recorder):
        def error_received(self, exc: BaseException) -> None:
            super().error_received(exc)
            if len(self.errors) < 5:
                self.transport.sendto(b"x" * 70000, address(self.transport))
            self.transport.sendto(b"small", address(self.transport))

    transport, recorder = await endpoint(Sends())
    transport.sendto(b"x" * 70000, address(transport))
    await until(lambda: len(recorder.got) == 5)
    assert len(recorder.errors) == 5
    await finish(transport)


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_error_received_that_ends_it(loop: Any, end: str) -> None:
    class Ends(Recorder):
        def error_received(self, exc: BaseException) -> None:
            super().error_received(exc)
            getattr(self.transport, end)()

    broadcast = ("255.255.255.255", 9)
    transport, recorder = await endpoint(Ends())
    transport.sendto(b"good", address(transport))
    for _ in range(5):
        transport.sendto(b"x", broadcast)
    await until(lambda: recorder.lost)
    assert recorder.errors and recorder.events == ["made", "lost"]


async def test_echo_within_a_batch(loop: Any) -> None:
    server, echo = await endpoint(Echo())
    with udp_socket() as peer:
        for number in range(50):
            peer.sendto(b"%d" % number, address(server))
        await until(lambda: len(echo.got) == 50)
        await turns(1)
        assert [peer.recv(10) for _ in range(50)] == [b"%d" % n for n in range(50)]
    await finish(server)


async def test_a_new_protocol_in_the_middle(loop: Any) -> None:
    second = Recorder()

    def hook(protocol: Any) -> None:
        if len(protocol.got) == 8:
            protocol.transport.set_protocol(second)

    transport, first = await hooked(hook)
    await until(lambda: len(first.got) + len(second.got) == 20)
    assert first.data + second.data == [b"%d" % number for number in range(20)]
    assert len(first.got) == 8
    await finish(transport)
    assert first.events == ["made"] and second.events == ["lost"]


def test_stop_in_the_middle(loop: Any) -> None:
    async def begin() -> Any:
        return await hooked(lambda p: loop.stop())

    transport, recorder = loop.run_until_complete(begin())
    for wanted in range(len(recorder.got) + 1, 21):
        loop.run_forever()
        assert len(recorder.got) == wanted
    assert recorder.data == [b"%d" % number for number in range(20)]
    loop.run_until_complete(finish(transport))


def test_an_exception_that_ends_the_run(loop: Any) -> None:
    def hook(protocol: Any) -> None:
        if len(protocol.got) == 3:
            raise KeyboardInterrupt

    transport, recorder = loop.run_until_complete(hooked(hook))
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert len(recorder.got) == 3
    loop.run_until_complete(until(lambda: len(recorder.got) == 20))
    assert recorder.data == [b"%d" % number for number in range(20)]
    loop.run_until_complete(finish(transport))


async def test_addresses_that_run_python(loop: Any, reports: Any) -> None:
    transport, recorder = await endpoint()

    class Port:
        def __index__(self) -> int:
            transport.sendto(b"nested", address(transport))
            return int(address(transport)[1])

    transport.sendto(b"outer", ("127.0.0.1", Port()))
    await until(lambda: len(recorder.got) == 2)
    assert sorted(recorder.data) == [b"nested", b"outer"]

    class Closes:
        def __index__(self) -> int:
            transport.abort()
            return 9

    transport.sendto(b"x", ("127.0.0.1", Closes()))
    await turns(3)
    assert recorder.lost == [None]


async def test_an_address_with_a_strange_comparison(loop: Any) -> None:
    server, recorder = await endpoint()
    client, _ = await endpoint(remote_addr=address(server))

    class Same:
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    class Raises:
        def __eq__(self, other: object) -> bool:
            raise ZeroDivisionError

        __hash__ = None  # type: ignore[assignment]

    client.sendto(b"sent", Same())
    with pytest.raises(ZeroDivisionError):
        client.sendto(b"not", Raises())
    await until(lambda: recorder.got)
    assert recorder.data == [b"sent"]
    await finish(server, client)


@pytest.mark.parametrize("seed", range(6))
async def test_at_random(loop: Any, seed: int, reports: Any) -> None:
    """Nothing crashes, leaks or hangs whatever the callbacks do."""
    rng = random.Random(seed)
    live: list[Any] = []

    class Wild(Recorder):
        def act(self) -> None:
            choice = rng.random()
            if choice < 0.02:
                self.transport.close()
            elif choice < 0.03:
                self.transport.abort()
            elif choice < 0.1:
                self.transport.pause_reading()
            elif choice < 0.2:
                self.transport.resume_reading()
            elif choice < 0.25:
                raise ZeroDivisionError
            elif choice < 0.3:
                self.transport.set_write_buffer_limits(rng.choice([0, 100, None]))
            elif live:
                target = rng.choice(live)
                size = rng.choice([0, 1, 100, 9000, 70000])
                addr = rng.choice([address(target), address(target), ("nonsense",)])
                if addr != ("nonsense",) or choice > 0.98:
                    self.transport.sendto(bytes(size), addr)

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.act()

        def error_received(self, exc: BaseException) -> None:
            if rng.random() < 0.3:
                self.act()

        def connection_lost(self, exc: BaseException | None) -> None:
            super().connection_lost(exc)
            live.remove(self.transport)

    async def more() -> None:
        transport, _ = await endpoint(Wild())
        live.append(transport)

    for _ in range(4):
        await more()
    for _ in range(150):
        while len(live) < 3:
            await more()
        for transport in list(live):
            for _ in range(rng.randrange(8)):
                target = rng.choice(live)
                if transport.is_closing():
                    break
                try:
                    transport.sendto(b"x" * rng.randrange(50), address(target))
                except ZeroDivisionError:
                    continue
        await asyncio.sleep(0)
    await finish(*live)
    assert live == []
    kinds = {type(report["exception"]) for report in reports.take()}
    assert kinds <= {ZeroDivisionError, TypeError}


def test_shutdown_with_everything_pending(loop_kind: str) -> None:
    out, _ = run_script(
        loop_kind,
        """
        class P(asyncio.DatagramProtocol):
            def connection_made(self, transport):
                self.transport = transport
            def datagram_received(self, data, addr):
                self.transport.sendto(data, addr)
                self.transport.pause_reading()
        async def main():
            loop = asyncio.get_running_loop()
            for _ in range(5):
                t, p = await loop.create_datagram_endpoint(
                    P, local_addr=("127.0.0.1", 0))
                addr = t.get_extra_info("sockname")
                for _ in range(30):
                    t.sendto(b"x" * 100, addr)
                kept.append((t, p))
            await asyncio.sleep(0.01)
        kept = []
        run(main())
        print("done")
        """,
        "-W",
        "ignore",
        quiet=False,
    )
    assert out == "done\n"

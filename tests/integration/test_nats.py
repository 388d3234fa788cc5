"""nats-py on a NATS server: subjects, queues, requests, JetStream, reconnecting.

Over TCP, TLS and WebSocket (aiohttp's), with streams of asyncio and of hotloop.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import nats
import nats.errors
import pytest
from nats.js.api import AckPolicy, ConsumerConfig

import hotloop
import services
from crowds import cancel, no_lost_cancellation
from support import turns, until

PATIENCE = 50  # seconds; a loaded machine may be slow


@pytest.fixture(params=["streams", "c-streams"], autouse=True)
def streams(request: pytest.FixtureRequest) -> Iterator[None]:
    """Streams of asyncio, and on hotloop's loops its own in C."""
    if request.param == "c-streams":
        hotloop.install_streams()
    yield
    if request.param == "c-streams":
        hotloop.uninstall_streams()


@contextlib.asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[Any]:
    """A client that fails the test if anything is reported to it."""
    errors: list[Exception] = []

    async def keep(error: Exception) -> None:
        errors.append(error)

    options = {"error_cb": keep, "connect_timeout": PATIENCE, **options}
    client = await nats.connect(url, **options)
    try:
        yield client
    finally:
        await client.close()
    assert errors == []


async def flushed(client: Any) -> None:
    """Wait until the server has had everything the client has written.

    Twice: nats-py's first question may overtake what its own task is about to send.
    """
    await client.flush(PATIENCE)
    await client.flush(PATIENCE)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def test_subjects(nats_server: services.Nats, loop: Any) -> None:
    url = nats_server.url
    async with connected(url) as publisher, connected(url) as subscriber:
        found: dict[str, list[str]] = {"*": [], ">": [], "iterated": []}
        done = asyncio.Event()

        async def star(message: Any) -> None:
            found["*"].append(message.data.decode())

        async def rest(message: Any) -> None:
            found[">"].append(f"{message.subject} {message.data.decode()}")
            if message.data == b"end":
                done.set()

        await subscriber.subscribe("news.*", cb=star)
        await subscriber.subscribe("news.>", cb=rest)
        iterated = await subscriber.subscribe("news.local")
        await flushed(subscriber)
        for number in range(1000):
            await publisher.publish("news.local", f"{number}".encode())
        await publisher.publish("other.local", b"nobody hears this")
        await publisher.publish("news.far.away", b"end")
        await done.wait()
        async for message in iterated.messages:
            found["iterated"].append(message.data.decode())
            if len(found["iterated"]) == 1000:
                break
        numbers = [f"{number}" for number in range(1000)]
        assert found["*"] == found["iterated"] == numbers
        ends = [f"news.local {n}" for n in numbers]
        assert found[">"] == [*ends, "news.far.away end"]


async def test_a_queue_group_shares_the_work(
    nats_server: services.Nats, loop: Any
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        url = nats_server.url
        clients = [await stack.enter_async_context(connected(url)) for _ in range(5)]
        taken: list[list[int]] = [[] for _ in clients]

        def worker(own: list[int]) -> Any:
            async def work(message: Any) -> None:
                own.append(int(message.data))

            return work

        for client, own in zip(clients, taken, strict=True):
            await client.subscribe("work", queue="workers", cb=worker(own))
            await flushed(client)
        for number in range(500):
            await clients[number % 5].publish("work", b"%d" % number)
        await until(lambda: sum(map(len, taken)) == 500, PATIENCE)
        assert sorted(itertools.chain(*taken)) == list(range(500))
        assert min(map(len, taken)) > 0


async def test_requests(nats_server: services.Nats, loop: Any) -> None:
    url = nats_server.url
    async with connected(url) as server, connected(url) as client:

        async def double(message: Any) -> None:
            await message.respond(message.data * 2)

        async def never(message: Any) -> None:
            pass

        await server.subscribe("double", cb=double)
        await server.subscribe("never", cb=never)
        await flushed(server)
        words = [f"word {number} ".encode() for number in range(200)]
        replies = await asyncio.gather(
            *(client.request("double", word, timeout=PATIENCE) for word in words)
        )
        assert [reply.data for reply in replies] == [word * 2 for word in words]
        with pytest.raises(nats.errors.NoRespondersError):
            await client.request("nobody", b"", timeout=PATIENCE)
        with pytest.raises(nats.errors.TimeoutError):
            await client.request("never", b"", timeout=0.02)
        for count in range(6):
            task = asyncio.create_task(client.request("never", b"", timeout=PATIENCE))
            await turns(count)
            await cancel(task)
        reply = await client.request("double", b"x", timeout=PATIENCE)
        assert reply.data == b"xx"


@pytest.mark.parametrize("kind", ["tcp", "tls", "websocket"])
async def test_big_messages(
    nats_server: services.Nats, tls: Any, kind: str, loop: Any
) -> None:
    url, options = nats_server.url, {}
    if kind == "tls":
        options = {"tls": tls[1], "tls_hostname": "localhost"}
    elif kind == "websocket":
        url = nats_server.websocket_url
    async with (
        connected(url, **options) as publisher,
        connected(url, **options) as subscriber,
    ):
        incoming = await subscriber.subscribe("big", pending_bytes_limit=2**30)
        await flushed(subscriber)
        payloads = [random.Random(seed).randbytes(2_000_000) for seed in range(8)]
        for payload in payloads:
            await publisher.publish("big", payload)
        await flushed(publisher)
        for payload in payloads:
            message = await incoming.next_msg(timeout=PATIENCE)
            assert digest(message.data) == digest(payload)
        with pytest.raises(nats.errors.TimeoutError):
            await incoming.next_msg(timeout=0.01)


@pytest.fixture
def stream_name(request: pytest.FixtureRequest) -> str:
    return "".join(filter(str.isalnum, request.node.name))


@no_lost_cancellation
async def test_jetstream_pull(
    nats_server: services.Nats, stream_name: str, loop: Any
) -> None:
    async with connected(nats_server.url) as client:
        stream = client.jetstream(timeout=PATIENCE)
        await stream.add_stream(name=stream_name, subjects=[f"{stream_name}.>"])
        acks = await asyncio.gather(
            *(stream.publish(f"{stream_name}.jobs", b"%d" % n) for n in range(200))
        )
        assert sorted(ack.seq for ack in acks) == list(range(1, 201))
        subscription = await stream.pull_subscribe(f"{stream_name}.jobs", "puller")
        done: list[int] = []

        async def worker() -> None:
            while len(done) < 200:
                # Of nats-py and, when the end of a batch is late, of asyncio.
                with contextlib.suppress(TimeoutError):
                    for message in await subscription.fetch(10, timeout=0.5):
                        done.append(int(message.data))
                        await message.ack()

        await asyncio.gather(*(worker() for _ in range(3)))
        assert sorted(done) == list(range(200))
        with pytest.raises(TimeoutError):
            await subscription.fetch(1, timeout=0.02)
        # A fetch that was cancelled leaves what comes later to the next one.
        task = asyncio.create_task(subscription.fetch(1, timeout=PATIENCE))
        await turns(5)
        await cancel(task)
        info = await subscription.consumer_info()
        assert info.num_pending == 0
        await stream.delete_stream(stream_name)


async def test_jetstream_push(
    nats_server: services.Nats, stream_name: str, loop: Any
) -> None:
    async with connected(nats_server.url) as client:
        stream = client.jetstream(timeout=PATIENCE)
        await stream.add_stream(name=stream_name, subjects=[f"{stream_name}.>"])
        for number in range(100):
            await stream.publish(f"{stream_name}.events", b"%d" % number)
        seen: list[int] = []

        async def take(message: Any) -> None:
            metadata = message.metadata
            # Every tenth is refused once, and comes again.
            if metadata.sequence.stream % 10 == 0 and metadata.num_delivered == 1:
                await message.nak()
                return
            seen.append(int(message.data))
            await message.ack_sync(timeout=PATIENCE)

        # What is not acknowledged would come again by itself, but far too late.
        config = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, ack_wait=10 * PATIENCE)
        await stream.subscribe(
            f"{stream_name}.events",
            durable="pusher",
            cb=take,
            config=config,
            manual_ack=True,
        )
        await until(lambda: len(seen) == 100, PATIENCE)
        assert sorted(seen) == list(range(100))
        await stream.delete_stream(stream_name)


async def test_draining_loses_nothing(nats_server: services.Nats, loop: Any) -> None:
    async with connected(nats_server.url) as publisher:
        client = await nats.connect(nats_server.url)
        seen: list[int] = []

        async def slow(message: Any) -> None:
            await asyncio.sleep(0)
            seen.append(int(message.data))

        await client.subscribe("drained", cb=slow)
        await flushed(client)
        for number in range(500):
            await publisher.publish("drained", b"%d" % number)
        # Else the server may be told of the end before it has passed all of them on.
        await flushed(publisher)
        await until(lambda: client.stats["in_msgs"] == 500, PATIENCE)
        await client.drain()
        assert client.is_closed
        assert seen == list(range(500))


async def test_the_server_comes_back(nats_server: services.Nats, loop: Any) -> None:
    happened: list[str] = []

    def note(what: str) -> Any:
        async def callback(*_: Any) -> None:
            happened.append(what)

        return callback

    options = {
        "reconnect_time_wait": 0.02,
        "max_reconnect_attempts": -1,
        "disconnected_cb": note("disconnected"),
        "reconnected_cb": note("reconnected"),
        "closed_cb": note("closed"),
        "error_cb": note("error"),
    }
    async with contextlib.AsyncExitStack() as stack:
        client, other = [
            await stack.enter_async_context(connected(nats_server.url, **options))
            for _ in range(2)
        ]
        messages = await client.subscribe("lasting")
        await flushed(client)
        for stop in (nats_server.stop, nats_server.kill):
            happened.clear()
            await asyncio.to_thread(stop)
            await until(lambda: happened.count("disconnected") == 2, PATIENCE)
            # What is published meanwhile goes out later.
            await other.publish("lasting", stop.__name__.encode())
            await asyncio.to_thread(nats_server.start)
            await until(lambda: happened.count("reconnected") == 2, PATIENCE)
            await flushed(client)
            await other.publish("lasting", b"again")
            found = b""
            while found != b"again":
                found = (await messages.next_msg(timeout=PATIENCE)).data
                assert found in (b"again", stop.__name__.encode())
    assert happened.count("closed") == 2


async def test_closing_while_others_wait(nats_server: services.Nats, loop: Any) -> None:
    client = await nats.connect(nats_server.url)
    silent = await client.subscribe("silent")
    waiting = [asyncio.create_task(silent.next_msg(timeout=PATIENCE)) for _ in range(5)]
    await turns(3)
    await client.close()
    for error in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(error, nats.errors.Error)
    with pytest.raises(nats.errors.ConnectionClosedError):
        await client.publish("silent", b"")


async def test_nobody_is_there(loop: Any) -> None:
    port = services.Port()
    with pytest.raises(nats.errors.NoServersError):
        await nats.connect(
            f"nats://{services.LOOPBACK}:{port.number}",
            max_reconnect_attempts=1,
            reconnect_time_wait=0.01,
            error_cb=ignore,
        )
    port.close()


async def ignore(_: Exception) -> None:
    pass

"""redis-py's asyncio client when things break off: cancelled, killed, restarted.

A connection whose reply nobody waits for any more must not hand that reply to the
next one who uses it.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import hashlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis import asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff, NoBackoff
from redis.exceptions import (
    ConnectionError,
    MaxConnectionsError,
    TimeoutError,
)

import hotloop
import services
from crowds import cancel, impatient_users, no_lost_cancellation, start
from support import turns

PATIENCE = 50  # seconds until a reply; a loaded machine may be slow
ONCE = Retry(NoBackoff(), 0)
PATIENTLY = Retry(ConstantBackoff(0.02), 2000)

Connect = Callable[..., aioredis.Redis]


@pytest.fixture(params=["streams", "c-streams"], autouse=True)
def streams(request: pytest.FixtureRequest) -> Any:
    """Streams of asyncio, and on hotloop's loops its own in C."""
    if request.param == "c-streams":
        hotloop.install_streams()
    yield
    if request.param == "c-streams":
        hotloop.uninstall_streams()


@pytest.fixture
def connect(redis_server: services.Redis) -> Connect:
    def client(**options: Any) -> aioredis.Redis:
        options = {"socket_timeout": PATIENCE, "retry": ONCE, **options}
        return aioredis.Redis.from_url(redis_server.url, **options)

    return client


@contextlib.asynccontextmanager
async def administrator(connect: Connect) -> AsyncIterator[aioredis.Redis]:
    """A client with a connection of its own, to look at the server and the others."""
    async with connect(retry=PATIENTLY, max_connections=1) as admin:
        await admin.flushall()
        yield admin


async def blocked(admin: aioredis.Redis, count: int) -> None:
    """Wait until so many clients wait inside a blocking command."""
    while (await admin.info("clients"))["blocked_clients"] != count:
        await asyncio.sleep(0.005)


async def test_blocking_commands_give_up_in_time(connect: Connect, loop: Any) -> None:
    async with connect() as client:
        await client.flushall()
        assert await client.blpop(["a", "b"], timeout=0.02) is None
        assert await client.blmove("a", "b", 0.02) is None
        assert not await client.xread({"stream": "$"}, block=20)
        assert await client.bzpopmin("sorted", 0.02) is None
        assert await client.ping()


async def test_a_cancelled_pop_takes_nothing(connect: Connect, loop: Any) -> None:
    async with administrator(connect) as admin, connect() as client:
        waiting = start(
            client.blpop("list", 0),
            client.blmove("list", "other", 0),
            client.xread({"stream": "$"}, block=0),
            client.bzpopmax("sorted", 0),
        )
        await blocked(admin, 4)
        await cancel(*waiting)
        # Their connections are gone, so the server gives nothing to the dead.
        await blocked(admin, 0)
        await admin.rpush("list", "kept")
        await admin.zadd("sorted", {"kept": 1})
        assert await client.blpop("list", 0) == (b"list", b"kept")
        assert await client.bzpopmax("sorted", 0) == (b"sorted", b"kept", 1)


@no_lost_cancellation
async def test_a_pop_that_ran_out_of_time(connect: Connect, loop: Any) -> None:
    async with administrator(connect) as admin, connect() as client:
        for _ in range(3):
            with pytest.raises(builtins.TimeoutError):
                await asyncio.wait_for(client.blpop("list", 0), 0.01)
            with pytest.raises(builtins.TimeoutError):
                async with asyncio.timeout(0.01):
                    await client.blpop("list", 0)
        # The client's own limit for a reply is shorter than the server's.
        async with connect(socket_timeout=0.05) as hasty:
            with pytest.raises(TimeoutError, match="Timeout reading"):
                await hasty.blpop("list", 0)
            assert await hasty.echo("next") == b"next"
        await blocked(admin, 0)
        await admin.rpush("list", "kept")
        assert await client.lrange("list", 0, -1) == [b"kept"]


async def test_nobody_gets_a_reply_to_another(connect: Connect, loop: Any) -> None:
    async with connect(max_connections=400) as client:

        async def ask(text: str) -> str:
            return (await client.echo(text.encode())).decode()

        await impatient_users(
            ask, users=30, rounds=10, patience=12, share=0.5, long=5000
        )


@no_lost_cancellation
async def test_a_big_reply_cut_short(connect: Connect, loop: Any) -> None:
    value = random.Random(2).randbytes(8_000_000)
    async with connect(max_connections=1) as client:
        await client.set("value", value)
        for count in (3, 5, 8, 12, 20, 35):
            (task,) = start(client.get("value"))
            await turns(count)
            await cancel(task)
            assert await client.echo("next") == b"next"
        got = await client.get("value")
        assert hashlib.sha256(got).digest() == hashlib.sha256(value).digest()


async def test_a_big_request_cut_short(connect: Connect, loop: Any) -> None:
    value = bytes(16_000_000)
    async with administrator(connect) as admin, connect(max_connections=1) as client:
        await client.set("value", "old")
        for count in (2, 3, 4, 5, 6):
            (task,) = start(client.set("value", value))
            await turns(count)
            await cancel(task)
            assert await client.echo("next") == b"next"
        # What a closed connection still has to send goes out all the same.
        while len(await admin.client_list()) > 2:
            await asyncio.sleep(0.005)
        assert await admin.strlen("value") in (3, len(value))


async def test_a_cancelled_pipeline(connect: Connect, loop: Any) -> None:
    async with connect(max_connections=1) as client:
        for count in range(2, 12):
            async with client.pipeline() as pipe:
                for number in range(500):
                    pipe.echo(f"old {number}")
                (task,) = start(pipe.execute())
                await turns(count)
                task.cancel()
                await asyncio.wait([task])
            async with client.pipeline() as pipe:
                for number in range(3):
                    pipe.echo(f"new {number}")
                assert await pipe.execute() == [b"new 0", b"new 1", b"new 2"]


async def test_idle_connections_are_killed(connect: Connect, loop: Any) -> None:
    async with administrator(connect) as admin, connect(retry=PATIENTLY) as client:
        await asyncio.gather(*(client.echo("x" * 1000) for _ in range(20)))
        for _ in range(3):
            assert await admin.client_kill_filter(skipme=True) > 0
            words = [f"word {number}".encode() for number in range(20)]
            assert await asyncio.gather(*map(client.echo, words)) == words


async def test_a_connection_is_killed_while_it_waits(
    connect: Connect, loop: Any
) -> None:
    async with (
        administrator(connect) as admin,
        connect() as once,
        connect(retry=PATIENTLY) as patient,
    ):
        failing, lasting = start(once.blpop("list", 0), patient.blpop("list", 0))
        await blocked(admin, 2)
        assert await admin.client_kill_filter(skipme=True) == 2
        with pytest.raises(ConnectionError, match=r"closed by server|reset"):
            await failing
        await blocked(admin, 1)
        await admin.rpush("list", "late")
        assert await lasting == (b"list", b"late")
        assert await once.ping()


async def test_many_users_while_connections_die(connect: Connect, loop: Any) -> None:
    async with administrator(connect) as admin, connect(retry=PATIENTLY) as client:
        done = 0

        async def user(number: int) -> None:
            nonlocal done
            for turn in range(40):
                await client.set(f"user:{number}", turn)
                assert await client.get(f"user:{number}") == b"%d" % turn
                done += 1

        users = start(*(user(number) for number in range(20)))
        for step in range(50, 800, 50):
            while done < step:
                await asyncio.sleep(0)
            assert await admin.client_kill_filter(skipme=True) > 0
        await asyncio.gather(*users)


async def test_the_server_is_away(
    connect: Connect, redis_server: services.Redis, loop: Any
) -> None:
    async with connect() as once, connect(retry=PATIENTLY) as patient:
        await once.ping()
        await asyncio.to_thread(redis_server.stop)
        with pytest.raises(ConnectionError):
            await once.ping()
        with pytest.raises(ConnectionError, match="Connect call failed"):
            await once.ping()
        waiting = start(*(patient.echo(f"{number}") for number in range(20)))
        await turns(20)
        await asyncio.to_thread(redis_server.start)
        wanted = [b"%d" % number for number in range(20)]
        assert await asyncio.gather(*waiting) == wanted
        assert await once.ping()


async def test_subscriptions_outlive_the_server(
    connect: Connect, redis_server: services.Redis, loop: Any
) -> None:
    async with connect(retry=PATIENTLY) as client, client.pubsub() as pubsub:
        await pubsub.subscribe("channel")
        await pubsub.psubscribe("pattern.*")
        heard: asyncio.Queue[str] = asyncio.Queue()

        async def listen() -> None:
            async for message in pubsub.listen():
                if message["type"].endswith("message"):
                    heard.put_nowait(message["data"].decode())

        (listener,) = start(listen())
        for stop in (redis_server.stop, redis_server.kill):
            await publish(client, "channel", "before")
            await publish(client, "pattern.1", "before too")
            assert await heard.get() == "before"
            assert await heard.get() == "before too"
            await asyncio.to_thread(stop)
            await asyncio.to_thread(redis_server.start)
        await publish(client, "channel", "after")
        await publish(client, "pattern.2", "after too")
        assert await heard.get() == "after"
        assert await heard.get() == "after too"
        await cancel(listener)


async def publish(client: aioredis.Redis, channel: str, text: str) -> None:
    """Publish until there is somebody to hear it."""
    while not await client.publish(channel, text):
        await asyncio.sleep(0.01)


async def test_a_server_that_does_not_answer(
    connect: Connect, redis_server: services.Redis, loop: Any
) -> None:
    async with connect(socket_timeout=0.1) as client:
        await client.ping()
        with redis_server.frozen():
            with pytest.raises(TimeoutError, match="Timeout reading"):
                await client.echo("lost")
            # The kernel accepts a connection, but nobody says hello.
            with pytest.raises(TimeoutError):
                await client.echo("lost too")
            # Nor does anyone take so much data.
            with pytest.raises(TimeoutError):
                await client.echo(bytes(20_000_000))
    async with connect() as client:
        assert await client.echo("found") == b"found"


async def test_waiting_for_a_connection(
    connect: Connect, redis_server: services.Redis, loop: Any
) -> None:
    async with administrator(connect) as admin:
        async with connect(max_connections=2) as client:
            waiting = start(*(client.blpop("list", 0) for _ in range(2)))
            await blocked(admin, 2)
            with pytest.raises(MaxConnectionsError):
                await client.ping()
            await cancel(*waiting)
        pool = aioredis.BlockingConnectionPool.from_url(
            redis_server.url, max_connections=1, timeout=0.05, socket_timeout=PATIENCE
        )
        async with aioredis.Redis.from_pool(pool) as client:
            waiting = start(client.blpop("list", 0))
            await blocked(admin, 1)
            with pytest.raises(ConnectionError, match="No connection available"):
                await client.ping()
            pool.timeout = PATIENCE
            queued = start(client.echo("first"), client.echo("second"))
            await turns(3)
            await cancel(queued[0])
            await admin.rpush("list", "item")
            assert await waiting[0] == (b"list", b"item")
            assert await queued[1] == b"second"


async def test_closing_while_others_wait(connect: Connect, loop: Any) -> None:
    async with administrator(connect) as admin:
        client = connect()
        waiting = start(*(client.blpop("list", 0) for _ in range(20)))
        await blocked(admin, 20)
        await client.aclose()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(result) for result in results} == {ConnectionError}
        await blocked(admin, 0)


async def test_a_subscriber_that_does_not_keep_up(connect: Connect, loop: Any) -> None:
    async with administrator(connect) as admin, connect() as client:
        await admin.config_set("client-output-buffer-limit", "pubsub 1mb 1mb 0")
        pubsub = client.pubsub(ignore_subscribe_messages=True)
        await pubsub.subscribe("flood")
        assert await pubsub.get_message(timeout=PATIENCE) is None
        payload = bytes(1_000_000)
        sent = 0
        while await admin.publish("flood", b"%04d" % sent + payload):
            sent += 1
            assert sent < 500
        # It may have what came through; then it learns that it was cut off.
        numbers = []
        with pytest.raises(ConnectionError):
            while True:
                message = await pubsub.get_message(timeout=PATIENCE)
                assert message["data"][4:] == payload
                numbers.append(int(message["data"][:4]))
        assert numbers == list(range(len(numbers)))
        await pubsub.aclose()
        await admin.config_set("client-output-buffer-limit", "pubsub 32mb 8mb 60")

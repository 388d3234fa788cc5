"""redis-py's asyncio client on a Redis server: what its users do all day.

With the parser in C (hiredis) and those in Python, with streams of asyncio and of
hotloop. What goes wrong in the middle of things is in test_redis_faults.py.
"""

from __future__ import annotations

import asyncio
import hashlib
import pathlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import asyncio as aioredis
from redis._parsers import _AsyncHiredisParser, _AsyncRESP2Parser, _AsyncRESP3Parser
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, ResponseError, WatchError

import hotloop
import services

PARSERS = {
    "hiredis": (_AsyncHiredisParser, 3),
    "python-resp3": (_AsyncRESP3Parser, 3),
    "python-resp2": (_AsyncRESP2Parser, 2),
}
# The second ones are with hotloop's streams in C, on hotloop's loops.
WAYS = ["hiredis", "hiredis, c", "python-resp3, c", "python-resp2"]
PATIENCE = 50  # seconds until a reply; a loaded machine may be slow

Connect = Callable[..., aioredis.Redis]


@pytest.fixture(params=WAYS)
def connect(
    request: pytest.FixtureRequest, redis_server: services.Redis
) -> Iterator[Connect]:
    """Makes clients whose connections read and parse in the way of this run."""
    name, _, streams = request.param.partition(", ")
    parser, protocol = PARSERS[name]

    def client(pool_class: Any = aioredis.ConnectionPool, **options: Any) -> Any:
        url = options.pop("url", redis_server.url)
        options = {"socket_timeout": PATIENCE, **options}
        pool = pool_class.from_url(
            url, parser_class=parser, protocol=protocol, **options
        )
        return aioredis.Redis.from_pool(pool)

    if streams:
        hotloop.install_streams()
    yield client
    if streams:
        hotloop.uninstall_streams()


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def test_fifty_users_share_ten_connections(connect: Connect, loop: Any) -> None:
    pool_class = aioredis.BlockingConnectionPool
    async with connect(pool_class, max_connections=10, timeout=PATIENCE) as client:
        await client.flushdb()

        async def user(number: int) -> None:
            own = random.Random(number)
            for turn in range(10):
                value = own.randbytes(own.randrange(5000))
                assert await client.set(f"user:{number}", value)
                assert await client.get(f"user:{number}") == value
                assert await client.incr(f"turns:{number}") == turn + 1
                await client.incr("turns")

        await asyncio.gather(*(user(number) for number in range(50)))
        assert await client.get("turns") == b"500"
        clients = await client.client_list()
        assert 1 < len(clients) <= 10


async def test_tasks_share_one_connection(connect: Connect, loop: Any) -> None:
    pool = connect(max_connections=1).connection_pool
    client = aioredis.Redis(connection_pool=pool, single_connection_client=True)
    async with client:
        words = [f"word {number}" for number in range(100)]
        echoes = await asyncio.gather(*map(client.echo, words))
        assert echoes == [word.encode() for word in words]
    await pool.disconnect()


@pytest.mark.parametrize("transaction", [True, False])
async def test_pipelines_side_by_side(
    connect: Connect, loop: Any, transaction: bool
) -> None:
    async with connect() as client:
        await client.flushdb()

        async def user(number: int) -> None:
            async with client.pipeline(transaction=transaction) as pipe:
                for step in range(200):
                    pipe.rpush(f"list:{number}", step).echo(f"{number}/{step}")
                replies = await pipe.execute()
            assert replies[0::2] == list(range(1, 201))
            assert replies[1::2] == [f"{number}/{step}".encode() for step in range(200)]

        await asyncio.gather(*(user(number) for number in range(20)))
        wanted = [b"%d" % step for step in range(200)]
        for number in range(20):
            assert await client.lrange(f"list:{number}", 0, -1) == wanted


async def test_an_error_inside_a_pipeline(connect: Connect, loop: Any) -> None:
    async with connect() as client:
        await client.flushdb()
        await client.set("text", "no list")
        async with client.pipeline(transaction=False) as pipe:
            pipe.set("a", 1).lpush("text", 2).get("a")
            first, error, last = await pipe.execute(raise_on_error=False)
        assert (first, last) == (True, b"1")
        assert isinstance(error, ResponseError)
        async with client.pipeline() as pipe:
            pipe.incr("a").lpush("text", 2)
            with pytest.raises(ResponseError, match="WRONGTYPE"):
                await pipe.execute()
        assert await client.get("a") == b"2"


async def test_a_watched_key_that_changes(connect: Connect, loop: Any) -> None:
    async with connect() as client:
        await client.set("watched", 1)
        async with client.pipeline() as pipe:
            await pipe.watch("watched")
            value = int(await pipe.get("watched"))
            await client.set("watched", 10)
            pipe.multi()
            pipe.set("watched", value + 1)
            with pytest.raises(WatchError):
                await pipe.execute()
        assert await client.get("watched") == b"10"


async def test_optimistic_increments_lose_none(connect: Connect, loop: Any) -> None:
    async with connect() as client:
        await client.set("counter", 0)
        collisions = 0

        async def increment() -> None:
            nonlocal collisions
            async with client.pipeline() as pipe:
                while True:
                    await pipe.watch("counter")
                    value = int(await pipe.get("counter"))
                    pipe.multi()
                    pipe.set("counter", value + 1)
                    try:
                        await pipe.execute()
                    except WatchError:
                        collisions += 1
                    else:
                        return

        await asyncio.gather(*(increment() for _ in range(20)))
        assert await client.get("counter") == b"20"
        assert collisions > 0


async def test_a_lock_admits_one_at_a_time(connect: Connect, loop: Any) -> None:
    async with connect() as client:
        inside: list[int] = []
        visits: list[int] = []

        async def visitor(number: int) -> None:
            async with client.lock("door", sleep=0.001, timeout=PATIENCE):
                inside.append(number)
                assert inside == [number]
                await client.ping()
                visits.append(inside.pop())

        await asyncio.gather(*(visitor(number) for number in range(12)))
        assert sorted(visits) == list(range(12))


async def test_big_values_arrive_whole(connect: Connect, loop: Any) -> None:
    async with connect() as client:
        values = {f"big:{number}": noise(3_000_000, number) for number in range(8)}

        async def there_and_back(key: str, value: bytes) -> None:
            await client.set(key, value)
            assert digest(await client.get(key)) == digest(value)

        pairs = values.items()
        await asyncio.gather(*(there_and_back(key, value) for key, value in pairs))
        # More replies than any buffer holds, before the first one is read.
        async with client.pipeline(transaction=False) as pipe:
            for key in [*values] * 2:
                pipe.get(key)
            replies = await pipe.execute()
        wanted = [digest(value) for value in values.values()]
        assert [digest(reply) for reply in replies] == wanted * 2
        await client.delete(*values)


async def test_thousands_of_keys_are_walked(connect: Connect, loop: Any) -> None:
    async with connect(decode_responses=True) as client:
        await client.flushdb()
        await client.mset({f"key:{number}": number for number in range(5000)})
        seen = set()
        async for key in client.scan_iter("key:*", count=250):
            seen.add(key)
        assert seen == {f"key:{number}" for number in range(5000)}
        await client.hset("hash", mapping={str(n): "x" * 50 for n in range(1000)})
        fields = {name async for name, _ in client.hscan_iter("hash")}
        assert len(fields) == 1000
        await client.flushdb()


async def test_scripts(connect: Connect, loop: Any) -> None:
    async with connect() as client:
        await client.script_flush()
        add = client.register_script(
            "redis.call('INCRBY', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])"
        )
        await client.delete("sum")
        # The server does not know it yet: redis-py is told so and sends it.
        totals = await asyncio.gather(*(add(["sum"], [n]) for n in range(1, 21)))
        assert max(map(int, totals)) == 210
        async with client.pipeline() as pipe:
            await add(["sum"], [1], client=pipe)
            await add(["sum"], [2], client=pipe)
            assert await pipe.execute() == [b"211", b"213"]
        with pytest.raises(ResponseError, match="not this"):
            await client.eval("return redis.error_reply('not this')", 0)
        nested = await client.eval("return {1, {2, {'3'}}, false, 'x'}", 0)
        assert nested == [1, [2, [b"3"]], None, b"x"]


async def test_a_queue_gives_each_job_to_one_worker(
    connect: Connect, loop: Any
) -> None:
    async with connect() as client:
        await client.delete("jobs", "taken")
        done: list[bytes] = []

        async def worker() -> None:
            while True:
                job = await client.blmove("jobs", "taken", 0, "LEFT", "RIGHT")
                if job == b"stop":
                    return
                done.append(job)

        workers = [asyncio.create_task(worker()) for _ in range(10)]
        for number in range(200):
            await client.rpush("jobs", number)
        await client.rpush("jobs", *["stop"] * 10)
        await asyncio.gather(*workers)
        assert sorted(map(int, done)) == list(range(200))
        assert await client.llen("taken") == 210


async def test_a_stream_has_many_consumers(connect: Connect, loop: Any) -> None:
    async with connect() as client:
        await client.delete("events")
        await client.xgroup_create("events", "group", mkstream=True)
        seen: list[bytes] = []
        finished = asyncio.Event()

        async def consumer(name: str) -> None:
            while not finished.is_set():
                found = await client.xreadgroup(
                    "group", name, {"events": ">"}, count=5, block=100
                )
                for identity, fields in entries(found):
                    seen.append(fields[b"number"])
                    await client.xack("events", "group", identity)
                if len(seen) == 100:
                    finished.set()

        async with asyncio.TaskGroup() as group:
            for number in range(5):
                group.create_task(consumer(f"consumer{number}"))
            for number in range(100):
                await client.xadd("events", {"number": number})
        assert sorted(map(int, seen)) == list(range(100))
        assert (await client.xpending("events", "group"))["pending"] == 0


def entries(reply: Any) -> list[Any]:
    """What was read of one stream; each protocol has a shape of its own."""
    if isinstance(reply, dict):
        return [entry for batch in reply.get(b"events", []) for entry in batch]
    return [entry for _, batch in reply for entry in batch]


async def test_subscriptions(connect: Connect, loop: Any) -> None:
    async with connect(decode_responses=True) as client, client.pubsub() as pubsub:
        handled: list[str] = []
        await pubsub.subscribe(
            "news", handled=lambda message: handled.append(message["data"])
        )
        await pubsub.psubscribe("user.*.mail")
        for number in range(100):
            await client.publish("news", f"n{number}")
            await client.publish(f"user.{number}.mail", f"m{number}")
            await client.publish("handled", f"h{number}")
        await client.publish("user.1.phone", "nobody hears this")
        await client.publish("news", "end")
        news, mail = [], []
        async for message in pubsub.listen():
            if message["type"] == "pmessage":
                assert message["pattern"] == "user.*.mail"
                mail.append((message["channel"], message["data"]))
            elif message["type"] == "message":
                news.append(message["data"])
                if message["data"] == "end":
                    await pubsub.unsubscribe()
                    await pubsub.punsubscribe()
        assert news == [*(f"n{number}" for number in range(100)), "end"]
        assert mail == [(f"user.{n}.mail", f"m{n}") for n in range(100)]
        assert handled == [f"h{number}" for number in range(100)]


async def test_a_message_is_waited_for_so_long(connect: Connect, loop: Any) -> None:
    async with connect() as client, client.pubsub() as pubsub:
        await pubsub.subscribe("quiet")
        confirmed = await pubsub.get_message(timeout=PATIENCE)
        assert confirmed["type"] == "subscribe"
        for timeout in (0, 0.001, 0.02):
            assert await pubsub.get_message(timeout=timeout) is None
        # One who gave up, in either way, takes no message away.
        waiter = asyncio.create_task(pubsub.get_message(timeout=None))
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.wait([waiter])
        assert waiter.cancelled()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await pubsub.get_message(timeout=None)
        assert await client.publish("quiet", "sound") == 1
        message = await pubsub.get_message(timeout=PATIENCE)
        assert message["data"] == b"sound"


async def test_a_crowd_of_subscribers(connect: Connect, loop: Any) -> None:
    async with connect() as client:
        payload = noise(20_000)

        async def subscriber(ready: asyncio.Barrier) -> list[str]:
            async with client.pubsub(ignore_subscribe_messages=True) as pubsub:
                await pubsub.subscribe("all")
                assert await pubsub.get_message(timeout=PATIENCE) is None
                await ready.wait()
                found = []
                while len(found) < 50:
                    message = await pubsub.get_message(timeout=PATIENCE)
                    found.append(digest(message["data"]))
                return found

        ready = asyncio.Barrier(31)
        crowd = [asyncio.create_task(subscriber(ready)) for _ in range(30)]
        await ready.wait()
        counts = [await client.publish("all", b"%d" % n + payload) for n in range(50)]
        assert counts == [30] * 50
        wanted = [digest(b"%d" % number + payload) for number in range(50)]
        assert await asyncio.gather(*crowd) == [wanted] * 30


async def test_tls(
    connect: Connect,
    redis_server: services.Redis,
    certificate: pathlib.Path,
    loop: Any,
) -> None:
    url = redis_server.tls_url
    async with connect(url=url, ssl_ca_certs=str(certificate)) as client:
        values = [noise(1_000_000, number) for number in range(4)]

        async def there_and_back(value: bytes) -> None:
            key = digest(value)
            await client.set(key, value, ex=60)
            assert digest(await client.get(key)) == key

        await asyncio.gather(*map(there_and_back, values))
    retry = Retry(NoBackoff(), 0)
    async with connect(url=url, retry=retry) as stranger:
        with pytest.raises(ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            await stranger.ping()


async def test_unix_socket(
    connect: Connect, redis_server: services.Redis, loop: Any
) -> None:
    async with connect(url=f"unix://{redis_server.socket_path}?db=3") as client:
        value = noise(5_000_000)
        await client.set("value", value)
        assert digest(await client.get("value")) == digest(value)
        assert (await client.client_info())["db"] == 3
        await client.flushdb()

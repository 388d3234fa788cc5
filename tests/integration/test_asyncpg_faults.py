"""asyncpg when things break off: cancelled, out of time, terminated by the server."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

import services
from crowds import cancel, impatient_users, start
from support import turns, until

SLEEP = "SELECT pg_sleep(600)"
GONE = (
    asyncpg.AdminShutdownError,
    asyncpg.ConnectionDoesNotExistError,
    asyncpg.CannotConnectNowError,
    asyncpg.InterfaceError,
    ConnectionError,
)


@contextlib.asynccontextmanager
async def connected(postgres: services.Postgres, **options: Any) -> AsyncIterator[Any]:
    """A connection for a while, without TLS unless that is asked for.

    With it, asyncpg forgets a future of its own where a request to cancel a query is
    itself cut short.
    """
    options = {"ssl": False, **options}
    connection = await asyncpg.connect(postgres.url, **options)
    try:
        yield connection
    finally:
        await connection.close()


def pool_of(server: services.Postgres, size: int) -> Any:
    # With a least size it connects in the background whenever a connection is lost.
    return asyncpg.create_pool(server.url, ssl=False, min_size=0, max_size=size)


async def waiting(admin: Any, count: int, event: str) -> None:
    """Wait until so many of the server's processes wait for this."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = $1"
    while await admin.fetchval(query, event) != count:
        await asyncio.sleep(0.005)


async def sleeping(admin: Any, count: int) -> None:
    """Wait until the server executes so many sleeps."""
    await waiting(admin, count, "PgSleep")


async def end_others(admin: Any) -> None:
    """Have the server end every other connection, and wait until it has.

    It does not notice by itself that a client has gone while it sleeps.
    """
    await admin.execute(
        """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"""
    )
    await alone(admin)


async def alone(admin: Any) -> None:
    """Wait until the server has no other client left."""
    query = """SELECT count(*) FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"""
    while await admin.fetchval(query):
        await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def administrator(postgres: services.Postgres) -> AsyncIterator[Any]:
    """A connection that looks at the server, with no others there at first."""
    async with connected(postgres) as admin:
        await end_others(admin)
        yield admin


@pytest.mark.parametrize("mode", ["disable", "require"])
async def test_a_cancelled_query_ends_on_the_server(
    postgres: services.Postgres, mode: str, loop: Any
) -> None:
    async with (
        administrator(postgres) as admin,
        connected(postgres, ssl=mode) as connection,
    ):
        for _ in range(3):
            (task,) = start(connection.fetchval(SLEEP))
            await sleeping(admin, 1)
            await cancel(task)
            assert await connection.fetchval("SELECT 7") == 7
            await sleeping(admin, 0)


async def test_queries_that_run_out_of_time(
    postgres: services.Postgres, loop: Any
) -> None:
    async with administrator(postgres) as admin, connected(postgres) as connection:
        statement = await connection.prepare(SLEEP)
        for attempt in (
            lambda: connection.execute(SLEEP, timeout=0.01),
            lambda: connection.fetchval(SLEEP, timeout=0.02),
            lambda: statement.fetch(timeout=0.01),
            lambda: asyncio.wait_for(connection.fetch(SLEEP), 0.02),
        ):
            with pytest.raises(TimeoutError):
                await attempt()
            assert await connection.fetchval("SELECT 7") == 7
        await sleeping(admin, 0)
    # This one is also the limit of cancelling at the server, so nothing is promised
    # about the connection afterwards.
    connection = await asyncpg.connect(postgres.url, ssl=False, command_timeout=0.2)
    with pytest.raises(TimeoutError):
        await connection.fetchval(SLEEP)
    connection.terminate()


async def test_nobody_gets_a_result_of_another(
    postgres: services.Postgres, loop: Any
) -> None:
    async with pool_of(postgres, 5) as pool:

        async def ask(text: str) -> Any:
            return await pool.fetchval("SELECT $1::text", text)

        await impatient_users(
            ask, users=20, rounds=10, patience=60, share=0.5, long=20_000
        )


async def test_a_cancelled_transaction_is_rolled_back(
    postgres: services.Postgres, loop: Any
) -> None:
    async with administrator(postgres) as admin, connected(postgres) as connection:
        await connection.execute("CREATE TEMP TABLE item (id int)")

        async def insert() -> None:
            async with connection.transaction():
                await connection.execute("INSERT INTO item VALUES (1)")
                async with connection.transaction():
                    await connection.execute("INSERT INTO item VALUES (2)")
                    await connection.execute(SLEEP)

        (task,) = start(insert())
        await sleeping(admin, 1)
        await cancel(task)
        assert not connection.is_in_transaction()
        assert await connection.fetchval("SELECT count(*) FROM item") == 0


async def test_a_cursor_is_cancelled(postgres: services.Postgres, loop: Any) -> None:
    query = "SELECT n, pg_sleep(0.0005) FROM generate_series(1, 1000000) n"
    async with connected(postgres) as connection:
        read = 0

        async def walk() -> None:
            nonlocal read
            async with connection.transaction():
                async for _ in connection.cursor(query, prefetch=5):
                    read += 1

        (task,) = start(walk())
        await until(lambda: read > 20)
        await cancel(task)
        assert await connection.fetchval("SELECT 7") == 7


async def test_copies_are_cancelled(postgres: services.Postgres, loop: Any) -> None:
    async with connected(postgres) as connection:
        await connection.execute("CREATE TEMP TABLE item (data text)")
        moved = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal moved
            while True:
                moved += 1
                await asyncio.sleep(0)
                yield b"x" * 50_000 + b"\n"

        async def copy_in() -> None:
            async with contextlib.aclosing(endless()) as source:
                await connection.copy_to_table("item", source=source)

        async def take(data: bytes) -> None:
            nonlocal moved
            moved += 1
            await asyncio.sleep(0)

        async def copy_out() -> None:
            query = "SELECT repeat('x', 1000), generate_series(1, 100000000)"
            await connection.copy_from_query(query, output=take)

        for copy in (copy_in, copy_in, copy_out):
            before = moved
            (task,) = start(copy())
            await until(lambda before=before: moved > before + 100)
            await cancel(task)
            before = moved
            if copy is copy_in:
                assert await connection.fetchval("SELECT count(*) FROM item") == 0
        # After that one asyncpg may take the connection for one that is still busy,
        # on asyncio as well.
        connection.terminate()
        await turns(3)
        assert moved == before


async def test_a_source_that_fails_ends_its_copy(
    postgres: services.Postgres, loop: Any
) -> None:
    async def failing() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 10_000 + b"\n"
        raise ZeroDivisionError

    async with connected(postgres) as connection:
        await connection.execute("CREATE TEMP TABLE item (data text)")
        with pytest.raises(ZeroDivisionError):
            await connection.copy_to_table("item", source=failing())
        assert await connection.fetchval("SELECT count(*) FROM item") == 0


@pytest.mark.parametrize("mode", ["disable", "require"])
async def test_the_server_ends_a_connection(
    postgres: services.Postgres, mode: str, loop: Any
) -> None:
    async with administrator(postgres) as admin:
        connection = await asyncpg.connect(postgres.url, ssl=mode)
        told: list[Any] = []
        connection.add_termination_listener(told.append)
        (task,) = start(connection.fetchval(SLEEP))
        await sleeping(admin, 1)
        pid = connection.get_server_pid()
        assert await admin.fetchval("SELECT pg_terminate_backend($1)", pid)
        with pytest.raises(GONE):
            await task
        await until(lambda: told)
        assert connection.is_closed()
        with pytest.raises(asyncpg.InterfaceError, match="connection is closed"):
            await connection.fetchval("SELECT 7")


async def test_a_pool_replaces_what_the_server_ended(
    postgres: services.Postgres, loop: Any
) -> None:
    async with (
        administrator(postgres) as admin,
        pool_of(postgres, 5) as pool,
    ):
        for _ in range(3):
            tasks = start(*(pool.fetchval(SLEEP) for _ in range(3)))
            await sleeping(admin, 3)
            await end_others(admin)
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert isinstance(result, GONE)
            await alone(admin)
            # Idle ones may not know of their end yet.
            await until(lambda: pool.get_size() == 0)
            queries = (pool.fetchval("SELECT $1::int", n) for n in range(20))
            assert await asyncio.gather(*queries) == [*range(20)]


async def test_waiting_for_a_connection(postgres: services.Postgres, loop: Any) -> None:
    async with pool_of(postgres, 1) as pool:
        held = await pool.acquire()
        with pytest.raises(TimeoutError):
            await pool.acquire(timeout=0.02)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await pool.fetchval("SELECT 7")
        queued = start(*(pool.fetchval("SELECT $1::int", n) for n in range(5)))
        await turns(3)
        await cancel(queued[0], queued[2])
        # Cancelled in the very turn in which it is given the connection.
        await pool.release(held)
        queued[1].cancel()
        assert await asyncio.gather(*queued[3:]) == [3, 4]
        await asyncio.wait([queued[1]])
        assert await pool.fetchval("SELECT 7") == 7


async def test_closing_pools(postgres: services.Postgres, loop: Any) -> None:
    async with administrator(postgres) as admin:
        # It waits for those who still use it.
        pool = await pool_of(postgres, 4)
        await admin.execute("SELECT pg_advisory_lock(1)")
        query = "SELECT $1::int, pg_advisory_lock_shared(1)"
        slow = start(*(pool.fetchval(query, number) for number in (1, 2)))
        await waiting(admin, 2, "advisory")
        (closing,) = start(pool.close())
        await turns(20)
        assert not closing.done()
        await admin.execute("SELECT pg_advisory_unlock(1)")
        await closing
        assert await asyncio.gather(*slow) == [1, 2]
        await alone(admin)
        with pytest.raises(asyncpg.InterfaceError, match="pool is clos"):
            await pool.fetchval("SELECT 7")
        # It is told to wait no longer.
        for end in (
            lambda pool: asyncio.wait_for(pool.close(), 0.02),
            lambda pool: asyncio.to_thread(lambda: None),
        ):
            pool = await pool_of(postgres, 4)
            stuck = start(*(pool.fetchval(SLEEP) for _ in range(3)))
            await sleeping(admin, 3)
            with contextlib.suppress(TimeoutError):
                await end(pool)
            pool.terminate()
            for result in await asyncio.gather(*stuck, return_exceptions=True):
                assert isinstance(result, GONE)
            await end_others(admin)


async def test_closing_connections_in_use(
    postgres: services.Postgres, loop: Any
) -> None:
    async with administrator(postgres) as admin:
        connection = await asyncpg.connect(postgres.url)
        (task,) = start(connection.fetchval(SLEEP))
        await sleeping(admin, 1)
        with pytest.raises(asyncpg.InterfaceError, match="another operation"):
            await connection.fetchval("SELECT 7")
        connection.terminate()
        with pytest.raises(GONE):
            await task
        assert connection.is_closed()
        await end_others(admin)


@pytest.mark.parametrize("kind", ["tls", "plain", "unix"])
async def test_connecting_is_cancelled_at_every_turn(
    postgres: services.Postgres, kind: str, tls: Any, reports: Any, loop: Any
) -> None:
    options: dict[str, Any] = {"dsn": postgres.url, "ssl": tls[1]}
    if kind == "plain":
        options["ssl"] = False
    if kind == "unix":
        options = {"host": str(postgres.folder), "port": postgres.port}
        options |= {"user": postgres.user, "database": postgres.database}
    async with administrator(postgres) as admin:
        for count in range(40):
            (task,) = start(asyncpg.connect(**options))
            await turns(count)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await (await task).close()
        for milliseconds in range(1, 12):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(milliseconds / 1000):
                    connection = await asyncpg.connect(**options)
                    await connection.close()
        await alone(admin)
    # Cancelled while it asks for TLS, asyncpg forgets the future of the answer.
    gc.collect()
    for report in reports.take():
        assert report["message"] == "Future exception was never retrieved"
        assert str(report["exception"]) == "unexpected connection_lost() call"


@pytest.mark.parametrize("mode", ["disable", "prefer", "require"])
async def test_a_server_that_does_not_greet(
    plain_postgres: services.Postgres, mode: str, loop: Any
) -> None:
    """The kernel accepts the connection; nobody answers on it."""
    with plain_postgres.frozen():
        with pytest.raises(TimeoutError):
            await asyncpg.connect(plain_postgres.url, ssl=mode, timeout=0.05)
        (task,) = start(asyncpg.connect(plain_postgres.url, ssl=mode))
        await asyncio.sleep(0.02)
        await cancel(task)
    async with connected(plain_postgres, ssl="disable") as connection:
        assert await connection.fetchval("SELECT 7") == 7


async def test_the_server_comes_back(
    plain_postgres: services.Postgres, loop: Any
) -> None:
    server = plain_postgres
    async with pool_of(server, 4) as pool:
        for stop in (server.stop, server.kill):
            tasks = start(*(pool.fetchval(SLEEP) for _ in range(3)))
            async with pool.acquire() as admin:
                await sleeping(admin, 3)
            await asyncio.to_thread(stop)
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert isinstance(result, GONE)
            await until(lambda: pool.get_size() == 0)
            with pytest.raises(OSError):
                await pool.fetchval("SELECT 7")
            await asyncio.to_thread(server.start)
            queries = (pool.fetchval("SELECT $1::int", n) for n in range(20))
            assert await asyncio.gather(*queries) == [*range(20)]

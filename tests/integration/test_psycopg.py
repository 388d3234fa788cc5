"""psycopg 3 on a PostgreSQL server; it waits with add_reader() and add_writer()."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

import services
from crowds import cancel, impatient_users, start
from support import turns

SLEEP = "SELECT pg_sleep(600)"
OTHERS = "backend_type = 'client backend' AND pid <> pg_backend_pid()"
PATIENCE = 50  # seconds; a loaded machine may be slow


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextlib.asynccontextmanager
async def connected(
    postgres: services.Postgres, **options: Any
) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    connection = await psycopg.AsyncConnection.connect(postgres.url, **options)
    try:
        yield connection
    finally:
        await connection.close()


def pool_of(postgres: services.Postgres, size: int, **options: Any) -> Any:
    options = {"timeout": PATIENCE, **options}
    return AsyncConnectionPool(
        postgres.url, min_size=size, max_size=size, open=False, **options
    )


async def value_of(connection: Any, query: str, *arguments: Any) -> Any:
    cursor = await connection.execute(query, arguments)
    return (await cursor.fetchone())[0]


@contextlib.asynccontextmanager
async def administrator(postgres: services.Postgres) -> AsyncIterator[Any]:
    """A connection that looks at the server, with no others there at first."""
    async with connected(postgres, autocommit=True) as admin:
        await end_others(admin)
        yield admin


async def end_others(admin: Any) -> None:
    """Have the server end every other connection, and wait until it has."""
    await admin.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OTHERS}"
    )
    query = f"SELECT count(*) FROM pg_stat_activity WHERE {OTHERS}"
    while await value_of(admin, query):
        await asyncio.sleep(0.005)


async def sleeping(admin: Any, count: int) -> None:
    """Wait until the server executes so many sleeps."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    while await value_of(admin, query) != count:
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("mode", ["disable", "require", "verify-full"])
async def test_big_values(
    postgres: services.Postgres, certificate: Any, mode: str, loop: Any
) -> None:
    options = {"sslmode": mode, "sslrootcert": str(certificate)}
    value = random.Random(1).randbytes(8_000_000)
    async with connected(postgres, **options) as connection:
        cursor = await connection.execute(
            "SELECT encode(sha256(%(value)s), 'hex') AS there, %(value)s AS back",
            {"value": value},
            binary=True,
        )
        there, back = await cursor.fetchone()
        assert there == digest(back) == digest(value)


async def test_unix_socket(postgres: services.Postgres, loop: Any) -> None:
    connection = await psycopg.AsyncConnection.connect(
        host=str(postgres.folder),
        port=postgres.port,
        user=postgres.user,
        dbname=postgres.database,
    )
    async with connection:
        assert await value_of(connection, "SELECT inet_server_addr()") is None


async def test_many_users_share_a_pool(postgres: services.Postgres, loop: Any) -> None:
    async with pool_of(postgres, 8) as pool:

        async def user(number: int) -> set[int]:
            backends = set()
            for turn in range(5):
                async with pool.connection() as connection:
                    backends.add(connection.info.backend_pid)
                    text = f"{number}/{turn}" * 100
                    assert await value_of(connection, "SELECT %s::text", text) == text
            return backends

        used = await asyncio.gather(*(user(number) for number in range(60)))
        assert 1 < len(set.union(*used)) <= 8


async def test_savepoints(postgres: services.Postgres, loop: Any) -> None:
    async with connected(postgres, row_factory=dict_row) as connection:
        await connection.execute("CREATE TEMP TABLE item (id int PRIMARY KEY)")
        insert = "INSERT INTO item VALUES (%s)"
        async with connection.transaction():
            await connection.execute(insert, [1])
            with pytest.raises(psycopg.errors.UniqueViolation):
                async with connection.transaction():
                    await connection.execute(insert, [2])
                    await connection.execute(insert, [1])
            async with connection.transaction():
                await connection.execute(insert, [3])
                raise psycopg.Rollback
            await connection.execute(insert, [4])
        cursor = await connection.execute("SELECT id FROM item ORDER BY id")
        assert await cursor.fetchall() == [{"id": 1}, {"id": 4}]


async def test_rows_are_walked(postgres: services.Postgres, loop: Any) -> None:
    query = "SELECT n, repeat('x', 200) FROM generate_series(1, 20000) n"
    async with connected(postgres) as connection:
        async with connection.cursor("on_the_server") as cursor:
            cursor.itersize = 700
            await cursor.execute(query)
            assert [row[0] async for row in cursor] == [*range(1, 20_001)]
        async with connection.cursor() as cursor:
            numbers = [row[0] async for row in cursor.stream(query)]
            assert numbers == [*range(1, 20_001)]


async def test_pipelines(postgres: services.Postgres, loop: Any) -> None:
    async with connected(postgres, autocommit=True) as connection:
        await connection.execute("CREATE TEMP TABLE item (id int, data text)")
        async with connection.pipeline() as pipeline, connection.cursor() as cursor:
            # More than any buffer holds, both ways at the same time.
            results = []
            for number in range(300):
                results.append(
                    await connection.execute(
                        "INSERT INTO item VALUES (%s, %s) RETURNING id, data",
                        [number, f"{number}" * 3000],
                    )
                )
            await cursor.executemany("SELECT %s::int", [(n,) for n in range(100)])
            await pipeline.sync()
            for number, result in enumerate(results):
                assert await result.fetchone() == (number, f"{number}" * 3000)
        with pytest.raises(psycopg.errors.UndefinedTable):
            async with connection.pipeline():
                await connection.execute("INSERT INTO nothing VALUES (1)")
                await connection.execute("INSERT INTO item VALUES (1000)")
        assert await value_of(connection, "SELECT max(id) FROM item") == 299


async def test_copy(postgres: services.Postgres, loop: Any) -> None:
    async with connected(postgres) as connection:
        await connection.execute("CREATE TEMP TABLE item (id int, data bytea)")
        text = b"".join(b"%d\t\\\\x%064x\n" % (n, n**5) for n in range(60_000))
        async with connection.cursor() as cursor:
            async with cursor.copy("COPY item FROM STDIN") as copy:
                for begin in range(0, len(text), 100_000):
                    await copy.write(text[begin : begin + 100_000])
            async with cursor.copy("COPY item FROM STDIN") as copy:
                for number in range(60_000, 70_000):
                    await copy.write_row((number, b"row"))
            assert await value_of(connection, "SELECT count(*) FROM item") == 70_000
            query = "COPY (SELECT * FROM item WHERE id < 60000 ORDER BY id) TO STDOUT"
            hashed = hashlib.sha256()
            async with cursor.copy(query) as copy:
                async for block in copy:
                    hashed.update(block)
            assert hashed.hexdigest() == digest(text)
            with pytest.raises(ZeroDivisionError):
                async with cursor.copy("COPY item FROM STDIN") as copy:
                    await copy.write(text)
                    raise ZeroDivisionError
        await connection.rollback()
        assert connection.info.transaction_status.name == "IDLE"


async def test_notifications(postgres: services.Postgres, loop: Any) -> None:
    async with (
        connected(postgres, autocommit=True) as sender,
        contextlib.AsyncExitStack() as stack,
    ):

        async def listen(connection: Any) -> list[str]:
            found = []
            async for note in connection.notifies():
                found.append(note.payload)
                if note.payload == "end":
                    break
            return found

        listeners = []
        for _ in range(8):
            connection = await stack.enter_async_context(
                connected(postgres, autocommit=True)
            )
            await connection.execute("LISTEN news")
            assert [note async for note in connection.notifies(timeout=0.001)] == []
            listeners += start(listen(connection))
        for number in range(200):
            await sender.execute("SELECT pg_notify('news', %s)", [f"{number}"])
        await sender.execute("NOTIFY news, 'end'")
        wanted = [*(f"{number}" for number in range(200)), "end"]
        assert await asyncio.gather(*listeners) == [wanted] * 8
        # Cancelled while it waits, the connection goes on.
        (waiting,) = start(listen(connection))
        await turns(5)
        await cancel(waiting)
        await sender.execute("NOTIFY news, 'kept'")
        kept = [n.payload async for n in connection.notifies(timeout=50, stop_after=1)]
        assert kept == ["kept"]


async def test_a_cancelled_query_ends_on_the_server(
    postgres: services.Postgres, loop: Any
) -> None:
    async with (
        administrator(postgres) as admin,
        connected(postgres, autocommit=True) as connection,
    ):
        for _ in range(3):
            (task,) = start(connection.execute(SLEEP))
            await sleeping(admin, 1)
            await cancel(task)
            assert await value_of(connection, "SELECT 7") == 7
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(connection.execute(SLEEP), 0.02)
            assert await value_of(connection, "SELECT 7") == 7
        await sleeping(admin, 0)
        (task,) = start(connection.execute(SLEEP))
        await sleeping(admin, 1)
        await connection.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            await task
        await connection.execute("SET statement_timeout = 10")
        with pytest.raises(psycopg.errors.QueryCanceled):
            await connection.execute(SLEEP)


async def test_nobody_gets_a_result_of_another(
    postgres: services.Postgres, loop: Any
) -> None:
    async with pool_of(postgres, 5) as pool:

        async def ask(text: str) -> Any:
            async with pool.connection() as connection:
                return await value_of(connection, "SELECT %s::text", text)

        await impatient_users(
            ask, users=20, rounds=8, patience=60, share=0.4, long=20_000
        )


async def test_the_server_ends_a_connection(
    postgres: services.Postgres, loop: Any
) -> None:
    async with administrator(postgres) as admin:
        connection = await psycopg.AsyncConnection.connect(postgres.url)
        (task,) = start(connection.execute(SLEEP))
        await sleeping(admin, 1)
        await end_others(admin)
        with pytest.raises(psycopg.errors.AdminShutdown):
            await task
        assert connection.broken
        with pytest.raises(psycopg.OperationalError, match="is closed"):
            await connection.execute("SELECT 7")

        # One that waits for notifications notices as well.
        connection = await psycopg.AsyncConnection.connect(
            postgres.url, autocommit=True
        )
        await connection.execute("LISTEN news")

        async def listen() -> None:
            async for _ in connection.notifies():
                pass

        (task,) = start(listen())
        await turns(5)
        await end_others(admin)
        with pytest.raises(psycopg.OperationalError):
            await task


async def test_a_pool_replaces_what_the_server_ended(
    postgres: services.Postgres, loop: Any
) -> None:
    check = AsyncConnectionPool.check_connection
    async with (
        administrator(postgres) as admin,
        pool_of(postgres, 4, check=check) as pool,
    ):
        await pool.wait(PATIENCE)

        async def ask(query: str) -> Any:
            async with pool.connection() as connection:
                return await value_of(connection, query)

        for _ in range(3):
            tasks = start(*(ask(SLEEP) for _ in range(2)))
            await sleeping(admin, 2)
            await admin.execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OTHERS}"
            )
            for error in await asyncio.gather(*tasks, return_exceptions=True):
                assert isinstance(error, psycopg.errors.AdminShutdown)
            answers = (ask(f"SELECT {number}") for number in range(12))
            assert await asyncio.gather(*answers) == [*range(12)]


async def test_waiting_for_a_connection(postgres: services.Postgres, loop: Any) -> None:
    async with pool_of(postgres, 1) as pool:

        async def ask() -> Any:
            async with pool.connection() as connection:
                return await value_of(connection, "SELECT 7")

        async with pool.connection():
            with pytest.raises(PoolTimeout):
                await pool.getconn(timeout=0.02)
            waiting = start(*(ask() for _ in range(5)))
            await turns(5)
            await cancel(waiting[0], waiting[2])
        assert await asyncio.gather(waiting[1], *waiting[3:]) == [7, 7, 7]
        assert await ask() == 7


@pytest.mark.parametrize("mode", ["disable", "require"])
async def test_connecting_is_cancelled_at_every_turn(
    postgres: services.Postgres, mode: str, loop: Any
) -> None:
    async with administrator(postgres) as admin:
        for count in range(25):
            (task,) = start(psycopg.AsyncConnection.connect(postgres.url, sslmode=mode))
            await turns(count)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await (await task).close()
        await end_others(admin)


async def test_the_server_is_frozen_dies_and_comes_back(
    plain_postgres: services.Postgres, loop: Any
) -> None:
    server = plain_postgres
    with server.frozen():
        (task,) = start(psycopg.AsyncConnection.connect(server.url))
        await asyncio.sleep(0.02)
        await cancel(task)
    connection = await psycopg.AsyncConnection.connect(server.url)
    (task,) = start(connection.execute(SLEEP))
    async with connected(server, autocommit=True) as admin:
        await sleeping(admin, 1)
    await asyncio.to_thread(server.kill)
    with pytest.raises(psycopg.OperationalError):
        await task
    with pytest.raises(psycopg.OperationalError, match="refused"):
        await psycopg.AsyncConnection.connect(server.url)
    await asyncio.to_thread(server.start)
    async with connected(server) as connection:
        assert await value_of(connection, "SELECT 7") == 7

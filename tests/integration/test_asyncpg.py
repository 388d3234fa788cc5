"""asyncpg on a PostgreSQL server: pools, statements, cursors, COPY, LISTEN, TLS.

What goes wrong in the middle of things is in test_asyncpg_faults.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import decimal
import hashlib
import io
import json
import pathlib
import random
import ssl
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

import services

UNIQUE = "CREATE TEMP TABLE item (id int PRIMARY KEY, data bytea)"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def test_a_hundred_users_share_twenty_connections(
    postgres: services.Postgres, loop: Any
) -> None:
    async with asyncpg.create_pool(postgres.url, min_size=5, max_size=20) as pool:
        await pool.execute("DROP TABLE IF EXISTS visits")
        await pool.execute("CREATE TABLE visits (who int, turn int)")

        async def user(number: int) -> set[int]:
            backends = set()
            for turn in range(5):
                async with pool.acquire() as connection:
                    backends.add(connection.get_server_pid())
                    await connection.execute(
                        "INSERT INTO visits VALUES ($1, $2)", number, turn
                    )
                    count = await connection.fetchval(
                        "SELECT count(*) FROM visits WHERE who = $1", number
                    )
                    assert count == turn + 1
            return backends

        used = await asyncio.gather(*(user(number) for number in range(100)))
        assert 5 < len(set.union(*used)) <= 20
        assert await pool.fetchval("SELECT count(*) FROM visits") == 500
        await pool.execute("DROP TABLE visits")


async def test_values_of_many_types(postgres: services.Postgres, loop: Any) -> None:
    connection = await asyncpg.connect(postgres.url)
    await connection.set_type_codec(
        "jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
    )
    values = {
        "int8": 2**62,
        "float8": 1 / 3,
        "numeric": decimal.Decimal("12345678901234567890.000000001"),
        "text": "Žluťoučký kůň \U0001f40e",
        "bytea": bytes(range(256)),
        "bool": True,
        "uuid": uuid.UUID(int=7),
        "timestamptz": datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC),
        "interval": datetime.timedelta(days=3, microseconds=5),
        "jsonb": {"a": [1, None, {"b": "c"}]},
        "int4[]": [[1, 2, 3], [4, 5, 6]],
        "text[]": ["", None, 'quo"ted', "com,ma"],
        "int4range": asyncpg.Range(3, 9),
    }
    columns = [f"${n}::{kind}" for n, kind in enumerate(values, 1)]
    statement = await connection.prepare(f"SELECT {', '.join(columns)}")
    for _ in range(3):
        assert [*await statement.fetchrow(*values.values())] == [*values.values()]
    assert await connection.fetchval("SELECT NULL::text") is None
    await connection.close()


async def test_savepoints(postgres: services.Postgres, loop: Any) -> None:
    connection = await asyncpg.connect(postgres.url)
    await connection.execute(UNIQUE)
    insert = "INSERT INTO item VALUES ($1)"
    async with connection.transaction():
        await connection.execute(insert, 1)
        with pytest.raises(asyncpg.UniqueViolationError):
            async with connection.transaction():
                await connection.execute(insert, 2)
                await connection.execute(insert, 1)
        async with connection.transaction():
            await connection.execute(insert, 3)
            with contextlib.suppress(ZeroDivisionError):
                async with connection.transaction():
                    await connection.execute(insert, 4)
                    raise ZeroDivisionError
    rows = await connection.fetch("SELECT id FROM item ORDER BY id")
    assert [row["id"] for row in rows] == [1, 3]
    await connection.close()


async def test_serializable_transactions_are_retried(
    postgres: services.Postgres, loop: Any
) -> None:
    async with asyncpg.create_pool(postgres.url, min_size=8, max_size=8) as pool:
        await pool.execute("DROP TABLE IF EXISTS account")
        await pool.execute("CREATE TABLE account (balance int)")
        await pool.execute("INSERT INTO account VALUES (0)")
        collisions = 0

        async def deposit() -> None:
            nonlocal collisions
            while True:
                try:
                    async with (
                        pool.acquire() as connection,
                        connection.transaction(isolation="serializable"),
                    ):
                        balance = await connection.fetchval(
                            "SELECT balance FROM account"
                        )
                        await connection.execute(
                            "UPDATE account SET balance = $1", balance + 1
                        )
                    return
                except asyncpg.SerializationError:
                    collisions += 1

        await asyncio.gather(*(deposit() for _ in range(20)))
        assert await pool.fetchval("SELECT balance FROM account") == 20
        assert collisions > 0
        await pool.execute("DROP TABLE account")


async def test_cursors(postgres: services.Postgres, loop: Any) -> None:
    connection = await asyncpg.connect(postgres.url)
    query = "SELECT n, repeat('x', 100) FROM generate_series(1, $1::int) n"
    async with connection.transaction():
        total = 0
        async for row in connection.cursor(query, 20_000, prefetch=500):
            total += row["n"]
        assert total == 20_000 * 20_001 // 2
        cursor = await connection.cursor(query, 100)
        assert (await cursor.fetchrow())["n"] == 1
        assert await cursor.forward(9) == 9
        assert [row["n"] for row in await cursor.fetch(5)] == [11, 12, 13, 14, 15]
        # Left in the middle; the connection goes on.
        async for row in connection.cursor(query, 5_000, prefetch=10):
            if row["n"] == 25:
                break
        assert await connection.fetchval("SELECT 7") == 7
    await connection.close()


async def test_copy_of_records(postgres: services.Postgres, loop: Any) -> None:
    connection = await asyncpg.connect(postgres.url)
    await connection.execute(UNIQUE)

    async def records() -> AsyncIterator[tuple[int, bytes]]:
        for number in range(30_000):
            if number % 1000 == 0:
                await asyncio.sleep(0)
            yield number, b"%d" % number * 20

    done = await connection.copy_records_to_table("item", records=records())
    assert done == "COPY 30000"
    await connection.executemany(
        "INSERT INTO item VALUES ($1, $2)",
        [(number, b"more") for number in range(30_000, 40_000)],
    )
    total, size = await connection.fetchrow(
        "SELECT count(*), sum(length(data)) FROM item"
    )
    assert total == 40_000
    lengths = (len(b"%d" % number) * 20 for number in range(30_000))
    assert size == sum(lengths) + 4 * 10_000
    await connection.close()


async def test_copy_of_bytes(
    postgres: services.Postgres, tmp_path: pathlib.Path, loop: Any
) -> None:
    connection = await asyncpg.connect(postgres.url)
    await connection.execute(UNIQUE)
    text = b"".join(b"%d\t\\\\x%064x\n" % (n, n**5) for n in range(80_000))

    async def pieces(data: bytes) -> AsyncIterator[bytes]:
        chance = random.Random(5)
        view = io.BytesIO(data)
        while piece := view.read(chance.randrange(1, 200_000)):
            await asyncio.sleep(0)
            yield piece

    sources = [pieces(text), io.BytesIO(text), tmp_path / "source"]
    (tmp_path / "source").write_bytes(text)
    for source in sources:
        await connection.execute("TRUNCATE item")
        assert await connection.copy_to_table("item", source=source) == "COPY 80000"

    out = io.BytesIO()
    slow = bytearray()

    async def take_slowly(data: bytes) -> None:
        slow.extend(data)
        if len(slow) % 50 == 0:
            await asyncio.sleep(0)

    query = "SELECT * FROM item ORDER BY id"
    for output in (out, tmp_path / "output", take_slowly):
        done = await connection.copy_from_query(query, output=output)
        assert done == "COPY 80000"
    results = [out.getvalue(), (tmp_path / "output").read_bytes(), bytes(slow)]
    assert [digest(result) for result in results] == [digest(text)] * 3
    await connection.close()


async def test_copies_side_by_side(postgres: services.Postgres, loop: Any) -> None:
    """Rows go from some connections to others without being kept in between."""
    async with asyncpg.create_pool(postgres.url, min_size=8, max_size=8) as pool:

        async def through(number: int) -> None:
            pieces: asyncio.Queue[bytes] = asyncio.Queue(4)

            async def rows() -> AsyncIterator[bytes]:
                while piece := await pieces.get():
                    yield piece

            async with pool.acquire() as source, pool.acquire() as target:
                await target.execute("CREATE TEMP TABLE copied (n int, data text)")
                copying = asyncio.create_task(
                    target.copy_to_table("copied", source=rows())
                )
                await source.copy_from_query(
                    "SELECT n, repeat(md5(n::text), 3)"
                    " FROM generate_series(1, $1::int) n",
                    10_000 + number,
                    output=pieces.put,
                )
                await pieces.put(b"")
                assert await copying == f"COPY {10_000 + number}"

        await asyncio.gather(*(through(number) for number in range(4)))


async def test_listeners(postgres: services.Postgres, loop: Any) -> None:
    async with asyncpg.create_pool(postgres.url, min_size=11, max_size=11) as pool:
        heard: list[list[str]] = [[] for _ in range(10)]
        all_heard = asyncio.Event()

        def listener(number: int) -> Any:
            def hear(connection: Any, pid: int, channel: str, payload: str) -> None:
                assert channel == "news"
                heard[number].append(payload)
                if min(map(len, heard)) == 200:
                    all_heard.set()

            return hear

        async with contextlib.AsyncExitStack() as stack:
            connections = [
                await stack.enter_async_context(pool.acquire()) for _ in range(10)
            ]
            hearers = [listener(number) for number in range(10)]
            for connection, hearer in zip(connections, hearers, strict=True):
                await connection.add_listener("news", hearer)
            for number in range(200):
                await pool.execute("SELECT pg_notify('news', $1)", f"{number}" * 50)
            await all_heard.wait()
            for connection, hearer in zip(connections, hearers, strict=True):
                await connection.remove_listener("news", hearer)
            await pool.execute("NOTIFY news, 'nobody hears this'")
        assert heard == [[f"{number}" * 50 for number in range(200)]] * 10


async def test_messages_of_the_server(postgres: services.Postgres, loop: Any) -> None:
    connection = await asyncpg.connect(postgres.url)
    found: list[str] = []

    def keep(_: Any, message: Any) -> None:
        found.append(f"{message.severity}: {message.message}")

    connection.add_log_listener(keep)
    await connection.execute(
        "DO $$ BEGIN FOR i IN 1..50 LOOP RAISE NOTICE 'step %', i;"
        " END LOOP; RAISE WARNING 'done'; END $$"
    )
    # Listeners are called in turns of their own.
    await asyncio.sleep(0)
    connection.remove_log_listener(keep)
    await connection.execute("DO $$ BEGIN RAISE NOTICE 'unheard'; END $$")
    await asyncio.sleep(0)
    notices = [f"NOTICE: step {number}" for number in range(1, 51)]
    assert found == [*notices, "WARNING: done"]
    await connection.close()


async def test_big_values(postgres: services.Postgres, loop: Any) -> None:
    async with asyncpg.create_pool(postgres.url, min_size=3, max_size=3) as pool:

        async def there_and_back(seed: int) -> None:
            value = random.Random(seed).randbytes(12_000_000)
            row = await pool.fetchrow(
                "SELECT encode(sha256($1), 'hex') AS there, $1 AS back", value
            )
            assert row["there"] == digest(row["back"]) == digest(value)

        await asyncio.gather(*map(there_and_back, range(3)))


class TLSProxy:
    """Takes TLS off: what comes over it goes to the server's Unix socket."""

    def __init__(self, context: ssl.SSLContext, path: str) -> None:
        self.context, self.path = context, path

    async def __aenter__(self) -> int:
        self.server = await asyncio.start_server(
            self._serve, services.LOOPBACK, 0, ssl=self.context
        )
        port: int = self.server.sockets[0].getsockname()[1]
        return port

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        await self.server.wait_closed()

    async def _serve(self, reader: Any, writer: Any) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(self.path)
        await asyncio.gather(
            self._pass_on(reader, inner_writer), self._pass_on(inner_reader, writer)
        )

    async def _pass_on(self, reader: Any, writer: Any) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def big_query(connection: Any) -> None:
    """A query with much to send and to receive."""
    value = random.Random(3).randbytes(3_000_000)
    assert digest(await connection.fetchval("SELECT $1::bytea", value)) == digest(value)


async def uses_tls(connection: Any) -> bool:
    query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    answer: bool = await connection.fetchval(query)
    return answer


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require"])
async def test_modes_of_tls(
    postgres: services.Postgres,
    plain_postgres: services.Postgres,
    mode: str,
    loop: Any,
) -> None:
    connection = await asyncpg.connect(postgres.url, ssl=mode)
    assert await uses_tls(connection) == (mode in ("prefer", "require"))
    await big_query(connection)
    await connection.close()
    if mode == "require":
        with pytest.raises(ConnectionError, match="rejected SSL"):
            await asyncpg.connect(plain_postgres.url, ssl=mode)
        return
    connection = await asyncpg.connect(plain_postgres.url, ssl=mode)
    assert not await uses_tls(connection)
    await big_query(connection)
    await connection.close()


async def test_a_pool_over_verified_tls(
    postgres: services.Postgres, certificate: pathlib.Path, tls: Any, loop: Any
) -> None:
    pool = asyncpg.create_pool(postgres.url, ssl=tls[1], min_size=6, max_size=6)
    async with pool:
        assert await asyncio.gather(*(uses_tls(pool) for _ in range(30))) == [True] * 30
        await asyncio.gather(*(big_query(pool) for _ in range(6)))
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncpg.connect(postgres.url, ssl=ssl.create_default_context())
    url = f"{postgres.url}?sslmode=verify-full&sslrootcert={certificate}"
    connection = await asyncpg.connect(url)
    assert await uses_tls(connection)
    await connection.close()


async def test_tls_from_the_first_byte(
    postgres: services.Postgres, tls: Any, loop: Any
) -> None:
    """As PostgreSQL has it from version 17 on; here something else ends it."""
    server, client = tls
    client.set_alpn_protocols(["postgresql"])
    path = f"{postgres.folder}/.s.PGSQL.{postgres.port}"
    async with TLSProxy(server, path) as port:
        pool = asyncpg.create_pool(
            host=services.LOOPBACK,
            port=port,
            user=postgres.user,
            database=postgres.database,
            ssl=client,
            direct_tls=True,
            min_size=3,
            max_size=3,
        )
        async with pool:
            await asyncio.gather(*(big_query(pool) for _ in range(3)))


async def test_unix_socket(postgres: services.Postgres, loop: Any) -> None:
    connection = await asyncpg.connect(
        host=str(postgres.folder),
        port=postgres.port,
        user=postgres.user,
        database=postgres.database,
    )
    await big_query(connection)
    with pytest.raises(TimeoutError):
        await connection.execute("SELECT pg_sleep(60)", timeout=0.02)
    assert await connection.fetchval("SELECT inet_server_addr()") is None
    await connection.close()

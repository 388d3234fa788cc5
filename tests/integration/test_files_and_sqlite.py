"""aiosqlite and aiofiles: threads behind futures of the loop."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import pathlib
import random
import sqlite3
from typing import Any

import aiofiles
import aiofiles.os
import aiofiles.tempfile
import aiosqlite
import pytest

from crowds import cancel
from support import turns, until

# Counts for as long as nobody interrupts it.
ENDLESS = """WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
    SELECT count(*) FROM n"""


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def test_many_connections_to_one_database(
    tmp_path: pathlib.Path, loop: Any
) -> None:
    path = tmp_path / "base"
    async with aiosqlite.connect(path) as database:
        await database.execute("PRAGMA journal_mode = WAL")
        await database.execute("CREATE TABLE item (who int, turn int)")
        await database.commit()

    async def user(number: int) -> None:
        async with aiosqlite.connect(path, timeout=50) as database:
            for turn in range(5):
                await database.execute("BEGIN IMMEDIATE")
                await database.execute("INSERT INTO item VALUES (?, ?)", (number, turn))
                await database.commit()
                query = "SELECT count(*) FROM item WHERE who = ?"
                async with database.execute(query, (number,)) as cursor:
                    assert await cursor.fetchone() == (turn + 1,)

    await asyncio.gather(*(user(number) for number in range(20)))
    async with aiosqlite.connect(path) as database:
        rows = await database.execute_fetchall("SELECT count(*) FROM item")
        assert list(rows) == [(100,)]


async def test_one_connection_for_many_tasks(loop: Any) -> None:
    async with aiosqlite.connect(":memory:") as database:
        await database.execute("CREATE TABLE item (id int, data blob)")

        async def user(number: int) -> None:
            value = random.Random(number).randbytes(50_000)
            await database.execute("INSERT INTO item VALUES (?, ?)", (number, value))
            query = "SELECT data FROM item WHERE id = ?"
            async with database.execute(query, (number,)) as cursor:
                (found,) = await cursor.fetchone()
            assert digest(found) == digest(value)

        await asyncio.gather(*(user(number) for number in range(100)))


async def test_rows_are_walked(loop: Any) -> None:
    async with aiosqlite.connect(":memory:", iter_chunk_size=100) as database:
        database.row_factory = aiosqlite.Row
        await database.execute("CREATE TABLE item (id int)")
        await database.executemany(
            "INSERT INTO item VALUES (?)", ((number,) for number in range(10_000))
        )
        async with database.execute("SELECT id FROM item ORDER BY id") as cursor:
            assert [row["id"] async for row in cursor] == [*range(10_000)]
        async with database.execute("SELECT id FROM item ORDER BY id") as cursor:
            async for row in cursor:
                if row["id"] == 250:
                    break
        assert database.total_changes == 10_000


async def test_a_query_is_cancelled_and_interrupted(loop: Any) -> None:
    async with aiosqlite.connect(":memory:") as database:
        running = asyncio.create_task(database.execute_fetchall(ENDLESS))
        behind = asyncio.create_task(database.execute_fetchall("SELECT 1"))
        await turns(5)
        await cancel(running)
        assert not behind.done()
        # Cancelling ends the waiting; the thread must be told as well.
        while not behind.done():
            await database.interrupt()
            await asyncio.sleep(0.005)
        assert list(await behind) == [(1,)]


async def test_an_interrupted_query_raises(loop: Any) -> None:
    async with aiosqlite.connect(":memory:") as database:
        started = asyncio.Event()
        set_started = asyncio.get_running_loop().call_soon_threadsafe

        def report(value: int) -> int:
            if value == 1000:
                set_started(started.set)
            return value

        await database.create_function("report", 1, report)
        running = asyncio.create_task(
            database.execute_fetchall(ENDLESS.replace("count(*)", "sum(report(i))"))
        )
        await started.wait()
        await database.interrupt()
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            await running


async def test_a_backup(tmp_path: pathlib.Path, loop: Any) -> None:
    steps: list[int] = []
    async with (
        aiosqlite.connect(":memory:") as source,
        aiosqlite.connect(tmp_path / "copy") as target,
    ):
        await source.execute("CREATE TABLE item (data blob)")
        value = random.Random(1).randbytes(1_000_000)
        await source.execute("INSERT INTO item VALUES (?)", (value,))
        await source.commit()
        await source.backup(
            target, pages=20, progress=lambda status, left, total: steps.append(left)
        )
        ((found,),) = await target.execute_fetchall("SELECT data FROM item")
        assert digest(found) == digest(value)
        assert len(steps) > 10 and steps[-1] == 0
        dump = [line async for line in target.iterdump()]
        assert dump[0] == "BEGIN TRANSACTION;"


async def test_errors_and_rollback(loop: Any) -> None:
    async with aiosqlite.connect(":memory:") as database:
        await database.execute("CREATE TABLE item (id int UNIQUE)")
        await database.commit()
        await database.execute("INSERT INTO item VALUES (1)")
        with pytest.raises(sqlite3.IntegrityError):
            await database.execute("INSERT INTO item VALUES (1)")
        await database.rollback()
        assert list(await database.execute_fetchall("SELECT * FROM item")) == []
    with pytest.raises(ValueError, match=r"no active connection|Connection closed"):
        await database.execute("SELECT 1")


async def test_closing_is_cancelled(loop: Any) -> None:
    for count in range(4):
        database = await aiosqlite.connect(":memory:")
        closing = asyncio.create_task(database.close())
        await turns(count)
        closing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await closing
        with contextlib.suppress(ValueError):
            await database.close()


async def test_big_files_side_by_side(tmp_path: pathlib.Path, loop: Any) -> None:
    async def there_and_back(number: int) -> None:
        data = random.Random(number).randbytes(1_500_000)
        path = tmp_path / f"file{number}"
        async with aiofiles.open(path, "wb") as file:
            for begin in range(0, len(data), 100_000):
                await file.write(data[begin : begin + 100_000])
        hashed = hashlib.sha256()
        async with aiofiles.open(path, "rb") as file:
            while piece := await file.read(64_000):
                hashed.update(piece)
        assert hashed.hexdigest() == digest(data)
        assert (await aiofiles.os.stat(path)).st_size == len(data)
        await aiofiles.os.remove(path)

    await asyncio.gather(*(there_and_back(number) for number in range(20)))
    assert await aiofiles.os.listdir(tmp_path) == []


async def test_lines(tmp_path: pathlib.Path, loop: Any) -> None:
    path = tmp_path / "lines"
    lines = [f"line {number} Žluťoučký\n" for number in range(2000)]
    async with aiofiles.open(path, "w+", encoding="utf-8") as file:
        await file.writelines(lines)
        await file.seek(0)
        assert [line async for line in file] == lines
    async with aiofiles.open(path, encoding="utf-8") as file:
        assert await file.readline() == lines[0]
        assert await file.readlines() == lines[1:]
    with pytest.raises(FileNotFoundError):
        await aiofiles.open(tmp_path / "absent").__aenter__()


async def test_temporary_files(loop: Any) -> None:
    async with aiofiles.tempfile.TemporaryDirectory() as folder:
        async with aiofiles.tempfile.NamedTemporaryFile("wb+", dir=folder) as file:
            await file.write(b"x" * 100_000)
            await file.seek(50_000)
            assert len(await file.read()) == 50_000
            name = pathlib.Path(str(file.name))
            assert name.exists()
        assert not name.exists()
        async with aiofiles.tempfile.SpooledTemporaryFile(max_size=10) as file:
            await file.write(b"more than that")
            await file.seek(0)
            assert await file.read() == b"more than that"
    assert not pathlib.Path(folder).exists()


async def test_reading_is_cancelled(tmp_path: pathlib.Path, loop: Any) -> None:
    reader, writer = os.pipe()
    async with aiofiles.open(reader, "rb", buffering=0) as file:
        reading = asyncio.create_task(file.read(1))
        await turns(5)
        await cancel(reading)
        # The thread itself cannot be stopped: it takes this, and nobody gets it.
        os.write(writer, b"a")
        os.close(writer)
        assert await file.read(1) in (b"", b"a")
    path = tmp_path / "file"
    path.write_bytes(bytes(3_000_000))
    async with aiofiles.open(path, "rb") as file:
        for count in range(4):
            task = asyncio.create_task(file.read())
            await turns(count)
            task.cancel()
            await asyncio.wait([task])
        await file.seek(0)
        assert len(await file.read()) == 3_000_000


async def test_threads_come_back_under_load(loop: Any) -> None:
    done: set[int] = set()

    async def user(number: int) -> None:
        async with aiosqlite.connect(":memory:") as database:
            rows = await database.execute_fetchall("SELECT ?", (number,))
            done.update(row[0] for row in rows)

    async with asyncio.TaskGroup() as group:
        for number in range(60):
            group.create_task(user(number))
        await until(lambda: len(done) == 60, 50)

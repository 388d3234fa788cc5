"""SQLAlchemy's asyncio side: greenlets that await, over asyncpg, psycopg, aiosqlite."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

import services
from support import turns


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    books: Mapped[list[Book]] = relationship(lazy="selectin")


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("author.id"))


@pytest.fixture(params=["asyncpg", "psycopg", "aiosqlite"])
def url(
    request: pytest.FixtureRequest, postgres: services.Postgres, tmp_path: pathlib.Path
) -> str:
    if request.param == "aiosqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/base"
    return postgres.url.replace("postgresql", f"postgresql+{request.param}")


@asynccontextmanager
async def engine_of(url: str, **options: Any) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(url, pool_timeout=50, **options)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    yield engine
    await engine.dispose()


async def test_objects(url: str, loop: Any) -> None:
    async with engine_of(url) as engine:
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        async with sessions.begin() as session:
            for number in range(20):
                books = [Book(title=f"{number}/{n}") for n in range(5)]
                session.add(Author(name=f"author {number}", books=books))
        async with sessions() as session:
            query = sa.select(Author).order_by(Author.id)
            authors = (await session.scalars(query)).all()
            titles = [book.title for author in authors for book in author.books]
            assert sorted(titles) == sorted(
                f"{a}/{n}" for a in range(20) for n in range(5)
            )
            session.add(Author(name="author 1"))
            with pytest.raises(sa.exc.IntegrityError):
                await session.commit()
            await session.rollback()
            count = sa.select(sa.func.count()).select_from(Author)
            assert await session.scalar(count) == 20
            streamed = await session.stream_scalars(sa.select(Book.title))
            assert sorted([title async for title in streamed]) == sorted(titles)


async def test_many_users(url: str, loop: Any) -> None:
    async with engine_of(url, pool_size=5, max_overflow=3) as engine:
        sessions = async_sessionmaker(engine)

        async def user(number: int) -> None:
            async with sessions.begin() as session:
                session.add(Author(name=f"user {number}"))
            async with sessions() as session:
                query = sa.select(Author.name).where(Author.name == f"user {number}")
                assert await session.scalar(query) == f"user {number}"

        await asyncio.gather(*(user(number) for number in range(40)))
        async with engine.connect() as connection:
            count = sa.select(sa.func.count()).select_from(Author)
            assert await connection.scalar(count) == 40


async def test_users_are_cancelled(url: str, loop: Any) -> None:
    """Whenever that is, a transaction is there as a whole or not at all."""
    async with engine_of(url, pool_size=3, max_overflow=0) as engine:
        sessions = async_sessionmaker(engine)

        async def user(number: int) -> None:
            async with sessions.begin() as session:
                books = [Book(title="first"), Book(title="second")]
                session.add(Author(name=f"user {number}", books=books))

        for count in range(0, 60, 3):
            task = asyncio.create_task(user(count))
            await turns(count)
            task.cancel()
            await asyncio.wait([task])
        await user(1000)
        async with sessions() as session:
            authors = (await session.scalars(sa.select(Author))).all()
            assert "user 1000" in [author.name for author in authors]
            assert all(len(author.books) == 2 for author in authors)

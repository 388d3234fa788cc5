"""What hotloop asks of the release of asyncio that runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hotloop import _release


def test_answers() -> None:
    """Each question has been answered by asyncio, none by the version."""
    assert isinstance(_release._names_types(), bool)
    assert _release._accepts(aborted=False) in (2, 3)
    assert _release._accepts(aborted=True) in (1, 2, 3)
    assert isinstance(_release._moves_file(), bool)
    assert isinstance(_release._chains_by_thread(), bool)
    assert isinstance(_release._eager_takes_start(), bool)


def test_asyncio_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(_release._selector, "BaseSelectorEventLoop")
    with pytest.raises(AttributeError):
        _release._accepts(aborted=False)
    assert _release._ask(lambda: _release._accepts(False) == 3) == _release._LATER


@pytest.mark.skipif(not _release.CHECKS_CONTEXT, reason="asyncio does not look")
async def test_context_of_another_kind(loop: Any) -> None:
    async def work() -> None: ...

    coro = work()
    with pytest.raises(TypeError, match=r"^a contextvars\.Context was .*, got int$"):
        loop.create_task(coro, context=5)
    coro.close()


async def test_closing_below_tls(loop: Any, tls: Any) -> None:
    """Whether the connection below closes is asked for where asyncio asks."""
    made = loop.create_future()

    class Server(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            made.set_result(transport)

    server = await loop.create_server(Server, "127.0.0.1", 0, ssl=tls[0])
    address = server.sockets[0].getsockname()
    transport, _ = await loop.create_connection(
        asyncio.Protocol, *address, ssl=tls[1], server_hostname="localhost"
    )
    (await made).abort()
    below = transport._ssl_protocol._transport
    below.close()
    assert transport.is_closing() == _release.TLS_LOOKS_BELOW
    while transport._ssl_protocol._transport is not None:
        await asyncio.sleep(0)
    transport.close()
    server.close()
    await server.wait_closed()

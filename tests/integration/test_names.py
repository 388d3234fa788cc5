"""aiodns: queries by c-ares, in its own thread or through the loop's readers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiodns
import aiohttp
import pycares
import pytest
from aiohttp import web

from clientpeers import serving
from dnsserver import Names, serve_names
from support import until

NAMES = {f"host{n}.test": [f"192.0.2.{n}", f"2001:db8::{n:x}"] for n in range(1, 201)}


@pytest.fixture(params=["thread", "readers"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How aiodns hears from c-ares.

    Without inotify c-ares cannot have its thread, and aiodns gives the
    descriptors to add_reader() and add_writer() of the loop.
    """
    if request.param == "readers":
        channel = pycares.Channel

        def without_thread(**options: Any) -> Any:
            if "sock_state_cb" not in options:
                raise pycares.AresError(1, "no inotify watches")
            return channel(**options)

        monkeypatch.setattr(pycares, "Channel", without_thread)
    way: str = request.param
    return way


@contextlib.asynccontextmanager
async def serving_names(
    **options: Any,
) -> AsyncIterator[tuple[Names, aiodns.DNSResolver]]:
    """A server of names and a resolver that asks it and nobody else."""
    server = await serve_names(NAMES | {"web.test": ["127.0.0.1"]})
    _, port = server.transport.get_extra_info("sockname")
    given = {"timeout": 5, "tries": 3, "local_ip": "127.0.0.1"} | options
    resolver = aiodns.DNSResolver(nameservers=[f"127.0.0.1:{port}"], **given)
    try:
        yield server, resolver
    finally:
        await resolver.close()
        server.transport.close()


async def addresses(resolver: aiodns.DNSResolver, name: str) -> list[str]:
    found = await resolver.getaddrinfo(name, family=socket.AF_UNSPEC)
    return sorted(node.addr[0].decode() for node in found.nodes)


async def test_many_queries(loop: Any, how: str) -> None:
    async with serving_names() as (server, resolver):
        # More of them at once would not fit into the buffer of a UDP socket.
        for start in range(0, 200, 20):
            batch = list(NAMES)[start : start + 20]
            got = await asyncio.gather(*(addresses(resolver, name) for name in batch))
            assert got == [sorted(NAMES[name]) for name in batch]
        assert set(server.asked) == set(NAMES)
        answer = await resolver.query_dns("host7.test", "AAAA")
        assert answer.answer[0].data.addr == "2001:db8::7"
        assert resolver._event_thread == (how == "thread")


async def test_errors(loop: Any, how: str) -> None:
    async with serving_names(timeout=0.2, tries=1) as (server, resolver):
        with pytest.raises(aiodns.error.DNSError) as caught:
            await resolver.query_dns("nobody.test", "A")
        assert caught.value.args[0] == aiodns.error.ARES_ENOTFOUND
        server.silent = True
        results = await asyncio.gather(
            *(resolver.query_dns(f"host{n}.test", "A") for n in range(20)),
            return_exceptions=True,
        )
        codes = {result.args[0] for result in results}
        assert codes == {aiodns.error.ARES_ETIMEOUT}
        server.silent = False
        assert await addresses(resolver, "host3.test") == sorted(NAMES["host3.test"])


async def test_cancelled(loop: Any, how: str) -> None:
    """Queries nobody waits for any more, and a resolver closed in the middle."""
    async with serving_names() as (server, resolver):
        server.silent = True
        tasks = [
            asyncio.create_task(addresses(resolver, f"host{n}.test")) for n in range(30)
        ]
        await until(lambda: len(set(server.asked)) == 30)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks[::2], return_exceptions=True)
        assert {type(result) for result in results} == {asyncio.CancelledError}
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await addresses(resolver, "host100.test")
        server.silent = False
        assert await addresses(resolver, "host101.test")
        await resolver.close()
        results = await asyncio.gather(*tasks[1::2], return_exceptions=True)
        codes = {result.args[0] for result in results}
        assert codes <= {aiodns.error.ARES_ECANCELLED, aiodns.error.ARES_EDESTRUCTION}


async def test_resolver_of_aiohttp(loop: Any, how: str) -> None:
    async def hello(request: web.Request) -> web.Response:
        return web.Response(text=request.host)

    async with serving_names() as (server, _), serving(web.get("/", hello)) as port:
        _, name_port = server.transport.get_extra_info("sockname")
        resolver = aiohttp.AsyncResolver(
            nameservers=[f"127.0.0.1:{name_port}"], timeout=20, tries=1
        )
        connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def get(number: int) -> str:
                async with session.get(f"http://web.test:{port}/") as response:
                    return await response.text()

            got = await asyncio.gather(*map(get, range(50)))
            assert got == [f"web.test:{port}"] * 50
            with pytest.raises(aiohttp.ClientConnectorDNSError):
                await session.get(f"http://nobody.test:{port}/")
        await resolver.close()
    assert "web.test" in server.asked

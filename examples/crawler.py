"""A crawler: follows links within one site, each page once, to a depth, with httpx.

    python examples/crawler.py                                 asyncio's loop
    python examples/run_with.py hotloop examples/crawler.py
    python examples/crawler.py http://HOST/ --depth 2          a site of yours

Workers take addresses from a queue and put those they find into it. The crawl is over
when every address put in is done: Queue.join() knows. The site that it crawls by
default is made of numbers and runs in the same program, with aiohttp.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from urllib.parse import urldefrag, urljoin, urlsplit

import httpx
from aiohttp import web


class Links(HTMLParser):
    """The targets of all links of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]


class Crawler:
    """Crawls from one address on; `pages` and `broken` are what it found."""

    def __init__(
        self, client: httpx.AsyncClient, depth: int, workers: int, seconds: float
    ) -> None:
        self.client, self.depth = client, depth
        self.workers, self.seconds = workers, seconds
        self.seen: set[str] = set()
        self.pages: dict[str, int] = {}  # with the number of links
        self.broken: dict[str, str] = {}
        self.queue: asyncio.Queue[tuple[str, int]] = asyncio.Queue()

    async def crawl(self, start: str) -> None:
        self.site = urlsplit(start).netloc
        self._add(start, 0)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._work()) for _ in range(self.workers)]
            await self.queue.join()
            for task in tasks:
                task.cancel()

    def _add(self, url: str, depth: int) -> None:
        url = urldefrag(url).url
        if depth > self.depth or url in self.seen or urlsplit(url).netloc != self.site:
            return
        self.seen.add(url)
        self.queue.put_nowait((url, depth))

    async def _work(self) -> None:
        while True:
            url, depth = await self.queue.get()
            try:
                async with asyncio.timeout(self.seconds):
                    links = await self._links(url)
                self.pages[url] = len(links)
                for link in links:
                    self._add(link, depth + 1)
            except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as exc:
                self.broken[url] = type(exc).__name__
            finally:
                self.queue.task_done()

    async def _links(self, url: str) -> list[str]:
        async with self.client.stream("GET", url) as response:
            if response.next_request:  # a redirect, perhaps out of the site
                return [str(response.next_request.url)]
            response.raise_for_status()
            if not response.headers.get("content-type", "").startswith("text/html"):
                return []  # and its body is not read
            text = (await response.aread()).decode(errors="replace")
        return [urljoin(url, link) for link in Links(text).found]


async def page(request: web.Request) -> web.Response:
    """Page n links to 10n+1 ... 10n+9, its parent, and elsewhere."""
    number = int(request.match_info["number"])
    if number % 100 == 99:
        raise web.HTTPNotFound
    if number % 100 == 98:
        raise web.HTTPFound(f"/{number - 1}")
    links = [f"/{10 * number + digit}#top" for digit in range(1, 10)]
    links += [f"{number // 10}", "http://elsewhere.invalid/", "/picture"]
    text = "".join(f"<p><a href='{link}'>{link}</a></p>" for link in links)
    return web.Response(text=f"<html>{text}</html>", content_type="text/html")


async def picture(request: web.Request) -> web.Response:
    return web.Response(body=bytes(1_000_000), content_type="image/png")


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[str]:
    app = web.Application()
    app.add_routes([web.get(r"/{number:\d+}", page), web.get("/picture", picture)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield "http://{}:{}/1".format(*runner.addresses[0])
    finally:
        await runner.cleanup()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url", nargs="?")
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=10, help="for one page")
    options = parser.parse_args()
    site = contextlib.nullcontext(options.url) if options.url else serving()
    async with site as url, httpx.AsyncClient(timeout=None) as client:
        crawler = Crawler(client, options.depth, options.workers, options.seconds)
        started = time.perf_counter()
        await crawler.crawl(url)
        elapsed = time.perf_counter() - started
    links = sum(crawler.pages.values())
    print(f"{len(crawler.pages)} pages, {links} links", end=", ")
    print(f"{len(crawler.broken)} broken: {set(crawler.broken.values()) or 'none'}")
    print(f"{len(crawler.seen) / elapsed:,.0f} pages/s")


if __name__ == "__main__":
    asyncio.run(main())

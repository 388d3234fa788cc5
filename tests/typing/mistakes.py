"""What the type checkers must find: every line with an "ignore" is a mistake.

`make types` has mypy and pyright check it; a mistake that one of them does not see
makes its comment superfluous, which is an error itself. It is never run.
"""

from __future__ import annotations

import asyncio
from typing import Any

import hotloop


async def answer() -> int:
    return 42


async def serve(reader: hotloop.StreamReader) -> None:
    reader.at_eof()


def names() -> None:
    print(hotloop.open_conection)  # type: ignore[attr-defined]  # pyright: ignore
    hotloop.Loop().call_sooner(print)  # type: ignore[attr-defined]  # pyright: ignore
    hotloop.Loop.maximum = 3  # type: ignore[attr-defined]  # pyright: ignore


def running() -> None:
    hotloop.run(answer)  # type: ignore[arg-type]  # pyright: ignore
    hotloop.run(42)  # type: ignore[arg-type]  # pyright: ignore
    hotloop.run(answer(), True)  # type: ignore[call-arg]  # pyright: ignore
    hotloop.run(answer(), streams="yes")  # type: ignore[arg-type]  # pyright: ignore
    text: str = hotloop.run(answer())  # type: ignore[assignment]  # pyright: ignore
    text.upper()
    hotloop.new_event_loop(debug=True)  # type: ignore[call-arg]  # pyright: ignore
    hotloop.Loop("selector")  # type: ignore[call-arg]  # pyright: ignore


def futures(loop: hotloop.Loop) -> None:
    future: hotloop.Future[int] = hotloop.Future(loop=loop)
    future.set_result("four")  # type: ignore[arg-type]  # pyright: ignore
    hotloop.Future(loop="3")  # type: ignore[arg-type]  # pyright: ignore
    hotloop.Task(answer)  # type: ignore[arg-type]  # pyright: ignore
    stock: asyncio.Future[int] = loop.create_future()
    ours: hotloop.Future[int] = stock  # type: ignore[assignment]  # pyright: ignore
    ours.cancel()


async def arguments(loop: hotloop.Loop) -> None:
    loop.call_soon(3)  # type: ignore[arg-type]  # pyright: ignore
    loop.call_later("1", print)  # type: ignore[arg-type]  # pyright: ignore
    loop.set_resolver(42)  # type: ignore[arg-type]  # pyright: ignore
    loop.set_resolver(len)  # type: ignore[arg-type]  # pyright: ignore
    await hotloop.open_connection(b"host", 80)  # type: ignore[arg-type]  # pyright: ignore
    await hotloop.start_server(serve)  # type: ignore[arg-type]  # pyright: ignore
    await loop.create_connection(dict, "a", 1)  # type: ignore[type-var]  # pyright: ignore
    await loop.create_unix_connection(dict, "a")  # type: ignore[type-var]  # pyright: ignore
    await loop.create_datagram_endpoint(dict)  # type: ignore[type-var]  # pyright: ignore
    await loop.run_in_executor(None, len, 3)  # type: ignore[arg-type]  # pyright: ignore


async def results(loop: hotloop.Loop, sock: Any) -> None:
    reader, writer = await hotloop.open_connection("127.0.0.1", 80)
    line: str = await reader.readline()  # type: ignore[assignment]  # pyright: ignore
    writer.write(line)  # type: ignore[arg-type]  # pyright: ignore
    data: str = await loop.sock_recv(sock, 1)  # type: ignore[assignment]  # pyright: ignore
    data.upper()
    reader.readline().upper()  # type: ignore[attr-defined]  # pyright: ignore

"""The line echo of echo_streams.py with hotloop's streams in C, plain and over TLS.

    python examples/streams_in_c.py

For TLS it makes a certificate for localhost with the openssl command. Each client
checks every answer; the program prints what each kind of streams did per second.
"""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import hotloop

CLIENTS = 20
LINES = 500
Functions = tuple[Any, Any]  # start_server, open_connection


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async for line in reader:
            writer.write(line)
            await writer.drain()
    finally:
        writer.close()


async def client(connecting: Any, name: int) -> None:
    reader, writer = await connecting
    for number in range(LINES):
        line = f"client {name} line {number}\n".encode()
        writer.write(line)
        answer = await reader.readline()
        if answer != line:
            raise ValueError(f"sent {line!r}, received {answer!r}")
    writer.close()
    await writer.wait_closed()


async def measure(functions: Functions, contexts: tuple[Any, Any]) -> float:
    """Return lines per second."""
    start_server, open_connection = functions
    server = await start_server(echo, "127.0.0.1", 0, ssl=contexts[0])
    address = server.sockets[0].getsockname()
    options: dict[str, Any] = {}
    if contexts[1] is not None:
        options = {"ssl": contexts[1], "server_hostname": "localhost"}
    async with server:
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for name in range(CLIENTS):
                connecting = open_connection(*address, **options)
                group.create_task(client(connecting, name))
        return CLIENTS * LINES / (time.perf_counter() - started)


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's, for a certificate made now."""
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = Path(folder, "key.pem"), Path(folder, "certificate.pem")
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
        command += f" -nodes -keyout {key} -out {certificate} -days 2"
        command += " -subj /CN=localhost -addext subjectAltName=DNS:localhost"
        subprocess.run(command.split(), check=True, capture_output=True)
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.load_cert_chain(certificate, key)
        return server, ssl.create_default_context(cafile=certificate)


async def main() -> None:
    in_python = asyncio.start_server, asyncio.open_connection
    in_c = hotloop.start_server, hotloop.open_connection
    for title, keys in (("plain", (None, None)), ("over TLS", contexts())):
        before = await measure(in_python, keys)
        after = await measure(in_c, keys)
        print(
            f"{title}: {before:,.0f} lines per second with asyncio's streams, "
            f"{after:,.0f} with hotloop's"
        )


if __name__ == "__main__":
    hotloop.run(main())

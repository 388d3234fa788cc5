"""TLS both ways: the client knows the server, and the server its clients.

Plain asyncio code: nothing here knows which event loop runs it.

    python examples/tls_service.py                             asyncio's loop
    python examples/run_with.py hotloop examples/tls_service.py

An authority and three certificates are made with the openssl command: for the server,
for a client, and for a stranger, who is turned away. The server greets a client by the
name in its certificate. A client that does not trust the authority refuses the server.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

Address = tuple[str, int]


def openssl(folder: Path, arguments: str) -> None:
    command = ["openssl", *arguments.split()]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def make_certificates(folder: Path) -> None:
    """NAME.pem has key and certificate; authority.pem signs server and client."""
    for name in ("authority", "server", "client", "stranger"):
        request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        request += f" -keyout {name}.pem -out {name}.crt -days 2 -subj /CN={name}"
        if name == "authority":
            request += " -addext keyUsage=critical,keyCertSign"
        if name in ("server", "client"):
            request += " -CA authority.crt -CAkey authority.pem"
            request += " -addext basicConstraints=critical,CA:FALSE"
        if name == "server":
            request += " -addext subjectAltName=DNS:localhost"
        openssl(folder, request)
        with (folder / f"{name}.pem").open("a") as file:
            file.write((folder / f"{name}.crt").read_text())


def server_context(folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(
        ssl.Purpose.CLIENT_AUTH, cafile=folder / "authority.crt"
    )
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(folder / "server.pem")
    return context


def client_context(folder: Path, name: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=folder / "authority.crt")
    if name:
        context.load_cert_chain(folder / f"{name}.pem")
    return context


def common_name(certificate: dict[str, Any]) -> str:
    return str(dict(pair for (pair,) in certificate["subject"])["commonName"])


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    name = common_name(writer.get_extra_info("peercert")).encode()
    try:
        async for line in reader:
            writer.write(b"hello " + name + b": " + line)
            await writer.drain()
    except OSError:
        pass  # the peer has broken off
    finally:
        writer.close()


async def talk(address: Address, context: ssl.SSLContext, count: int = 1) -> str:
    """Returns the last answer."""
    reader, writer = await asyncio.open_connection(
        *address, ssl=context, server_hostname="localhost"
    )
    answer = b""
    try:
        for number in range(count):
            writer.write(b"%d\n" % number)
            answer = await reader.readuntil()
    finally:
        writer.close()
    return answer.decode().strip()


async def outcome(address: Address, context: ssl.SSLContext) -> str:
    """The answer, or what kept us from one."""
    try:
        return await talk(address, context)
    except ssl.SSLCertVerificationError as exc:
        return f"refused by the client: {exc.verify_code}"
    except (OSError, asyncio.IncompleteReadError):
        # In TLS 1.3 the client is through before the server has looked at its
        # certificate; the refusal comes in place of the first answer.
        return "refused by the server"


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--count", type=int, default=500, help="requests of each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        await asyncio.to_thread(make_certificates, folder)
        trusted = server_context(folder)
        known = client_context(folder, "client")
        stranger = client_context(folder, "stranger")
        nobody = client_context(folder, None)
    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=trusted)
    address = server.sockets[0].getsockname()[:2]
    async with server:
        print("a client:", await outcome(address, known))
        print("a stranger:", await outcome(address, stranger))
        print("no certificate:", await outcome(address, nobody))
        wary = ssl.create_default_context()  # trusts the system's authorities only
        print("wary:", await outcome(address, wary))
        started = time.perf_counter()
        calls = (talk(address, known, options.count) for _ in range(options.clients))
        answers = set(await asyncio.gather(*calls))
        elapsed = time.perf_counter() - started
    print(f"{options.clients} clients, {options.count} requests each: {answers}")
    print(f"{options.clients * options.count / elapsed:,.0f} requests/s")


if __name__ == "__main__":
    asyncio.run(main())

"""A Python that was built without the ssl module, as asyncio's own loop takes it."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys

sys.modules["ssl"] = sys.modules["_ssl"] = None

import asyncio
import socket


async def outcome(name, awaitable):
    try:
        await awaitable
    except Exception as exc:
        print(name, type(exc).__name__, exc)
    else:
        print(name, "went well")


async def main():
    loop = asyncio.get_running_loop()

    async def serve(reader, writer):
        writer.write(await reader.readline())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"plain\\n")
    print(await reader.read())

    def connect(**options):
        return loop.create_connection(asyncio.Protocol, *address, **options)

    await outcome("connect", connect(ssl=True))
    await outcome("object", connect(ssl=object()))
    await outcome("streams", asyncio.open_connection(*address, ssl=True))
    await outcome("serve", asyncio.start_server(serve, "127.0.0.1", 0, ssl=True))
    tls = loop.start_tls(writer.transport, asyncio.Protocol(), object())
    await outcome("start_tls", tls)
    writer.close()
    await writer.wait_closed()
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        await loop.sock_sendto(sock, b"datagram", sock.getsockname())
        into = bytearray(100)
        size, _ = await loop.sock_recvfrom_into(sock, into)
        print(into[:size])
    server.close()


if sys.argv[1] == "hotloop":
    import hotloop as module
else:
    module = asyncio
loop = module.new_event_loop()
if sys.argv[1] == "hotloop":
    print(loop._tls_engine(), file=sys.stderr)
    try:
        loop._make_tls(asyncio.Protocol(), 1, None, False, None, True, None, None)
    except RuntimeError as exc:
        print(exc, file=sys.stderr)
loop.run_until_complete(main())
loop.close()
"""


def run(loop_kind: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, loop_kind]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_without_ssl(loop_kind: str) -> None:
    if loop_kind != "hotloop":
        pytest.skip("is what hotloop is compared with")
    expected, found = run("asyncio"), run("hotloop")
    assert expected.returncode == 0, expected.stderr
    assert found.returncode == 0, found.stderr
    assert found.stdout == expected.stdout
    assert "b'plain\\n'" in found.stdout
    assert found.stdout.count("went well") == 0
    assert found.stderr.splitlines() == [
        "this Python has no module ssl",
        "stdlib ssl module not available",
    ]

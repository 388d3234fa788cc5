"""Which engine moves the data of a TLS connection, and the tests with the other one."""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import os
import ssl
import subprocess
import sys
from typing import Any

import pytest

import hotloop
from hotloop import _core
from support import HERE, settle

# The engine is not a part of asyncio: these tests are about hotloop alone.
EXPECTED = os.environ.get("HOTLOOP_TLS", "direct")


@pytest.fixture(autouse=True)
def only_hotloop(request: pytest.FixtureRequest) -> None:
    if (
        "loop" in request.fixturenames
        and request.getfixturevalue("loop_kind") != "hotloop"
    ):
        pytest.skip("hotloop's engines")


class CountingObject(ssl.SSLObject):
    """Counts the calls that data makes."""

    calls = 0

    def read(self, *args: Any) -> Any:
        type(self).calls += 1
        return super().read(*args)

    def write(self, data: Any) -> int:
        type(self).calls += 1
        return super().write(data)


class Handshaker(ssl.SSLObject):
    """Has a handshake of its own, as those have that ask the system for trust."""

    shaken = 0

    def do_handshake(self) -> None:
        super().do_handshake()
        type(self).shaken += 1


async def engines_of(loop: Any, tls: Any) -> tuple[Any, Any]:
    """Send something both ways; return the engines of client and server."""
    accepted = loop.create_future()

    async def serve(reader: Any, writer: Any) -> None:
        writer.write(await reader.readexactly(100_000))
        await writer.drain()
        accepted.set_result(writer.transport._engine)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls[0])
    address = server.sockets[0].getsockname()
    reader, writer = await asyncio.open_connection(
        *address, ssl=tls[1], server_hostname="localhost"
    )
    data = os.urandom(100_000)
    writer.write(data)
    assert await reader.readexactly(len(data)) == data
    engine = writer.transport._engine
    writer.close()
    await writer.wait_closed()
    assert writer.transport._engine is None
    server.close()
    return engine, await accepted


async def test_engine(loop: Any, tls: Any) -> None:
    assert await engines_of(loop, tls) == (EXPECTED, EXPECTED)
    assert (loop._tls_engine() is None) == (EXPECTED == "direct")


async def test_object_with_its_own_methods(loop: Any, tls: Any) -> None:
    CountingObject.calls = 0
    tls[1].sslobject_class = CountingObject
    assert await engines_of(loop, tls) == ("object", EXPECTED)
    assert CountingObject.calls > 0


async def test_object_with_its_own_handshake(loop: Any, tls: Any) -> None:
    Handshaker.shaken = 0
    tls[0].sslobject_class = tls[1].sslobject_class = Handshaker
    assert await engines_of(loop, tls) == (EXPECTED, EXPECTED)
    assert Handshaker.shaken == 2


async def test_message_callback(loop: Any, tls: Any) -> None:
    seen: list[Any] = []
    tls[0]._msg_callback = lambda *args: seen.append(args)
    assert await engines_of(loop, tls) == (EXPECTED, "object")
    assert {args[1] for args in seen} == {"read", "write"}
    tls[0]._msg_callback = None  # 3.11 keeps it where no collection looks


def noted(made: list[Any]) -> Any:
    original: Any = asyncio.sslproto.SSLProtocol.connection_made

    def connection_made(self: Any, transport: Any) -> None:
        made.append(self)
        original(self, transport)

    return connection_made


@pytest.mark.parametrize("what", ["class", "method"])
async def test_a_class_of_the_programs_own(
    loop: Any, tls: Any, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """What stands in the place of asyncio's SSLProtocol is used, as in asyncio."""
    made: list[Any] = []

    class Own(asyncio.sslproto.SSLProtocol):
        def connection_made(self, transport: Any) -> None:
            made.append(self)
            super().connection_made(transport)

    async def serve(reader: Any, writer: Any) -> None:
        writer.write(await reader.readexactly(5))
        await reader.read()
        writer.close()

    if what == "class":
        monkeypatch.setattr(asyncio.sslproto, "SSLProtocol", Own)
    else:
        stock = asyncio.sslproto.SSLProtocol
        monkeypatch.setattr(stock, "connection_made", noted(made))
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls[0])
    reader, writer = await asyncio.open_connection(
        *server.sockets[0].getsockname(), ssl=tls[1], server_hostname="localhost"
    )
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    assert len(made) == 2 and writer.transport._ssl_protocol in made
    writer.close()
    await writer.wait_closed()
    server.close()
    await settle()


def test_a_seam_of_the_programs_own(tls: Any) -> None:
    """A subclass that makes TLS transports itself is asked to."""
    asked: list[bool] = []

    class Own(hotloop.Loop):
        def _make_ssl_transport(self, *args: Any, **kwargs: Any) -> Any:
            asked.append(kwargs["server_side"])
            return super()._make_ssl_transport(*args, **kwargs)

    with asyncio.Runner(loop_factory=Own) as runner:
        engines = runner.run(engines_of(runner.get_loop(), tls))
    assert engines == (EXPECTED, EXPECTED)
    assert sorted(asked) == [False, True]


async def test_context_that_makes_something_else(loop: Any, tls: Any) -> None:
    """All that is asked of what wrap_bio() returns are the methods."""

    class Wrapped:
        def __init__(self, inner: ssl.SSLObject) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    class Context(ssl.SSLContext):
        def wrap_bio(self, *args: Any, **kwargs: Any) -> Any:
            return Wrapped(super().wrap_bio(*args, **kwargs))

    context = Context(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ssl_pem(tls[1]))
    assert await engines_of(loop, (tls[0], context)) == ("object", EXPECTED)


def ssl_pem(context: ssl.SSLContext) -> str:
    """The authorities that a context trusts."""
    return "".join(map(ssl.DER_cert_to_PEM_cert, context.get_ca_certs(True)))


def test_not_to_be_made_by_hand() -> None:
    with pytest.raises(TypeError, match="cannot create"):
        _core.SSLTransport()


@pytest.mark.slow
@pytest.mark.timeout(900)  # several hundred tests, each with its own limit
@pytest.mark.skipif(EXPECTED != "direct", reason="this is that run")
def test_everything_with_the_object_engine() -> None:
    """The tests of TLS once more, through SSLObject.read() and write()."""
    files = sorted(path.name for path in HERE.glob("test_tls*.py"))
    assert len(files) > 4
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
        cwd=HERE,
        env=os.environ | {"HOTLOOP_TLS": "object", "HOTLOOP_TEST_LOOPS": "hotloop"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]

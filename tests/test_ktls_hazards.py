"""Kernel TLS where things go wrong, or are not as they were.

As test_ktls.py it needs a kernel with the "tls" protocol: `make ktls` brings one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import ssl
from typing import Any

import pytest

from kerneltls import (
    Gate,
    ask,
    key_update,
    missing,
    restrict,
    small_pair,
    take_all,
)
from support import PY, connected, run_script, turns, until
from tlspeers import recv_exactly, with_peer

SIZE = 3_000_000
REASON = missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture(autouse=True)
def only_hotloop(loop_kind: str) -> None:
    if loop_kind != "hotloop":
        pytest.skip("asyncio leaves nothing to the kernel")


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(SIZE))
    return path


def test_an_object_that_outlives_hotloop(
    monkeypatch: Any, certificate: pathlib.Path
) -> None:
    """Nothing of the module is left in it."""
    monkeypatch.setenv("PYTHONMALLOC", "malloc")
    monkeypatch.setenv("MALLOC_PERTURB_", "165")  # what is freed is not as it was
    out, _ = run_script(
        "hotloop",
        f"""
        import gc, ssl, sys, threading, weakref

        sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})
        from support import Recorder, tcp_pair

        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain({str(certificate)!r})
        server.options |= 8
        client = ssl.create_default_context(cafile={str(certificate)!r})

        def peer(sock):
            with client.wrap_socket(sock, server_hostname="localhost") as tls:
                tls.recv(1)

        async def main():
            loop = asyncio.get_running_loop()
            near, far = tcp_pair()
            far.setblocking(True)
            thread = threading.Thread(target=peer, args=(far,))
            thread.start()
            transport, protocol = await loop.connect_accepted_socket(
                Recorder, near, ssl=server
            )
            assert transport.get_extra_info("ktls_send")
            transport.close()
            await protocol.closed
            thread.join()
            return transport.get_extra_info("ssl_object")

        kept = run(main())
        core = weakref.ref(sys.modules["hotloop._core"])
        for name in [name for name in sys.modules if name.startswith("hotloop")]:
            del sys.modules[name]
        del hotloop, new_loop, main
        for _ in range(3):
            gc.collect()
        print(core())
        try:
            kept.write(bytes(20_000))
        except ssl.SSLError:
            pass
        del kept
        """,
    )
    assert out == "None\n"


async def test_another_transport_below(loop: Any, tls: Any) -> None:
    """Plaintext is for the socket that encrypts it."""
    ask(tls, "server")
    transport, _, peer = await with_peer(tls, take_all, "server")
    below = transport._transport
    other, _, far = await connected()
    with pytest.raises(RuntimeError, match="cannot switch state"):
        transport.connection_made(other)
    transport.write(b"not in the clear")
    await until(other.is_closing)
    assert await loop.sock_recv(far, 100) == b""
    below.abort()
    far.close()
    await peer.ended()


async def test_something_else_below(loop: Any, tls: Any, path: Any) -> None:
    ask(tls, "server")

    class Other(asyncio.Transport):
        written = b""
        closed = False

        def write(self, data: Any) -> None:
            self.written += data

        def close(self) -> None:
            self.closed = True

        def _force_close(self, error: Any) -> None:
            self.closed = True

    transport, _, peer = await with_peer(tls, take_all, "server")
    below, other = transport._transport, Other()
    with pytest.raises(RuntimeError, match="cannot switch state"):
        transport.connection_made(other)
    assert transport.get_extra_info("ktls_send") is False
    with path.open("rb") as file, pytest.raises(RuntimeError, match="fallback"):
        await loop.sendfile(transport, file, fallback=False)
    transport.close()
    await until(lambda: other.closed)
    transport.connection_lost(None)
    below.abort()
    assert other.written == b""
    await peer.ended()


async def test_closed_for_a_task_that_was_cancelled_before(
    loop: Any, tls: Any, path: Any
) -> None:
    """What a task made of an older cancellation is its own affair."""
    ask(tls, "server")
    gate = Gate()
    transport, protocol, peer = await with_peer(tls, gate, "server", pair=small_pair)

    async def send() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await loop.create_future()
        with path.open("rb") as file:
            await loop.sendfile(transport, file, fallback=False)

    sending = asyncio.create_task(send())
    await turns(2)
    sending.cancel()
    await turns(5)
    transport.close()
    with pytest.raises(ConnectionError, match="Connection closed by peer"):
        await sending
    gate.open.set()
    assert await protocol.closed is None
    assert len(await peer.result()) < SIZE


@pytest.mark.parametrize(
    "eager",
    [
        False,
        pytest.param(
            True, marks=pytest.mark.skipif(PY < (3, 12), reason="no eager tasks")
        ),
    ],
)
async def test_the_connection_is_lost_before_the_file(
    loop: Any, tls: Any, path: Any, eager: bool
) -> None:
    """The transport below ends by itself, with all sent that was written before."""
    if eager:
        loop.set_task_factory(asyncio.eager_task_factory)
    ask(tls, "server")
    gate = Gate()
    transport, protocol, peer = await with_peer(tls, gate, "server", pair=small_pair)
    transport.write(bytes(2_000_000))
    with path.open("rb") as file:
        sending = asyncio.create_task(loop.sendfile(transport, file, fallback=False))
        await turns(5)
        transport._transport.close()
        gate.open.set()
        with pytest.raises(ConnectionError, match="Connection closed by peer"):
            await sending
        assert file.tell() == 0
    assert await protocol.closed is None
    await peer.ended()


async def test_new_keys_are_due_before_the_file(loop: Any, tls: Any, path: Any) -> None:
    """The kernel cannot have them, and nothing may follow without."""
    restrict(tls, "TLSv1.3")
    ask(tls, "server")

    def work(sock: Any) -> Any:
        key_update(sock, requested=True)
        with pytest.raises(ssl.SSLError) as caught:
            recv_exactly(sock, 1)
        return caught.value.reason

    transport, protocol, peer = await with_peer(tls, work, "server")
    await until(lambda: protocol.data == b"with new keys")
    with path.open("rb") as file:
        with pytest.raises(ConnectionError, match="Connection closed by peer"):
            await loop.sendfile(transport, file, fallback=False)
        assert file.tell() == 0
    error = await protocol.closed
    assert isinstance(error, ssl.SSLError) and "new keys" in str(error)
    assert await peer.ended() == "TLSV1_ALERT_INTERNAL_ERROR"


@pytest.mark.skipif(PY < (3, 12), reason="no eager tasks")
async def test_the_connection_is_as_good_as_lost(
    loop: Any, tls: Any, path: Any
) -> None:
    """No file follows what could not be written."""
    loop.set_task_factory(asyncio.eager_task_factory)
    ask(tls, "server")
    transport, protocol, peer = await with_peer(tls, take_all, "server")
    transport._transport.abort()
    with path.open("rb") as file:
        with pytest.raises(ConnectionError, match="Connection closed by peer"):
            await loop._sendfile_native(transport, file, 0, None)
        assert file.tell() == 0
    assert await protocol.closed is None
    await peer.ended()

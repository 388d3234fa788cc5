"""Kernel TLS where things go wrong, or are not as they were.

As test_ktls.py it needs a kernel with the "tls" protocol: `make ktls` brings one.
"""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from kerneltls import missing
from support import run_script

REASON = missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture(autouse=True)
def only_hotloop(loop_kind: str) -> None:
    if loop_kind != "hotloop":
        pytest.skip("asyncio leaves nothing to the kernel")


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

"""What a program sees of the TLS of a transport: its ssl_object, its callbacks."""

from __future__ import annotations

import asyncio
import ssl
import weakref
from typing import Any

import pytest

pytest.importorskip("cryptography")

from certificates import CLIENT, issue, root
from support import PY, BufferedRecorder, Recorder, collect, tcp_pair, until
from tlspeers import (
    WAYS,
    Peer,
    describe,
    echo,
    end,
    handshaken,
    open_tls,
    shake,
    shaking,
    with_peer,
    without_delay,
)

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
TLS12, TLS13 = VERSIONS
NAMES = ["TLSv1.2", "TLSv1.3"]


def only(tls: Any, version: ssl.TLSVersion) -> Any:
    for context in tls:
        context.minimum_version = context.maximum_version = version
    return tls


async def said(transport: Any, protocol: Any, data: bytes = b"hello") -> None:
    """Write to an echoing peer, and get it back."""
    size = len(protocol.data)
    transport.write(data)
    await until(lambda: len(protocol.data) >= size + len(data))
    assert protocol.data[size:] == data


async def over(transport: Any, protocol: Any, peer: Any = None) -> Any:
    """Close, and wait for both ends; returns what the peer's work returned."""
    transport.close()
    assert await protocol.closed is None
    return await peer.result() if peer is not None else None


def view(ssl_object: Any) -> dict[str, Any]:
    """What both ends of a connection must agree on, or have crossed."""
    return {
        "version": ssl_object.version(),
        "cipher": ssl_object.cipher(),
        "compression": ssl_object.compression(),
        "alpn": ssl_object.selected_alpn_protocol(),
        "binding": ssl_object.get_channel_binding("tls-unique"),
        "reused": ssl_object.session_reused,
        "pending": ssl_object.pending(),
    }


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("version", VERSIONS, ids=NAMES)
async def test_ssl_object(loop: Any, tls: Any, way: str, version: Any) -> None:
    server, client = only(tls, version)
    server.set_alpn_protocols(["other", "echo/1"])
    client.set_alpn_protocols(["echo/1", "echo/2"])

    def work(sock: ssl.SSLSocket) -> Any:
        echo(sock)
        return view(sock), sock.getpeercert(True), sock.shared_ciphers()

    transport, protocol, peer = await with_peer(tls, work, way)
    await said(transport, protocol)
    ssl_object = transport.get_extra_info("ssl_object")
    assert type(ssl_object) is ssl.SSLObject
    assert transport.get_extra_info("ssl_object") is ssl_object
    is_server = way.endswith("server")
    assert ssl_object.server_side is is_server
    assert ssl_object.server_hostname == (None if is_server else "localhost")
    assert ssl_object.context is (server if is_server else client)
    mine = view(ssl_object)
    assert mine["alpn"] == "echo/1" and mine["pending"] == 0
    assert mine["reused"] is False and mine["compression"] is None
    assert len(mine["binding"]) >= 12
    assert transport.get_extra_info("cipher") == mine["cipher"]
    with pytest.raises(ValueError, match="channel binding"):
        ssl_object.get_channel_binding("tls-server-end-point-2")
    if is_server:
        assert ssl_object.getpeercert() is None
        assert ssl_object.getpeercert(True) is None
        shared = ssl_object.shared_ciphers()
        assert mine["cipher"] in shared
    else:
        assert ssl_object.getpeercert()["subjectAltName"]
        assert transport.get_extra_info("peercert") == ssl_object.getpeercert()
        assert ssl_object.getpeercert(True)[:1] == b"\x30"
        assert isinstance(ssl_object.session, ssl.SSLSession)
        assert ssl_object.session.timeout > 0
    certificate = ssl_object.getpeercert(True)
    theirs, mine_there, _ = await over(transport, protocol, peer)
    assert theirs == mine
    assert mine_there is None if not is_server else mine_there[:1] == b"\x30"
    # It outlives the connection.
    assert transport.get_extra_info("ssl_object") is ssl_object
    assert ssl_object.version() == mine["version"]
    assert ssl_object.cipher() == mine["cipher"]
    assert ssl_object.getpeercert(True) == certificate
    assert ssl_object.selected_alpn_protocol() == "echo/1"
    with pytest.raises(ssl.SSLError):
        ssl_object.write(b"late")


@pytest.mark.skipif(PY < (3, 13), reason="new in Python 3.13")
async def test_chains(loop: Any, tls: Any) -> None:
    transport, protocol, peer = await with_peer(tls, echo)
    ssl_object = transport.get_extra_info("ssl_object")
    leaf = ssl_object.getpeercert(True)
    verified = ssl_object.get_verified_chain()
    shown = ssl_object.get_unverified_chain()
    assert verified[0] == shown[0] == leaf
    assert len(verified) == 2 and all(type(one) is bytes for one in verified)
    await over(transport, protocol, peer)


async def test_no_common_protocol(loop: Any, tls: Any) -> None:
    tls[0].set_alpn_protocols(["a"])
    tls[1].set_alpn_protocols(["b"])
    transport, protocol, peer = await with_peer(tls, echo)
    ssl_object = transport.get_extra_info("ssl_object")
    assert ssl_object.selected_alpn_protocol() is None
    await over(transport, protocol, peer)


@pytest.mark.parametrize("tickets", [True, False])
@pytest.mark.parametrize("version", VERSIONS, ids=NAMES)
async def test_client_resumes(loop: Any, tls: Any, version: Any, tickets: bool) -> None:
    """The session goes in by a context's own wrap_bio(), the only way there is."""
    server, client = only(tls, version)
    if not tickets:
        server.options |= ssl.OP_NO_TICKET
    before: list[Any] = [None]

    def wrap_bio(*args: Any, **kwargs: Any) -> ssl.SSLObject:
        return ssl.SSLContext.wrap_bio(client, *args, **kwargs, session=before[0])

    client.wrap_bio = wrap_bio
    for expected in (False, True, True):
        transport, protocol, peer = await with_peer(tls, echo)
        await said(transport, protocol)  # of TLS 1.3, the tickets came before
        ssl_object = transport.get_extra_info("ssl_object")
        assert ssl_object.session_reused is expected
        before[0] = ssl_object.session
        assert before[0].has_ticket is (tickets or version is TLS13)
        await over(transport, protocol, peer)


@pytest.mark.parametrize("count", [None, 0, 3])
@pytest.mark.parametrize("version", VERSIONS, ids=NAMES)
async def test_server_resumes(loop: Any, tls: Any, version: Any, count: Any) -> None:
    server, client = only(tls, version)
    if count is not None:
        server.num_tickets = count
    session: Any = None
    resumes = version is TLS12 or count != 0
    for expected in (False, resumes):

        def work(sock: Any, session: Any = session) -> Any:
            with client.wrap_socket(
                sock, server_hostname="localhost", session=session
            ) as secure:
                secure.sendall(b"hello")
                assert secure.recv(5) == b"hello"
                found = secure.session, secure.session_reused
                end(secure)
            return found

        near, far = tcp_pair()
        peer = Peer(far, work)
        protocol = Recorder()
        transport = await open_tls(near, tls, "server", protocol)
        await until(lambda p=protocol: p.data == b"hello")  # type: ignore[misc]
        ssl_object = transport.get_extra_info("ssl_object")
        assert ssl_object.session_reused is expected
        transport.write(b"hello")
        session, reused = await peer.result()
        assert reused is expected
        await over(transport, protocol)


def authority(*hosts: str) -> tuple[Any, list[Any]]:
    """A root, and one certificate for each host."""
    top = root()
    return top, [issue(top, host) for host in hosts]


@pytest.mark.parametrize("version", VERSIONS, ids=NAMES)
async def test_sni_switches_the_context(
    loop: Any, tls: Any, version: Any, tmp_path: Any
) -> None:
    top, (one,) = authority("other.example")
    second = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    second.load_cert_chain(one.save(tmp_path / "second.pem"))
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=top.pem.decode())
    server, _ = only((tls[0], client), version)
    calls: list[Any] = []

    def switch(ssl_object: Any, name: Any, context: Any) -> None:
        calls.append((ssl_object, name, context))
        ssl_object.context = second

    server.sni_callback = switch
    near, far = tcp_pair()

    def work(sock: Any) -> Any:
        return sock.getpeercert(True)

    peer = Peer(far, handshaken(client, work, server_hostname="other.example"))
    protocol = Recorder()
    transport = await open_tls(near, (server, client), "server", protocol)
    ssl_object = transport.get_extra_info("ssl_object")
    assert calls == [(ssl_object, "other.example", server)]
    assert type(calls[0][0]) is ssl.SSLObject
    assert ssl_object.context is second
    assert transport.get_extra_info("sslcontext") is server
    assert await peer.result() == one.der
    await over(transport, protocol)


def refuse_by_alert(*args: Any) -> int:
    return ssl.ALERT_DESCRIPTION_ACCESS_DENIED


def refuse_by_error(*args: Any) -> None:
    raise LookupError("no such host")


def refuse_by_nonsense(*args: Any) -> Any:
    return "nonsense"


@pytest.mark.parametrize(
    "refuse", [refuse_by_alert, refuse_by_error, refuse_by_nonsense]
)
@pytest.mark.parametrize("version", VERSIONS, ids=NAMES)
async def test_sni_refuses(
    loop: Any, tls: Any, version: Any, refuse: Any, unraisable: Any
) -> None:
    server, client = only(tls, version)
    server.sni_callback = refuse

    def blocking() -> Any:
        near, far = tcp_pair()
        without_delay(near)
        calling = shaking(client, server_hostname="localhost")
        peer = Peer(far, calling)
        _, error = shake(near, server, server_side=True)
        near.close()
        peer.wait()
        return describe(error), unraisable.take()

    expected = await loop.run_in_executor(None, blocking)
    assert expected[0]["type"] is ssl.SSLError
    near, far = tcp_pair()
    calling = shaking(client, server_hostname="localhost")
    peer = Peer(far, calling)
    with pytest.raises(ssl.SSLError) as caught:
        await open_tls(near, tls, "server", Recorder())
    assert (describe(caught.value), unraisable.take()) == expected
    _, error = await peer.result()
    assert error is not None


@pytest.mark.parametrize("way", ["client", "server"])
@pytest.mark.parametrize("version", VERSIONS, ids=NAMES)
async def test_msg_callback(loop: Any, tls: Any, version: Any, way: str) -> None:
    """The messages of a handshake are those of a blocking socket, in order."""
    server, client = only(tls, version)
    seen: list[Any] = []
    objects: list[Any] = []

    def note(conn: Any, where: str, *what: Any) -> None:
        number, content, kind, data = what
        objects.append(conn)
        if content.name == "HANDSHAKE" and kind.name != "NEWSESSION_TICKET":
            seen.append((where, number.name, kind.name, data[:1]))

    watched = server if way == "server" else client
    watched._msg_callback = note

    def blocking() -> list[Any]:
        near, far = tcp_pair()
        without_delay(near)
        serving = shaking(server, server_side=True)
        calling = shaking(client, server_hostname="localhost")
        if way == "server":
            serving, calling = calling, serving
        peer = Peer(far, serving)
        assert calling(near)[1] is None
        peer.wait()
        return seen[:]

    expected = await loop.run_in_executor(None, blocking)
    assert len(expected) >= 6
    seen.clear()
    objects.clear()
    transport, protocol, peer = await with_peer(tls, echo, way)
    await said(transport, protocol)
    assert seen == expected
    ssl_object = transport.get_extra_info("ssl_object")
    assert objects and all(one is ssl_object for one in objects)
    await over(transport, protocol, peer)
    watched._msg_callback = None  # 3.11 keeps it where no collection looks


@pytest.mark.parametrize("way", WAYS)
async def test_keylog(loop: Any, tls: Any, way: str, tmp_path: Any) -> None:
    mine = tls[0] if way.endswith("server") else tls[1]
    mine.keylog_filename = str(tmp_path / "keys")
    transport, protocol, peer = await with_peer(tls, echo, way)
    await said(transport, protocol)
    await over(transport, protocol, peer)
    mine.keylog_filename = None
    lines = (tmp_path / "keys").read_text().splitlines()
    assert sum("TRAFFIC_SECRET_0" in line for line in lines) == 2


@pytest.mark.parametrize("way", ["client", "server"])
@pytest.mark.parametrize("shows", [True, False])
async def test_post_handshake_authentication(
    loop: Any, loop_kind: str, tls: Any, way: str, shows: bool, tmp_path: Any
) -> None:
    """The server asks for the certificate when they have talked already."""
    server, client = only(tls, TLS13)
    top = root()
    one = issue(top, purposes=(CLIENT,))
    server.load_verify_locations(cadata=top.pem.decode())
    server.post_handshake_auth = client.post_handshake_auth = True
    if shows:
        client.load_cert_chain(one.save(tmp_path / "client.pem"))
    server.verify_mode = ssl.CERT_REQUIRED  # only when it asks

    def serve(sock: ssl.SSLSocket) -> Any:
        assert sock.recv(5) == b"hello"
        assert sock.getpeercert(True) is None
        sock.verify_client_post_handshake()
        sock.sendall(b"who?")
        try:
            assert sock.recv(5) == b"it is"
        except ssl.SSLError as error:
            return error.reason
        return sock.getpeercert(True)

    def call(sock: ssl.SSLSocket) -> Any:
        sock.sendall(b"hello")
        assert sock.recv(4) == b"who?"
        try:
            sock.sendall(b"it is")
            return sock.recv(2)
        except OSError:
            return b""

    work = serve if way == "client" else call
    transport, protocol, peer = await with_peer(tls, work, way)
    if way == "client":
        transport.write(b"hello")
        # The refusal may come together with this, and then asyncio drops it.
        refused = protocol.closed.done if loop_kind == "asyncio" else bool
        await until(lambda: protocol.data == b"who?" or refused())
        transport.write(b"it is")
        found = await peer.result()
        assert found == (one.der if shows else "PEER_DID_NOT_RETURN_A_CERTIFICATE")
        transport.abort()
        await protocol.closed
        return
    await until(lambda: protocol.data == b"hello")
    ssl_object = transport.get_extra_info("ssl_object")
    assert ssl_object.getpeercert(True) is None
    ssl_object.verify_client_post_handshake()
    transport.write(b"who?")
    if shows:
        await until(lambda: protocol.data == b"helloit is")
        assert ssl_object.getpeercert(True) == one.der
        assert transport.get_extra_info("peercert") is None  # as of the handshake
        transport.write(b"ok")
        assert await peer.result() == b"ok"
        await over(transport, protocol)
    else:
        error = await protocol.closed
        assert error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
        await peer.result()


@pytest.mark.skipif(PY < (3, 13), reason="new in Python 3.13")
@pytest.mark.parametrize("way", ["client", "server"])
@pytest.mark.parametrize("version", VERSIONS, ids=NAMES)
async def test_pre_shared_keys(loop: Any, version: Any, way: str) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    only((server, client), version)
    asked: list[Any] = []

    def give(hint: Any) -> Any:
        asked.append(hint)
        return "me", b"secret key"

    def find(identity: Any) -> Any:
        asked.append(identity)
        return {"me": b"secret key"}[identity]

    if version is TLS12:
        for context in (server, client):
            context.set_ciphers("PSK")
    server.set_psk_server_callback(find, "a hint")  # type: ignore[attr-defined]
    client.set_psk_client_callback(give)  # type: ignore[attr-defined]
    transport, protocol, peer = await with_peer((server, client), echo, way)
    await said(transport, protocol)
    assert asked.count("me") == 1 and len(asked) == 2
    ssl_object = transport.get_extra_info("ssl_object")
    assert ssl_object.getpeercert(True) is None
    await over(transport, protocol, peer)


class Loud(ssl.SSLObject):
    """Sees every call of the engine, and changes what passes."""

    calls: list[str]

    def do_handshake(self) -> None:
        self.__dict__.setdefault("calls", []).append("do_handshake")
        super().do_handshake()

    def read(self, len: int = 1024, buffer: Any = None) -> Any:
        self.calls.append("read")
        if buffer is None:
            return super().read(len).upper()
        count = super().read(len, buffer)
        buffer[:count] = bytes(buffer[:count]).upper()
        return count

    def write(self, data: Any) -> int:
        self.calls.append("write")
        return super().write(bytes(data).replace(b"-", b"+"))

    def unwrap(self) -> Any:
        self.calls.append("unwrap")
        return super().unwrap()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("buffered", [False, True])
async def test_sslobject_class(loop: Any, tls: Any, way: str, buffered: bool) -> None:
    mine = tls[0] if way.endswith("server") else tls[1]
    mine.sslobject_class = Loud
    protocol = BufferedRecorder() if buffered else Recorder()
    transport, _, peer = await with_peer(tls, echo, way, protocol)
    transport.write(b"a-b")
    await until(lambda: protocol.data == b"A+B")
    ssl_object = transport.get_extra_info("ssl_object")
    assert type(ssl_object) is Loud
    await over(transport, protocol, peer)
    assert set(ssl_object.calls) == {"do_handshake", "read", "write", "unwrap"}
    assert ssl_object.calls[0] == "do_handshake"


class Delegating(ssl.SSLContext):
    """Lets another context do the work, and looks at the peer itself."""

    inner: ssl.SSLContext
    given: list[Any]
    refuses = False

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        self.given = [args, kwargs]
        ssl_object = self.inner.wrap_bio(*args, **kwargs)
        shake = ssl_object.do_handshake

        def do_handshake() -> None:
            shake()
            assert ssl_object.getpeercert(True)
            if self.refuses:
                raise ssl.SSLCertVerificationError("the platform says no")

        ssl_object.do_handshake = do_handshake  # type: ignore[method-assign]
        return ssl_object


@pytest.mark.parametrize("way", ["client", "start_tls client"])
@pytest.mark.parametrize("refuses", [False, True])
async def test_context_that_delegates(
    loop: Any, tls: Any, way: str, refuses: bool
) -> None:
    outer = Delegating(ssl.PROTOCOL_TLS_CLIENT)
    outer.inner = tls[1]
    outer.refuses = refuses
    if refuses:
        with pytest.raises(ssl.SSLCertVerificationError, match="the platform says no"):
            await with_peer((tls[0], outer), recv_all_quietly, way)
    else:
        transport, protocol, peer = await with_peer((tls[0], outer), echo, way)
        await said(transport, protocol)
        assert transport.get_extra_info("ssl_object").context is outer.inner
        assert transport.get_extra_info("sslcontext") is outer
        await over(transport, protocol, peer)
    args, kwargs = outer.given
    assert [type(one) for one in args] == [ssl.MemoryBIO, ssl.MemoryBIO]
    assert kwargs == {"server_side": False, "server_hostname": "localhost"}


def recv_all_quietly(sock: Any) -> None:
    try:
        while sock.recv(1000):
            pass
    except OSError:
        return


class Proxy:
    """Not an SSLObject, but as good as one."""

    def __init__(self, ssl_object: ssl.SSLObject) -> None:
        self.behind = ssl_object

    def __getattr__(self, name: str) -> Any:
        return getattr(self.behind, name)


@pytest.mark.parametrize("way", WAYS)
async def test_object_that_is_no_sslobject(loop: Any, tls: Any, way: str) -> None:
    class Context(ssl.SSLContext):
        def wrap_bio(self, *args: Any, **kwargs: Any) -> Any:
            return Proxy(mine.wrap_bio(*args, **kwargs))

    mine = tls[0] if way.endswith("server") else tls[1]
    outer = Context(mine.protocol)
    both = (outer, tls[1]) if mine is tls[0] else (tls[0], outer)
    near, far = tcp_pair()
    if way.endswith("server"):
        run = handshaken(tls[1], echo, server_hostname="localhost")
    else:
        run = handshaken(tls[0], echo, server_side=True)
    peer = Peer(far, run)
    protocol = Recorder()
    transport = await open_tls(near, both, way, protocol)
    await said(transport, protocol, bytes(100_000))
    assert type(transport.get_extra_info("ssl_object")) is Proxy
    assert await over(transport, protocol, peer) == 100_000


async def test_wrap_bio_that_fails(loop: Any, tls: Any) -> None:
    def wrap_bio(*args: Any, **kwargs: Any) -> Any:
        raise LookupError("not today")

    tls[1].wrap_bio = wrap_bio
    near, far = tcp_pair()
    protocol = Recorder()
    with pytest.raises(LookupError, match="not today"):
        await open_tls(near, tls, "start_tls client", protocol)
    assert protocol.events == ["made"]
    assert protocol.transport.is_reading()  # nothing happened to it
    await said_plainly(protocol.transport, far)
    protocol.transport.close()
    await protocol.closed
    far.close()
    near, far = tcp_pair()
    with near, far, pytest.raises(LookupError, match="not today"):
        await open_tls(near, tls, "client", protocol)


async def said_plainly(transport: Any, far: Any) -> None:
    transport.write(b"plain")
    assert await asyncio.get_running_loop().sock_recv(far, 10) == b"plain"


async def test_objects_are_let_go(loop: Any, tls: Any) -> None:
    """Nothing keeps the object, the context or the protocol of what has ended."""
    transport, protocol, peer = await with_peer(tls, echo)
    kept = weakref.ref(transport.get_extra_info("ssl_object"))
    gone = weakref.ref(protocol)
    await over(transport, protocol, peer)
    del transport, protocol, peer
    await asyncio.sleep(0)
    collect()
    assert kept() is None and gone() is None

"""Whom TLS trusts: what a blocking socket of the standard library does, and no more.

A table of certificates, of names and of settings. Each case is first tried by
`SSLContext.wrap_socket` on a blocking socket; the loop must come to the same: the
same certificate, or the same error, in both versions of TLS, by every way in.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import shutil
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("cryptography")

from certificates import (
    CLIENT,
    SERVER,
    Certificate,
    between,
    issue,
    issue_sha1,
    root,
    weak_key,
)
from servers import Keeper, serve, stop
from support import Recorder, tcp_pair, until
from tlspeers import Peer, describe, shaking, without_delay

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
ACCEPTED = 0
ANYTHING = -1  # as the standard library pleases


class Store:
    """The authorities and the certificates of the table, made on demand."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.root = root()
        self.other = root("other")
        self.between = between(self.root)
        self.made: dict[str, pathlib.Path] = {}
        self.certificates: dict[str, Certificate] = {}

    @functools.cached_property
    def makers(self) -> dict[str, Callable[[], Certificate]]:
        r, host = self.root, "localhost"
        make = functools.partial
        return {
            "good": make(issue, r, host, "127.0.0.1", "::1"),
            "good client": make(issue, r, purposes=(CLIENT,)),
            "both purposes": make(issue, r, host, purposes=(SERVER, CLIENT)),
            "any purpose": make(issue, r, host, purposes=()),
            "expired": make(issue, r, host, days=(-5, -1)),
            "not yet": make(issue, r, host, days=(1, 5)),
            "other name": make(issue, r, "other.example"),
            "wildcard": make(issue, r, "*.example.org"),
            "top wildcard": make(issue, r, "*.org"),
            "inner wildcard": make(issue, r, "a.*.org"),
            "half wildcard": make(issue, r, "w*.example.org"),
            "wildcard alone": make(issue, r, "*"),
            "upper case": make(issue, r, "LocalHost"),
            "address as name": make(issue, r, "hidden", common="127.0.0.1"),
            "idn": make(issue, r, "xn--bcher-kva.example"),
            "idn wildcard": make(issue, r, "*.example", "xn--*.example"),
            "own": make(issue, None, host),
            "unknown": make(issue, self.other, host),
            "below": make(issue, self.between, host),
            "client below": make(issue, self.between, purposes=(CLIENT,)),
            "below a leaf": lambda: issue(issue(r, common="leaf"), host),
            "too long": lambda: issue(
                between(between(r, "short", path=0), "one too many"), host
            ),
            "constrained": lambda: issue(
                between(r, "constrained", permitted="example.org"), host
            ),
            "below expired": lambda: issue(between(r, "old", days=(-9, -1)), host),
            "common name": make(issue, r, common=host),
            "name and address": make(issue, r, "127.0.0.1", common=host),
            "weak": make(issue, r, host, key=weak_key()),
            "sha1": lambda: issue_sha1(r, host, self.folder),
            "expired client": make(issue, r, purposes=(CLIENT,), days=(-5, -1)),
            "own client": make(issue, None, purposes=(CLIENT,)),
            "unknown client": make(issue, self.other, purposes=(CLIENT,)),
        }

    def get(self, name: str) -> Certificate:
        if name not in self.certificates:
            self.certificates[name] = self.makers[name]()
        return self.certificates[name]

    def file(self, name: str) -> pathlib.Path:
        """The file of a certificate, its key and its chain; -leaf: no chain."""
        if name not in self.made:
            path = self.folder / f"{name}.pem"
            plain = name.removesuffix("-leaf")
            self.made[name] = self.get(plain).save(path, whole=name == plain)
        return self.made[name]

    def context(self, side: int, version: ssl.TLSVersion) -> ssl.SSLContext:
        context = ssl.SSLContext(side)
        context.minimum_version = context.maximum_version = version
        # The default level of the library; systems configure others.
        context.set_ciphers("DEFAULT:@SECLEVEL=2")
        return context

    def present(self, context: ssl.SSLContext, name: str | None) -> None:
        if name is not None:
            context.set_ciphers("DEFAULT:@SECLEVEL=0")  # it may be weak
            context.load_cert_chain(self.file(name))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("certificates"))


def trust(store: Store, context: ssl.SSLContext, *certificates: Certificate) -> None:
    for one in certificates or (store.root,):
        context.load_verify_locations(cadata=one.pem.decode())


Setup = Callable[[Store, ssl.SSLContext], None]


def trusting(*names: str) -> Setup:
    """Trust these; an authority by the attribute, else a certificate."""

    def setup(store: Store, context: ssl.SSLContext) -> None:
        for name in names:
            one = getattr(store, name, None) or store.get(name)
            context.load_verify_locations(cadata=one.pem.decode())

    return setup


def trusting_nobody(store: Store, context: ssl.SSLContext) -> None:
    pass


def listing(*names: str, leaf_only: bool = True, **kwargs: Any) -> Setup:
    """Trust the root, with its list of the revoked."""

    def setup(store: Store, context: ssl.SSLContext) -> None:
        trust(store, context)
        path = store.folder / "revoked.pem"
        path.write_bytes(store.root.revoke(*map(store.get, names), **kwargs))
        context.load_verify_locations(path)
        leaf, chain = ssl.VERIFY_CRL_CHECK_LEAF, ssl.VERIFY_CRL_CHECK_CHAIN
        context.verify_flags |= leaf if leaf_only else chain

    return setup


def without_list(store: Store, context: ssl.SSLContext) -> None:
    trust(store, context)
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def changed(**settings: Any) -> Setup:
    """Trust the root, with these attributes of the context changed."""

    def setup(store: Store, context: ssl.SSLContext) -> None:
        trust(store, context)
        for name, value in settings.items():
            setattr(context, name, value)

    return setup


@dataclasses.dataclass(frozen=True)
class Case:
    """What is presented, under which name and settings it is looked at."""

    name: str
    shown: str | None
    code: int = ACCEPTED  # verify_code of the refusal
    host: Any = "localhost"
    setup: Setup = trust


UNNAMED = changed(check_hostname=False)
NAIVE = changed(check_hostname=False, verify_mode=ssl.CERT_NONE)
NO_COMMON_NAMES = changed(hostname_checks_common_name=False)
PARTIAL = changed(verify_flags=ssl.VERIFY_X509_PARTIAL_CHAIN)
STRICT = changed(verify_flags=ssl.VERIFY_X509_STRICT)


def partial(store: Store, context: ssl.SSLContext) -> None:
    context.load_verify_locations(cadata=store.between.pem.decode())
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


SERVERS = [
    Case("good", "good"),
    Case("good and strict", "good", setup=STRICT),
    Case("both purposes", "both purposes"),
    Case("no purpose named", "any purpose"),
    Case("expired", "expired", 10),
    Case("not yet valid", "not yet", 9),
    Case("other name", "other name", 62),
    Case("other name, not looked at", "other name", setup=UNNAMED),
    Case("other name, nothing looked at", "other name", setup=NAIVE),
    Case("expired, the name not looked at", "expired", 10, setup=UNNAMED),
    Case("wildcard", "wildcard", host="www.example.org"),
    Case("wildcard, in capitals", "wildcard", host="WWW.Example.ORG"),
    Case("wildcard, no label", "wildcard", 62, "example.org"),
    Case("wildcard, empty label", "wildcard", ANYTHING, "www..example.org"),
    Case("wildcard, two labels", "wildcard", 62, "a.b.example.org"),
    Case("wildcard of a top domain", "top wildcard", 62, "example.org"),
    Case("wildcard within", "inner wildcard", 62, "a.b.org"),
    Case("half a wildcard", "half wildcard", 62, "www.example.org"),
    Case("wildcard for all", "wildcard alone", 62),
    Case("wildcard and IDN", "idn wildcard", ANYTHING, "bücher.example"),
    Case("capitals", "upper case"),
    Case("trailing dot", "good", 62, "localhost."),
    Case("longer name", "good", 62, "localhost.example"),
    Case("shorter name", "other name", 62, "example"),
    Case("IPv4", "good", host="127.0.0.1"),
    Case("IPv6", "good", host="::1"),
    Case("IPv6, written otherwise", "good", host="0:0:0:0:0:0:0:1"),
    Case("other IPv4", "good", 64, "127.0.0.2"),
    Case("other IPv6", "good", 64, "::2"),
    Case("IPv4 in the common name", "address as name", 64, "127.0.0.1"),
    Case("IPv4 of a wildcard", "wildcard alone", 64, "127.0.0.1"),
    Case("IPv6 in brackets", "good", 62, "[::1]"),
    Case("IDN", "idn", host="bücher.example"),
    Case("IDN, encoded", "idn", host="xn--bcher-kva.example"),
    Case("other IDN", "idn", 62, "kücher.example"),
    Case("name as bytes", "good", host=b"localhost"),
    Case("self-signed", "own", 18),
    Case("self-signed and trusted", "own", setup=trusting("own")),
    Case("self-signed, nothing looked at", "own", setup=NAIVE),
    Case("unknown authority", "unknown", 20),
    Case("the other authority", "good", 20, setup=trusting("other")),
    Case("two authorities", "unknown", setup=trusting("root", "other")),
    Case("nobody trusted", "good", 20, setup=trusting_nobody),
    Case("below another", "below"),
    Case("intermediate missing", "below-leaf", 20),
    Case("intermediate at hand", "below-leaf", setup=trusting("root", "between")),
    Case("intermediate alone", "below", 2, setup=trusting("between")),
    Case("intermediate is enough", "below", setup=partial),
    Case("intermediate is a leaf", "below a leaf", ANYTHING),
    Case("intermediate expired", "below expired", 10),
    Case("path too long", "too long", 25),
    Case("name not permitted", "constrained", 47),
    Case("revoked", "good", 23, setup=listing("good")),
    Case("another one revoked", "good", setup=listing("expired")),
    Case("expired and revoked", "expired", 23, setup=listing("expired")),
    Case("list missing", "good", 3, setup=without_list),
    Case("list of another", "unknown", 20, setup=listing()),
    Case("list stale", "good", 12, setup=listing("expired", stale=True)),
    Case("list of the chain", "good", setup=listing(leaf_only=False)),
    Case("client's purpose", "good client", 26, setup=UNNAMED),
    Case("common name", "common name", ANYTHING),
    Case("common name disabled", "common name", 62, setup=NO_COMMON_NAMES),
    Case("common name beside an address", "name and address", ANYTHING),
    Case("address beside a common name", "name and address", host="127.0.0.1"),
    Case("weak key", "weak", 66),
    Case("weak key, nothing looked at", "weak", ANYTHING, setup=NAIVE),
    Case("weak signature", "sha1", 68),
    Case("leading dot", "good", ANYTHING, ".localhost"),
    Case("no name, not looked at", "good", host=None, setup=UNNAMED),
    Case("zero byte", "good", ANYTHING, "localhost\0.example"),
    Case("too long a name", "good", ANYTHING, "a" * 64 + ".example"),
    Case("name of another type", "good", ANYTHING, 5),
    Case("blank name", "good", 62, " "),
]

OPTIONAL = changed(verify_mode=ssl.CERT_OPTIONAL)
NOT_ASKED = changed(verify_mode=ssl.CERT_NONE)
REFUSED = -2  # with an error that is not of the certificate


def optional_list(store: Store, context: ssl.SSLContext) -> None:
    listing("good client")(store, context)
    context.verify_mode = ssl.CERT_OPTIONAL


CLIENTS = [
    Case("good", "good client"),
    Case("good, optional", "good client", setup=OPTIONAL),
    Case("good, not asked", "good client", setup=NOT_ASKED),
    Case("both purposes", "both purposes"),
    Case("none", None, REFUSED),
    Case("none, optional", None, setup=OPTIONAL),
    Case("none, not asked", None, setup=NOT_ASKED),
    Case("expired", "expired client", 10),
    Case("expired, optional", "expired client", 10, setup=OPTIONAL),
    Case("expired, not asked", "expired client", setup=NOT_ASKED),
    Case("self-signed", "own client", 18),
    Case("self-signed, optional", "own client", 18, setup=OPTIONAL),
    Case("unknown authority", "unknown client", 20),
    Case("unknown authority, optional", "unknown client", 20, setup=OPTIONAL),
    Case("server's purpose", "good", 26),
    Case("server's purpose, optional", "good", 26, setup=OPTIONAL),
    Case("below another", "client below"),
    Case("intermediate missing", "client below-leaf", 20),
    Case("revoked", "good client", 23, setup=listing("good client")),
    Case("revoked, optional", "good client", 23, setup=optional_list),
    Case("list missing", "good client", 3, setup=without_list),
    Case("weak key", "weak", ANYTHING),
]


class Contexts:
    """The contexts of both ends in one case; looks: who verifies whom."""

    def __init__(self, store: Store, case: Case, version: Any, looks: str) -> None:
        self.server = store.context(ssl.PROTOCOL_TLS_SERVER, version)
        self.client = store.context(ssl.PROTOCOL_TLS_CLIENT, version)
        self.host = case.host
        if looks == "client":
            store.present(self.server, case.shown)
            case.setup(store, self.client)
        else:
            store.present(self.server, "good")
            store.present(self.client, case.shown)
            trust(store, self.client)
            self.server.verify_mode = ssl.CERT_REQUIRED
            case.setup(store, self.server)

    def shaking(self, end: str) -> Any:
        """What a blocking socket does as this end."""
        if end == "server":
            return shaking(self.server, server_side=True)
        return shaking(self.client, server_hostname=self.host)


def reference(contexts: Contexts, end: str) -> tuple[Any, Any]:
    """What blocking sockets come to at this end."""
    near, far = tcp_pair()
    without_delay(near)
    peer = Peer(far, contexts.shaking("client" if end == "server" else "server"))
    found, error = contexts.shaking(end)(near)
    near.close()
    peer.wait()
    return found, describe(error)


async def opened(opening: Any, protocol: Recorder) -> tuple[Any, Any]:
    """As shake(): wait for a transport, for the peer, and for the end."""
    try:
        made = await opening
    except (OSError, ValueError, AttributeError, TypeError) as error:
        return None, describe(error.with_traceback(None))
    transport = made[0] if isinstance(made, tuple) else made
    ssl_object = transport.get_extra_info("ssl_object")
    assert ssl_object.getpeercert() == transport.get_extra_info("peercert")
    if ssl_object.server_side:
        transport.write(b"!")
    else:
        await until(lambda: protocol.data or protocol.closed.done())
    transport.close()
    error = await protocol.closed
    if error is not None:
        return None, describe(error)
    return ssl_object.getpeercert(), None


async def directly(loop: Any, sock: Any, contexts: Contexts, end: str) -> Any:
    """create_connection() or connect_accepted_socket()."""
    protocol = Recorder()
    if end == "client":
        opening = loop.create_connection(
            lambda: protocol,
            sock=sock,
            ssl=contexts.client,
            server_hostname=contexts.host or "",
        )
    else:
        opening = loop.connect_accepted_socket(
            lambda: protocol, sock, ssl=contexts.server
        )
    found = await opened(opening, protocol)
    if protocol.transport is None:
        assert found[1] is not None and protocol.events == []
    sock.close()  # the loop does not where the arguments are wrong
    return found


async def upgraded(loop: Any, sock: Any, contexts: Contexts, end: str) -> Any:
    """start_tls()."""
    transport, protocol = await loop.connect_accepted_socket(Recorder, sock)
    kwargs: dict[str, Any] = {"server_side": True}
    if end == "client":
        kwargs = {"server_hostname": contexts.host}
    context = contexts.client if end == "client" else contexts.server
    found = await opened(
        loop.start_tls(transport, protocol, context, **kwargs), protocol
    )
    transport.close()
    await protocol.closed
    assert protocol.events[0] == "made" and protocol.events[-1] == "lost"
    if protocol.error is not None:
        assert describe(protocol.error) == found[1]
    return found


async def judge(loop: Any, store: Store, case: Case, looks: str, end: str) -> None:
    """Compare this end with blocking sockets in every version, by every way."""
    if case.shown == "sha1" and shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    other = "client" if end == "server" else "server"
    for version in VERSIONS:
        contexts = Contexts(store, case, version, looks)
        expected = await loop.run_in_executor(None, reference, contexts, end)
        error = expected[1]
        if looks == end:
            if case.code == ACCEPTED:
                assert error is None
            elif case.code == REFUSED:
                assert error and error["type"] is ssl.SSLError
            elif case.code != ANYTHING:
                assert error and error["type"] is ssl.SSLCertVerificationError
                assert error["verify_code"] == case.code
        for way in (directly, upgraded):
            near, far = tcp_pair()
            peer = Peer(far, contexts.shaking(other))
            found = await way(loop, near, contexts, end)
            assert found == expected, (way.__name__, version)
            _, refusal = await peer.result()
            assert (refusal is None) == (error is None)


@pytest.mark.parametrize("case", SERVERS, ids=lambda case: case.name)
async def test_client_looks_at_server(loop: Any, store: Store, case: Case) -> None:
    await judge(loop, store, case, looks="client", end="client")


@pytest.mark.filterwarnings("ignore:check_hostname requires:DeprecationWarning")
@pytest.mark.parametrize("way", [directly, upgraded])
async def test_without_a_name(loop: Any, store: Store, way: Any) -> None:
    """asyncio's way to leave the name unchecked, which wrap_socket() refuses.

    create_connection() calls it server_hostname="", start_tls() None or "". The
    rest of the certificate is looked at all the same. Newer Pythons refuse it.
    """
    for shown, code in (("other name", ACCEPTED), ("expired", 10)):
        case = Case("no name", shown, host="" if way is directly else None)
        contexts = Contexts(store, case, ssl.TLSVersion.TLSv1_3, "client")
        with socket.socket() as sock, pytest.raises(ValueError, match="requires"):
            contexts.client.wrap_socket(sock)
        try:
            contexts.client.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
        except ValueError as refusal:
            near, far = tcp_pair()
            found = await way(loop, near, contexts, "client")
            assert found == (None, describe(refusal))
            far.close()
            continue
        near, far = tcp_pair()
        peer = Peer(far, contexts.shaking("server"))
        certificate, error = await way(loop, near, contexts, "client")
        if code == ACCEPTED:
            assert error is None
            assert certificate["subjectAltName"] == (("DNS", "other.example"),)
        else:
            assert error["verify_code"] == code
        await peer.result()


@pytest.mark.parametrize("debug", [False, True])
async def test_server_reports_refusals(
    loop: Any, store: Store, reports: Any, log: Any, debug: bool
) -> None:
    """A server tells nobody of the client that it refused, but in debug mode."""
    loop.set_debug(debug)
    case = Case("expired", "expired client", 10)
    contexts = Contexts(store, case, ssl.TLSVersion.TLSv1_3, "server")
    keeper = Keeper()
    server, address = await serve(keeper, ssl=contexts.server)
    near = await loop.run_in_executor(None, socket.create_connection, address)
    _, error = await Peer(near, contexts.shaking("client")).result()
    assert error is not None
    if debug:
        await until(lambda: reports)
        report = reports.one()
        assert set(report) == {"message", "exception", "protocol", "transport"}
        said = "Error on transport creation for incoming connection"
        assert report["message"] == said
        assert report["exception"].verify_code == 10
        assert report["protocol"] is keeper.protocols[0]
        assert report["transport"].is_closing()
    await stop(server)
    assert len(keeper.protocols) == 1 and keeper.protocols[0].events == []


@pytest.mark.parametrize("case", CLIENTS, ids=lambda case: case.name)
async def test_server_looks_at_client(loop: Any, store: Store, case: Case) -> None:
    await judge(loop, store, case, looks="server", end="server")


@pytest.mark.parametrize("case", CLIENTS, ids=lambda case: case.name)
async def test_client_looked_at(loop: Any, store: Store, case: Case) -> None:
    """What a client learns from the alert of the server that refuses it."""
    await judge(loop, store, case, looks="server", end="client")

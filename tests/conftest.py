"""The fixtures: one loop per test, of each kind, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import os
import pathlib
import signal
import ssl
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import support

KINDS = support.wanted_kinds()


class Log(list):  # type: ignore[type-arg]
    """What was reported during a test; the test takes what it expected."""

    def take(self) -> list[Any]:
        found = list(self)
        self.clear()
        return found

    def one(self) -> Any:
        found = self.take()
        assert len(found) == 1, found
        return found[0]


class Keeper(logging.Handler):
    """Appends what is logged to a Log."""

    def __init__(self, found: Log) -> None:
        super().__init__(logging.WARNING)
        self.found = found

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(self.format(record))


def is_ours(path: pathlib.Path) -> bool:
    return "conformance" not in path.parts


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "timeout(seconds): limit of one test")
    config.addinivalue_line("markers", "slow: takes seconds")
    # Ctrl-C does nothing in a process that a shell put into the background, nor
    # in its children; the tests send it to both.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # What a process keeps for good (libuv's signal pipe) is opened here, so
    # that no test is charged with it.
    for kind in {"asyncio", "hotloop", *KINDS}:
        try:
            support.loop_factory(kind)().close()
        except ImportError:
            continue


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not is_ours(item.path):
            continue
        item.add_marker(pytest.mark.filterwarnings("error"), append=False)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test on its `loop` fixture."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    args = {name: pyfuncitem.funcargs[name] for name in names}
    loop: Any = args["loop"]
    loop.run_until_complete(pyfuncitem.obj(**args))
    return True


def leaked(before: dict[int, str]) -> dict[int, str]:
    """Descriptors opened since, after threads had a moment to end."""
    deadline = time.monotonic() + 2
    while True:
        now = support.open_fds()
        extra = {fd: now[fd] for fd in now if before.get(fd) != now[fd]}
        if not extra or time.monotonic() > deadline:
            return extra
        time.sleep(0.01)
        support.collect()


@pytest.fixture(autouse=True)
def guard(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test: no descriptor, unraisable or report is left over."""
    if not is_ours(request.node.path):
        yield
        return
    reports: Log = request.getfixturevalue("reports")
    log: Log = request.getfixturevalue("log")
    unraisable: Log = request.getfixturevalue("unraisable")
    gc.collect()
    gc.freeze()  # the collections below need to look at this test only
    unraisable.clear()  # what an earlier, failed test left as garbage
    before = support.open_fds()
    yield
    asyncio.set_event_loop(None)
    support.collect()
    assert unraisable.take() == []
    assert reports.take() == [], "exception handler called"
    assert log.take() == [], "logged by asyncio"
    assert leaked(before) == {}, "descriptors left open"


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> Log:
    """The exceptions nobody could raise, as "Type: text"."""
    found = Log()

    def hook(args: Any) -> None:
        found.append(f"{args.exc_type.__name__}: {args.exc_value}")

    monkeypatch.setattr(sys, "unraisablehook", hook)
    return found


@pytest.fixture
def reports() -> Log:
    """The contexts that loops gave to their exception handler."""
    return Log()


@pytest.fixture
def log() -> Iterator[Log]:
    """What went to the "asyncio" logger from WARNING up, as texts."""
    found = Log()
    keeper = Keeper(found)
    logger = logging.getLogger("asyncio")
    logger.addHandler(keeper)
    yield found
    logger.removeHandler(keeper)


@pytest.fixture(params=KINDS)
def loop_kind(request: pytest.FixtureRequest) -> str:
    """Which loop the test runs on: "asyncio" (the reference) or "hotloop"."""
    kind: str = request.param
    return kind


@pytest.fixture
def new_loop(loop_kind: str, reports: Log) -> Iterator[support.LoopFactory]:
    """Makes loops that record reports; each must be closed by the test."""
    factory = support.loop_factory(loop_kind)
    made: list[asyncio.AbstractEventLoop] = []

    def make() -> asyncio.AbstractEventLoop:
        loop = factory()
        loop.set_exception_handler(lambda _, context: reports.append(context))
        made.append(loop)
        return loop

    yield make
    still_open = [loop for loop in made if not loop.is_closed()]
    for loop in still_open:
        loop.close()
    assert not still_open, "the test left a loop open"


@pytest.fixture
def loop(
    new_loop: support.LoopFactory,
) -> Iterator[asyncio.AbstractEventLoop]:
    """An idle loop, closed after the test with nothing pending on it."""
    made = new_loop()
    yield made
    if made.is_closed():
        return
    pending = asyncio.all_tasks(made)
    for task in pending:
        task.cancel()
    made.run_until_complete(asyncio.sleep(0))
    made.run_until_complete(made.shutdown_asyncgens())
    made.run_until_complete(made.shutdown_default_executor())
    made.close()
    assert not pending, f"tasks left pending: {pending}"


@pytest.fixture
def task_class(loop_kind: str) -> Any:
    """The Task class this loop makes."""
    if loop_kind != "hotloop":
        return asyncio.Task
    import hotloop

    return hotloop.Task


@pytest.fixture
def future_class(loop_kind: str) -> Any:
    """The Future class this loop makes."""
    if loop_kind != "hotloop":
        return asyncio.Future
    import hotloop

    return hotloop.Future


@pytest.fixture
def no_warnings() -> Iterator[Callable[[], list[str]]]:
    """Collects warnings instead of raising them; call it to take them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        def take() -> list[str]:
            found = [f"{w.category.__name__}: {w.message}" for w in caught]
            caught.clear()
            return found

        yield take


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A PEM file with a certificate for localhost, its key and its issuer."""
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    parts = [issued.private_key_pem, *issued.cert_chain_pems, authority.cert_pem]
    path.write_bytes(b"".join(part.bytes() for part in parts))
    return path


@pytest.fixture
def tls(certificate: pathlib.Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(server context, client context that trusts it)."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    client = ssl.create_default_context(cafile=certificate)
    if os.environ.get("HOTLOOP_TEST_KTLS"):  # every test with the kernel's TLS
        for context in (server, client):
            context.options |= getattr(ssl, "OP_ENABLE_KTLS", 8)
    return server, client

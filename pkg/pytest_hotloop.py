"""pytest's plugin of hotloop: tests of asyncio programs on it, or on several loops.

``pytest --hotloop`` runs all tests with hotloop as the loop that asyncio makes, and
``pytest --loops asyncio,hotloop`` every asynchronous test on each. Every pytest loads
this module, whatever its age and whether hotloop is wanted or not. So it stands beside
the package, names only what pytest has always had, and leaves --loops to a project that
has such an option itself; what does the work is in hotloop._pytest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

_PLUGIN = "hotloop-loops"
_DOCTOR = "hotloop-doctor"
_CLOCKS = "hotloop-clocks"
_CLOCK = "hotloop_clock"
_OLDEST = (8, 2)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --hotloop, --hotloop-loops and the setting hotloop_loops.

    --loops follows when the project's own options are known.
    """
    group = parser.getgroup("hotloop", "event loops of asyncio")
    group.addoption(
        "--hotloop-loops",
        dest="hotloop_loops",
        metavar="NAME,...",
        help="run each asynchronous test on these loops: asyncio, or modules that "
        "have a new_event_loop(), as hotloop and uvloop",
    )
    group.addoption(
        "--hotloop",
        action="store_const",
        const="hotloop",
        dest="hotloop_loops",
        help="run the tests on hotloop; the same as --hotloop-loops hotloop",
    )
    parser.addini(
        "hotloop_loops",
        "what --hotloop-loops is without the option",
        type="args",
        default=[],
    )
    group.addoption(
        "--hotloop-doctor",
        action="store_const",
        const="report",
        dest="hotloop_doctor",
        help="report mistakes of asyncio programs that are seen during each test",
    )
    group.addoption(
        "--hotloop-doctor-check",
        action="store_const",
        const="check",
        dest="hotloop_doctor",
        help="the same, and each test with errors or warnings fails at its end",
    )


def _has_option(parser: pytest.Parser, name: str) -> bool:
    groups = [*parser._groups, parser._anonymous]
    return any(name in option.names() for group in groups for option in group.options)


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_load_initial_conftests(parser: pytest.Parser) -> Iterator[None]:
    """Add --loops and --doctor, unless the project has them for something else."""
    yield
    if not _has_option(parser, "--doctor"):
        parser.getgroup("hotloop").addoption(
            "--doctor",
            action="store_const",
            const="report",
            dest="hotloop_doctor",
            help="the same as --hotloop-doctor",
        )
    if not _has_option(parser, "--loops"):
        parser.getgroup("hotloop").addoption(
            "--loops",
            dest="hotloop_loops",
            metavar="NAME,...",
            help="the same as --hotloop-loops; not where a project has its own --loops",
        )


def _wanted(config: pytest.Config) -> list[str]:
    option: str | None = config.getoption("hotloop_loops")
    texts = config.getini("hotloop_loops") if option is None else [option]
    names = [name.strip() for text in texts for name in text.split(",")]
    return list(dict.fromkeys(filter(None, names)))


def _check_version() -> None:
    if getattr(pytest, "version_tuple", (0,)) < _OLDEST:
        raise pytest.UsageError("hotloop's loops need pytest 8.2 or later")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Take part in the run if loops or the doctor are asked for."""
    names = _wanted(config)
    doctor: str | None = config.getoption("hotloop_doctor")
    if not names and not doctor:
        return
    _check_version()
    if names:
        from hotloop._pytest import Loops

        config.pluginmanager.register(Loops(names), _PLUGIN)
    if doctor:
        from hotloop.doctor._pytest import Examination

        config.pluginmanager.register(Examination(doctor == "check"), _DOCTOR)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Take part in the run if a test asks for the clock."""
    manager = session.config.pluginmanager
    if manager.has_plugin(_CLOCKS) or not any(
        _CLOCK in getattr(item, "fixturenames", ()) for item in session.items
    ):
        return
    _check_version()
    from asyncio import SelectorEventLoop

    from hotloop._pytest_clock import Clocks

    loops: Any = manager.get_plugin(_PLUGIN)
    manager.register(Clocks(loops.make if loops else SelectorEventLoop), _CLOCKS)


@pytest.fixture(scope="session")
def hotloop_loop(request: pytest.FixtureRequest) -> str:
    """The name of the loop that the test runs on.

    A test that asks for it runs on each loop, also if it is not asynchronous itself.
    """
    plugin: Any = request.config.pluginmanager.get_plugin(_PLUGIN)
    default = "asyncio" if plugin is None else plugin.current
    return getattr(request, "param", default)


@pytest.fixture
def hotloop_clock(request: pytest.FixtureRequest) -> Any:
    """The clock of the test, a hotloop.testing.Clock.

    The loops that the test makes, or its fixtures of the scope "function", are those of
    hotloop.testing and run by it.
    """
    from hotloop._pytest_clock import clock_of

    return clock_of(request)

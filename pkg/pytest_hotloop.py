"""pytest's plugin of hotloop: tests of asyncio programs on it, or on several loops.

``pytest --hotloop`` runs all tests with hotloop as the loop that asyncio makes, and
``pytest --loops asyncio,hotloop`` every asynchronous test on each. This module stands
beside the package so that pytest, which loads it always, need not load hotloop.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import unittest
from collections.abc import Callable, Generator, Mapping
from typing import Any

import pytest
from _pytest.unittest import UnitTestCase

NAME = "hotloop_loop"
_PLUGIN = "hotloop-loops"

# Fixtures that have a loop, or make one for all that follows: of pytest-asyncio (by the
# end of their names), of anyio and of aiohttp.
_HOLDERS = ("_scoped_runner", "event_loop", "anyio_backend", "loop")
_ENGINES = {"anyio_backend", "event_loop", "loop", NAME}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --hotloop, --loops and the setting hotloop_loops."""
    group = parser.getgroup("hotloop", "event loops of asyncio")
    group.addoption(
        "--loops",
        metavar="NAME,...",
        help="run each asynchronous test on these loops: asyncio, or modules that "
        "have a new_event_loop(), as hotloop and uvloop",
    )
    group.addoption(
        "--hotloop",
        action="store_const",
        const="hotloop",
        dest="loops",
        help="run the tests on hotloop; the same as --loops hotloop",
    )
    parser.addini(
        "hotloop_loops", "what --loops is without the option", type="args", default=[]
    )


def _wanted(config: pytest.Config) -> list[str]:
    option: str | None = config.getoption("loops")
    texts = config.getini("hotloop_loops") if option is None else [option]
    names = [name.strip() for text in texts for name in text.split(",")]
    return list(dict.fromkeys(filter(None, names)))


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Take part in the run if loops are asked for."""
    names = _wanted(config)
    if names:
        config.pluginmanager.register(_Loops(names), _PLUGIN)


@pytest.fixture(scope="session")
def hotloop_loop(request: pytest.FixtureRequest) -> str:
    """The name of the loop that the test runs on.

    A test that asks for it runs on each loop, also if it is not asynchronous itself.
    """
    plugin: _Loops | None = request.config.pluginmanager.get_plugin(_PLUGIN)
    default = "asyncio" if plugin is None else plugin.current
    return getattr(request, "param", default)


def _factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if name == "asyncio":
        return asyncio.SelectorEventLoop
    try:
        factory = importlib.import_module(name).new_event_loop
    except (ImportError, AttributeError) as error:
        raise pytest.UsageError(f"--loops: {name} is no event loop: {error}") from None
    return factory  # type: ignore[no-any-return]


def _is_asynchronous(function: Any) -> bool:
    function = inspect.unwrap(function)
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


class _TestCase(UnitTestCase):
    """A class of unittest under a name that says the loop, too."""

    def _getobj(self) -> Any:
        name, _, loop = self.name[:-1].rpartition("[")
        self.hotloop_loop = loop
        return getattr(self.parent.obj, name)  # type: ignore[union-attr]


class _Loops:
    """The plugin at work: it is there only if loops were asked for."""

    def __init__(self, names: list[str]) -> None:
        from hotloop._default import set_default

        self.factories = {name: _factory(name) for name in names}
        self.names = names
        self.current = names[0]
        self.undo = set_default(lambda: self.factories[self.current]())

    def pytest_unconfigure(self) -> None:
        """Leave asyncio as it was."""
        self.undo()

    def pytest_report_header(self) -> str:
        """Say which loops are used."""
        return f"event loops: {', '.join(self.names)}"

    # ---- one test for each loop ----

    def _has_a_loop(self, metafunc: pytest.Metafunc) -> bool:
        """Whether the test is asynchronous, or uses something that is."""
        function = metafunc.function
        hypothesis: Any = getattr(function, "hypothesis", None)
        if _is_asynchronous(getattr(hypothesis, "inner_test", function)):
            return True
        fixtures: Mapping[str, Any] = metafunc._arg2fixturedefs
        return not _ENGINES.isdisjoint(metafunc.fixturenames) or any(
            _is_asynchronous(fixture.func)
            for name in metafunc.fixturenames
            for fixture in fixtures.get(name, ())
        )

    @pytest.hookimpl(tryfirst=True)
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Multiply a test that has a loop."""
        hook: Any = getattr(metafunc.config.hook, "pytest_asyncio_loop_factories", None)
        if (
            len(self.names) == 1
            or not self._has_a_loop(metafunc)
            or (hook is not None and hook.get_hookimpls())  # the project's choice
        ):
            return
        # What depends on the loop is made after it, and so ends with it.
        if NAME in metafunc.fixturenames:
            metafunc.fixturenames.remove(NAME)
        metafunc.fixturenames.insert(0, NAME)
        metafunc.parametrize(NAME, self.names, indirect=True, scope="session")

    @pytest.hookimpl(wrapper=True)
    def pytest_pycollect_makeitem(self) -> Generator[None, Any, Any]:
        """Multiply a class of unittest, whose tests cannot have parameters."""
        made = yield
        if len(self.names) == 1 or not made:
            return made
        nodes = made if isinstance(made, list) else [made]
        return [each for node in nodes for each in self._multiplied(node)]

    def _multiplied(self, node: Any) -> list[Any]:
        if not isinstance(node, UnitTestCase) or not issubclass(
            node.obj, unittest.IsolatedAsyncioTestCase
        ):
            return [node]
        names = [f"{node.name}[{loop}]" for loop in self.names]
        return [_TestCase.from_parent(node.parent, name=name) for name in names]

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[Any]
    ) -> None:
        """Leave out what asyncio's loops have no part in: all of trio's but one."""
        dropped = [item for item in items if self._is_repeated(item)]
        if dropped:
            config.hook.pytest_deselected(items=dropped)
            items[:] = [item for item in items if item not in dropped]

    def _is_repeated(self, item: Any) -> bool:
        params = getattr(getattr(item, "callspec", None), "params", {})
        backend = params.get("anyio_backend", "asyncio")
        name = backend if isinstance(backend, str) else backend[0]
        return name == "trio" and params.get(NAME, self.names[0]) != self.names[0]

    # ---- running them ----

    def _loop_of(self, item: pytest.Item) -> str:
        params = getattr(getattr(item, "callspec", None), "params", {})
        found: Any = params.get(NAME) or getattr(item.parent, NAME, self.names[0])
        return str(found)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Have the test's own loop made while it runs."""
        self.current = self._loop_of(item)
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: Any, request: pytest.FixtureRequest
    ) -> Generator[None, Any, Any]:
        """Have what holds a loop end before the next loop's turn."""
        if not (
            NAME in request.fixturenames
            and fixturedef.argname != NAME
            and (
                fixturedef.argname.endswith(_HOLDERS)
                or _is_asynchronous(fixturedef.func)
            )
        ):
            return (yield)
        request.getfixturevalue(NAME)
        chosen: Any = request._get_active_fixturedef(NAME)
        try:
            return (yield)
        finally:
            # What is added last ends first: a fixture before the loop it began on.
            end = functools.partial(fixturedef.finish, request=request)
            chosen.addfinalizer(end)

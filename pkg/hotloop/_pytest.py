"""The loops of a run of pytest: what pytest's plugin loads if they are asked for."""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import unittest
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any

import pytest
from _pytest.unittest import TestCaseFunction, UnitTestCase

from ._default import set_default

NAME = "hotloop_loop"
CLOCK = "hotloop_clock"

# Fixtures that have a loop, or make one for all that follows: of pytest-asyncio (by the
# end of their names), of anyio and of aiohttp.
_HOLDERS = ("_scoped_runner", "event_loop", "anyio_backend", "loop")
_ENGINES = {"anyio_backend", "event_loop", "loop", NAME}


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


def _put_first(names: list[str]) -> None:
    if NAME in names:
        names.remove(NAME)
    names.insert(0, NAME)


class _Method(TestCaseFunction):
    """A test of unittest whose name says the loop, too."""

    name: str

    @property
    def _method(self) -> str:
        return self.name.rpartition("[")[0]

    def _getinstance(self) -> Any:
        return self.parent.obj(self._method)  # type: ignore[union-attr]

    def _getobj(self) -> Any:
        return getattr(self.instance, self._method)

    def runtest(self) -> None:
        # pytest puts the method that it runs where unittest looks for it.
        name, self.name = self.name, self._method
        try:
            super().runtest()
        finally:
            self.name = name


class _TestCase(UnitTestCase):
    """A class of unittest for one of the loops."""

    hotloop_loop: str

    def collect(self) -> Iterable[Any]:
        for item in super().collect():
            name = f"{item.name}[{self.hotloop_loop}]"
            yield _Method.from_parent(self, name=name)


class Loops:
    """The plugin at work: it is there only if loops were asked for."""

    def __init__(self, names: list[str]) -> None:
        self.factories = {name: _factory(name) for name in names}
        self.names = names
        self.current = names[0]
        self.undo = set_default(self.make)

    def make(self) -> asyncio.AbstractEventLoop:
        """Make a loop of the kind that the running test has."""
        return self.factories[self.current]()

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
            or CLOCK in metafunc.fixturenames  # its loops are those of the clock
            or not self._has_a_loop(metafunc)
            or (hook is not None and hook.get_hookimpls())  # the project's choice
        ):
            return
        # What depends on the loop is made after it, and so ends with it.
        _put_first(metafunc.fixturenames)
        metafunc.parametrize(NAME, self.names, indirect=True, scope="session")

    def pytest_itemcollected(self, item: Any) -> None:
        """Put the loop back that pytest took from what it knows nobody asked for."""
        if NAME in getattr(getattr(item, "callspec", None), "params", {}):
            _put_first(item.fixturenames)

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
        classes = []
        for loop in self.names:
            made = _TestCase.from_parent(node.parent, name=node.name, obj=node.obj)
            made.hotloop_loop = loop
            classes.append(made)
        return classes

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

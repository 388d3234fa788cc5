"""pytest's plugin, in runs of pytest of their own: --hotloop and --loops."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from support import wanted_kinds

pytestmark = pytest.mark.slow

if "hotloop" not in wanted_kinds():
    pytest.skip("hotloop is not wanted", allow_module_level=True)

PRELUDE = """
import asyncio, sys, unittest
import pytest

def kind():
    return type(asyncio.get_running_loop()).__module__.split(".")[0]

async def find():
    return kind()
"""

# Other plugins that happen to be installed stay away.
ENV = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "", "COLUMNS": "200"}
PLUGINS = ("-p", "no:cacheprovider", "-p", "pytest_hotloop")

Run = Callable[..., dict[str, str]]


@pytest.fixture
def run(tmp_path: Any) -> Run:
    """Runs tests; returns the outcome of each by the end of its name."""

    def run(
        text: str,
        *words: str,
        ini: str = "",
        code: int = 0,
        plugins: tuple[str, ...] = PLUGINS,
    ) -> dict[str, str]:
        (tmp_path / "test_it.py").write_text(PRELUDE + textwrap.dedent(text))
        (tmp_path / "pytest.ini").write_text("[pytest]\n" + textwrap.dedent(ini))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-vv", *plugins, *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=50,
            env={**os.environ, **ENV},
        )
        assert done.returncode == code, done.stdout + done.stderr
        run.text = done.stdout + done.stderr  # type: ignore[attr-defined]
        return dict(re.findall(r"^test_it\.py::(\S+) ([A-Z]+)", done.stdout, re.M))

    return run


PLAIN = """
def test_run(expected):
    assert asyncio.run(find()) == expected

def test_runner(expected):
    with asyncio.Runner() as runner:
        assert runner.run(find()) == expected

def test_new_loop(expected):
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(find()) == expected
    loop.close()

class TestCase(unittest.IsolatedAsyncioTestCase):
    async def test_isolated(self):
        assert kind() == EXPECTED
"""


def plain(expected: str) -> str:
    return f"""
EXPECTED = {expected!r}

@pytest.fixture
def expected():
    return EXPECTED
{PLAIN}"""


@pytest.mark.parametrize(
    "words,ini,expected",
    [
        (["--hotloop"], "", "hotloop"),
        (["--hotloop-loops", "hotloop"], "", "hotloop"),
        ([], "hotloop_loops = hotloop", "hotloop"),
        (["--hotloop-loops=asyncio"], "hotloop_loops = hotloop", "asyncio"),
        (["--loops", "hotloop"], "hotloop_loops = asyncio", "hotloop"),
        (["--loops=asyncio"], "hotloop_loops = hotloop", "asyncio"),
        ([], "", "asyncio"),
    ],
    ids=["short", "long", "setting", "over setting", "--loops", "--loops=", "nothing"],
)
def test_one_loop_for_all(run: Run, words: list[str], ini: str, expected: str) -> None:
    found = run(plain(expected), "-W", "error", *words, ini=ini)
    names = ["test_run", "test_runner", "test_new_loop", "TestCase::test_isolated"]
    assert found == dict.fromkeys(names, "PASSED")


def test_nothing_is_loaded_without_need(run: Run) -> None:
    text = """
    def test_modules(hotloop_loop):
        assert not [name for name in sys.modules if name.split(".")[0] == "hotloop"]
        assert "pytest_hotloop" in sys.modules
        assert hotloop_loop == "asyncio"
    """
    assert run(text, "-W", "error") == {"test_modules": "PASSED"}


@pytest.mark.parametrize("group", ["parser", 'parser.getgroup("of the project")'])
def test_options_of_the_project(run: Run, tmp_path: Any, group: str) -> None:
    (tmp_path / "conftest.py").write_text(f"""
def pytest_addoption(parser):
    {group}.addoption("--loops", type=int)
    {group}.addoption("--loop", dest="loop")
""")
    text = """
    def test_option(pytestconfig, hotloop_loop):
        assert pytestconfig.getoption("loops") == 7
        assert hotloop_loop == "asyncio"
    """
    assert run(text, "--loops", "7") == {"test_option": "PASSED"}
    text = "def test_loop(hotloop_loop): assert hotloop_loop == 'hotloop'"
    found = run(text, "--loops", "7", "--hotloop-loops", "hotloop")
    assert found == {"test_loop": "PASSED"}


def test_a_pytest_from_before(run: Run, tmp_path: Any) -> None:
    """It is loaded by every pytest, and must not need what that does not have."""
    (tmp_path / "before.py").write_text("""
import pytest

marker = pytest.hookimpl
def hookimpl(*, tryfirst=False, trylast=False, hookwrapper=False):
    return marker(tryfirst=tryfirst, trylast=trylast, hookwrapper=hookwrapper)

pytest.hookimpl = hookimpl
pytest.version_tuple = (7, 1, 3)
""")
    text = "def test_it(hotloop_loop): pass"
    before = ("-p", "before", *PLUGINS)
    assert run(text, plugins=before) == {"test_it": "PASSED"}
    run(text, "--hotloop", plugins=before, code=4)
    assert "need pytest 8.2" in run.text  # type: ignore[attr-defined]


def test_the_last_option_counts(run: Run) -> None:
    text = "def test_it(hotloop_loop): assert hotloop_loop == 'asyncio'"
    assert run(text, "--hotloop", "--loops", "asyncio") == {"test_it": "PASSED"}


SEVERAL = """
seen = []

@pytest.mark.usefixtures("hotloop_loop")
def test_sync():
    seen.append(asyncio.run(find()))

def test_other():
    assert asyncio.run(find()) == "asyncio"

class TestCase(unittest.IsolatedAsyncioTestCase):
    async def test_one(self):
        seen.append(kind())

def test_seen():
    assert seen == ["asyncio", "hotloop"] * 2
"""


@pytest.mark.parametrize("way", ["option", "setting"])
def test_several_loops(run: Run, way: str) -> None:
    loops = "asyncio,hotloop"
    if way == "option":
        found = run(SEVERAL, "-W", "error", "--loops", loops)
    else:
        found = run(SEVERAL, "-W", "error", ini=f"hotloop_loops = {loops}")
    names = ["test_other", "test_seen"]
    for loop in ("asyncio", "hotloop"):
        names += [f"test_sync[{loop}]", f"TestCase::test_one[{loop}]"]
    assert found == dict.fromkeys(names, "PASSED")


CLASS = """
class TestCase(unittest.IsolatedAsyncioTestCase):
    began = []

    @classmethod
    def setUpClass(cls):
        cls.began.append(asyncio.new_event_loop())
        cls.began[-1].close()

    async def test_one(self):
        assert self.id().endswith(".test_one")
        assert type(self.began[-1]) is type(asyncio.get_running_loop())

    def test_two(self):
        assert self._testMethodName == "test_two"
        names = [type(loop).__module__.split(".")[0] for loop in self.began]
        assert names in (["asyncio"], ["asyncio", "hotloop"])
"""


def test_a_test_of_unittest_is_chosen_by_its_name(run: Run) -> None:
    both = {"TestCase::test_one[asyncio]", "TestCase::test_one[hotloop]"}
    for chosen, expected in (
        ("::TestCase::test_one", both),
        ("::TestCase::test_one[hotloop]", {"TestCase::test_one[hotloop]"}),
        ("::TestCase", both | {name.replace("one", "two") for name in both}),
    ):
        words = ("--loops", "asyncio,hotloop", f"test_it.py{chosen}")
        assert run(CLASS, *words) == dict.fromkeys(expected, "PASSED"), chosen


def test_pytest_wraps_the_methods_of_unittest(run: Run, tmp_path: Any) -> None:
    (tmp_path / "conftest.py").write_text("""
import pytest

@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    inner, calls = item.obj, []
    item.obj = lambda: (calls.append(item.name), inner())
    yield
    assert calls == ["test_two"]
""")
    words = ("--loops", "asyncio,hotloop", "test_it.py::TestCase::test_two")
    assert set(run(CLASS, *words).values()) == {"PASSED"}


def test_uvloop_among_them(run: Run) -> None:
    pytest.importorskip("uvloop")
    text = """
    def test_sync(hotloop_loop):
        expected = "asyncio" if hotloop_loop == "asyncio" else hotloop_loop
        assert asyncio.run(find()) == expected
    """
    found = run(text, "--loops", "uvloop,hotloop,asyncio,uvloop")
    assert list(found) == [f"test_sync[{k}]" for k in ("uvloop", "hotloop", "asyncio")]
    assert set(found.values()) == {"PASSED"}


def test_what_the_project_chose_wins(run: Run) -> None:
    text = """
    import warnings

    class TestCase(unittest.IsolatedAsyncioTestCase):
        if sys.version_info >= (3, 13):
            loop_factory = asyncio.SelectorEventLoop

        async def test_factory(self):
            if sys.version_info >= (3, 13):
                assert kind() == "asyncio"

    def test_factory():
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            assert runner.run(find()) == "asyncio"

    def test_policy():
        class Policy(asyncio.DefaultEventLoopPolicy):
            def new_event_loop(self):
                return asyncio.SelectorEventLoop()
        asyncio.set_event_loop_policy(Policy())
        assert asyncio.run(find()) == "asyncio"
        asyncio.set_event_loop_policy(None)
        assert asyncio.run(find()) == "hotloop"
    """
    found = run(text, "--hotloop")
    assert set(found.values()) == {"PASSED"} and len(found) == 3


ANYIO = """
@pytest.fixture(scope="module")
async def module_loop(anyio_backend):
    yield (None if anyio_backend == "trio" else asyncio.get_running_loop())

@pytest.mark.anyio
async def test_async(hotloop_loop, anyio_backend_name, module_loop):
    if anyio_backend_name == "asyncio":
        assert kind() == hotloop_loop
        assert module_loop is asyncio.get_running_loop()

@pytest.mark.anyio
async def test_again(hotloop_loop, anyio_backend_name, module_loop):
    if anyio_backend_name == "asyncio":
        assert kind() == hotloop_loop
        assert module_loop is asyncio.get_running_loop()
"""


BACKEND = """
@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"
"""


def test_anyio(run: Run) -> None:
    plugin = ("-p", "anyio.pytest_plugin")
    found = run(BACKEND + ANYIO, *plugin, "--loops", "asyncio,hotloop")
    names = ["test_async[asyncio]", "test_again[asyncio]"]
    names += ["test_async[hotloop]", "test_again[hotloop]"]
    assert found == dict.fromkeys(names, "PASSED")
    found = run(BACKEND + ANYIO, *plugin, "--hotloop")
    assert found == dict.fromkeys(["test_async", "test_again"], "PASSED")


def test_fixtures_of_tests_that_do_not_ask(run: Run) -> None:
    """What began on one loop ends before the next one's turn all the same."""
    text = """
@pytest.fixture(scope="module")
async def module_loop(anyio_backend):
    began = asyncio.get_running_loop()
    yield began
    assert asyncio.get_running_loop() is began

@pytest.mark.anyio
@pytest.mark.parametrize("number", [1, 2])
async def test_async(request, module_loop, number):
    assert module_loop is asyncio.get_running_loop()
    assert kind() in request.node.name
"""
    plugin = ("-p", "anyio.pytest_plugin")
    found = run(BACKEND + text, *plugin, "--loops", "asyncio,hotloop")
    names = [f"test_async[{k}-{n}]" for k in ("asyncio", "hotloop") for n in (1, 2)]
    assert found == dict.fromkeys(names, "PASSED")


def test_anyio_and_its_backends(run: Run) -> None:
    backends = """
@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request):
    if request.param == "trio":
        pytest.skip("not needed")
    return request.param
"""
    words = ("-p", "anyio.pytest_plugin", "--loops", "asyncio,hotloop")
    found = run(backends + ANYIO, *words, "-k", "test_async")
    assert found == {
        "test_async[asyncio-asyncio]": "PASSED",
        "test_async[asyncio-trio]": "SKIPPED",
        "test_async[hotloop-asyncio]": "PASSED",
    }


def test_aiohttp_s_own_plugin(run: Run) -> None:
    text = """
    from aiohttp import web

    async def answer(request):
        return web.Response(text=kind())

    async def test_client(aiohttp_client, hotloop_loop):
        app = web.Application()
        app.router.add_get("/", answer)
        client = await aiohttp_client(app)
        response = await client.get("/")
        assert await response.text() == hotloop_loop == kind()

    def test_loop(loop, hotloop_loop):
        assert loop.run_until_complete(find()) == hotloop_loop
    """
    words = ("-p", "aiohttp.pytest_plugin")
    found = run(text, *words, "--loops", "asyncio,hotloop")
    assert set(found.values()) == {"PASSED"} and len(found) == 4
    found = run(text, *words, "--hotloop")
    assert set(found.values()) == {"PASSED"} and len(found) == 2


@pytest.mark.parametrize(
    "name,said", [("nothing_at_all", "No module"), ("textwrap", "no attribute")]
)
def test_loops_that_do_not_exist(run: Run, name: str, said: str) -> None:
    run("", "--loops", f"asyncio,{name}", code=4)
    text: str = run.text  # type: ignore[attr-defined]
    assert f"--loops: {name} is no event loop" in text and said in text


def test_pytest_finds_it() -> None:
    found = importlib.metadata.entry_points(group="pytest11", name="hotloop")
    assert [point.value for point in found] == ["pytest_hotloop"]


def test_under_python_m_hotloop(tmp_path: Any) -> None:
    """As pytest is run, with all its plugins: those loaded already make it warn."""
    (tmp_path / "test_it.py").write_text(PRELUDE + plain("hotloop"))
    done = subprocess.run(
        [sys.executable, "-m", "hotloop", "-m", "pytest", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "PYTEST_ADDOPTS": ""},
    )
    assert done.returncode == 0 and "4 passed" in done.stdout, done.stdout
    assert "PytestAssertRewriteWarning" not in done.stdout + done.stderr

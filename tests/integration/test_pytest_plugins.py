"""pytest-asyncio's and anyio's plugins: whole runs of pytest in a process."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

KIND = """
    import asyncio, os, pytest
    WANTED = os.environ["HOTLOOP_TEST_KIND"]
    def kind():
        return type(asyncio.get_running_loop()).__module__.split(".")[0]
    seen = []
"""

POLICY = """
    import asyncio, os, pytest
    @pytest.fixture(scope="session")
    def event_loop_policy():
        if os.environ["HOTLOOP_TEST_KIND"] == "hotloop":
            import hotloop
            return hotloop.EventLoopPolicy()
        return asyncio.DefaultEventLoopPolicy()
"""

HOOK = """
    import asyncio, os
    def pytest_asyncio_loop_factories(config, item):
        if os.environ["HOTLOOP_TEST_KIND"] == "hotloop":
            import hotloop
            return {"mine": hotloop.new_event_loop}
        return {"mine": asyncio.SelectorEventLoop}
"""

# The functions of one scope share a loop, and those of another have theirs.
SCOPES = """
    LOOPS = []

    @pytest_asyncio.fixture(loop_scope="{scope}", scope="{scope}")
    async def resource():
        assert kind() == WANTED
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        yield server
        server.close()
        await server.wait_closed()

    @pytest.mark.asyncio(loop_scope="{scope}")
    class TestOne:
        async def test_first(self, resource):
            assert kind() == WANTED
            LOOPS.append(asyncio.get_running_loop())
            assert resource.get_loop() is LOOPS[-1]

        async def test_second(self, resource):
            LOOPS.append(asyncio.get_running_loop())
            reader, writer = await asyncio.open_connection(
                *resource.sockets[0].getsockname())
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    @pytest.mark.asyncio(loop_scope="{scope}")
    async def test_third(resource):
        LOOPS.append(asyncio.get_running_loop())

    def test_loops():
        one, two, three = LOOPS
        assert (one is two) == ({scope!r} != "function")
        assert (two is three) == ({scope!r} not in ("function", "class"))
        if {scope!r} in ("function", "class"):
            assert one.is_closed()
        if {scope!r} in ("package", "session"):
            assert not one.is_closed()
"""


class Project:
    """A folder with tests of its own, run by pytest in a process."""

    def __init__(self, folder: pathlib.Path, kind: str) -> None:
        self.folder, self.kind = folder, kind
        self.write("pytest.ini", "[pytest]\n")

    def write(self, name: str, *texts: str) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(textwrap.dedent(text) for text in texts))

    def run(self, *options: str, plugin: str, **wanted: int) -> str:
        """Run the tests with one plugin and check the outcomes."""
        module = {"asyncio": "pytest_asyncio.plugin", "anyio": "anyio.pytest_plugin"}[
            plugin
        ]
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
        command += ["-p", module, "-rA", "-W", "error"]
        # Policies themselves are deprecated from 3.14 on.
        command += ["-W", "ignore::DeprecationWarning", *options]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=dict(
                os.environ,
                HOTLOOP_TEST_KIND=self.kind,
                PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
            ),
            capture_output=True,
            text=True,
            timeout=55,
        )
        summary = done.stdout.rstrip().splitlines()[-1]
        for outcome in ("passed", "failed", "skipped", "error"):
            count = wanted.get(outcome, 0)
            assert (f"{count} {outcome}" in summary) == bool(count), done.stdout
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout


@pytest.fixture
def project(tmp_path: pathlib.Path, loop_kind: str) -> Project:
    return Project(tmp_path, loop_kind)


@pytest.mark.parametrize("way", ["policy", "hook"])
def test_every_scope(project: Project, way: str) -> None:
    """pytest-asyncio, strict: each scope's loop is the one asked for."""
    project.write("conftest.py", POLICY if way == "policy" else HOOK)
    for scope in ("function", "class", "module", "package", "session"):
        text = textwrap.dedent(SCOPES).format(scope=scope)
        name = f"pack_{scope}"
        project.write(f"{name}/__init__.py", "")
        project.write(f"{name}/test_{scope}.py", "import pytest_asyncio\n", KIND, text)
    project.run("--asyncio-mode=strict", plugin="asyncio", passed=20)


def test_auto_mode(project: Project) -> None:
    """Without marks: fixtures, generators, parameters, failures, timeouts."""
    project.write("conftest.py", HOOK)
    project.write(
        "test_auto.py",
        KIND,
        """
        @pytest.fixture
        async def value():
            await asyncio.sleep(0)
            yield 42
            assert kind() == WANTED

        @pytest.mark.parametrize("n", range(20))
        async def test_value(value, n):
            assert (value, kind()) == (42, WANTED)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(asyncio.sleep(0, i)) for i in range(n)]
            assert [task.result() for task in tasks] == list(range(n))

        async def test_fails():
            assert kind() == "neither"

        async def test_leaves_a_task():
            asyncio.create_task(asyncio.sleep(1000))

        async def test_context(monkeypatch):
            monkeypatch.setenv("X", "1")
            await asyncio.to_thread(os.getcwd)

        @pytest.mark.xfail(raises=TimeoutError, strict=True)
        async def test_timeout():
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        """,
    )
    out = project.run("--asyncio-mode=auto", plugin="asyncio", passed=22, failed=1)
    assert f"AssertionError: assert '{project.kind}' == 'neither'" in out
    assert "1 xfailed" in out


def test_factories_by_mark(project: Project) -> None:
    """The newest API: some tests on several loops, one on a chosen one."""
    project.write(
        "conftest.py",
        """
        import asyncio, hotloop
        def pytest_asyncio_loop_factories(config, item):
            return {"hot": hotloop.new_event_loop, "std": asyncio.SelectorEventLoop}
        """,
    )
    project.write(
        "test_marks.py",
        KIND,
        """
        @pytest.mark.asyncio
        async def test_both(request):
            wanted = {"hot": "hotloop", "std": "asyncio"}
            name = request.node.callspec.id
            assert kind() == wanted[name]

        @pytest.mark.asyncio(loop_factories=["hot"])
        async def test_hot():
            assert kind() == "hotloop"

        @pytest.mark.asyncio(loop_factories=["none"])
        async def test_none():
            assert False
        """,
    )
    project.run("--asyncio-mode=strict", plugin="asyncio", passed=3, skipped=1)


def test_installed_policy(project: Project) -> None:
    """hotloop.install() in conftest.py is enough for pytest-asyncio."""
    install = "import hotloop; hotloop.install()" if project.kind == "hotloop" else ""
    project.write("conftest.py", install)
    project.write(
        "test_installed.py",
        KIND,
        """
        async def test_kind():
            assert kind() == WANTED
        def test_run():
            async def main():
                return kind()
            assert asyncio.run(main()) == WANTED
        """,
    )
    project.run("--asyncio-mode=auto", plugin="asyncio", passed=2)


ANYIO = """
    import anyio, anyio.from_thread
    from anyio.abc import SocketAttribute
    pytestmark = pytest.mark.anyio

    async def test_kind():
        assert kind() == WANTED

    async def test_sockets(server):
        async with await anyio.connect_tcp("127.0.0.1", server) as stream:
            await stream.send(b"abc")
            assert await stream.receive() == b"ABC"

    async def test_errors(server):
        with pytest.raises(ExceptionGroup):
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep_forever)
                raise LookupError

    async def test_threads():
        assert await anyio.to_thread.run_sync(lambda: 5) == 5

    @pytest.mark.parametrize("n", range(5))
    async def test_many(n, server):
        with anyio.move_on_after(0.001 * n) as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught
"""


@pytest.mark.parametrize("scope", ["function", "session"])
def test_plugin_of_anyio(project: Project, scope: str) -> None:
    """The fixture `anyio_backend` gives the loop; fixtures share it."""
    project.write(
        "conftest.py",
        KIND,
        f"""
        import anyio
        from anyio.abc import SocketAttribute
        if WANTED == "hotloop":
            import hotloop
            FACTORY = hotloop.new_event_loop
        else:
            FACTORY = asyncio.SelectorEventLoop

        @pytest.fixture(scope={scope!r}, params=[
            pytest.param(("asyncio", {{"loop_factory": FACTORY}}), id="mine"),
            pytest.param(("asyncio", {{"loop_factory": FACTORY, "debug": True}}),
                         id="debug"),
        ])
        def anyio_backend(request):
            return request.param

        @pytest.fixture(scope={scope!r})
        async def server(anyio_backend):
            async def upper(stream):
                async with stream:
                    async for data in stream:
                        await stream.send(data.upper())
            async with (
                await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
                anyio.create_task_group() as group,
            ):
                group.start_soon(listener.serve, upper)
                assert kind() == WANTED
                yield listener.extra(SocketAttribute.local_port)
                group.cancel_scope.cancel()
        """,
    )
    project.write("test_anyio.py", KIND, ANYIO)
    project.run(plugin="anyio", passed=18)


def test_unittest(project: Project) -> None:
    """IsolatedAsyncioTestCase.loop_factory: the class, as Python's manual has it.

    A plain function would be taken for a method there.
    """
    if sys.version_info < (3, 13):
        pytest.skip("IsolatedAsyncioTestCase.loop_factory came with Python 3.13")
    project.write(
        "test_case.py",
        KIND,
        """
        import unittest
        if WANTED == "hotloop":
            import hotloop
            FACTORY = hotloop.Loop
        else:
            FACTORY = asyncio.SelectorEventLoop

        class Case(unittest.IsolatedAsyncioTestCase):
            loop_factory = FACTORY

            async def asyncSetUp(self):
                self.loop = asyncio.get_running_loop()
                self.addAsyncCleanup(asyncio.sleep, 0)

            async def test_kind(self):
                assert kind() == WANTED
                assert self.loop is asyncio.get_running_loop()
        """,
    )
    project.run(plugin="anyio", passed=1)

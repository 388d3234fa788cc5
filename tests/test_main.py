"""``python -m hotloop PROGRAM`` against Python itself, with the same program."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest

from support import PY, wanted_kinds

if "hotloop" not in wanted_kinds():
    pytest.skip("hotloop is not wanted", allow_module_level=True)

import hotloop

pytestmark = pytest.mark.slow

OURS = ("-m", "hotloop")
TIMEOUT = 50

# Everything that a program may know of how it was started.
KNOWS = """
'''The text of a program.'''
import sys
for name, value in sorted(vars().items()):
    print(name, type(value) if name == "__builtins__" else value)
print(sys.argv, sys.path, sys.modules["__main__"].__dict__ is globals())
print(sys._getframe().f_code.co_filename)
def annotated(number: int): ...
print(annotated.__annotations__)
"""

FAILS = """
def deeper():
    raise ValueError("of the program")
try:
    deeper()
except ValueError:
    [][0]
"""

LOOPS = """
import asyncio, warnings
warnings.simplefilter("error")
async def main():
    return type(asyncio.get_running_loop()).__module__.split(".")[0]
made = asyncio.new_event_loop()
print(type(made).__name__, asyncio.run(main()))
with asyncio.Runner() as runner:
    print(runner.run(main()))
asyncio.set_event_loop(made)
print(asyncio.get_event_loop().run_until_complete(main()))
made.close()
"""


def start(*words: str, cwd: Any, flags: tuple[str, ...] = (), **kwargs: Any) -> Any:
    env = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHON_COLORS": "0"}
    env.pop("PYTHONASYNCIODEBUG", None)
    return subprocess.Popen(
        [sys.executable, *flags, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**env, **kwargs.pop("env", {})},
        **kwargs,
    )


def end(process: Any, text: str = "") -> tuple[int, str, str]:
    """Wait for Python; returns (exit code, stdout, stderr)."""
    with process:
        try:
            out, err = process.communicate(text, timeout=TIMEOUT)
        finally:
            process.kill()
    return process.returncode, out, err


def run(*words: str, text: str = "", **kwargs: Any) -> tuple[int, str, str]:
    return end(start(*words, stdin=subprocess.PIPE, **kwargs), text)


def on_hotloop(*words: str, **kwargs: Any) -> str:
    """Run a program under hotloop that must end well; returns what it wrote."""
    code, out, err = run(*OURS, *words, **kwargs)
    assert (code, err) == (0, ""), err
    return out


def comparable(result: tuple[int, str, str]) -> tuple[int, str, str]:
    code, *texts = result
    out, err = (re.sub(r" at 0x[0-9a-f]+", "", text) for text in texts)
    return code, out, err


def same(*words: str, text: str = "", **kwargs: Any) -> Any:
    """Run a program under Python and under hotloop, which must not differ."""
    mine = start(*OURS, *words, stdin=subprocess.PIPE, **kwargs)
    expected = comparable(run(*words, text=text, **kwargs))
    assert comparable(end(mine, text)) == expected
    return expected


@pytest.fixture
def write(tmp_path: pathlib.Path) -> Iterator[Any]:
    """Writes files to the folder that the programs run in."""

    def write(name: str, text: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return name

    yield write


def ways(write: Any, tmp_path: pathlib.Path, text: str) -> list[tuple[str, ...]]:
    """A program in every form that Python runs."""
    write("sub/program.py", text)
    write("module.py", text)
    write("package/__init__.py", "")
    write("package/__main__.py", text)
    write("folder/__main__.py", text)
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("__main__.py", text)
    (tmp_path / "link.py").unlink(missing_ok=True)
    (tmp_path / "link.py").symlink_to("sub/program.py")
    return [
        ("sub/program.py",),
        ("./sub/../sub/program.py",),
        (str(tmp_path / "sub/program.py"),),
        ("link.py",),
        ("-m", "module"),
        ("-mpackage",),
        ("folder",),
        ("archive.zip",),
        ("-c", text),
    ]


def test_a_program_sees_what_it_would_see(write: Any, tmp_path: Any) -> None:
    run("-m", "compileall", "-q", ".", cwd=tmp_path)
    for way in ways(write, tmp_path, KNOWS):
        code, out, _ = same(*way, "one", "-m", "--streams", cwd=tmp_path)
        assert code == 0 and "'one', '-m', '--streams']" in out, way
    code, out, _ = same("-", "one", text=KNOWS, cwd=tmp_path)
    assert code == 0 and "__file__ <stdin>" in out


def test_it_sees_the_same_under_the_safe_path(write: Any, tmp_path: Any) -> None:
    for way in ways(write, tmp_path, KNOWS):
        if way[0].startswith("-m"):
            continue  # the current folder is not searched
        code, out, err = run("-P", *way, cwd=tmp_path)
        mine = run("-P", *OURS, *way, cwd=tmp_path)
        assert comparable(mine) == comparable((code, out, err)), way


def test_compiled_programs(write: Any, tmp_path: Any) -> None:
    name = write("compiled.py", KNOWS)
    source = "import py_compile; py_compile.compile('compiled.py', 'compiled.pyc')"
    run("-c", source, cwd=tmp_path)
    (tmp_path / name).unlink()
    code, out, _ = same("compiled.pyc", cwd=tmp_path)
    assert code == 0 and "SourcelessFileLoader" in out


def test_tracebacks_and_exit_codes(write: Any, tmp_path: Any) -> None:
    for way in ways(write, tmp_path, FAILS):
        code, _, err = same(*way, cwd=tmp_path)
        assert code == 1 and err.endswith("IndexError: list index out of range\n")
    same("-", text=FAILS, cwd=tmp_path)
    for text in ("x = = 1", "import sys; sys.exit(7)", "raise SystemExit('gone')"):
        for way in ways(write, tmp_path, text)[::4]:
            assert same(*way, cwd=tmp_path)[0] != 0, way


def test_warnings_of_the_compiler(write: Any, tmp_path: Any) -> None:
    name = write("warned.py", "print('ran', 1 is 1)\n")
    for module in ("__main__", "warned", "hotloop"):
        flags = ("-W", f"error::SyntaxWarning:{module}")
        same(name, cwd=tmp_path, flags=flags)
        same("-c", "print('ran', 1 is 1)", cwd=tmp_path, flags=flags)


def test_programs_that_are_not_there(write: Any, tmp_path: Any) -> None:
    write("empty/nothing.txt", "")
    words = [("nothing.py",), ("-m", "nothing"), ("-m", "no.thing"), ("empty",)]
    for way in words:
        assert same(*way, cwd=tmp_path)[0] in (1, 2)


def test_a_hook_for_exceptions_is_used(write: Any, tmp_path: Any) -> None:
    name = write(
        "hooked.py",
        """
import sys, traceback
def hook(kind, value, tb):
    print(kind, value, len(traceback.extract_tb(tb)), sys.excepthook is hook)
    print(value.__traceback__ is tb)
sys.excepthook = hook
1 / 0
""",
    )
    assert same(name, cwd=tmp_path)[1].startswith("<class 'ZeroDivisionError'>")
    name = write("broken.py", "import sys; del sys.excepthook; 1 / 0")
    code, _, err = run(*OURS, name, cwd=tmp_path)
    assert code == 1 and "excepthook is missing" in err


def test_an_exception_that_refuses_assignments(write: Any, tmp_path: Any) -> None:
    name = write(
        "frozen.py",
        """
import dataclasses
@dataclasses.dataclass(frozen=True)
class Gone(Exception):
    what: str
raise Gone("away")
""",
    )
    assert same(name, cwd=tmp_path)[2].endswith("Gone: away\n")


def test_standard_input_that_is_closed(tmp_path: Any) -> None:
    for prefix in ((), OURS):
        command = 'exec "$@" <&-'
        words = ["sh", "-c", command, "sh", sys.executable, *prefix, "-"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, timeout=TIMEOUT)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_inspecting_after_a_failure(write: Any, tmp_path: Any) -> None:
    name = write("failing.py", "x = 17\n1 / 0\n")
    look = (
        "import sys, traceback; print(x, len(traceback.extract_tb(sys.last_traceback)),"
        " sys.excepthook is sys.__excepthook__)\n"
    )
    code, out, _ = same(name, cwd=tmp_path, text=look, flags=("-i",))
    assert (code, out) == (0, "17 1 True\n")


@pytest.mark.parametrize("way", [("waits.py",), ("-m", "waits")], ids=" ".join)
def test_interrupted(write: Any, tmp_path: Any, way: tuple[str, ...]) -> None:
    write(
        "waits.py",
        """
import asyncio, atexit
atexit.register(print, "at the end")
async def main():
    print("ready", flush=True)
    await asyncio.sleep(1000)
asyncio.run(main())
""",
    )
    results = []
    for prefix in ((), OURS):
        with start(*prefix, *way, cwd=tmp_path) as process:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=TIMEOUT)
        results.append((process.returncode, out, err.splitlines()[-1]))
    assert results[1] == results[0]
    assert results[0] == (-signal.SIGINT, "at the end\n", "KeyboardInterrupt")


def test_loops_are_ours_without_a_warning(write: Any, tmp_path: Any) -> None:
    for way in ways(write, tmp_path, LOOPS):
        out = on_hotloop(*way, cwd=tmp_path, flags=("-W", "error"))
        assert out == "Loop hotloop\nhotloop\nhotloop\n", way
    assert on_hotloop("-", text=LOOPS, cwd=tmp_path).startswith("Loop hotloop")


def test_a_loop_nobody_set(write: Any, tmp_path: Any) -> None:
    text = """
import asyncio, warnings
warnings.simplefilter("ignore")
try:
    print(type(asyncio.get_event_loop()).__module__)
except RuntimeError as error:
    print(error)
asyncio.set_event_loop_policy(None)
print(type(asyncio.new_event_loop()).__module__)
"""
    lines = on_hotloop("-c", text, cwd=tmp_path).splitlines()
    assert lines[0] == "hotloop._loop" or (PY >= (3, 14) and "no current" in lines[0])
    assert lines[1] == "hotloop._loop"


CHOICES = {
    "policy": """
class Policy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self):
        return asyncio.SelectorEventLoop()
asyncio.set_event_loop_policy(Policy())
asyncio.run(main())
""",
    "factory": """
with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
    runner.run(main())
""",
    "uvloop": """
import uvloop
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
""",
    "uvloop.install": "import uvloop; uvloop.install(); asyncio.run(main())",
}


@pytest.mark.parametrize("choice", CHOICES)
def test_the_choice_of_the_program_wins(tmp_path: Any, choice: str) -> None:
    if "uvloop" in choice:
        pytest.importorskip("uvloop")
    prelude = """
import asyncio, warnings
warnings.simplefilter("ignore")
async def main():
    print(type(asyncio.get_running_loop()).__module__)
"""
    out = on_hotloop("-c", prelude + CHOICES[choice], cwd=tmp_path)
    assert out == ("uvloop\n" if "uvloop" in choice else "asyncio.unix_events\n")


def test_a_policy_from_before_the_program(write: Any, tmp_path: Any) -> None:
    write(
        "sitecustomize.py",
        """
import asyncio, os, warnings
warnings.simplefilter("ignore")
class Policy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self):
        return asyncio.SelectorEventLoop()
if os.environ["CHOICE"] == "own":
    asyncio.set_event_loop_policy(Policy())
else:
    asyncio.get_event_loop_policy()
""",
    )
    code = "import asyncio; print(type(asyncio.new_event_loop()).__module__)"
    for choice, module in {"own": "asyncio.unix_events", "no": "hotloop._loop"}.items():
        env = {"CHOICE": choice, "PYTHONPATH": str(tmp_path)}
        assert on_hotloop("-c", code, cwd=tmp_path, env=env) == module + "\n"


STREAMS = """
import asyncio
async def main():
    async def handle(reader, writer):
        writer.close()
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    print(type(reader).__module__.split(".")[0])
    await reader.read()
    writer.close()
    server.close()
asyncio.run(main())
"""


def test_streams(tmp_path: Any) -> None:
    assert on_hotloop("-c", STREAMS, cwd=tmp_path) == "asyncio\n"
    assert on_hotloop("--streams", "-c", STREAMS, cwd=tmp_path) == "hotloop\n"


POOLS = """
import asyncio, concurrent.futures, multiprocessing, pickle, sys
class Mine:
    pass
def work(thing):
    async def main():
        loop = asyncio.get_running_loop()
        return type(loop).__module__.split(".")[0], type(asyncio.StreamReader())
    kind, reader = asyncio.run(main())
    assert type(thing) is Mine
    return thing, kind, reader.__module__.split(".")[0]
def nested(method):
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(work, Mine()).result()
def main():
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            thing, kind, reader = pool.submit(work, Mine()).result()
            assert type(thing) is Mine
            print(method, kind, reader)
            if method == "spawn":
                print("nested", *pool.submit(nested, method).result()[1:])
if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("way", [("pools.py",), ("-m", "pools")], ids=" ".join)
@pytest.mark.parametrize("streams", [False, True], ids=["", "streams"])
def test_worker_processes(
    write: Any, tmp_path: Any, way: tuple[str, ...], streams: bool
) -> None:
    write("pools.py", POOLS)
    out = on_hotloop(*["--streams"] * streams, *way, cwd=tmp_path)
    reader = "hotloop" if streams else "asyncio"
    names = ("fork", "spawn", "nested", "forkserver")
    assert out.splitlines() == [f"{name} hotloop {reader}" for name in names]


def test_its_own_options(tmp_path: Any) -> None:
    assert on_hotloop("--version", cwd=tmp_path) == f"hotloop {hotloop.__version__}\n"
    for word in ("-h", "--help"):
        out = on_hotloop(word, cwd=tmp_path)
        assert out.startswith("usage: python -m hotloop [--streams]")
        assert max(map(len, out.splitlines())) <= 88
    for wrong, said in {"-x": "unknown option -x", "-m": "argument expected"}.items():
        code, out, err = run(*OURS, wrong, cwd=tmp_path)
        assert (code, out) == (2, "") and said in err
        assert "usage: python -m hotloop" in err


def test_importing_it_does_nothing(tmp_path: Any) -> None:
    text = "import hotloop.__main__, asyncio; print(asyncio.new_event_loop())"
    _, out, err = run("-W", "error", "-c", text, cwd=tmp_path)
    assert "UnixSelectorEventLoop" in out, err

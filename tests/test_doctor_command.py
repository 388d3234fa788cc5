"""``python -m hotloop doctor``, ``run(doctor=...)``, and what they leave alone."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from support import PY, wanted_kinds

if "hotloop" not in wanted_kinds():
    pytest.skip("hotloop is not wanted", allow_module_level=True)

import hotloop
from hotloop.doctor import Doctor

pytestmark = pytest.mark.slow

Run = Callable[..., tuple[int, str, str]]

WRONG = """
import asyncio, sys, time

async def work():
    return 42

async def main():
    work()
    task = asyncio.create_task(asyncio.sleep(60), name=%r)
    await asyncio.sleep(0)
    print("out", await work())

asyncio.run(main())
"""

# All that a program may see of being watched, and must not.
CURIOUS = """
import asyncio, gc, inspect, os, sys, threading, warnings
print(sys.argv, __name__, threading.active_count(), len(threading.enumerate()))
print(gc.isenabled(), warnings.showwarning.__name__, sys.gettrace(), sys.getprofile())
async def child(number):
    await asyncio.sleep(0)
    return number
async def main():
    task = asyncio.create_task(child(1), name="one")
    print(task, task.get_coro().__name__, type(task).__module__)
    print(await task, await asyncio.gather(*map(child, range(5))))
    loop = asyncio.get_running_loop()
    print(type(loop).__mro__[0], loop.get_task_factory(), loop.get_debug())
    print(inspect.signature(loop.create_connection))
    try:
        await asyncio.wait_for(asyncio.sleep(9), 0.01)
    except TimeoutError as error:
        print(repr(error))
    if hasattr(os, "fork"):
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            print("child", threading.active_count())
            sys.stdout.flush()
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    return 3
sys.exit(asyncio.run(main()))
"""


@pytest.fixture
def run(tmp_path: Any) -> Run:
    """Runs Python in a folder of its own; returns (exit code, stdout, stderr)."""

    def run(*words: str, text: str = "", code: int | None = 0) -> tuple[int, str, str]:
        (tmp_path / "program.py").write_text(text)
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=50,
            env={**os.environ, "PYTHON_COLORS": "0", "PYTHONASYNCIODEBUG": ""},
        )
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done.returncode, done.stdout, done.stderr

    return run


DOCTOR = ("-m", "hotloop", "doctor")


def test_report(run: Run) -> None:
    _, out, err = run(*DOCTOR, "program.py", text=WRONG % "left")
    assert out == "out 42\n"
    assert "error: never-awaited\n  program.py:8 in main()\n    > work()\n" in err
    assert "warning: left-behind\n  program.py:9 in main()\n" in err
    assert "    task: left\n" in err
    assert err.splitlines()[-1].startswith("doctor: 1 error, 1 warning in ")


def test_check_and_ignore(run: Run) -> None:
    text = WRONG % "left"
    run(*DOCTOR, "--check", "program.py", text=text, code=1)
    ignored = ("--ignore", "left-behind", "--ignore", "never-awaited")
    _, _, err = run(*DOCTOR, "--check", *ignored, "program.py", text=text)
    assert err.splitlines()[-1].startswith("doctor: nothing found in ")


def test_files(run: Run, tmp_path: Any) -> None:
    name = "</script><script>alert(1)</script><!--"
    outputs = ("--json", "found.json", "--html", "found.html")
    run(*DOCTOR, *outputs, "program.py", text=WRONG % name)
    report = json.loads((tmp_path / "found.json").read_text())
    assert report["version"] == 1 and report["failures"] == []
    first, second = report["findings"]
    assert first["kind"] == "never-awaited" and first["count"] == 1
    assert first["docs"].endswith("docs/doctor.md#never-awaited")
    assert (second["kind"], second["task"], second["line"]) == ("left-behind", name, 9)
    page = (tmp_path / "found.html").read_text()
    assert page.count("</script>") == 2  # of the page itself
    assert "alert" in page and "<!--" not in page
    data = page.partition('id="data">')[2].partition("</script>")[0]
    assert name in [row[1] for row in json.loads(data)["rows"]]


@pytest.mark.parametrize(
    "words", [["--slow", "0", "program.py"], ["--streams"], [], ["--ignore", "x", "p"]]
)
def test_refuses(run: Run, words: list[str]) -> None:
    _, out, err = run(*DOCTOR, *words, code=2)
    assert out == "" and err.startswith("usage: python -m hotloop doctor")


def test_leaves_as_the_program_does(run: Run) -> None:
    status, _, err = run(*DOCTOR, "--check", "-c", "raise SystemExit(5)", code=5)
    assert status == 5 and "nothing found" in err
    text = "def f():\n    raise ValueError('of the program')\nf()\n"
    plain = run("-m", "hotloop", "program.py", text=text, code=1)
    watched = run(*DOCTOR, "program.py", text=text, code=1)
    report, _, rest = watched[2].partition("\n")
    assert report.startswith("doctor: ") and (*watched[:2], rest) == plain
    _, out, _ = run(
        *DOCTOR,
        "--streams",
        "-m",
        "program",
        "--html",
        text="import sys\nprint(sys.argv[1:])",
    )
    assert out == "['--html']\n"


def test_the_program_does_not_notice(run: Run) -> None:
    plain = run("-m", "hotloop", "program.py", "x", text=CURIOUS, code=3)
    watched = run(*DOCTOR, "program.py", "x", text=CURIOUS, code=3)
    assert watched[1] == plain[1]
    assert watched[2].startswith("doctor: nothing found")


def test_forks_without_a_warning(run: Run) -> None:
    text = """
        import asyncio, os
        async def main():
            await asyncio.sleep(0.05)
            pid = os.fork()
            if pid == 0:
                os._exit(7)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        asyncio.run(main())
    """
    words = ("-W", "default", *DOCTOR, "program.py")
    _, out, err = run(*words, text=textwrap.dedent(text))
    assert out == "7\n" and err.startswith("doctor: nothing found")


def test_a_loop_that_is_closed_too_early(run: Run) -> None:
    text = """
        import asyncio
        async def main():
            await asyncio.sleep(0)
        loop = asyncio.new_event_loop()
        task = loop.create_task(asyncio.sleep(60))
        loop.run_until_complete(main())
        loop.close()
        task = None
    """
    _, _, err = run(*DOCTOR, "program.py", text=textwrap.dedent(text))
    assert "error: left-behind\n  program.py:6 in <module>()\n" in err
    assert "doctor: 1 error in" in err


# ---- in a program ----


async def leave() -> str:
    task = asyncio.create_task(asyncio.sleep(60))
    await asyncio.sleep(0)
    return task.get_name()


def test_run_with_a_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    doctor = Doctor()
    with pytest.raises(RuntimeError, match="not watched"):
        _ = doctor.report
    name = hotloop.run(leave(), doctor=doctor)
    (finding,) = doctor.report.findings
    assert (finding.kind, finding.task, finding.file) == ("left-behind", name, __file__)
    assert finding.source == "task = asyncio.create_task(asyncio.sleep(60))"
    assert doctor.report.problems == [finding]
    assert capsys.readouterr().err == ""
    hotloop.run(leave(), doctor=True, streams=True)
    assert "warning: left-behind" in capsys.readouterr().err


def everything() -> dict[str, Any]:
    """What a doctor puts its own into."""
    owners: list[Any] = [
        hotloop.Loop,
        asyncio.BaseEventLoop,
        asyncio.SelectorEventLoop,
        asyncio.runners,
        warnings,
    ]
    found = {f"{owner}.{k}": v for owner in owners for k, v in vars(owner).items()}
    found["filters"] = list(warnings.filters)
    found["depth"] = sys.get_coroutine_origin_tracking_depth()
    if sys.version_info >= (3, 12):
        found["tools"] = [sys.monitoring.get_tool(number) for number in range(6)]
    return found


def test_everything_is_put_back() -> None:
    before = everything()
    doctor = Doctor()
    with doctor:
        assert everything() != before
        with pytest.raises(RuntimeError, match="watching already"):
            Doctor().__enter__()
        hotloop.run(leave())
    after = everything()
    # Python makes these anew as it likes.
    for each in (before, after):
        for name in [n for n in each if "onceregistry" in n or "_filters_version" in n]:
            del each[name]
    assert {
        k for k in before if before[k] is not after.get(k) and before[k] != after[k]
    } == set()
    assert after.keys() == before.keys()


@pytest.mark.skipif(PY < (3, 12), reason="without sys.monitoring it is sampled")
def test_the_timeline_has_every_step() -> None:
    async def steps() -> None:
        for _ in range(10):
            await asyncio.sleep(0.001)

    doctor = Doctor()
    hotloop.run(steps(), doctor=doctor)
    row = doctor.report.timeline[0]
    assert row["coroutine"].endswith("steps") and row["outcome"] == "done"
    assert len(row["running"]) == 2 * 11
    assert row["begin"] <= row["running"][0] and row["running"][-1] <= row["end"] + 0.1
    assert row["running"] == sorted(row["running"])


def test_options() -> None:
    with pytest.raises(ValueError, match="unknown kind of finding: nonsense"):
        Doctor(ignore=["nonsense"])
    with pytest.raises(ValueError, match="must be positive"):
        Doctor(slow=0)


# ---- pytest's plugin ----

TESTS = """
import asyncio

async def leave():
    task = asyncio.create_task(asyncio.sleep(60))
    await asyncio.sleep(0)

def test_wrong():
    asyncio.run(leave())

def test_right():
    asyncio.run(asyncio.sleep(0))
"""


@pytest.mark.parametrize(
    "option", ["--doctor", "--hotloop-doctor", "--hotloop-doctor-check"]
)
def test_plugin(tmp_path: Any, option: str) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    plugins = ("-p", "no:cacheprovider", "-p", "pytest_hotloop")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins, option, "--hotloop"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""},
    )
    checks = option.endswith("check")
    assert done.returncode == checks, done.stdout + done.stderr
    assert "test_it.py::test_wrong\n\nwarning: left-behind\n" in done.stdout
    assert "1 findings in 1 tests" in done.stdout
    assert ("2 passed, 1 error" if checks else "2 passed in") in done.stdout

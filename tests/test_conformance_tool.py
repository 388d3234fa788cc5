"""tools/conformance: what it counts, and that its list cannot rot."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import textwrap

import pytest
from tools.conformance import listed

from support import PY, ROOT

CLOSING = re.compile(r"conformance-3\.\d+: (\d+) passed, (\d+) failed, (\d+) skipped")
INSTEAD = 'instead = ["tests/test_api.py::test_names"]\n'
WHY = 'why = "because this is a test of the tool"\n'

# As a module of CPython's tests: some outcomes depend on whose loop it is.
SUITE = """
import asyncio, os, time, unittest

OURS = "hotloop" in asyncio.SelectorEventLoop.__mro__[1].__module__

class Base:
    def test_passes(self):
        self.assertTrue(True)

    def test_inherited(self):
        self.assertNotEqual(type(self).__name__, "BadTests")

class GoodTests(Base, unittest.TestCase):
    @unittest.skip("elsewhere")
    def test_skipped(self):
        pass

    def test_loop(self):
        asyncio.new_event_loop().close()

class BadTests(Base, unittest.TestCase):
    def test_fails_on_ours(self):
        self.assertFalse(OURS)

    def test_fails_on_both(self):
        self.fail("never works")

    def test_some_of_it_fails(self):
        for number in range(3):
            with self.subTest(number=number):
                self.assertTrue(number != 1 or not OURS)

class UglyTests(unittest.TestCase):
    def test_a_passes(self):
        pass

    def test_crash(self):
        if OURS:
            os.abort()

    def test_hang(self):
        while OURS:
            time.sleep(1)

class LostTests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        raise RuntimeError("no set-up")

    def test_it(self):
        pass
"""


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder whose package "test" is found before CPython's."""
    package = tmp_path / "test" / "test_asyncio"
    package.mkdir(parents=True)
    for name in ("test/__init__.py", "test/test_asyncio/__init__.py"):
        (tmp_path / name).touch()
    (package / "utils.py").touch()
    (package / "test_it.py").write_text(SUITE)
    return tmp_path


def conform(
    folder: pathlib.Path, *arguments: str, entries: str = ""
) -> tuple[int, tuple[int, ...], str]:
    """Run the tool; its status, the three numbers of its last line, its output."""
    file = folder / "list.toml"
    file.write_text(textwrap.dedent(entries))
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    process = subprocess.run(
        [sys.executable, "-m", "tools.conformance", "--list", str(file), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )
    found = CLOSING.fullmatch(process.stdout.splitlines()[-1])
    counts = tuple(int(number) for number in found.groups()) if found else ()
    return process.returncode, counts, process.stdout


def test_suite_that_passes(folder: pathlib.Path) -> None:
    status, counts, output = conform(folder, "-k", "*.GoodTests.*")
    assert (status, counts) == (0, (3, 0, 1)), output
    assert f"conformance-{PY[0]}.{PY[1]}: " in output


def test_failures_are_told(folder: pathlib.Path) -> None:
    status, counts, output = conform(folder, "-k", "*.BadTests.*")
    assert (status, counts) == (1, (1, 2, 2)), output
    assert "---- test_it.BadTests.test_fails_on_ours: Traceback" in output
    assert "---- test_it.BadTests.test_some_of_it_fails: Traceback" in output
    assert "(2 fail on asyncio's loop, too)" in output
    assert "test_it.BadTests.test_fails_on_both fails on asyncio's loop" in output


def test_reference(folder: pathlib.Path) -> None:
    arguments = ("-k", "*.BadTests.*", "--reference")
    status, counts, output = conform(folder, *arguments)
    assert (status, counts) == (1, (3, 2, 0)), output


def test_crash_and_hang_are_told(folder: pathlib.Path) -> None:
    status, counts, output = conform(folder, "-k", "*.Ugly*a_passes", "-k", "*crash")
    assert (status, counts) == (1, (1, 1, 0)), output
    assert "test_it.UglyTests.test_crash: ended with status -6" in output
    status, counts, output = conform(folder, "-k", "*hang", "--timeout", "3")
    assert (status, counts) == (1, (0, 1, 0)), output
    assert "test_it.UglyTests.test_hang: still ran after 3 s" in output
    assert "in test_hang" in output  # where it hung


def test_class_that_cannot_be_set_up(folder: pathlib.Path) -> None:
    status, counts, output = conform(folder, "-k", "*Lost*")
    assert (status, counts) == (1, (0, 1, 0)), output
    assert "---- setUpClass (test_it.LostTests): Traceback" in output


def test_suite_that_cannot_be_imported(folder: pathlib.Path) -> None:
    package = folder / "test" / "test_asyncio"
    (package / "test_it.py").write_text("import asyncio.nothing\n")
    status, counts, output = conform(folder)
    assert (status, counts) == (1, (0, 1, 0)), output
    assert "No module named 'asyncio.nothing'" in output


LISTED = """
    [[entry]]
    tests = ["test_it.BadTests.test_inherited", "test_it.BadTests.test_*_*"]
    why = "they fail, and this is a test of the tool"
    instead = ["tests/test_api.py::test_names"]

    [[outside]]
    tests = ["test_it.UglyTests.test_[ch]*"]
    why = "they crash or hang, and this is a test"
    instead = ["tests/test_api.py::test_names"]
"""


def test_listed_tests(folder: pathlib.Path) -> None:
    arguments = ("-k", "*.[GBU]*")
    status, counts, output = conform(folder, *arguments, entries=LISTED)
    assert (status, counts) == (0, (5, 0, 7)), output
    assert "(4 listed, 2 outside)" in output


def test_list_that_grows(folder: pathlib.Path) -> None:
    status, counts, output = conform(folder, entries=LISTED)
    assert (status, counts) == (1, (5, 2, 7)), output  # one of LostTests
    assert "test_it: more than 5% are listed" in output


def test_list_that_rots(folder: pathlib.Path) -> None:
    rotten = '[[entry]]\ntests = ["test_it.*Tests.test_passes", "test_it.Gone.*"]\n'
    (folder / "test" / "test_asyncio" / "test_it.py").write_text(
        SUITE[: SUITE.index("class BadTests")]
    )
    status, counts, output = conform(folder, entries=rotten + WHY + INSTEAD)
    assert (status, counts) == (1, (2, 2, 1)), output
    assert "test_it.GoodTests.test_passes: is listed, but passes" in output
    assert "test_it.Gone.*: is listed, but there is no such test" in output


def test_the_list_itself() -> None:
    entries = listed.read(listed.FILE)
    assert entries and all(entry.why and entry.instead for entry in entries)


def test_list_says_what_is_wrong_with_it(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "list.toml"
    text = '[[entry]]\ntests = ["test_x.A.test_b"]\nwhy = "short"\ninstead = ["{}"]\n'
    file.write_text(text.format("tests/test_api.py::test_no_such_test"))
    with pytest.raises(ValueError) as caught:
        listed.read(file)
    assert "test_x.A.test_b: no reason" in str(caught.value)
    assert "there is no tests/test_api.py::test_no_such_test" in str(caught.value)
    file.write_text(text.format("x") + "mood = 1\n")
    with pytest.raises(TypeError, match="mood"):
        listed.read(file)


def test_entry_for_some_pythons() -> None:
    entry = listed.Entry(("s.C.t",), "why", ("x",), since="3.12", before="3.13.4")
    versions = [(3, 11, 9), (3, 12, 0), (3, 13, 3), (3, 13, 4), (3, 14, 0)]
    assert [entry.applies(v) for v in versions] == [False, True, True, False, False]
    assert entry.matches("s.C.t") and not entry.matches("s.C.t2")
    assert entry.stale("s", ["s.C.t"]) == []
    assert entry.stale("s", ["s.C.t2"]) == ["s.C.t"]
    assert entry.stale("other", []) == []


def test_unknown_suite(folder: pathlib.Path) -> None:
    status, _, output = conform(folder, "test_no_such_suite")
    assert status == 2 and "no suite test_no_such_suite" in output


def test_python_without_its_tests(folder: pathlib.Path) -> None:
    for path in (folder / "test" / "test_asyncio").glob("test_*"):
        path.unlink()
    status, counts, output = conform(folder)
    assert status == 3 and counts == ()
    assert f"libpython{PY[0]}.{PY[1]}-testsuite" in output


@pytest.mark.skipif(
    importlib.util.find_spec("test") is None
    or importlib.util.find_spec("test.test_asyncio") is None,
    reason="this Python has no test.test_asyncio",
)
def test_a_suite_of_cpython() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "tools.conformance", "test_pep492", "test_threads"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert process.returncode == 0, process.stdout
    assert "test_pep492" in process.stdout and "test_threads" in process.stdout

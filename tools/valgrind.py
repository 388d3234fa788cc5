"""Run tests under valgrind's memcheck and say what of it concerns hotloop.

    python tools/valgrind.py [--jobs N] [PATH...]

Without paths the tests of tests/core.txt, one process a file. The interpreter does
not free everything, and reads ahead where it may: an error counts if a function of
hotloop or of libuv is on the stack at all, a leak if one is before the interpreter
runs Python code again. Leaks are those of memory that nothing points to any more.
Exit status 1 where something counts or a test fails.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OURS = ("/hotloop/_core.", "/libuv.so", "/libuv-")
SUPPRESSIONS = ROOT / "tools" / "valgrind.supp"
FILE_SECONDS = 1800
OPTIONS = [
    *("--tool=memcheck", "--num-callers=40", "--keep-debuginfo=yes", "--quiet"),
    *("--leak-check=full", "--show-leak-kinds=definite", "--xml=yes"),
    *("--child-silent-after-fork=yes", f"--suppressions={SUPPRESSIONS}"),
]


def frames(error: ET.Element) -> Iterator[tuple[str, str, str]]:
    """(function, object, place in a source) of each frame, the innermost first."""
    for frame in error.iterfind("stack/frame"):
        place = f"{frame.findtext('file', '?')}:{frame.findtext('line', '?')}"
        yield frame.findtext("fn", "?"), frame.findtext("obj", "?"), place


def concerns_hotloop(error: ET.Element) -> bool:
    is_leak = error.findtext("kind", "").startswith("Leak_")
    for function, library, _ in frames(error):
        if any(part in library for part in OURS):
            return True
        if is_leak and function.startswith("_PyEval_EvalFrameDefault"):
            return False
    return False


def describe(error: ET.Element) -> str:
    what = error.findtext("what") or error.findtext("xwhat/text") or "?"
    lines = [f"  {function} ({place})" for function, _, place in frames(error)]
    return "\n".join([what, *lines[:16]])


def run_file(path: str) -> tuple[bool, str]:
    """Run one file of tests: (is it good?, what to say)."""
    started = time.monotonic()
    variables = {"HOTLOOP_TEST_LOOPS": "hotloop"} | os.environ
    variables |= {"PYTHONMALLOC": "malloc"}
    pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "timeout=1200"]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        done = subprocess.run(
            [
                *("valgrind", *OPTIONS, f"--xml-file={report}"),
                *(sys.executable, *pytest, "-m", "not slow", path),
            ],
            cwd=ROOT,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=FILE_SECONDS,
            check=False,
        )
        errors = ET.parse(report).getroot().findall("error")
    found = [describe(error) for error in errors if concerns_hotloop(error)]
    words = done.stdout.strip().splitlines()[-1:] or ["nothing was said"]
    text = (
        f"{path:<34} {len(found):>3} of {len(errors):>3} reports concern hotloop"
        f" {time.monotonic() - started:>6.0f} s  {words[0]}"
    )
    good = done.returncode in (0, 5) and not found  # 5: all are slow
    if done.returncode not in (0, 5):
        found.append(done.stdout.strip())
    return good, "\n".join([text, *found])


def main() -> int:
    parser = argparse.ArgumentParser(prog="valgrind.py", description="See above.")
    parser.add_argument("paths", nargs="*")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    paths = options.paths or (ROOT / "tests" / "core.txt").read_text().split()
    good = True
    with ThreadPoolExecutor(options.jobs) as pool:
        for is_good, text in pool.map(run_file, paths):
            print(text, flush=True)
            good = good and is_good
    print(f"valgrind: {len(paths)} files, {'all good' if good else 'NOT good'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

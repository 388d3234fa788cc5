"""Run every example under the doctor and count what it finds: nothing, if all is well.

Usage: doctor_examples.py [--repeat COUNT] [NAME ...]

The examples are correct programs, so each finding is a false alarm or a mistake to be
mended. They get the arguments with which they are tested. Exit status 1 if there was
a finding, or if an example failed.
"""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests" / "test_examples.py"
# Tested one by one there.
MORE = ["handover --count 200", "streams_in_c"]


def commands() -> list[str]:
    """The command lines that the tests have in a dictionary named EXPECTED."""
    for node in ast.parse(TESTS.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXPECTED":
            assert isinstance(node.value, ast.Dict)
            keys = [ast.literal_eval(key) for key in node.value.keys if key]
            return [*keys, *MORE]
    raise SystemExit(f"{TESTS}: no EXPECTED")


def examine(command: str, output: Path) -> tuple[list[str], float]:
    """Run one; return what went wrong, and how long it took."""
    name, *arguments = command.split()
    doctor = ["-m", "hotloop", "doctor", "--json", str(output)]
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *doctor, f"examples/{name}.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )
    took = time.perf_counter() - started
    if done.returncode != 0:
        return [f"exit status {done.returncode}: {done.stderr}"], took
    report = json.loads(output.read_text())
    found = [
        f"{each['kind']} {each['file']}:{each['line']}: {each['seen']}"
        for each in report["findings"]
    ]
    return found + report["failures"], took


def main() -> None:
    """Run them all and print a line of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    total, runs = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for command in commands() * options.repeat:
            if options.names and command.split()[0] not in options.names:
                continue
            found, took = examine(command, Path(folder) / "report.json")
            print(f"{len(found)}  {took:5.1f} s  {command}", flush=True)
            for each in found:
                print(f"      {each}", flush=True)
            total += len(found)
            runs += 1
    print(f"{total} findings in {runs} runs")
    sys.exit(total > 0)


if __name__ == "__main__":
    main()

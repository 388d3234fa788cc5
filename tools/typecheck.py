"""Check hotloop's types as its users' programs see them.

    python tools/typecheck.py

Runs in an environment that has hotloop installed, with mypy and basedpyright: what is
checked is what was installed, not the checkout. stubtest holds _core.pyi and all
modules against the running interpreter; mypy and pyright, both strict, check the
programs in tests/typing, one of them full of mistakes that must be found; pyright
counts what has no known type. At the end the right program is run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / "tests" / "typing"
ALLOWLIST = ROOT / "tools" / "stubtest_allowlist.txt"
# Those that a program may be checked for; 3.11 is the oldest that hotloop has.
TARGETS = ("3.11", "3.12", "3.13", "3.14", "3.15")


def module(name: str, *arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", name, *map(str, arguments)]


def checks(folder: Path) -> dict[str, list[str]]:
    """What to run, by the name to show; configurations of mypy go into the folder."""
    strict, lenient = folder / "strict.ini", folder / "lenient.ini"
    strict.write_text("[mypy]\nstrict = true\n")
    # Modules for other packages import them; those need not be installed here.
    lenient.write_text("[mypy]\nignore_missing_imports = true\n")
    found = {
        "stubtest": module(
            "mypy.stubtest",
            *("hotloop", "--concise", "--allowlist", ALLOWLIST),
            *("--mypy-config-file", lenient),
        )
    }
    mypy = module("mypy", "--config-file", strict, "--cache-dir", folder / "cache")
    for target in TARGETS:
        found[f"mypy, for {target}"] = [
            *(*mypy, "--python-version", target),
            *map(str, sorted(PROGRAMS.glob("*.py"))),
        ]
    found["pyright"] = module("basedpyright", "--project", PROGRAMS)
    for target in (TARGETS[0], TARGETS[-1]):
        found[f"pyright --verifytypes, for {target}"] = module(
            "basedpyright",
            *("--verifytypes", "hotloop", "--ignoreexternal"),
            *("--pythonversion", target),
        )
    found["the program"] = [sys.executable, str(PROGRAMS / "program.py")]
    return found


def run(command: list[str], folder: str) -> tuple[bool, str, float]:
    """Whether the command was content, what it printed, how many seconds it took."""
    # pyright asks the first python of PATH what is installed.
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    started = time.monotonic()
    done = subprocess.run(
        command,
        cwd=folder,  # not the checkout, whose pkg/ is not what is to be checked
        env={**os.environ, "PATH": path},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.returncode == 0, done.stdout, time.monotonic() - started


def main() -> int:
    failed = []
    with (
        tempfile.TemporaryDirectory() as folder,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        running = {
            title: pool.submit(run, command, folder)
            for title, command in checks(Path(folder)).items()
        }
        for title, result in running.items():
            good, text, seconds = result.result()
            verdict = "ok" if good else "FAILED"
            print(f"-- {title}: {verdict} after {seconds:.1f} s", flush=True)
            if not good:
                print(text, flush=True)
                failed.append(title)
    print("types failed: " + ", ".join(failed) if failed else "types: all passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Build the source distribution and wheels for this machine, and check them all.

    python tools/wheels.py [--tests core|all|none] [--types] [--dist FOLDER] [PYTHON...]

A PYTHON is what find_python.sh takes; without one there is a wheel for each of 3.11
to 3.15 that this machine has. The wheels are built from the source distribution, get
their own libuv (tools/bundle.py), and are then tried out: in a new virtual
environment, outside the checkout, and, as root on Linux, where the system's libuv is
hidden. With the last PYTHON all is built a second time in another folder, which must
give the very same files. --types has tools/typecheck.py check what was installed.

The tag of a wheel names the libc of the machine that built it. Those for everybody
are built by cibuildwheel in containers (docs/releasing.md).
"""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("3.11", "3.12", "3.13", "3.14", "3.15")
# A wheel with a library in it has a second folder, with nothing of Python.
EXPECTED_WARNINGS = "W009,W010"
# What an sdist has beyond the files of the repository.
GENERATED = re.compile(r"PKG-INFO|setup\.cfg|pkg/hotloop\.egg-info/.*")
TESTS = {
    "core": ["@tests/core.txt", "-m", "not slow"],
    "all": ["tests"],
}

# Runs a command where these files are empty.
HIDE = """
while [ "$1" != -- ]; do mount --bind /dev/null "$1" || exit; shift; done
shift
exec "$@"
"""

TRY = """
import asyncio, hotloop, importlib.metadata, sys
async def main():
    await asyncio.sleep(0)
    return "libuv " + hotloop._core.libuv_version()
version = hotloop.run(main())
with open("/proc/self/maps") as maps:
    used = {line.split()[-1] for line in maps if "libuv" in line}
if not used or not all(path.startswith(sys.prefix) for path in used):
    sys.exit(f"not the wheel's own libuv: {used}")
files = importlib.metadata.files("hotloop")
if not any("licenses/libuv/" in str(path) and path.locate().exists() for path in files):
    sys.exit("libuv's licence is missing")
import uvloop
async def other():
    return type(asyncio.get_running_loop())
if uvloop.run(other()) is not uvloop.Loop or hotloop.run(main()) != version:
    sys.exit("does not work beside the libuv of uvloop")
print(version, "from", *(path.removeprefix(sys.prefix + "/") for path in used))
"""


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Say what is done and, afterwards, how long it took."""
    started = time.monotonic()
    print(f"-- {title}", flush=True)
    yield
    print(f"   {time.monotonic() - started:.1f} s", flush=True)


def environment() -> dict[str, str]:
    """That of all commands: reproducible, nothing of the checkout in it."""
    variables = dict(os.environ)
    # Debugging information would make the extension seven times as large.
    variables["CFLAGS"] = f"-g0 {variables.get('CFLAGS', '')}".strip()
    variables.setdefault("SOURCE_DATE_EPOCH", time_of_sources())
    variables["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    tools = Path(sys.executable).parent
    variables["PATH"] = f"{tools}{os.pathsep}{variables.get('PATH', '')}"
    for name in ("PYTHONPATH", "PYTHONHOME", "HOTLOOP_DEBUG", "HOTLOOP_SANITIZE"):
        variables.pop(name, None)
    return variables


def time_of_sources() -> str:
    """When they were last committed; of an sdist, when it was made."""
    command = ["git", "log", "-1", "--format=%ct"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        found = subprocess.check_output(
            command, cwd=ROOT, text=True, stderr=subprocess.DEVNULL
        )
        return found.strip()
    return str(int((ROOT / "pyproject.toml").stat().st_mtime))


def run(
    *command: str | Path, cwd: Path | None = None, variables: dict[str, str]
) -> str:
    """Run a command, quietly unless it fails; return what it printed."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=variables,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        print(done.stdout)
        raise SystemExit(f"wheels: this failed: {' '.join(map(str, command))}")
    return done.stdout


def build_sdist(source: Path, target: Path, variables: dict[str, str]) -> Path:
    module = [sys.executable, "-m", "build", "--sdist", "--outdir"]
    run(*module, target, source, cwd=target.parent, variables=variables)
    (made,) = target.glob("*.tar.gz")
    return made


def unpack(sdist: Path, target: Path) -> Path:
    target.mkdir(parents=True)
    with tarfile.open(sdist) as archive:
        archive.extractall(target, filter="data")
    (folder,) = target.iterdir()
    return folder


def check_contents(sdist: Path) -> None:
    """The sdist has every file of the repository and nothing else."""
    if not (ROOT / ".git").exists():
        return
    files = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.check_output(files, cwd=ROOT, text=True)
    wanted = set(listed.split("\0")) - {""}
    with tarfile.open(sdist) as archive:
        names = [m.name.partition("/")[2] for m in archive if m.isfile()]
    found = {name for name in names if not GENERATED.fullmatch(name)}
    lines = [f"missing in the sdist: {name}" for name in sorted(wanted - found)]
    lines += [f"not in the repository: {name}" for name in sorted(found - wanted)]
    if lines:
        raise SystemExit("wheels: see MANIFEST.in\n" + "\n".join(lines))


def build_wheel(
    python: str, source: Path, target: Path, variables: dict[str, str]
) -> tuple[Path, Path]:
    """The wheel as it is built, and with its own libuv."""
    plain, whole = target / "plain", target / "whole"
    pip = [sys.executable, "-m", "pip", "--python", python, "wheel", "--no-deps", "-q"]
    where = ["--wheel-dir", str(plain), str(source)]
    run(*pip, *where, cwd=target.parent, variables=variables)
    (wheel,) = plain.glob("*.whl")
    bundle = ROOT / "tools" / "bundle.py"
    run(sys.executable, bundle, wheel, whole, variables=variables)
    (made,) = whole.glob("*.whl")
    return wheel, made


def hiding() -> list[str]:
    """The words to put before a command that must not find the system's libuv."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return []
    unshare = ["unshare", "--mount", "--propagation", "private"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        return []
    listed = subprocess.run(
        ["ldconfig", "-p"], capture_output=True, text=True, check=False
    )
    found = re.findall(r"=> (.*/libuv\.so.*)", listed.stdout)
    files = sorted({str(Path(path).resolve()) for path in found})
    if not files:
        return []
    return [*unshare, "sh", "-c", HIDE, "sh", *files, "--"]


def check_hiding(python: str, plain: Path, folder: Path, hide: list[str]) -> None:
    """Where libuv is hidden, the wheel without its own cannot be imported."""
    with zipfile.ZipFile(plain) as archive:
        archive.extractall(folder)
    done = subprocess.run(
        [*hide, python, "-c", "import hotloop"],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0 or "libuv" not in done.stderr:
        raise SystemExit(f"wheels: libuv is not hidden\n{done.stderr}")


def check_wheel(
    wheel: Path, python: str, folder: Path, options: argparse.Namespace, hide: list[str]
) -> None:
    """Install the wheel in a new environment and use it there."""
    variables = environment()
    with step(f"{wheel.name}: install"):
        run(python, "-m", "venv", folder / "env", variables=variables)
        inside = folder / "env" / "bin" / "python"
        extras = "test,types" if options.types else "test"
        named = f"hotloop[{extras}] @ {wheel.as_uri()}"
        run(inside, "-m", "pip", "install", "-q", named, variables=variables)
    with step(f"{wheel.name}: hotloop.run()"):
        said = run(*hide, inside, "-c", TRY, cwd=folder, variables=variables)
        print(f"   {said.strip()}{', the system libuv hidden' if hide else ''}")
    tests = folder / "sources"
    for name in ("pkg", "csrc"):  # nothing of hotloop itself
        shutil.rmtree(tests / name)
    if options.tests != "none":
        with step(f"{wheel.name}: tests ({options.tests})"):
            pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
            variables["HOTLOOP_TEST_LOOPS"] = "hotloop"
            command = [*hide, str(inside), *pytest, *TESTS[options.tests]]
            said = run(*command, cwd=tests, variables=variables)
            print(f"   {said.strip().splitlines()[-1]}")
    if options.types:
        with step(f"{wheel.name}: types"):
            run(inside, tests / "tools" / "typecheck.py", variables=variables)


def check_same(first: Path, second: Path) -> None:
    if first.name != second.name or not filecmp.cmp(first, second, shallow=False):
        raise SystemExit(f"wheels: {first.name} came out different a second time")


def find_pythons(wanted: list[str]) -> list[str]:
    """The paths of the interpreters that were asked for, or of all."""
    found = []
    for name in wanted or VERSIONS:
        command = [str(ROOT / "tools" / "find_python.sh"), name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode == 0:
            found.append(done.stdout.strip())
        elif wanted:
            raise SystemExit(f"wheels: found no CPython by the name of {name}")
    return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="wheels.py", description="See the docstring.")
    parser.add_argument("pythons", nargs="*", metavar="PYTHON")
    parser.add_argument("--tests", choices=["core", "all", "none"], default="core")
    parser.add_argument("--types", action="store_true")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist")
    return parser.parse_args()


def build_again(
    python: str, sdist: Path, made: tuple[Path, Path], folder: Path
) -> None:
    """Build from the sdist's own contents, elsewhere; the files must be the same."""
    variables = environment()
    source = unpack(sdist, folder / "a" / "deeper" / "folder")
    for path in sorted(source.rglob("*")):
        if path.is_file() and GENERATED.fullmatch(str(path.relative_to(source))):
            path.unlink()
    check_same(sdist, build_sdist(source, folder / "sdist", variables))
    for first, second in zip(
        made, build_wheel(python, source, folder, variables), strict=True
    ):
        check_same(first, second)


def make_all(options: argparse.Namespace, work: Path) -> list[Path]:
    variables = environment()
    pythons = find_pythons(options.pythons)
    hide = hiding()
    with step("source distribution"):
        (work / "sdist").mkdir()
        sdist = build_sdist(ROOT, work / "sdist", variables)
        check_contents(sdist)
        source = unpack(sdist, work / "source")
    files = [sdist]
    for number, python in enumerate(pythons):
        folder = work / str(number)
        folder.mkdir()
        with step(f"wheel for {python}"):
            made = build_wheel(python, source, folder, variables)
            files.append(made[1])
        if hide:
            check_hiding(python, made[0], folder / "unpacked", hide)
        unpack(sdist, folder / "sdist").rename(folder / "sources")
        check_wheel(made[1], python, folder, options, hide)
    with step("all of it again, elsewhere: the same files"):
        again = work / "again"
        (again / "sdist").mkdir(parents=True)
        build_again(python, sdist, made, again)
    with step("twine, check-wheel-contents"):
        run("twine", "check", "--strict", *files, variables=variables)
        check = ["check-wheel-contents", "--ignore", EXPECTED_WARNINGS]
        run(*check, *files[1:], variables=variables)
    return files


def main() -> None:
    options = parse()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hotloop-wheels-") as name:
        files = make_all(options, Path(name))
        options.dist.mkdir(exist_ok=True)
        for old in options.dist.glob("hotloop-*"):
            old.unlink()
        for file in files:
            shutil.copy(file, options.dist)
            print(f"{file.stat().st_size:>9} {file.name}")
    print(f"wheels: all good after {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()

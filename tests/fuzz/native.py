"""Fuzz the parts of the C core, each against a model of it.

    python -m fuzz.native [--minutes M | --runs N] [--only TARGET] [--keep]
                          [--engine libfuzzer|plain]
                          [--max-len N] [FILE...]

The targets are the files of tests/fuzz/c. With clang they are built for libFuzzer,
which looks for inputs that reach new code; with another compiler (FUZZ_CC) for a
driver that tries random ones. Both under AddressSanitizer and UBSan, in build/fuzz.
Inputs of before are in tests/fuzz/corpus; --keep puts some there that together reach
most of what was reached. With files, only these are run. Exit status 1 where
something was found: the input is left in build/fuzz, and belongs into the corpus.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CSRC = ROOT / "csrc"
CORPUS = HERE / "corpus"
BUILD = ROOT / "build" / "fuzz"
SHARED = {"fuzz", "driver"}  # files that are no targets
FLAGS = ["-std=c11", "-g", "-O2", "-UNDEBUG", "-fno-omit-frame-pointer", "-Wall"]
FLAGS += ["-Wextra", "-Werror", "-fno-sanitize-recover=undefined"]
MAX_LEN = 512  # bytes of an input
NOISE = re.compile(r"#\d|INFO:|NEW_FUNC|\s+NEW_|\s+#\d+ .* in fuzzer::")
KEPT = 20  # inputs of a target in the corpus
HANG = 120  # seconds that one run may last beyond its time


def targets() -> list[str]:
    return sorted(path.stem for path in (HERE / "c").glob("*.c") if is_target(path))


def is_target(path: pathlib.Path) -> bool:
    return path.stem not in SHARED


def compiler(engine: str) -> list[str]:
    default = "clang" if engine == "libfuzzer" else "cc"
    return shlex.split(os.environ.get("FUZZ_CC", default))


def find_engine() -> str:
    """libFuzzer where clang has it."""
    path = BUILD / "probe"
    path.parent.mkdir(parents=True, exist_ok=True)
    source = "int LLVMFuzzerTestOneInput(const char *d, unsigned long n)"
    source += "{ return d == 0 && n; }\n"
    command = [*compiler("libfuzzer"), "-fsanitize=fuzzer,address", "-x", "c", "-"]
    try:
        done = subprocess.run(
            [*command, "-o", str(path)], input=source.encode(), capture_output=True
        )
    except OSError:
        return "plain"
    return "libfuzzer" if done.returncode == 0 else "plain"


def python_flags() -> tuple[list[str], list[str]]:
    """How to compile for, and to link, the library of this interpreter."""
    folder = sysconfig.get_config_var("LIBDIR")
    name = sysconfig.get_config_var("LDLIBRARY") or ""
    library = next(
        (
            pathlib.Path(where, name)
            for where in (folder, sysconfig.get_config_var("LIBPL"))
            if where and name and pathlib.Path(where, name).exists()
        ),
        None,
    )
    if library is None:
        raise SystemExit(
            f"fuzz: {name or 'the library'} of this Python is not installed"
            " (Debian: libpython3-dev)"
        )
    libs = shlex.split(sysconfig.get_config_var("LIBS") or "")
    libs += shlex.split(sysconfig.get_config_var("SYSLIBS") or "")
    link = [str(library), f"-Wl,-rpath,{library.parent}", "-rdynamic", *libs]
    return ["-isystem", sysconfig.get_path("include")], link


def pkg_config(kind: str, *names: str) -> list[str]:
    command = ["pkg-config", f"--{kind}", *names]
    return shlex.split(subprocess.check_output(command, text=True))


class Builder:
    """Compiles the core once, and each target with it."""

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self.folder = BUILD / f"{engine}-{sys.version_info[0]}.{sys.version_info[1]}"
        python, self.link = python_flags()
        self.cc = compiler(engine)
        sanitizers = "address,undefined"
        if engine == "libfuzzer":
            sanitizers += ",fuzzer-no-link"
        self.flags = [*FLAGS, f"-fsanitize={sanitizers}", f"-I{CSRC}"]
        self.flags += [f"-I{HERE / 'c'}", *python, *pkg_config("cflags", "libuv")]
        self.flags += [f'-DFUZZ_PYTHON="{sys.executable}"']
        self.link += pkg_config("libs", "libuv")

    def compile(self, source: pathlib.Path) -> pathlib.Path:
        """The object file of a source, made anew where any header is newer."""
        name = str(source.relative_to(ROOT)).replace("/", "_")
        made = self.folder / f"{name}.o"
        needed = [source, *self.headers]
        if HERE in source.parents:  # it may include the file it looks into
            needed += (CSRC / "io").glob("*.c")
        newest = max(path.stat().st_mtime for path in needed)
        if not made.exists() or made.stat().st_mtime < newest:
            run = [*self.cc, *self.flags, "-c", str(source), "-o", str(made)]
            subprocess.run(run, check=True)
        return made

    def build(self, names: list[str]) -> dict[str, pathlib.Path]:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.headers = [
            *CSRC.rglob("*.h"),
            *CSRC.rglob("*.def"),
            *(HERE / "c").glob("*.h"),
        ]
        shared = ["fuzz"] if self.engine == "libfuzzer" else ["fuzz", "driver"]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            core = list(pool.map(self.compile, sorted(CSRC.rglob("*.c"))))
            common = list(
                pool.map(self.compile, [HERE / "c" / f"{one}.c" for one in shared])
            )
            archive = self.folder / "core.a"
            archive.unlink(missing_ok=True)
            subprocess.run(["ar", "rcs", archive, *core], check=True)
            sanitizers = "-fsanitize=address,undefined"
            if self.engine == "libfuzzer":
                sanitizers += ",fuzzer"

            def link(name: str) -> pathlib.Path:
                program = self.folder / name
                own = self.compile(HERE / "c" / f"{name}.c")
                files = [own, *common, archive]
                command = [*self.cc, sanitizers, "-o", program, *files, *self.link]
                subprocess.run([str(word) for word in command], check=True)
                return program

            return dict(zip(names, pool.map(link, names), strict=True))


def environment() -> dict[str, str]:
    """That of a target: the interpreter itself does not free everything."""
    env = dict(os.environ, PYTHONHASHSEED="0")
    env["ASAN_OPTIONS"] = "detect_leaks=0:abort_on_error=1:allocator_may_return_null=1"
    env["UBSAN_OPTIONS"] = "print_stacktrace=1:abort_on_error=1"
    return env


def essence(said: str) -> str:
    """What a target said in its end, without how far it was before."""
    lines = [line for line in said.splitlines() if not NOISE.match(line)]
    return "\n".join(lines[:60])


class Runner:
    def __init__(self, args: argparse.Namespace, programs: dict[str, pathlib.Path]):
        self.args = args
        self.programs = programs

    def command(self, name: str, seconds: float) -> list[str]:
        found = BUILD / "corpus" / name
        found.mkdir(parents=True, exist_ok=True)
        words = [str(self.programs[name]), f"-max_len={self.args.max_len}"]
        if self.args.seed is not None:
            words.append(f"-seed={self.args.seed}")
        if self.args.runs is not None:
            words.append(f"-runs={self.args.runs}")
        else:
            words.append(f"-max_total_time={max(1, round(seconds))}")
        if self.args.engine == "libfuzzer":
            words.append(f"-artifact_prefix={BUILD}/{name}-")
            words += ["-detect_leaks=0", str(found)]
        if (CORPUS / name).is_dir():
            words.append(str(CORPUS / name))
        return words

    def run(self, name: str, words: list[str], seconds: float | None) -> bool:
        """Run a target; True where nothing was found."""
        started = time.monotonic()
        folder = BUILD / "crashes" / name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            done = subprocess.run(
                words,
                env=environment(),
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=None if seconds is None else seconds + HANG,
            )
        except subprocess.TimeoutExpired as error:
            said = (error.output or b"").decode(errors="replace")
            print(f"{name}: hangs\n{said[-2000:]}", flush=True)
            return False
        said = done.stdout.decode(errors="replace")
        if done.returncode != 0:
            print(f"{name}: exit status {done.returncode}\n{essence(said)}", flush=True)
            print(f"the input is in {BUILD} or {folder}", flush=True)
            return False
        spent = time.monotonic() - started
        counted = re.search(r"Done (\d+) runs", said)
        cases = counted[1] if counted else str(said.count("\nExecuted "))
        covered = re.findall(r"cov: (\d+) ft: (\d+)", said)
        more = f", {covered[-1][1]} features" if covered else ""
        print(f"{name}: {cases} cases in {spent:.0f} s{more}: nothing", flush=True)
        return True

    def keep(self, name: str) -> None:
        """Choose, from the smallest inputs that reach all that was reached."""
        kept = CORPUS / name
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            words = [str(self.programs[name]), "-merge=1", f"-max_len={MAX_LEN}"]
            words += [folder, str(BUILD / "corpus" / name), str(kept)]
            subprocess.run(words, env=environment(), check=True, capture_output=True)
            found = sorted(
                pathlib.Path(folder).iterdir(), key=lambda path: path.stat().st_size
            )
            for path in kept.iterdir():
                if not path.name.startswith("found-"):  # those that once failed stay
                    path.unlink()
            step = max(1, len(found) // KEPT)
            for number, path in enumerate(found[::-step][:KEPT]):
                shutil.copy(path, kept / f"{number:02}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fuzz.native")
    parser.add_argument("--minutes", type=float, default=1.0, help="for all together")
    parser.add_argument("--runs", type=int, help="of each target, instead")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--max-len", type=int, default=MAX_LEN, help="of an input")
    parser.add_argument("--only", action="append", choices=targets())
    parser.add_argument("--engine", choices=["libfuzzer", "plain"])
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("files", nargs="*")
    args = parser.parse_args()
    if args.files and (not args.only or len(args.only) > 1):
        parser.error("files are inputs of one target: say --only")
    args.engine = args.engine or find_engine()
    return args


def main() -> int:
    args = arguments()
    names: list[str] = args.only or targets()
    programs = Builder(args.engine).build(names)
    runner = Runner(args, programs)
    print(f"{len(names)} targets, {args.engine}", flush=True)
    if args.files:
        paths = [os.path.abspath(path) for path in args.files]
        return not runner.run(names[0], [str(programs[names[0]]), *paths], None)
    seconds = args.minutes * 60 / len(names)
    bad = [
        name
        for name in names
        if not runner.run(
            name,
            runner.command(name, seconds),
            None if args.runs is not None else seconds,
        )
    ]
    if args.keep and args.engine == "libfuzzer" and not bad:
        for name in names:
            runner.keep(name)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

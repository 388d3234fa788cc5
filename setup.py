"""Builds the C core, hotloop._core; everything declarative is in pyproject.toml.

Environment variables that change the build:

CC, CFLAGS, LDFLAGS     as everywhere; CFLAGS and LDFLAGS come last and win.
PKG_CONFIG              the pkg-config program, "pkg-config" when unset.
HOTLOOP_DEBUG=1         development build: -Og, assertions, warnings are errors.
HOTLOOP_SANITIZE=1      development build under AddressSanitizer and UBSan.
HOTLOOP_SANITIZE=thread the same under ThreadSanitizer.
HOTLOOP_WERROR=1        the release build, warnings are errors as well.
SOURCE_DATE_EPOCH       the time to write into archives, which makes them the same
                        from the same sources, whenever and wherever they are built.
"""

from __future__ import annotations

import functools
import gzip
import json
import os
import shlex
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

LIBUV_MINIMUM = "1.44"

WARNINGS = [
    *("-Wall", "-Wextra", "-Wshadow", "-Wstrict-prototypes", "-Wmissing-prototypes"),
    *("-Wvla", "-Wpointer-arith", "-Wwrite-strings", "-Wcast-qual"),
    *("-Wconversion", "-Wsign-conversion"),
]

COMMON = ["-std=c11", "-fvisibility=hidden"]
RELEASE = ["-O3", "-DNDEBUG"]
RELEASE_IF_KNOWN = ["-fno-semantic-interposition", "-fno-plt"]
# Against what a bug in C could be made to do; tests/test_hardening.py looks whether
# they are in the file. The value that the interpreter was built with goes first.
FORTIFY_CHOICES = tuple(["-U_FORTIFY_SOURCE", f"-D_FORTIFY_SOURCE={n}"] for n in (3, 2))
HARDENING_IF_KNOWN = [
    *("-fstack-protector-strong", "-fstack-clash-protection"),
    *("-fcf-protection", "-mbranch-protection=standard"),
]
LINK_HARDENING_IF_KNOWN = ["-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack"]
LTO_CHOICES = (["-flto=auto"], ["-flto"], ["-flto", "-fuse-ld=lld"])
DEBUG = ["-Og", "-g3", "-UNDEBUG", "-DHL_FAULTS"]
SANITIZE = ["-O1", "-g3", "-UNDEBUG", "-DHL_FAULTS", "-fno-omit-frame-pointer"]
SANITIZERS = {
    "sanitize": ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
    "tsan": ["-fsanitize=thread"],
}

# What installs each need, in the order of INSTALLERS.
INSTALLERS = {
    "Debian, Ubuntu": "apt-get install",
    "Fedora": "dnf install",
    "Alpine": "apk add",
    "macOS": "brew install",
}
PYTHON_DEV = f"python{sys.version_info.major}.{sys.version_info.minor}-dev"
PACKAGES = {
    "compiler": ("gcc libc6-dev", "gcc", "gcc musl-dev", "llvm"),
    "headers": (PYTHON_DEV, "python3-devel", "python3-dev", "python"),
    "pkg-config": ("pkg-config", "pkgconf-pkg-config", "pkgconf", "pkgconf"),
    "libuv": ("libuv1-dev", "libuv-devel", "libuv-dev", "libuv"),
}


def is_set(name: str) -> bool:
    return os.environ.get(name, "0") not in ("", "0")


def build_mode() -> str:
    if is_set("HOTLOOP_SANITIZE"):
        return "tsan" if os.environ["HOTLOOP_SANITIZE"] == "thread" else "sanitize"
    return "debug" if is_set("HOTLOOP_DEBUG") else "release"


def build_base() -> str:
    """Where it is built: in a root folder of another system apart from this one's."""
    system = os.environ.get("HOTLOOP_SYSTEM")
    return f"build/{system}-{build_mode()}" if system else f"build/{build_mode()}"


def compiler_command() -> list[str]:
    return shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")


def compiles(source: str, flags: Iterable[str] = ()) -> bool:
    """Whether this source compiles and links with the flags; prints nothing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "probe.c")
        path.write_text(source)
        files = ["-shared", "-fPIC", str(path), "-o", str(path.with_suffix(".so"))]
        # The flags stand last: a library counts only after what uses it.
        command = [*compiler_command(), *files, *flags]
        try:
            done = subprocess.run(command, capture_output=True, check=False)
        except OSError:
            return False
        return done.returncode == 0


def accepted(flags: list[str]) -> list[str]:
    """The flags if the compiler, its headers and its linker take them, else none."""
    source = "#include <string.h>\nint probe;\n"
    return flags if compiles(source, ["-Werror", *RELEASE, *flags]) else []


def pkg_config(*arguments: str) -> str | None:
    """What pkg-config answers; None where it says no or is not installed."""
    command = shlex.split(os.environ.get("PKG_CONFIG") or "pkg-config")
    try:
        done = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def libuv_flags(kind: str) -> list[str]:
    return shlex.split(pkg_config(f"--{kind}", "libuv") or "")


def missing_libuv(*, can_compile: bool) -> dict[str, str]:
    wanted = f"libuv {LIBUV_MINIMUM} or newer, with its headers"
    if pkg_config("--version") is None:
        return {"pkg-config": "pkg-config (it finds libuv)", "libuv": wanted}
    version = pkg_config("--modversion", "libuv")
    if version is None:
        return {"libuv": wanted}
    if pkg_config(f"--atleast-version={LIBUV_MINIMUM}", "libuv") is None:
        return {"libuv": f"{wanted} (found {version}: too old)"}
    source = "#include <uv.h>\nunsigned probe(void){return uv_version();}\n"
    flags = libuv_flags("cflags") + libuv_flags("libs")
    if can_compile and not compiles(source, flags):
        return {"libuv": f"{wanted} (pkg-config names {version}, but it does not link)"}
    return {}


def missing_tools() -> dict[str, str]:
    """What the build lacks: key of PACKAGES -> what to tell the user."""
    missing = {}
    include = sysconfig.get_path("include")
    can_compile = compiles("int probe;\n")
    if can_compile:
        headers = compiles("#include <Python.h>\n", [f"-I{include}"])
    else:
        missing["compiler"] = f"a working C compiler (tried: {compiler_command()[0]})"
        headers = Path(include, "Python.h").exists()
    if not headers:
        missing["headers"] = f"the C headers of Python (of {sys.executable})"
    return missing | missing_libuv(can_compile=can_compile)


@functools.cache
def require_tools() -> None:
    """End the build with one message where something it needs is not there."""
    missing = missing_tools()
    if not missing:
        return
    lines = ["", "hotloop cannot be built: this is not installed, or not found:"]
    lines += [f"  - {thing}" for thing in missing.values()]
    lines.append("Install it with:")
    for column, (system, command) in enumerate(INSTALLERS.items()):
        packages = " ".join(PACKAGES[need][column] for need in missing)
        lines.append(f"  {system + ':':<16}{command} {packages}")
    raise SystemExit("\n".join([*lines, ""]))


def mode_flags(mode: str) -> tuple[list[str], list[str]]:
    """The flags of one build mode, for the compiler and for the linker."""
    if mode in SANITIZERS:
        return [*SANITIZE, *SANITIZERS[mode]], SANITIZERS[mode]
    if mode == "debug":
        return DEBUG, []
    flags = [*RELEASE, *next(filter(None, map(accepted, FORTIFY_CHOICES)), [])]
    # Nothing in the file may tell in which folder it was built.
    prefix_map = f"-ffile-prefix-map={Path.cwd()}=."
    for flag in (*RELEASE_IF_KNOWN, *HARDENING_IF_KNOWN, prefix_map):
        flags += accepted([flag])
    flags += next(filter(None, map(accepted, LTO_CHOICES)), [])
    linking = [flag for flag in LINK_HARDENING_IF_KNOWN if accepted([flag])]
    return flags, flags + linking


def all_flags() -> tuple[list[str], list[str]]:
    mode = build_mode()
    compile_flags, link_flags = mode_flags(mode)
    compile_flags = [*COMMON, *libuv_flags("cflags"), *compile_flags]
    link_flags = [*link_flags, *libuv_flags("libs")]
    if mode != "release" or is_set("HOTLOOP_WERROR"):
        compile_flags += [*WARNINGS, "-Werror"]
        link_flags += ["-Werror"]
    compile_flags += shlex.split(os.environ.get("CFLAGS", ""))
    link_flags += shlex.split(os.environ.get("LDFLAGS", ""))
    return compile_flags, link_flags


class BuildCommand(build):
    """`build` that looks for the tools before anything else is done."""

    def run(self) -> None:
        require_tools()
        super().run()


class BuildExtensionCommand(build_ext):
    """`build_ext` with the probed flags, one compiler process per core."""

    def build_extension(self, ext: Extension) -> None:
        require_tools()
        compile_flags, link_flags = all_flags()
        ext.extra_compile_args = compile_flags
        ext.extra_link_args = link_flags
        stamp = Path(self.build_temp, "flags.json")
        inputs = [
            sys.executable,
            sys.version,
            compiler_command(),
            compile_flags,
            link_flags,
        ]
        record = json.dumps([*inputs, ext.sources], indent=1)
        if not stamp.exists() or stamp.read_text() != record:
            self.force = True
        self.compile_in_parallel()
        super().build_extension(ext)
        stamp.write_text(record)

    def compile_in_parallel(self) -> None:
        compile_all = self.compiler.compile

        def compile_each(sources: list[str], **options: Any) -> list[str]:
            def compile_one(source: str) -> list[str]:
                objects: list[str] = compile_all([source], **options)
                return objects

            for source in sources:
                folder = Path(options["output_dir"], source).parent
                folder.mkdir(parents=True, exist_ok=True)
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                done = pool.map(compile_one, sources)
                return [path for objects in done for path in objects]

        self.compiler.compile = compile_each


def anonymous(member: tarfile.TarInfo, time: int) -> tarfile.TarInfo:
    """A member of an archive without what this machine alone knows of the file."""
    member.mtime = time
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    return member


class SdistCommand(sdist):
    """`sdist` that keeps to SOURCE_DATE_EPOCH, of which setuptools knows nothing."""

    def make_archive(self, base_name: Any, format: str, *args: Any, **kw: Any) -> str:
        epoch = os.environ.get("SOURCE_DATE_EPOCH")
        if epoch is None or format != "gztar":
            made: str = super().make_archive(base_name, format, *args, **kw)
            return made
        time = int(epoch)
        folder = kw["base_dir"]
        path = f"{base_name}.tar.gz"
        with (
            open(path, "wb") as raw,
            gzip.GzipFile("", "wb", fileobj=raw, mtime=time) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            for file in [Path(folder), *sorted(Path(folder).rglob("*"))]:
                tar.add(file, recursive=False, filter=lambda m: anonymous(m, time))
        return path


def files(pattern: str) -> list[str]:
    return sorted(path.as_posix() for path in Path("csrc").rglob(pattern))


setup(
    ext_modules=[
        Extension(
            "hotloop._core",
            sources=files("*.c"),
            depends=[*files("*.h"), *files("*.def")],
            include_dirs=["csrc"],
            language="c",
        )
    ],
    cmdclass={
        "build": BuildCommand,
        "build_ext": BuildExtensionCommand,
        "sdist": SdistCommand,
    },
    options={"build": {"build_base": build_base()}},
)

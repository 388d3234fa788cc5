"""Make a wheel that carries its own libuv, from one that needs the system's.

    python tools/bundle.py WHEEL FOLDER

auditwheel (Linux) or delocate (macOS) copies the library into the wheel and gives the
wheel the tag of the oldest system it runs on. What they leave out is added here: the
licences of libuv, and their mention in the metadata. Needs the package wheel, and
pkg-config, which is asked where the libuv is that the wheel was built with.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

# libuv is MIT; a few of its files are of the other two.
LICENSES = "MIT AND BSD-2-Clause AND ISC"
LINUX = ("auditwheel", "repair", "--wheel-dir")
MACOS = ("delocate-wheel", "-v", "--wheel-dir")


def run(*command: str | Path) -> None:
    print("+", shlex.join(map(str, command)), flush=True)
    subprocess.run(command, check=True)


def repaired(wheel: Path, folder: Path) -> Path:
    """The wheel with libuv in it."""
    tool = MACOS if sys.platform == "darwin" else LINUX
    run(*tool, folder, wheel)
    (made,) = folder.glob("*.whl")
    return made


def libuv_prefix() -> Path:
    command = [*shlex.split(os.environ.get("PKG_CONFIG") or "pkg-config")]
    command += ["--variable=prefix", "libuv"]
    return Path(subprocess.check_output(command, text=True).strip())


def libuv_notices() -> list[Path]:
    """The files that have libuv's licences, as its build or its package left them."""
    share = libuv_prefix() / "share"
    places = (
        *("doc/libuv/LICENSE*", "licenses/libuv/LICENSE*"),
        *("doc/libuv1/copyright", "doc/libuv1*/copyright"),
    )
    for place in places:
        found = sorted(share.glob(place))
        if found:
            return found
    raise SystemExit(f"found no licence of libuv in {share}: {', '.join(places)}")


def with_licenses(metadata: str, names: list[str]) -> str:
    """The metadata that names these licence files, too."""
    head, blank, text = metadata.partition("\n\n")
    lines = head.split("\n")
    lines[lines.index("License-Expression: MIT")] = f"License-Expression: {LICENSES}"
    place = 1 + max(i for i, line in enumerate(lines) if "License-File:" in line)
    lines[place:place] = [f"License-File: {name}" for name in names]
    return "\n".join(lines) + blank + text


def add_notices(folder: Path) -> None:
    """Put libuv's licences into an unpacked wheel."""
    (info,) = folder.glob("*.dist-info")
    names = []
    for notice in libuv_notices():
        name = f"libuv/{notice.name}"
        target = info / "licenses" / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(notice.read_bytes())
        target.chmod(0o644)
        names.append(name)
    metadata = info / "METADATA"
    metadata.write_text(with_licenses(metadata.read_text("utf-8"), names), "utf-8")


def main() -> None:
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    wheel, target = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory() as name:
        made = repaired(wheel, Path(name))
        unpacked = Path(name, "unpacked")
        run(sys.executable, "-m", "wheel", "unpack", "--dest", unpacked, made)
        (folder,) = unpacked.iterdir()
        add_notices(folder)
        target.mkdir(parents=True, exist_ok=True)
        run(sys.executable, "-m", "wheel", "pack", "--dest", target, folder)


if __name__ == "__main__":
    main()

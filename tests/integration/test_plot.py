"""``python -m hotloop plot``: a recording of a program, drawn by matplotlib."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

import watching
from support import wanted_kinds

if "hotloop" not in wanted_kinds():
    pytest.skip("hotloop is not wanted", allow_module_level=True)

pytest.importorskip("matplotlib")

SVG = "{http://www.w3.org/2000/svg}"
TITLES = {"time", "lag", "rates", "queues", "network", "connections"}


def plot(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hotloop", "plot", *words],
        capture_output=True,
        text=True,
        timeout=watching.TIMEOUT,
        check=False,
    )


def recorded(folder: str, out: pathlib.Path, seconds: str) -> None:
    with watching.program(folder) as process:
        words = ("record", str(process.pid), "--interval", "0.05", "--out", str(out))
        code, _, err = watching.command(folder, *words, "--seconds", seconds)
        assert code == 0, err


def test_drawing_a_recording(tmp_path: pathlib.Path) -> None:
    recording = tmp_path / "run.jsonl"
    with watching.short_folder() as folder:
        recorded(folder, recording, "0.5")
    done = plot(str(recording))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path / 'run.svg'}\n"
    tree = ElementTree.parse(tmp_path / "run.svg").getroot()
    assert tree.tag == f"{SVG}svg"
    texts = {element.text for element in tree.iter(f"{SVG}text")}
    assert texts >= TITLES | {"busy", "p50", "p99", "max", "callbacks", "open"}
    # Each line has a point for each interval, at least.
    paths = [element.get("d", "") for element in tree.iter(f"{SVG}path")]
    assert len([path for path in paths if path.count("L") >= 3]) >= 12
    again = plot(str(recording), "-o", str(tmp_path / "again.svg"))
    assert again.returncode == 0
    same = (tmp_path / "run.svg").read_bytes()
    assert (tmp_path / "again.svg").read_bytes() == same
    image = tmp_path / "run.png"
    assert plot(str(recording), "-o", str(image)).returncode == 0
    assert image.read_bytes().startswith(b"\x89PNG")


def test_too_little_to_draw(tmp_path: pathlib.Path) -> None:
    recording = tmp_path / "run.jsonl"
    with watching.short_folder() as folder:
        recorded(folder, recording, "0.01")
    done = plot(str(recording))
    assert done.returncode == 1 and "fewer than two snapshots" in done.stderr
    assert list(tmp_path.iterdir()) == [recording]

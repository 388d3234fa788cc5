"""``python -m hotloop plot``: a recording of a program, drawn by matplotlib."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

import watching
from support import wanted_kinds

if "hotloop" not in wanted_kinds():
    pytest.skip("hotloop is not wanted", allow_module_level=True)

pytest.importorskip("matplotlib")

from hotloop._watch import plot as drawing

SVG = "{http://www.w3.org/2000/svg}"
TITLES = {"time", "lag", "rates", "queues", "network", "connections"}


def plot(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hotloop", "plot", *words],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def recorded(folder: str, out: pathlib.Path, seconds: str) -> None:
    with watching.program(folder) as process:
        words = ("record", str(process.pid), "--interval", "0.05", "--out", str(out))
        code, _, err = watching.command(folder, *words, "--seconds", seconds)
        assert code == 0, err


@pytest.mark.timeout(400)  # matplotlib is imported three times: it keeps files open
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
    again, image = tmp_path / "again.svg", tmp_path / "run.png"
    for out in (again, image):
        assert plot(str(recording), "-o", str(out)).stdout == f"{out}\n"
    assert again.read_bytes() == (tmp_path / "run.svg").read_bytes()
    assert image.read_bytes().startswith(b"\x89PNG")


def test_too_little_to_draw(tmp_path: pathlib.Path, capsys: Any) -> None:
    recording = tmp_path / "run.jsonl"
    with watching.short_folder() as folder:
        recorded(folder, recording, "0.01")
    with pytest.raises(SystemExit, match="1"):
        drawing.main([str(recording)])
    assert "fewer than two snapshots" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [recording]

"""tools/refleak: which files it watches."""

from __future__ import annotations

from tools import refleak

from support import ROOT


def test_files_that_need_other_environments_are_left_out() -> None:
    folder = ROOT / "tests"
    found = refleak.test_files([str(folder)])
    assert folder / "test_api.py" in found
    assert {path.parent.name for path in found} == {"tests"}
    assert folder / "test_ecosystem.py" not in found

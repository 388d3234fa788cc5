"""The doctor finds each mistake at its line, and nothing in the same done right."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from doctor_programs import CORRECT, PAIRS
from support import HERE, wanted_kinds

if "hotloop" not in wanted_kinds():
    pytest.skip("hotloop is not wanted", allow_module_level=True)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LOOPS = ["asyncio", "hotloop"]
PARTS = 2  # most of the time they wait

Found = dict[str, dict[str, list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What the doctor reports of all programs, by loop; the loops side by side."""
    processes = []
    for loop, part in itertools.product(LOOPS, range(PARTS)):
        folder = tmp_path_factory.mktemp(loop)
        words = [str(HERE / "doctor_driver.py"), loop, folder, str(part), str(PARTS)]
        process = subprocess.Popen(
            [sys.executable, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONASYNCIODEBUG": ""},
        )
        processes.append((loop, process))
    results: Found = {loop: {} for loop in LOOPS}
    for loop, process in processes:
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        results[loop] |= json.loads(out)
    return results


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", PAIRS)
def test_mistake(found: Found, name: str, loop: str) -> None:
    kind = PAIRS[name].kind
    findings = found[loop][f"{name}: wrong"]
    assert [each["kind"] for each in findings] == [kind], findings
    assert findings[0]["file"]
    assert findings[0]["source"].endswith("# here")
    assert findings[0]["seen"] and findings[0]["change"].endswith(".")


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", PAIRS)
def test_corrected(found: Found, name: str, loop: str) -> None:
    assert found[loop][f"{name}: right"] == []


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", CORRECT)
def test_correct(found: Found, name: str, loop: str) -> None:
    assert found[loop][name] == []


def test_every_kind_has_a_program() -> None:
    from hotloop.doctor._findings import KINDS

    assert {pair.kind for pair in PAIRS.values()} == set(KINDS)

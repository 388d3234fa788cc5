"""Runs the programs of doctor_programs.py under the doctor, one after the other.

Usage: doctor_driver.py LOOP FOLDER PART PARTS; prints the findings of each as JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import pathlib
import sys
import time
import types
from typing import Any

import hotloop
from doctor_programs import CORRECT, PAIRS, SERVERS
from hotloop.doctor import Doctor

# Less than quiet() lasts; in the other programs answers are slow on purpose.
AWAIT_LIMIT = 0.3


def run(name: str, text: str, loop: str, folder: pathlib.Path) -> list[dict[str, Any]]:
    path = folder / f"{name.replace(' ', '_').replace(':', '')}.py"
    path.write_text(SERVERS + text)
    code = compile(path.read_text(), str(path), "exec", dont_inherit=True)
    pair = PAIRS.get(name.partition(":")[0])
    waits = pair is None or pair.kind == "await-without-timeout"
    doctor = Doctor(task_limit=100, await_limit=AWAIT_LIMIT if waits else 60)

    async def seen(kind: str) -> None:
        until = time.monotonic() + 10
        while not any(found.kind == kind for found in doctor.report.findings):
            if time.monotonic() > until:
                return  # the test says that it is not there
            await asyncio.sleep(0.05)

    async def quiet() -> None:
        await asyncio.sleep(0.45)

    module = types.ModuleType("program")
    names = vars(module)
    names.update(seen=seen, quiet=quiet)
    factory = hotloop.new_event_loop if loop == "hotloop" else asyncio.SelectorEventLoop
    with doctor:
        exec(code, names)
        hotloop.run(names["main"](), loop_factory=factory)
    assert not doctor.report.failures, doctor.report.failures
    return [
        {
            "kind": each.kind,
            "severity": each.severity,
            "line": each.line,
            "file": each.file == str(path),
            "source": each.source,
            "seen": each.seen,
            "change": each.change,
        }
        for each in doctor.report.findings
    ]


def programs() -> dict[str, str]:
    found = {}
    for name, pair in PAIRS.items():
        found[f"{name}: wrong"] = pair.wrong
        found[f"{name}: right"] = pair.right
    return found | CORRECT


def main() -> None:
    loop, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    part, parts = map(int, sys.argv[3:])
    logging.disable()
    ours = list(programs().items())[part::parts]
    print(json.dumps({name: run(name, text, loop, folder) for name, text in ours}))


if __name__ == "__main__":
    main()

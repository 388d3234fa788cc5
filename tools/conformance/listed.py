"""The list of tests that are not run or are expected to fail: listed.toml."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FILE = Path(__file__).with_name("listed.toml")

# What may stand on the list, of each suite.
LIMIT = 0.05


@dataclass(frozen=True)
class Entry:
    """Some tests of one suite, why they fail, and our own tests instead.

    The fields are those of the file, where they are explained.
    """

    tests: tuple[str, ...]
    why: str
    instead: tuple[str, ...]
    run: bool = True
    outside: bool = False
    since: str = "3.11"
    before: str = "4"

    def applies(self, version: tuple[int, ...] = sys.version_info[:3]) -> bool:
        return parse(self.since) <= version < parse(self.before)

    def matches(self, name: str) -> bool:
        return any(fnmatchcase(name, test) for test in self.tests)

    def stale(self, suite: str, names: Iterable[str]) -> list[str]:
        """The patterns for this suite that no test has."""
        known = list(names)
        return [
            test
            for test in self.tests
            if test.partition(".")[0] == suite
            and not any(fnmatchcase(name, test) for name in known)
        ]


def parse(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def entry_of(table: dict[str, Any]) -> Entry:
    """An entry from its table in the file; TypeError for a key it has not."""
    tests, instead = tuple(table.pop("tests")), tuple(table.pop("instead"))
    return Entry(tests=tests, instead=instead, **table)


def read(file: Path) -> list[Entry]:
    """The entries of the list; ValueError where it is not as it must be."""
    with file.open("rb") as source:
        tables = tomllib.load(source)
    entries = [entry_of(table) for table in tables.get("entry", [])]
    entries += [
        entry_of({**table, "outside": True, "run": False})
        for table in tables.get("outside", [])
    ]
    wrong = [text for entry in entries for text in faults(entry)]
    if wrong:
        raise ValueError(f"{file.name}: " + "; ".join(wrong))
    return entries


def faults(entry: Entry) -> list[str]:
    """What is wrong with an entry, as texts."""
    name = ", ".join(entry.tests) or "an entry without tests"
    wrong = []
    if not entry.tests:
        wrong.append(name)
    if len(entry.why.split()) < 5:
        wrong.append(f"{name}: no reason")
    if not entry.instead:
        wrong.append(f"{name}: no test of our own instead")
    for ours in entry.instead:
        path, _, function = ours.partition("::")
        file = ROOT / path
        pattern = rf"^(async )?def {re.escape(function)}\("
        if not file.is_file() or not re.search(pattern, file.read_text(), re.M):
            wrong.append(f"{name}: there is no {ours}")
    return wrong

"""The rules of the C code that a program can check."""

# mypy: disable-error-code="assignment"

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterator

import pytest

from support import ROOT

LAYERS = ["base", "state", "loop", "aio", "io", "tls", "api"]
CSRC = ROOT / "csrc"
# Spelled apart, so that this file does not name what it looks for.
PLACES = ["/" + "work/", "/" + "opt/", "/" + "root/", "/" + "home/"]
TEXTS = {
    ".c",
    ".h",
    ".py",
    ".pyi",
    ".toml",
    ".md",
    ".cfg",
    ".in",
    ".txt",
    ".sh",
    ".def",
}

pytestmark = pytest.mark.skipif(
    not CSRC.is_dir(), reason="the sources are not beside the tests"
)


def sources() -> list[pathlib.Path]:
    return sorted([*CSRC.rglob("*.c"), *CSRC.rglob("*.h")])


def check(problems: list[str]) -> None:
    assert not problems, "\n" + "\n".join(problems)


def name(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


def without_comments(text: str) -> str:
    """The code with comments and literals blanked out, line for line."""
    pattern = re.compile(
        r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL
    )

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    return pattern.sub(blank, text)


def functions(text: str) -> list[tuple[str, int, int]]:
    """(name, line, length) of each function; its brace is in column 0."""
    lines = without_comments(text).split("\n")
    found = []
    for number, line in enumerate(lines):
        if line != "{":
            continue
        start = number - 1
        while start > 0 and (lines[start].startswith(" ") or not lines[start].strip()):
            start -= 1
        match = re.match(r"(\w+)\(", lines[start])
        if match is None:
            continue
        end = lines.index("}", number)
        found.append((match[1], start + 1, end - start + 1))
    return found


def test_there_are_sources() -> None:
    assert len(sources()) > 20
    assert {path.parent.name for path in sources()} == set(LAYERS)


def test_includes_point_down() -> None:
    problems = []
    for path in sources():
        layer = LAYERS.index(path.parent.name)
        for target in re.findall(
            r'^\s*#\s*include\s+"([^"]+)"', path.read_text(), re.M
        ):
            folder = target.rsplit("/", 1)[0] if "/" in target else path.parent.name
            folder = folder.rsplit("/", 1)[-1]
            if ".." in target or folder not in LAYERS:
                problems.append(f"{name(path)}: includes {target}")
            elif LAYERS.index(folder) > layer:
                problems.append(f"{name(path)}: {target} is a layer above")
    check(problems)


def test_file_headers() -> None:
    problems = []
    for path in sources():
        head = path.read_text()[:2000]
        wanted = rf"/\* {re.escape(path.name)} - \S.*?\*/"
        comment = re.match(wanted, head, re.DOTALL)
        if comment is None:
            problems.append(f"{name(path)}: must begin with '/* {path.name} - ...'")
        elif "SPDX-License-Identifier: MIT" not in comment[0]:
            problems.append(f"{name(path)}: no SPDX line in the first comment")
    check(problems)


def test_lengths() -> None:
    problems = []
    for path in sources():
        text = path.read_text()
        count = text.count("\n")
        if count > 600:
            problems.append(f"{name(path)}: {count} lines")
        for function, line, length in functions(text):
            if length > 80:
                problems.append(f"{name(path)}:{line}: {function} has {length} lines")
        for number, line_text in enumerate(text.split("\n"), 1):
            if len(line_text) > 79:
                problems.append(f"{name(path)}:{number}: {len(line_text)} columns")
    for path in sorted((ROOT / "tests").rglob("*.py")):
        count = path.read_text().count("\n")
        if count > 600:
            problems.append(f"{name(path)}: {count} lines")
    check(problems)


def test_the_parser_finds_functions() -> None:
    code = (
        "static int\nadd(int a,\n    int b)\n{\n    if (a) {\n        return 1;\n"
        "    }\n    return b; /* } */\n}\n\nvoid\nother(void)\n{\n}\n"
    )
    assert functions(code) == [("add", 2, 8), ("other", 12, 3)]
    total = sum(len(functions(path.read_text())) for path in sources())
    assert total > 100


def test_no_mutable_globals() -> None:
    problems = []
    declaration = re.compile(r"^\s*static\s+(?!inline\b)([^;{}()]*?)(=|;|\[)", re.M)
    for path in sources():
        code = without_comments(path.read_text())
        for match in declaration.finditer(code):
            words = match[1].split()
            if "const" in words or "constexpr" in words or mutable_by_rule(match[1]):
                continue
            line = code.count("\n", 0, match.start()) + 1
            problems.append(f"{name(path)}:{line}: static {match[1].strip()}")
    check(problems)


# What CPython wants writable and never writes, or writes once by itself.
BY_RULE = ("PyMethodDef", "PyMemberDef", "PyGetSetDef", "PyType_Slot", "PyType_Spec")
BY_RULE += ("PyModuleDef", "PyModuleDef_Slot")


def mutable_by_rule(declaration: str) -> bool:
    return any(word in declaration.split() for word in BY_RULE)


def test_no_leftovers() -> None:
    problems = []
    words = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    for path in sources():
        for number, line in enumerate(path.read_text().split("\n"), 1):
            if words.search(line) or re.match(r"\s*#\s*if 0\b", line):
                problems.append(f"{name(path)}:{number}: {line.strip()}")
            if line != line.rstrip() or "\t" in line:
                problems.append(f"{name(path)}:{number}: white space")
    check(problems)


def test_errors_of_libuv_are_made_in_one_place() -> None:
    problems = [
        f"{name(path)}: uses {word}"
        for path in sources()
        if path.name not in ("errors.c", "errors.h")
        for word in ("uv_strerror", "uv_err_name")
        if word in without_comments(path.read_text())
    ]
    check(problems)


def texts() -> Iterator[pathlib.Path]:
    """The text files of the project, without what is made from them."""
    skipped = {".git", "build", "dist", "__pycache__", ".venv"}
    for folder, folders, files in os.walk(ROOT):
        folders[:] = sorted(set(folders) - skipped)
        for path in map(pathlib.Path(folder).joinpath, sorted(files)):
            if path.suffix in TEXTS or path.name in ("Makefile", "run"):
                yield path


def test_no_place_is_named() -> None:
    problems = []
    for path in texts():
        for number, line in enumerate(path.read_text().split("\n"), 1):
            if any(place in line for place in PLACES):
                problems.append(f"{name(path)}:{number}: {line.strip()}")
    check(problems)

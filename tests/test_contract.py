"""The index of asyncio's contract, contract.toml, against the tests it names."""

from __future__ import annotations

import ast
import functools
import tomllib
from typing import Any

import pytest

from support import HERE

POINTS = [f"D{number}" for number in range(1, 37)]
# They look at the sources, or at what is only hotloop's.
ONCE = {
    "test_d36_nothing_of_the_process_is_replaced",
    "test_subinterpreter",
}
LOOP_FIXTURES = {"debug_loop", "loop", "loop_kind", "new_loop"}
INDEX: dict[str, dict[str, Any]] = tomllib.loads((HERE / "contract.toml").read_text())


@functools.cache
def functions_of(file: str) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """The test functions of a file, by name."""
    tree = ast.parse((HERE / file).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name: node for node in tree.body if isinstance(node, kinds)}


def names_of_arguments(test: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    return {argument.arg for argument in test.args.args}


def test_every_point_has_a_row() -> None:
    assert [row for row in INDEX if row in POINTS] == POINTS


@pytest.mark.parametrize("row", INDEX)
def test_row(row: str) -> None:
    """The row says something, and its tests exist and run on both loops."""
    entry = INDEX[row]
    assert set(entry) <= {"says", "tests", "differs"}
    assert entry["says"] and entry["tests"]
    for identity in entry["tests"]:
        file, _, name = identity.partition("::")
        functions = functions_of(file)
        assert name in functions, identity
        if name not in ONCE:
            used = names_of_arguments(functions[name])
            assert used & LOOP_FIXTURES, identity


def test_new_tests_are_in_the_index() -> None:
    named = {identity for entry in INDEX.values() for identity in entry["tests"]}
    made = {
        f"{path.name}::{name}"
        for path in HERE.glob("test_contract_*.py")
        for name in functions_of(path.name)
        if name.startswith("test_")
    }
    assert made <= named, sorted(made - named)

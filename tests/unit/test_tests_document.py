"""tests/README.md and the tests say the same of each other: names of tests, and ids of what goes wrong (`T-…`)."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parents[1]
ID = r"T-[A-Z0-9]+(?:-[A-Z0-9]+)*"
NAME = re.compile(r"`(test_\w+)(?:\[[^`]*\])?`")
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Row:
    """What goes wrong, and the tests that show what comes of it."""

    ids: frozenset[str]
    tests: frozenset[str]


def rows() -> Iterator[Row]:
    """Of the tables with ids."""
    for line in (TESTS / "README.md").read_text().splitlines():
        cells = line.strip("|").split("|")
        if line.startswith("|") and len(cells) == 3:
            yield Row(frozenset(re.findall(ID, cells[1])), frozenset(NAME.findall(cells[2])))


def ids_of_tests() -> dict[str, set[str]]:
    """The ids that a test's docstring begins with, or its module's."""
    found: dict[str, set[str]] = defaultdict(set)
    for module in map(parsed, TESTS.rglob("test_*.py")):
        for node in ast.walk(module):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found[node.name] |= beginning(module) | beginning(node)
    return found


def beginning(node: Documented) -> set[str]:
    ids = re.match(rf"{ID}(?:, {ID})*", ast.get_docstring(node) or "")
    return set(re.findall(ID, ids[0])) if ids else set()


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def test_every_test_that_is_named_exists() -> None:
    named = set(NAME.findall((TESTS / "README.md").read_text()))
    assert len(named) > 300
    assert named - ids_of_tests().keys() == set()


def test_every_id_stands_with_a_test_of_its_row() -> None:
    ids = ids_of_tests()
    wanted = [(one, row.tests) for row in rows() for one in row.ids]
    assert len(wanted) > 100
    assert [one for one, tests in wanted if not any(one in ids[test] for test in tests)] == []


def test_every_id_of_a_docstring_is_in_a_table() -> None:
    nodes = [node for path in TESTS.rglob("*.py") for node in ast.walk(parsed(path)) if isinstance(node, Documented)]
    told = {one for node in nodes for one in re.findall(ID, ast.get_docstring(node) or "")}
    assert told - {one for row in rows() for one in row.ids} == set()

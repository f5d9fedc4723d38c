"""Where a tool is told to look away, it is said why; that the place still needs it is for ruff (RUF100) and mypy."""

from __future__ import annotations

import io
import re
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("benchmarks", "common", "ingress", "migrations", "ops", "sandbox", "schemas", "tests", "workers")
WITH_REASON = re.compile(r"# (noqa: [A-Z]+[0-9]+(, [A-Z]+[0-9]+)*|type: ignore\[[a-z, -]+\])  # \S.*")
OF_A_FILE = re.compile(r"# mypy: ignore-errors\n# \S.*")
SUPPRESSION = re.compile(
    r"#\s*(noqa|type:\s*ignore|pragma|pylint|pyright|nosec|mypy:|ruff:|flake8:|isort:)", re.IGNORECASE
)


def without_reason(source: str) -> Iterator[str]:
    """Each comment that suppresses and does not say why."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or not SUPPRESSION.search(token.string):
            continue
        with_next = "\n".join(lines[token.start[0] - 1 : token.start[0] + 1])
        if not WITH_REASON.fullmatch(token.string) and not OF_A_FILE.fullmatch(with_next):
            yield f"line {token.start[0]}: {token.string}"


def test_every_suppression_has_its_reason() -> None:
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 400
    assert [f"{path.relative_to(ROOT)}, {one}" for path in files for one in without_reason(path.read_text())] == []


@pytest.mark.parametrize(
    "comment",
    [
        "noqa",
        "NOQA: S105",
        "noqa: S105 - why",
        "type: ignore",
        "type: ignore  # why",
        "type: ignore[misc]",
        "pragma: no cover",
        "mypy: ignore-errors",
        "ruff: noqa",
        "nosec",
    ],
)
def test_one_without_is_found(comment: str) -> None:
    assert list(without_reason(f"x = 1  # {comment}\n"))


@pytest.mark.parametrize(
    "comment", ["noqa: S105  # why", "noqa: S105, E501  # why", "type: ignore[misc]  # why", "why"]
)
def test_one_with_its_reason_is_none(comment: str) -> None:
    assert not list(without_reason(f"x = 1  # {comment}\n"))


def test_what_is_ignored_for_whole_folders_has_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    lint = tomllib.loads(text)["tool"]["ruff"]["lint"]
    told = dict(re.findall(r'^"(.+)" = \[.*\] # (\S.*)$', text, re.MULTILINE))
    assert set(told) == set(lint["per-file-ignores"])
    general = "\n".join(re.findall(r"^    ((?:\"[A-Z0-9]+\", ?)+) *# \S.*$", text, re.MULTILINE))
    assert set(re.findall(r"[A-Z]+[0-9]+", general)) == set(lint["ignore"])

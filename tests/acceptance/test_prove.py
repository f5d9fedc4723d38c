"""`gateway prove` as somebody runs it who does not trust us: its ledger, its exit codes, what it refuses."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.saboteur import MARK
from tests.waiting import within

pytestmark = pytest.mark.timeout(1500)
"""Beyond `within`: what was said until then is told."""


async def prove(*arguments: str) -> tuple[int, str]:
    """Exit code, and all that it said."""
    return await ended("-m", "ops", "prove", *arguments)


async def ended(*arguments: str) -> tuple[int, str]:
    """The same of any Python program."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with within(300):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:  # its own children end with it
            process.kill()
            await process.wait()
    return process.returncode or 0, said.decode()


def ledger(said: str) -> dict[str, int]:
    return {name: int(number) for name, number in re.findall(r"^(\w+): (\d+)$", said, re.MULTILINE)}


async def test_everything_fails_and_nothing_is_lost(tmp_path: Path) -> None:
    """T-SOAK."""
    code, said = await prove("--minutes", "0.4", "--seed", "5", "--work", str(tmp_path / "work"))
    assert code == 0, said
    found = ledger(said)
    assert {found[name] for name in ("lost", "gaps", "stale", "foreign", "overlapping", "violations")} == {0}
    assert found["webhooks_accepted"] > 75, "more than the first burst, of 65"
    assert "broker killed, for" in said
    assert "clock an hour ahead, for" in said
    assert "seed 5" in said


async def test_a_gateway_that_loses_something_is_found_out(tmp_path: Path) -> None:
    """T-SOAK: what `tests.saboteur` does to webhooks, events and tokens."""
    code, said = await ended("-m", "tests.sabotaged", str(tmp_path / "work"))
    assert code == 1, said
    found = ledger(said)
    assert [name for name in ("lost", "gaps", "presented_again") if not found.get(name)] == [], said
    dropped = (tmp_path / "work" / MARK).read_text().split()
    assert any(f"(delivery {one})" in said for one in dropped), "not only what is still to come counts as lost"


async def test_a_database_that_is_somebody_s_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with closing(sqlite3.connect(path)) as theirs:
        theirs.execute("CREATE TABLE precious (id INTEGER)")
    code, said = await prove("--database-url", f"sqlite+aiosqlite:///{path}", "--work", str(tmp_path / "work"))
    assert code == 1
    assert "not empty" in said
    with closing(sqlite3.connect(path)) as theirs:
        assert theirs.execute("SELECT name FROM sqlite_master").fetchall() == [("precious",)]


async def test_so_little_proves_nothing(tmp_path: Path) -> None:
    code, said = await prove("--minutes", "0", "--work", str(tmp_path / "work"))
    assert code == 2
    assert "--minutes" in said

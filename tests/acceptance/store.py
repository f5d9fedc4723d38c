"""The gateway's store, asked and changed behind its back."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import asyncpg  # type: ignore[import-untyped, unused-ignore]  # it ships no types

from tests.fixtures.postgresql import run as run_apart

SECONDS = 90.0
"""A deadline for a busy machine."""
_FILE = "sqlite+aiosqlite:///"


def ask(database_url: str, statement: str) -> list[Sequence[Any]]:
    """The rows that the statement gives; it is committed."""
    if not database_url.startswith(_FILE):
        return run_apart(_ask_postgresql(database_url, statement))
    with sqlite3.connect(database_url.removeprefix(_FILE), timeout=30) as store:
        rows = store.execute(statement).fetchall()
    store.close()
    return rows


async def _ask_postgresql(url: str, statement: str) -> list[Sequence[Any]]:
    connection = await asyncpg.connect(url.replace("postgresql+asyncpg:", "postgresql:", 1), command_timeout=SECONDS)
    try:
        return [tuple(row) for row in await connection.fetch(statement)]
    finally:
        await connection.close()

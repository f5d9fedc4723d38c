"""tests.fixtures.database: every test has a database to itself, with the schema; a private server can be had."""

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.fixtures.postgresql import database, private_server, run


async def _first(url: str, *statements: str) -> object:
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            for statement in statements:
                result = await connection.execute(text(statement))
            return result.scalar()
    finally:
        await engine.dispose()


@pytest.mark.parametrize("_", [1, 2])
async def test_nobody_else_s_rows_are_in_it(database_url: str, _: int) -> None:
    create, count = "CREATE TABLE mine (n INTEGER)", "SELECT count(*) FROM mine"
    assert await _first(database_url, create, "INSERT INTO mine VALUES (1)", count) == 1
    assert await _first(database_url, "SELECT count(*) FROM listing") == 0


async def test_an_empty_one_has_no_schema(empty_database_url: str) -> None:
    kind = "sqlite_master" if empty_database_url.startswith("sqlite") else "information_schema.tables"
    name = "name" if kind == "sqlite_master" else "table_name"
    assert await _first(empty_database_url, f"SELECT count(*) FROM {kind} WHERE {name} = 'listing'") == 0


def test_a_private_server_runs_even_as_root(postgresql_binaries: Path) -> None:
    with private_server(postgresql_binaries) as server, database(server, "x") as url:
        assert run(_first(url, "SHOW fsync")) == "off"
        assert "5432" not in url

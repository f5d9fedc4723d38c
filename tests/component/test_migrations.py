"""Migrations carry everything along that an older version of ours has written."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import (
    BigInteger,
    Boolean,
    Connection,
    DateTime,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    select,
    text,
)

from common.store.engine import Store
from common.store.schema import current_revision, head_revision, revisions
from ops.migrating import alembic_config, schema_differences, upgrade

AT = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC)
GIVEN_AWAY = {("connection", "resync_at")}
"""Columns that a later schema keeps elsewhere: a connection's next resync is its feed's."""


EARLIER = [script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()][:0:-1]
"""Every version but the newest, the oldest first: a new migration is tested from the day it is written."""


def test_there_is_something_to_come_from() -> None:
    assert EARLIER[:6] == ["0001", "0002", "0003", "0004", "0005", "0006"]
    assert head_revision() not in EARLIER


def test_processes_know_the_versions_that_there_are() -> None:
    """They tell them from the names of the files: what the files say is Alembic's to read."""
    assert revisions() == [*EARLIER, ScriptDirectory.from_config(alembic_config()).get_current_head()]


async def test_the_tables_are_those_that_the_code_writes_to(database_url: str) -> None:
    """A migration that forgets a column, an index or a type is told of, and so is what somebody changed by hand."""
    store = Store(database_url)
    assert await schema_differences(store) == []
    for statement in (
        "DROP INDEX ix_event_created",
        "ALTER TABLE parked DROP COLUMN attempts",
        "CREATE TABLE x (y int)",
    ):
        async with store.transaction() as transaction:
            await transaction.execute(text(statement))
    assert sorted(await schema_differences(store)) == [
        "column parked.attempts is missing",
        "index ix_event_created is missing",
        "table x is one too many",
    ]
    await store.close()


@pytest.mark.parametrize("revision", EARLIER)
async def test_an_older_schema_with_rows_in_every_table_comes_to_the_newest_whole(
    empty_database_url: str, revision: str
) -> None:
    """T-MIGRATE: every value of every table is still there, and an older program may go on writing its rows."""
    store = Store(empty_database_url)
    await _do(store, _alembic(command.upgrade, revision))
    old = await _do(store, _tables)
    written = {name: [_row(table, number, store.postgres) for number in (1, 2)] for name, table in old.items()}
    await _do(store, lambda connection: _put(connection, old, written))
    await upgrade(empty_database_url)
    assert await current_revision(store) == head_revision()
    new = await _do(store, _tables)
    found = await _do(store, lambda connection: _get(connection, new, written))
    assert found == {name: list(map(_kept(name), rows)) for name, rows in written.items()}
    later = {name: [_kept(name)(_row(table, 3, store.postgres))] for name, table in old.items()}
    await _do(store, lambda connection: _put(connection, new, later))
    await store.close()


async def test_what_schema_2_adds_is_derived_from_what_was_there(empty_database_url: str) -> None:
    """T-MIGRATE: what is due keeps its order, listings know whose answer wrote them, feeds when they are read again."""
    store = Store(empty_database_url)
    await _do(store, _alembic(command.upgrade, "0001"))
    old = await _do(store, _tables)
    target, listing = (_row(old[name], 1, store.postgres) for name in ("target", "listing"))
    connection = _row(old["connection"], 1, store.postgres)
    rows = {
        "connection": [connection],
        "target": [{**target, "url": f"https://x/{wanted}", "wanted": wanted} for wanted in (7, 5)],
        "listing": [
            {**listing, "listing_id": shape, "written_by": shape, "began": 4, "ended": 6} for shape in ("item", "list")
        ],
    }
    await _do(store, lambda one: _put(one, old, rows))
    await upgrade(empty_database_url)
    new = await _do(store, _tables)

    def ask(one: Connection) -> tuple[list[Any], list[Any], list[Any]]:
        targets, listings, feeds = new["target"], new["listing"], new["feed"]
        return (
            [tuple(row) for row in one.execute(select(targets.c.turn, targets.c.wanted).order_by(targets.c.turn))],
            [tuple(row) for row in one.execute(select(listings.c.written_by, listings.c.own_began))],
            [tuple(row) for row in one.execute(select(feeds.c.connection_id, feeds.c.resync_at, feeds.c.first_read))],
        )

    targets, listings, feeds = await _do(store, ask)
    assert targets == [(5, 5), (7, 7)]
    assert sorted(listings) == [("item", 4), ("list", 0)]
    assert feeds == [(1, connection["resync_at"], True)]
    await _do(store, _alembic(command.downgrade, "0001"))
    back = await _do(store, _tables)
    kept = await _do(store, lambda one: _get(one, back, rows))
    assert kept["connection"] == rows["connection"]
    await store.close()


async def test_what_schema_3_has_told_was_told_by_version_1_of_its_schemas(empty_database_url: str) -> None:
    """T-MIGRATE: and so is what a program of before writes after; the way back keeps all else, indexes too."""
    store = Store(empty_database_url)
    await _do(store, _alembic(command.upgrade, "0003"))
    before = await _do(store, _tables)
    rows = {"event": [_row(before["event"], 1, store.postgres)]}
    await _do(store, lambda one: _put(one, before, rows))
    await upgrade(empty_database_url)
    await _do(store, lambda one: _put(one, before, {"event": [_row(before["event"], 2, store.postgres)]}))
    event = (await _do(store, _tables))["event"]
    assert await _do(store, lambda one: [*one.execute(select(event.c.schema_version))]) == [(1,), (1,)]
    await _do(store, _alembic(command.downgrade, "0003"))
    after = await _do(store, _tables)
    assert await _do(store, lambda one: _get(one, after, rows)) == rows
    assert _indexes(after["event"]) == _indexes(before["event"])
    await store.close()


def _indexes(table: Table) -> dict[str, str]:
    """By name, with what they are over and of which rows."""
    return {
        str(one.name): f"{[*one.columns.keys()]} {sorted(map(str, one.dialect_kwargs.values()))}"
        for one in table.indexes
    }


async def _do(store: Store, work: Callable[[Connection], Any]) -> Any:
    async with store.transaction() as transaction:
        return await transaction.execute_sync(work)


def _alembic(what: Callable[..., None], revision: str) -> Callable[[Connection], None]:
    def run(connection: Connection) -> None:
        config = alembic_config()
        config.attributes["connection"] = connection
        what(config, revision)

    return run


def _tables(connection: Connection) -> dict[str, Table]:
    """As the database has them, whatever the code believes."""
    found = MetaData()
    found.reflect(connection)
    return {name: table for name, table in found.tables.items() if name != "alembic_version"}


def _row(table: Table, number: int, postgres: bool) -> dict[str, Any]:
    return {column.name: _value(column.name, column.type, number, postgres) for column in table.columns}


def _value(name: str, kind: Any, number: int, postgres: bool) -> Any:
    if isinstance(kind, Boolean):
        return True
    if isinstance(kind, Integer | BigInteger):
        return number
    if isinstance(kind, Float):
        return number + 0.5
    if isinstance(kind, DateTime):
        return AT if postgres else AT.replace(tzinfo=None)
    if isinstance(kind, LargeBinary):
        return bytes([0, 255, number])
    return f"{name} ✓ {number}"


def _kept(table: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda row: {name: value for name, value in row.items() if (table, name) not in GIVEN_AWAY}


def _put(connection: Connection, tables: dict[str, Table], rows: dict[str, list[dict[str, Any]]]) -> None:
    for name, some in rows.items():
        connection.execute(tables[name].insert(), some)


def _get(
    connection: Connection, tables: dict[str, Table], like: dict[str, list[dict[str, Any]]]
) -> dict[str, list[dict[str, Any]]]:
    """The rows of those tables with the columns that are still there, without rows that a migration itself made."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, some in like.items():
        table = tables[name]
        columns = [table.c[one] for one in some[0] if one in table.c]
        key = next(iter(table.primary_key.columns)).name
        rows = [row._asdict() for row in connection.execute(select(*columns))]
        mine = {row[key] for row in some}
        found[name] = sorted(
            (row for row in rows if row[key] in mine), key=lambda row: str(sorted(row.items(), key=str))
        )
    return found

"""Many rows of a page in one statement, without SQLAlchemy's work for each value of each row: two thirds of a write.

PostgreSQL takes each column as an array, SQLite's driver takes the rows. What is alike in all rows is given once.
Statements are put together from names of our own tables and columns alone (S608).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache, partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, Text, any_, bindparam, text
from sqlalchemy.dialects import postgresql, sqlite

from common.codec import dumps
from common.errors import Permanent
from common.store.engine import Transaction

Values = Mapping[str, Any]
"""By column."""

_POSTGRES, _SQLITE = postgresql.dialect(), sqlite.dialect()  # type: ignore[no-untyped-call]


async def insert_rows(transaction: Transaction, table: Table, rows: Sequence[Values], alike: Values) -> None:
    """Insert them, at least one, in order; each row has the same columns.

    Raises:
        Permanent: `unstorable`, as `Transaction.execute` has it.
    """
    names, common = tuple(rows[0]), tuple(alike)
    if transaction.postgres:
        await transaction.execute(_postgres_insert(table, names, common), {**alike, **_arrays(names, rows)})
        return
    statement = f"INSERT INTO {table.name} ({', '.join(names + common)}) VALUES ({_marks(names + common)})"  # noqa: S608
    shared = tuple(_sqlite_values(table, alike))
    await _many(transaction, statement, [(*row.values(), *shared) for row in rows])


async def update_rows(
    transaction: Transaction, table: Table, rows: Sequence[Values], alike: Values, key: Values, *, by: str
) -> None:
    """Set the other columns, and those that are `alike`, of the rows with this `key` by their column `by`; each row has
    the same columns. The caller has locked them.

    Raises:
        Permanent: `unstorable`, as `Transaction.execute` has it.
    """
    names = tuple(name for name in rows[0] if name != by)
    if transaction.postgres:
        statement = _postgres_update(table, names, tuple(alike), tuple(key), by)
        await transaction.execute(statement, {**key, **alike, **_arrays((by, *names), rows)})
        return
    set_ = ", ".join(f"{name} = ?" for name in (*names, *alike))
    where = " AND ".join(f"{name} = ?" for name in (by, *key))
    shared = _sqlite_values(table, alike)
    values = [(*(row[name] for name in names), *shared, row[by], *key.values()) for row in rows]
    statement = f"UPDATE {table.name} SET {set_} WHERE {where}"  # noqa: S608
    await _many(transaction, statement, values)


def is_one_of_those(column: ColumnElement[str], postgres: bool) -> ColumnElement[bool]:
    """A condition with one value, which `those` gives: the same statement however many there are."""
    if postgres:
        return column == any_(bindparam("those", type_=postgresql.ARRAY(Text)))
    return column.in_(text("SELECT value FROM json_each(:those)"))


def those(transaction: Transaction, texts: Sequence[str]) -> dict[str, Any]:
    """The value of `is_one_of_those`."""
    return {"those": list(texts) if transaction.postgres else dumps(texts).decode()}


@lru_cache(maxsize=256)
def _postgres_insert(table: Table, names: tuple[str, ...], common: tuple[str, ...]) -> Any:
    chosen = [*(f"given.{name}" for name in names), *(_cast(table, name) for name in common)]
    # In order of the arrays: positions in the table follow positions in the page.
    into = f"INSERT INTO {table.name} ({', '.join(names + common)})"
    return text(f"{into} SELECT {', '.join(chosen)} FROM {_given(table, names)}")  # noqa: S608


@lru_cache(maxsize=256)
def _postgres_update(
    table: Table, names: tuple[str, ...], alike: tuple[str, ...], key: tuple[str, ...], by: str
) -> Any:
    set_ = [*(f"{name} = given.{name}" for name in names), *(f"{name} = {_cast(table, name)}" for name in alike)]
    where = [f"{table.name}.{by} = given.{by}", *(f"{table.name}.{name} = {_cast(table, name)}" for name in key)]
    given = _given(table, (by, *names))
    return text(f"UPDATE {table.name} SET {', '.join(set_)} FROM {given} WHERE {' AND '.join(where)}")  # noqa: S608


def _given(table: Table, names: Sequence[str]) -> str:
    arrays = ", ".join(_cast(table, name, "[]") for name in names)
    return f"unnest({arrays}) AS given({', '.join(names)})"


def _cast(table: Table, name: str, array: str = "") -> str:
    return f"CAST(:{name} AS {table.c[name].type.compile(_POSTGRES)}{array})"


def _arrays(names: Sequence[str], rows: Sequence[Values]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in names}


def _marks(names: Sequence[str]) -> str:
    return ", ".join("?" * len(names))


def _sqlite_values(table: Table, values: Values) -> list[Any]:
    """As SQLAlchemy writes them: the driver's own spelling of a moment is another."""
    return [_sqlite_moment(table, name, one) if isinstance(one, datetime) else one for name, one in values.items()]


def _sqlite_moment(table: Table, name: str, moment: datetime) -> Any:
    spell = table.c[name].type.dialect_impl(_SQLITE).bind_processor(_SQLITE)
    return moment if spell is None else spell(moment)


async def _many(transaction: Transaction, statement: str, values: Sequence[tuple[Any, ...]]) -> None:
    try:
        await transaction.execute_sync(partial(_run, statement=statement, values=values))
    except (OverflowError, UnicodeEncodeError):
        # Without the cause: it quotes the value.
        raise Permanent("unstorable", "the database cannot hold a value in it") from None


def _run(connection: Connection, statement: str, values: Sequence[tuple[Any, ...]]) -> None:
    connection.exec_driver_sql(statement, list(values))

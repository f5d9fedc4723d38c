"""Many rows in one statement, without SQLAlchemy's work for each value of each row: two thirds of a write.

PostgreSQL takes each column as an array, SQLite's driver takes the rows. What is alike in all rows is given once.
Statements are put together from names of our own tables and columns alone (S608).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import lru_cache, partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, any_, bindparam, text
from sqlalchemy.dialects import postgresql, sqlite

from common.codec import dumps
from common.errors import Permanent
from common.store.engine import Transaction

Values = Mapping[str, Any]
"""By column."""

_POSTGRES, _SQLITE = postgresql.dialect(), sqlite.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's own lack a type


async def insert_rows(transaction: Transaction, table: Table, rows: Sequence[Values], alike: Values) -> None:
    """Insert them, at least one, in order; each row has the same columns.

    Raises:
        Permanent: `unstorable`, as `Transaction.execute` has it.
    """
    names, common = tuple(rows[0]), tuple(alike)
    if transaction.postgres:
        await transaction.execute(_postgres_insert(table, names, common), {**alike, **_arrays(names, rows)})
    else:
        await _sqlite_insert(transaction, table, rows, alike)


async def insert_missing(
    transaction: Transaction, table: Table, rows: Sequence[Values], alike: Values, *, key: str
) -> set[str]:
    """As `insert_rows`, of rows that somebody else may have inserted since the caller looked: by this column, those
    that were not. On SQLite nobody can have, within one transaction."""
    if not transaction.postgres:
        await _sqlite_insert(transaction, table, rows, alike)
        return {row[key] for row in rows}
    names = tuple(rows[0])
    statement = _postgres_insert(table, names, tuple(alike), f"ON CONFLICT DO NOTHING RETURNING {key}")
    return {row[0] for row in await transaction.rows(statement, {**alike, **_arrays(names, rows)})}


async def update_rows(
    transaction: Transaction, table: Table, rows: Sequence[Values], alike: Values, *, by: Sequence[str]
) -> None:
    """Set the other columns, and those that are `alike`, of the rows with these values in the columns `by`; each row
    has the same columns. The caller has locked them.

    Raises:
        Permanent: `unstorable`, as `Transaction.execute` has it.
    """
    names = tuple(name for name in rows[0] if name not in by)
    if transaction.postgres:
        statement = _postgres_update(table, names, tuple(alike), tuple(by))
        await transaction.execute(statement, {**alike, **_arrays((*by, *names), rows)})
        return
    set_ = ", ".join(f"{name} = ?" for name in (*names, *alike))
    where = " AND ".join(f"{name} = ?" for name in by)
    shared = _sqlite_values(table, alike)
    values = [(*(row[name] for name in names), *shared, *(row[name] for name in by)) for row in rows]
    statement = f"UPDATE {table.name} SET {set_} WHERE {where}"  # noqa: S608  # names of our own tables and columns
    await _many(transaction, statement, values)


def is_one_of(column: ColumnElement[Any], name: str, postgres: bool) -> ColumnElement[bool]:
    """A condition with one value of this name, which `given` makes: the same statement however many there are."""
    if postgres:
        return column == any_(bindparam(name, type_=postgresql.ARRAY(column.type)))
    return column.in_(text(f"SELECT value FROM json_each(:{name})"))  # noqa: S608  # names of our own tables and columns


def given(transaction: Transaction, values: Collection[str] | Collection[int]) -> Any:
    """The value of `is_one_of`."""
    return list(values) if transaction.postgres else dumps(list(values)).decode()


@lru_cache(maxsize=256)
def _postgres_insert(table: Table, names: tuple[str, ...], common: tuple[str, ...], more: str = "") -> Any:
    chosen = [*(f"given.{name}" for name in names), *(_cast(table, name) for name in common)]
    # In order of the arrays: positions in the table follow positions in the page.
    into = f"INSERT INTO {table.name} ({', '.join(names + common)})"
    return text(f"{into} SELECT {', '.join(chosen)} FROM {_given(table, names)} {more}")  # noqa: S608  # names of our own tables and columns


@lru_cache(maxsize=256)
def _postgres_update(table: Table, names: tuple[str, ...], alike: tuple[str, ...], by: tuple[str, ...]) -> Any:
    set_ = [*(f"{name} = given.{name}" for name in names), *(f"{name} = {_cast(table, name)}" for name in alike)]
    where = " AND ".join(f"{table.name}.{name} = given.{name}" for name in by)
    return text(f"UPDATE {table.name} SET {', '.join(set_)} FROM {_given(table, (*by, *names))} WHERE {where}")  # noqa: S608  # names of our own tables and columns


def _given(table: Table, names: Sequence[str]) -> str:
    arrays = ", ".join(_cast(table, name, "[]") for name in names)
    return f"unnest({arrays}) AS given({', '.join(names)})"


def _cast(table: Table, name: str, array: str = "") -> str:
    return f"CAST(:{name} AS {table.c[name].type.compile(_POSTGRES)}{array})"


def _arrays(names: Sequence[str], rows: Sequence[Values]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in names}


async def _sqlite_insert(transaction: Transaction, table: Table, rows: Sequence[Values], alike: Values) -> None:
    names = (*rows[0], *alike)
    statement = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({_marks(names)})"  # noqa: S608  # names of our own tables and columns
    shared = tuple(_sqlite_values(table, alike))
    await _many(transaction, statement, [(*_sqlite_values(table, row), *shared) for row in rows])


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

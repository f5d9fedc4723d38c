"""Erasing a person: what is theirs at once, what is kept of their connections batch by batch; and nothing comes back.

A connection's number stays, revoked and nobody's, for ever: so its tokens stay refused, whatever comes late for it is
not written (`erased_among`), and no other user, nor the same one anew, takes it over: whoever connects again gets
another number from Syncaroo.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Table, and_, bindparam, delete, exists, select, text, update

from common.store.connections import revoke_connection
from common.store.engine import Store, Transaction
from schemas.events import ConnectionChanged
from schemas.tables import (
    NOBODY,
    AttemptRow,
    CodeRow,
    ConnectionRow,
    ErasureRow,
    EventRow,
    FeedRow,
    InventoryRow,
    ListingRow,
    ParkedRow,
    RefusedRow,
    SuspectRow,
    TargetRow,
    UserRow,
    table_of,
)

BATCH = 500

OF_A_USER = (table_of(UserRow), table_of(CodeRow), table_of(InventoryRow))
"""Few rows, gone in one transaction; in the order in which consent and redemption lock them."""
OF_A_CONNECTION = (
    table_of(TargetRow),
    table_of(AttemptRow),
    table_of(SuspectRow),
    table_of(ListingRow),
    table_of(EventRow),
    table_of(ParkedRow),
    table_of(RefusedRow),
    table_of(FeedRow),
)
"""Perhaps very many, gone in batches; targets first: only who still finds its target writes down an attempt."""

_connection = table_of(ConnectionRow)
_erasure = table_of(ErasureRow)
_event = table_of(EventRow)


async def erase_person(transaction: Transaction, user_id: str) -> list[int] | None:
    """Erase what is theirs, and revoke their connections, which become nobody's. None: nothing is known of them.

    Gives the connections, of which the rest is still to be erased. Whoever writes for one of them just now is waited
    for; who comes later finds it erased.
    """
    await _overwrite(transaction)
    gone = [await transaction.execute(delete(table).where(table.c.user_id == user_id)) for table in OF_A_USER]
    theirs = select(_connection.c.connection_id).where(_connection.c.user_id == user_id)
    rows = await transaction.rows(theirs.order_by(_connection.c.connection_id).with_for_update())
    connections = [row.connection_id for row in rows]
    for connection_id in connections:
        await revoke_connection(transaction, connection_id)
    if connections:
        nobodys = update(_connection).where(_connection.c.connection_id.in_(connections)).values(user_id=NOBODY)
        await transaction.execute(nobodys)
        since = await transaction.now()
        await transaction.execute(
            _erasure.insert(), [{"connection_id": connection_id, "since": since} for connection_id in connections]
        )
    return connections if connections or any(one.rowcount for one in gone) else None


async def erased_among(transaction: Transaction, connections: Collection[int]) -> frozenset[int]:
    """Those of the connections of which nothing is to be written any more; none of the others becomes one of them
    before the transaction has ended."""
    if not connections:
        return frozenset()
    query = select(_connection.c.connection_id, _connection.c.user_id)
    query = query.where(_connection.c.connection_id.in_(sorted(connections))).order_by(_connection.c.connection_id)
    # The weakest lock: it stands in the way of erasing alone, not of confirming or revoking.
    rows = await transaction.rows(query.with_for_update(read=True, key_share=True))
    return frozenset(row.connection_id for row in rows if row.user_id == NOBODY)


def is_being_erased(connection_id: Any) -> ColumnElement[bool]:
    """For queries over what leaves the house: whether rows of this connection are only still there."""
    return exists().where(_erasure.c.connection_id == connection_id)


class ErasureStore:
    """What is still to be erased; each method is one transaction, and any number of processes may do it at once."""

    def __init__(self, store: Store, *, batch: int = BATCH) -> None:
        self._store = store
        self._batch = batch

    async def erase(self, user_id: str) -> list[int] | None:
        """`erase_person`."""
        async with self._store.transaction() as transaction:
            return await erase_person(transaction, user_id)

    async def waiting(self) -> list[int]:
        """Connections of which something may be left."""
        async with self._store.reading() as transaction:
            rows = await transaction.rows(select(_erasure.c.connection_id).order_by(_erasure.c.connection_id))
        return [row.connection_id for row in rows]

    async def erase_some(self, connection_id: int) -> bool:
        """Erase the next rows of a connection; False: there are none now.

        An event that tells whose connection it was stays until subscribers have been told that it ended.
        """
        async with self._store.transaction() as transaction:
            mine = select(_erasure).where(_erasure.c.connection_id == connection_id)
            if await transaction.row(mine.with_for_update(skip_locked=True)) is None:
                return False
            await _overwrite(transaction)
            for table in OF_A_CONNECTION:
                if await self._delete_some(transaction, table, connection_id):
                    return True
            await self._conclude(transaction, connection_id)
        return False

    async def _delete_some(self, transaction: Transaction, table: Table, connection_id: int) -> bool:
        key = tuple(table.primary_key.columns)
        which = [table.c.connection_id == connection_id, *([~_is_untold()] if table is _event else [])]
        rows = await transaction.rows(select(*key).where(*which).limit(self._batch))
        if not rows:
            return False
        # One by one, as SQLite finds no list of keys by the index; in the order in which others lock them.
        statement = delete(table).where(*(column == bindparam(f"key_{column.name}") for column in key))
        ordered = sorted(tuple(row) for row in rows)
        names = [f"key_{column.name}" for column in key]
        await transaction.execute(statement, [dict(zip(names, values, strict=True)) for values in ordered])
        return True

    async def _conclude(self, transaction: Transaction, connection_id: int) -> None:
        untold = select(_event.c.event_id).where(_event.c.connection_id == connection_id, _is_untold())
        if await transaction.row(untold.limit(1)) is None:
            await transaction.execute(delete(_erasure).where(_erasure.c.connection_id == connection_id))


async def _overwrite(transaction: Transaction) -> None:
    """Have SQLite write zeros over what is deleted; else its file keeps it in free pages."""
    if not transaction.postgres:
        await transaction.execute(text("PRAGMA secure_delete = ON"))


def _is_untold() -> ColumnElement[bool]:
    return and_(_event.c.type == ConnectionChanged.TYPE, _event.c.published_at.is_(None))

"""Whose connections there are; ending one, reading everything of one again."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Select, select

from common.store.connections import revoke_connection
from common.store.engine import Store, Transaction
from common.store.targets import want_known
from ingress.admin.rules import Paging
from schemas.tables import NOBODY, ConnectionRow, FeedRow, table_of

_connection = table_of(ConnectionRow)
_feed = table_of(FeedRow)


class Connection(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A user's connection. `state`: authorised, confirmed, revoked. `user_id` is null once its user was erased.

    `heard_at` is when its latest webhook was taken up, `silent_since` is set while that is unusually long ago, and
    `next_resync_at` is when everything known of it is read again by plan.
    """

    connection_id: int
    user_id: str | None
    state: str
    created_at: datetime
    confirmed_at: datetime | None
    revoked_at: datetime | None
    heard_at: datetime | None
    silent_since: datetime | None
    next_resync_at: datetime | None


class ConnectionStore:
    """Users' connections; every method is one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def connections(self, user_id: str | None, paging: Paging) -> list[Connection]:
        """Connections (of one user, or of all) by number, after the cursor's."""
        query = _connections().order_by(_connection.c.connection_id).limit(paging.limit)
        if user_id is not None:
            query = query.where(_connection.c.user_id == user_id)
        if paging.after is not None:
            query = query.where(_connection.c.connection_id > paging.after[0])
        async with self._store.reading() as transaction:
            return [_shown(row) for row in await transaction.rows(query)]

    async def connection(self, connection_id: int) -> Connection | None:
        """One connection."""
        async with self._store.reading() as transaction:
            return await _connection_of(transaction, connection_id)

    async def revoke(self, connection_id: int) -> bool:
        """Revoke a connection; False: there is none."""
        async with self._store.transaction() as transaction:
            await revoke_connection(transaction, connection_id)
            return await _connection_of(transaction, connection_id) is not None

    async def resync(self, connection_id: int, location_id: str | None) -> int:
        """Make all that is known of a connection, or of one of its locations, wanted; gives the number of targets."""
        return await want_known(self._store, connection_id, "hand", location_id)


def _connections() -> Select[Any]:
    feed = (_feed.c.heard_at, _feed.c.silent_since, _feed.c.resync_at.label("next_resync_at"))
    together = _connection.outerjoin(_feed, _feed.c.connection_id == _connection.c.connection_id)
    return select(_connection, *feed).select_from(together)


async def _connection_of(transaction: Transaction, connection_id: int) -> Connection | None:
    row = await transaction.row(_connections().where(_connection.c.connection_id == connection_id))
    return None if row is None else _shown(row)


def _shown(row: Any) -> Connection:
    """What operators see of it; the row knows more."""
    values = {name: getattr(row, name) for name in Connection.__struct_fields__}
    return Connection(**values | {"user_id": None if row.user_id == NOBODY else row.user_id})

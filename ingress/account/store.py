"""A user's own connections, and ending one of them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, select

from common.store.connections import revoke_connection
from common.store.engine import Store
from ingress.account.rules import Connection
from schemas.tables import ConnectionRow, FeedRow, table_of

SHOWN = 200

_connection = table_of(ConnectionRow)
_feed = table_of(FeedRow)


class AccountStore:
    """Nobody's but the user's own; every method is one transaction and may raise `StoreUnavailable`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def connections(self, user_id: str) -> list[Connection]:
        """The live ones first, each kind by number; at most 200."""
        order = (_connection.c.state == "revoked", _connection.c.connection_id)
        async with self._store.reading() as transaction:
            rows = await transaction.rows(_of(user_id).order_by(*order).limit(SHOWN))
        return [Connection(**row._mapping) for row in rows]

    async def connection(self, user_id: str, connection_id: int) -> Connection | None:
        """One of them; None: there is none, or it is another user's."""
        async with self._store.reading() as transaction:
            row = await transaction.row(_of(user_id).where(_connection.c.connection_id == connection_id))
        return None if row is None else Connection(**row._mapping)

    async def revoke(self, connection_id: int) -> None:
        """End it, as an operator's DELETE does; whose it is never changes, so that was asked before."""
        async with self._store.transaction() as transaction:
            await revoke_connection(transaction, connection_id)


def _of(user_id: str) -> Select[Any]:
    """As `Connection` has it."""
    named = [_connection.c[name] for name in ("connection_id", "state", "created_at", "confirmed_at", "revoked_at")]
    together = _connection.outerjoin(_feed, _feed.c.connection_id == _connection.c.connection_id)
    return select(*named, _feed.c.heard_at).select_from(together).where(_connection.c.user_id == user_id)

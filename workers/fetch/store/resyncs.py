"""When each connection is read again."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from sqlalchemy import exists, or_, select, update

from common.store.engine import Store, Transaction
from common.store.targets import want_known
from schemas.tables import ConnectionRow, FeedRow, table_of
from workers.fetch.rules import next_resync

RESYNC_BATCH = 20

_connection = table_of(ConnectionRow)
_feed = table_of(FeedRow)


class ResyncStore:
    """The plan of resyncs."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def resync_due(self, interval: timedelta) -> list[int]:
        """Plan the next resync of every connection whose time has come, and make its targets wanted.

        A connection that has no plan yet gets one at a random moment of the interval, so that not all come at once.
        Gives the connections that are read again.
        """
        async with self._store.transaction() as transaction:
            now = await transaction.now()
            revoked = exists().where(
                _connection.c.connection_id == _feed.c.connection_id, _connection.c.state == "revoked"
            )
            rows = await transaction.rows(
                select(_feed.c.connection_id, _feed.c.resync_at)
                .where(or_(_feed.c.resync_at.is_(None), _feed.c.resync_at <= now), ~revoked)
                .order_by(_feed.c.connection_id)
                .limit(RESYNC_BATCH)
                .with_for_update(skip_locked=True, of=_feed)
            )
            for row in rows:
                spread = random.random()  # noqa: S311  # spreads load, guards nothing
                wait = next_resync(interval, spread, first=row.resync_at is None)
                await self._plan(transaction, row.connection_id, now + wait)
            due = [row.connection_id for row in rows if row.resync_at is not None]
            for connection_id in due:
                await want_known(transaction, connection_id, "resync")
            return due

    async def _plan(self, transaction: Transaction, connection_id: int, at: datetime) -> None:
        await transaction.execute(update(_feed).where(_feed.c.connection_id == connection_id).values(resync_at=at))

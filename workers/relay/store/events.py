"""Event rows: the oldest unpublished ones, and marking them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import bindparam, select, update

from common.store.engine import Store
from schemas.tables import EventRow, table_of
from workers.relay.rules import PendingEvent

_event = table_of(EventRow)


class EventStore:
    """The relay's view of the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def pending(self, limit: int) -> list[PendingEvent]:
        """The oldest events that are not published, in order."""
        query = (
            select(
                _event.c.connection_id,
                _event.c.event_id,
                _event.c.type,
                _event.c.subject,
                _event.c.listing_id,
                _event.c.data,
                _event.c.headers,
                _event.c.created_at,
            )
            .where(_event.c.published_at.is_(None))
            .order_by(_event.c.position)
            .limit(limit)
        )
        async with self._store.reading() as transaction:
            return [PendingEvent(**row._mapping) for row in await transaction.rows(query)]

    async def published(self, events: Sequence[PendingEvent]) -> None:
        """Mark events that the broker has confirmed."""
        statement = (
            update(_event)
            .where(_event.c.connection_id == bindparam("key_connection"), _event.c.event_id == bindparam("key_id"))
            .values(published_at=bindparam("at", type_=_event.c.published_at.type))
        )
        async with self._store.transaction() as transaction:
            now = await transaction.now()
            keys = [{"key_connection": one.connection_id, "key_id": one.event_id, "at": now} for one in events]
            await transaction.execute(statement, keys)

"""Event rows: the oldest unpublished ones, and marking them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import bindparam, select, update

from common.store.engine import Store
from schemas.tables import EventRow, table_of
from workers.relay.rules import PendingEvent
from workers.relay.store.pages import fitting, size_of

MOST_BYTES = 32 * 2**20
"""Of the data of events that are read at once."""

_event = table_of(EventRow)
_COLUMNS = [_event.c[name] for name in PendingEvent.__dataclass_fields__]


class EventStore:
    """The relay's view of the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def pending(self, known: Collection[str], limit: int) -> list[PendingEvent]:
        """Of the oldest `limit` that are not published those whose ids are not `known`, in order; as many as fit into
        `MOST_BYTES`, and one at least."""
        unpublished = _event.c.published_at.is_(None)
        async with self._store.reading() as transaction:
            size = size_of(transaction, _event.c.data).label("size")
            oldest = select(_event.c.position, _event.c.event_id, size).where(unpublished)
            rows = await transaction.rows(oldest.order_by(_event.c.position).limit(limit))
            new = [row for row in rows if row.event_id not in known]
            positions = [row.position for row in new[: fitting([row.size for row in new], MOST_BYTES)]]
            query = select(*_COLUMNS).where(unpublished, _event.c.position.in_(positions)).order_by(_event.c.position)
            return [PendingEvent(**row._mapping) for row in await transaction.rows(query)] if positions else []

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

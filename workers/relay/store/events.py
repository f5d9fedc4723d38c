"""Event rows: the oldest unpublished ones, and marking them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import and_, bindparam, func, or_, select, update

from common.store.engine import Store
from common.store.erasing import is_being_erased
from schemas.events import ConnectionChanged
from schemas.tables import EventRow, table_of
from workers.relay.rules import PendingEvent, Waiting
from workers.relay.store.pages import size_of

_event = table_of(EventRow)
_lane = func.coalesce(_event.c.listing_id, _event.c.type + " " + _event.c.subject)
"""`workers.relay.rules.order_key`, for the database."""
_may_leave = and_(
    _event.c.published_at.is_(None),
    or_(_event.c.type == ConnectionChanged.TYPE, ~is_being_erased(_event.c.connection_id)),
)
"""Of an erased person only that their connection has ended."""
_COLUMNS = [_event.c[name] for name in PendingEvent.__dataclass_fields__]


class EventStore:
    """The relay's view of the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def oldest(self, limit: int, passing_by: Collection[str] = ()) -> list[Waiting]:
        """The oldest that are not published, in order, but those in the lanes that are passed by."""
        async with self._store.reading() as transaction:
            size = size_of(transaction, _event.c.data)
            query = select(_event.c.position, _event.c.event_id, _lane, size)
            query = query.where(_may_leave).order_by(_event.c.position).limit(limit)
            if passing_by:
                query = query.where(_lane.not_in(sorted(passing_by)))
            return [Waiting(*row) for row in await transaction.rows(query)]

    async def events_at(self, positions: Sequence[int]) -> list[PendingEvent]:
        """These, with their data, in order; without those that somebody has marked or erased meanwhile."""
        query = select(*_COLUMNS).where(_may_leave, _event.c.position.in_(positions))
        async with self._store.reading() as transaction:
            rows = await transaction.rows(query.order_by(_event.c.position))
        return [PendingEvent(**row._mapping) for row in rows]

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

"""Event rows: the oldest unpublished ones, and marking them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import and_, bindparam, func, or_, select, tuple_, update

from common.store.engine import Store, Transaction
from common.store.erasing import is_being_erased
from schemas.events import ConnectionChanged
from schemas.tables import EventRow, TargetRow, table_of
from workers.relay.metrics import Lag
from workers.relay.rules import PendingEvent, Waiting, webhook_of
from workers.relay.store.pages import size_of

_event = table_of(EventRow)
_target = table_of(TargetRow)
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

    async def published(self, events: Sequence[PendingEvent]) -> list[Lag]:
        """Mark events that the broker has confirmed → how long each took.

        From its webhook on: only where the webhook that the event answers is still the latest of its target; the time
        of an earlier one is not kept.
        """
        statement = (
            update(_event)
            .where(_event.c.connection_id == bindparam("key_connection"), _event.c.event_id == bindparam("key_id"))
            .values(published_at=bindparam("at", type_=_event.c.published_at.type))
        )
        async with self._store.transaction() as transaction:
            now = await transaction.now()
            keys = [{"key_connection": one.connection_id, "key_id": one.event_id, "at": now} for one in events]
            await transaction.execute(statement, keys)
            asked_at = await _asked_at(transaction, events)
        return [Lag(_seconds(now, one.created_at), _since(now, asked_at.get(one.event_id))) for one in events]


async def _asked_at(transaction: Transaction, events: Sequence[PendingEvent]) -> dict[str, datetime]:
    """By event, when its webhook was taken up."""
    causes = {one.event_id: webhook for one in events if (webhook := webhook_of(one))}
    if not causes:
        return {}
    key = tuple_(_target.c.connection_id, _target.c.url)
    query = select(_target.c.connection_id, _target.c.url, _target.c.asked, _target.c.asked_at)
    rows = await transaction.rows(query.where(key.in_(sorted({cause[:2] for cause in causes.values()}))))
    known = {tuple(row[:3]): row.asked_at for row in rows if row.asked_at is not None}
    return {event_id: known[cause] for event_id, cause in causes.items() if cause in known}


def _since(now: datetime, moment: datetime | None) -> float | None:
    return None if moment is None else _seconds(now, moment)


def _seconds(now: datetime, moment: datetime) -> float:
    return max(0.0, (now - moment).total_seconds())

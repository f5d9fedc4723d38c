"""History: events and attempts that are too old, or too many, to be kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import bindparam, delete, exists, func, or_, select, tuple_

from common.store.engine import Store
from schemas.tables import AttemptRow, EventRow, table_of

ATTEMPTS_KEPT = 50
"""Of each target, the latest so many."""

_event = table_of(EventRow)
_later = _event.alias("later")
_attempt = table_of(AttemptRow)


@dataclass(frozen=True)
class OldEvent:
    """The key of an event that is not kept any longer."""

    connection_id: int
    event_id: str
    created_at: datetime


class HistoryStore:
    """What is kept for `keep`: events that were published, except the latest of each listing, and attempts.

    So a listing's remaining events still end in its stored state, and its versions go on without a gap.
    """

    def __init__(self, store: Store, keep: timedelta) -> None:
        self._store = store
        self._keep = keep

    async def old_events(self, after: OldEvent | None, limit: int) -> list[OldEvent]:
        """Some that may go, the oldest first, after the given one."""
        superseded = exists().where(
            _later.c.connection_id == _event.c.connection_id,
            _later.c.listing_id == _event.c.listing_id,
            _later.c.version > _event.c.version,
        )
        query = (
            select(_event.c.connection_id, _event.c.event_id, _event.c.created_at)
            .where(_event.c.published_at.is_not(None), or_(_event.c.listing_id.is_(None), superseded))
            .order_by(_event.c.created_at, _event.c.event_id)
            .limit(limit)
        )
        if after is not None:
            query = query.where(tuple_(_event.c.created_at, _event.c.event_id) > (after.created_at, after.event_id))
        async with self._store.reading() as transaction:
            before = await transaction.now() - self._keep
            rows = await transaction.rows(query.where(_event.c.created_at < before))
        return [OldEvent(**row._mapping) for row in rows]

    async def delete_events(self, events: Sequence[OldEvent]) -> int:
        """Delete them; how many there were."""
        if not events:
            return 0
        statement = delete(_event).where(
            _event.c.connection_id == bindparam("key_connection"), _event.c.event_id == bindparam("key_id")
        )
        async with self._store.transaction() as transaction:
            keys = [{"key_connection": one.connection_id, "key_id": one.event_id} for one in events]
            await transaction.execute(statement, keys)
        return len(events)

    async def delete_old_attempts(self, limit: int) -> int:
        """Delete some that are too old; how many."""
        key = (_attempt.c.connection_id, _attempt.c.url, _attempt.c.started)
        async with self._store.reading() as transaction:
            before = await transaction.now() - self._keep
            rows = await transaction.rows(
                select(*key).where(_attempt.c.at < before).order_by(_attempt.c.at).limit(limit)
            )
        if not rows:
            return 0
        statement = delete(_attempt).where(*(column == bindparam(f"key_{column.name}") for column in key))
        keys = [{f"key_{name}": value for name, value in row._mapping.items()} for row in rows]
        async with self._store.transaction() as transaction:  # one by one: SQLite finds no list of keys by the index
            await transaction.execute(statement, keys)
        return len(rows)

    async def delete_surplus_attempts(self, limit: int) -> int:
        """Of targets that have too many, delete the oldest; how many."""
        key = (_attempt.c.connection_id, _attempt.c.url)
        crowded = select(*key).group_by(*key).having(func.count() > ATTEMPTS_KEPT).limit(limit)
        async with self._store.reading() as transaction:
            targets = await transaction.rows(crowded)
        if not targets:
            return 0
        deleted = 0
        async with self._store.transaction() as transaction:
            for connection_id, url in targets:
                of_it = (_attempt.c.connection_id == connection_id, _attempt.c.url == url)
                kept = select(_attempt.c.started).where(*of_it).order_by(_attempt.c.started.desc())
                first = kept.offset(ATTEMPTS_KEPT - 1).limit(1).scalar_subquery()
                deleted += (
                    await transaction.execute(delete(_attempt).where(*of_it, _attempt.c.started < first))
                ).rowcount
        return deleted

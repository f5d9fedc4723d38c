"""A clock that is put back: whatever waits for a time that was read before would wait for that much longer.

Ahead it may jump: what waits comes too early, which costs a call.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import case, or_, select, tuple_, update

from common.logs import get_logger
from common.store.engine import Store, Transaction
from common.store.insert import insert
from schemas.tables import BeatRow, BudgetRow, FeedRow, RefusedRow, TargetRow, table_of

CLOCK = "clock"
"""The beat that says when the store's clock was last looked at."""
LOOK = timedelta(seconds=5)
SLACK = timedelta(seconds=2)
"""So little is corrected by waiting."""
CHUNK = 500

log = get_logger(__name__)
_beat, _target = table_of(BeatRow), table_of(TargetRow)
_WAITING = (
    table_of(BudgetRow).c.blocked_until,
    table_of(FeedRow).c.reading_until,
    table_of(RefusedRow).c.lease_until,
)
"""Beside targets; rows are few."""
_MOMENTS = ("not_before", "recheck_at", "lease_until")


async def set_right(store: Store) -> bool:
    """Whether the store's clock was put back since somebody looked last; then all that waits for a time does not.

    Leases end, too: who holds one still, and writes by it, finds that another has begun. Done again after a crash.
    """
    async with store.reading() as transaction:
        now, row = await transaction.now(), await transaction.row(select(_beat.c.at).where(_beat.c.name == CLOCK))
    passed = LOOK if row is None else now - row.at
    is_back = passed < -SLACK
    if is_back:
        log.warning("clock.put_back", seconds=-round(passed.total_seconds()))
        while await _end_waits_of_targets(store, now):
            pass
    if is_back or passed >= LOOK:
        async with store.transaction() as transaction:
            await _end_waits(transaction, now if is_back else None)
            looked = insert(transaction, _beat).values(name=CLOCK, at=now)
            await transaction.execute(looked.on_conflict_do_update(index_elements=["name"], set_={"at": now}))
    return is_back


async def _end_waits_of_targets(store: Store, now: datetime) -> int:
    """A chunk of those that wait, locked in the order in which all lock them; how many there were."""
    moments = [_target.c[name] for name in _MOMENTS]
    key = tuple_(_target.c.connection_id, _target.c.url)
    waiting = select(_target.c.connection_id, _target.c.url).where(or_(*(moment > now for moment in moments)))
    async with store.transaction() as transaction:
        by_url = _target.c.url.collate("C") if transaction.postgres else _target.c.url
        ordered = waiting.order_by(_target.c.connection_id, by_url).limit(CHUNK)
        rows = await transaction.rows(ordered.with_for_update())
        if rows:
            ended: dict[Any, Any] = {moment.name: case((moment > now, now), else_=moment) for moment in moments}
            await transaction.execute(update(_target).where(key.in_([tuple(row) for row in rows])).values(ended))
    return len(rows)


async def _end_waits(transaction: Transaction, now: datetime | None) -> None:
    if now is not None:
        for moment in _WAITING:
            await transaction.execute(update(moment.table).where(moment > now).values({moment.name: now}))

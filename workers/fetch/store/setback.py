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
"""So little, and what has passed since the last look, is corrected by waiting."""
CHUNK = 500

log = get_logger(__name__)
_beat, _target = table_of(BeatRow), table_of(TargetRow)
_OTHERS = (
    table_of(BudgetRow).c.blocked_until,
    table_of(FeedRow).c.reading_until,
    table_of(FeedRow).c.missed_at,
    table_of(RefusedRow).c.lease_until,
)
"""What waits beside targets, or says that something was missed since; rows are few."""
_MOMENTS = [_target.c[name] for name in ("not_before", "recheck_at", "lease_until")]
_KEY = tuple_(_target.c.connection_id, _target.c.url)

Key = tuple[int, str]


async def set_right(store: Store) -> bool:
    """Whether the store's clock was put back since somebody looked last; then all that waits for a time does not.

    Leases end, too: who holds one still, and writes by it, finds that another has begun. Done again after a crash.
    """
    async with store.reading() as transaction:
        # The beat first: one that another process writes meanwhile would else look like the future.
        row = await transaction.row(select(_beat.c.at).where(_beat.c.name == CLOCK))
        now = await transaction.now()
    passed = LOOK if row is None else now - row.at
    if passed < -SLACK:
        log.warning("clock.put_back", seconds=-round(passed.total_seconds()))
        await _end_waits(store, now)
    if passed < -SLACK or passed >= LOOK:
        async with store.transaction() as transaction:
            looked = insert(transaction, _beat).values(name=CLOCK, at=now)
            await transaction.execute(looked.on_conflict_do_update(index_elements=["name"], set_={"at": now}))
    return passed < -SLACK


async def _end_waits(store: Store, now: datetime) -> None:
    """Each target is looked at once: others may make some wait anew meanwhile."""
    after: Key | None = (-1, "")
    while after is not None:
        async with store.transaction() as transaction:
            after = await _end_some(transaction, now, after)
    async with store.transaction() as transaction:
        for moment in _OTHERS:
            await transaction.execute(update(moment.table).where(moment > now).values({moment.name: now}))


async def _end_some(transaction: Transaction, now: datetime, after: Key) -> Key | None:
    """Those of the next targets that wait, locked in the order in which all lock them; the last one's key, if any."""
    by_url = _target.c.url.collate("C") if transaction.postgres else _target.c.url
    behind = or_(_target.c.connection_id > after[0], (_target.c.connection_id == after[0]) & (by_url > after[1]))
    waiting = select(_target.c.connection_id, _target.c.url).where(or_(*(moment > now for moment in _MOMENTS)))
    ordered = waiting.where(behind).order_by(_target.c.connection_id, by_url).limit(CHUNK)
    keys: list[Key] = [(row.connection_id, row.url) for row in await transaction.rows(ordered.with_for_update())]
    if not keys:
        return None
    ended: dict[Any, Any] = {moment.name: case((moment > now, now), else_=moment) for moment in _MOMENTS}
    await transaction.execute(update(_target).where(_KEY.in_(keys)).values(ended))
    return keys[-1]

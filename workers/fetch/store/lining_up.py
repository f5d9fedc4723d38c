"""What was put off gets a turn when its time has come: the others did not wait for it, and it does not pass them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, update

from common.store.engine import Store
from common.store.turns import keep_turns, lock_feeds, take_turns
from schemas.tables import TargetRow, table_of
from workers.fetch.store.due import COME_BACK, at

LINE_UP = 500

_target = table_of(TargetRow)


async def line_up(store: Store) -> int:
    """Give turns to targets that may be asked for again; how many there were. Writes nothing when there are none."""
    async with store.reading() as transaction:
        seen = await transaction.rows(COME_BACK.limit(LINE_UP), at(await transaction.now()))
    if not seen:
        return 0
    connections = {row.connection_id for row in seen}
    async with store.transaction() as transaction:
        turns = await take_turns(transaction, await lock_feeds(transaction, connections))
        query = COME_BACK.where(_target.c.connection_id.in_(connections)).limit(LINE_UP)
        locked = query.with_for_update(skip_locked=True, of=_target)
        rows = await transaction.rows(locked, at(await transaction.now()))
        given = [_key(row) | {"given": turns.next(row.connection_id, row.priority)} for row in rows]
        if given:
            await transaction.execute(_give(), given)
            await keep_turns(transaction, turns)
    return len(given)


def _give() -> Any:
    key = (_target.c.connection_id == bindparam("key_connection"), _target.c.url == bindparam("key_url"))
    return update(_target).where(*key).values(turn=bindparam("given"))


def _key(row: Any) -> dict[str, Any]:
    return {"key_connection": row.connection_id, "key_url": row.url}

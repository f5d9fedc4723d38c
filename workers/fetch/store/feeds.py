"""Feeds: what the store knows of each connection's stream of webhooks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import select

from common.store.engine import Transaction
from common.store.insert import insert
from schemas.tables import FeedRow, table_of
from workers.fetch.rereading import Feed, heard

_feed = table_of(FeedRow)
_HEARD = ("heard_at", "bursts", "usual_quiet", "silent_since")


async def hear(transaction: Transaction, connections: Collection[int]) -> None:
    """Each of these connections was heard now. Rows are locked by connection, as everywhere."""
    rows = await transaction.rows(
        select(_feed).where(_feed.c.connection_id.in_(connections)).order_by(_feed.c.connection_id).with_for_update()
    )
    now = await transaction.now()
    known = {row.connection_id: feed_of(row) for row in rows}
    values = [{"connection_id": one, **asdict(heard(known.get(one, Feed()), now))} for one in sorted(set(connections))]
    statement = insert(transaction, _feed).values(values)
    changed = {name: statement.excluded[name] for name in _HEARD}
    await transaction.execute(statement.on_conflict_do_update(index_elements=["connection_id"], set_=changed))


def feed_of(row: Any) -> Feed:
    """The row's value."""
    return Feed(**{field.name: getattr(row, field.name) for field in fields(Feed)})

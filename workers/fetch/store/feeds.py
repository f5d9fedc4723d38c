"""Feeds: what the store knows of each connection's stream of webhooks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import bindparam, update

from common.store.engine import Transaction
from common.store.turns import lock_feeds
from schemas.tables import FeedRow, table_of
from workers.fetch.rereading import Feed, heard

_feed = table_of(FeedRow)
_HEARD = ("heard_at", "bursts", "usual_quiet", "silent_since")


async def hear(transaction: Transaction, connections: Collection[int]) -> Sequence[Any]:
    """Each of these connections was heard now. Gives their feeds, locked."""
    rows = await lock_feeds(transaction, connections)
    if not rows:
        return rows
    now = await transaction.now()
    values = [_values(row.connection_id, heard(feed_of(row), now)) for row in rows]
    statement = update(_feed).where(_feed.c.connection_id == bindparam("key"))
    await transaction.execute(statement.values({name: bindparam(name) for name in _HEARD}), values)
    return rows


async def miss(transaction: Transaction, connections: Collection[int]) -> None:
    """Webhooks of these connections are known to be lost."""
    await lock_feeds(transaction, connections)
    now = await transaction.now()
    await transaction.execute(update(_feed).where(_feed.c.connection_id.in_(connections)).values(missed_at=now))


def _values(connection_id: int, feed: Feed) -> dict[str, Any]:
    return {"key": connection_id} | {name: getattr(feed, name) for name in _HEARD}


def feed_of(row: Any) -> Feed:
    """The row's value."""
    return Feed(**{field.name: getattr(row, field.name) for field in fields(Feed)})

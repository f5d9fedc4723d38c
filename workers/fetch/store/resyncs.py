"""Reading connections again: which are due, and making all that is known of one wanted."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, false, func, literal, or_, select, update

from common.store.engine import Store, Transaction
from common.store.targets import want_known
from schemas.tables import ConnectionRow, FeedRow, UtcDateTime, table_of
from workers.fetch.rereading import KNOWN_AFTER_BURSTS, UNUSUAL, Feed, Terms, Why, plan, read_again, why_again
from workers.fetch.store.feeds import feed_of

LOOK_BATCH = 200
LEASE = timedelta(seconds=30)

_connection = table_of(ConnectionRow)
_feed = table_of(FeedRow)


@dataclass(frozen=True)
class Begun:
    """A resync that was begun: why, of how many targets, and the connection's feed as it was."""

    connection_id: int
    why: Why
    targets: int
    feed: Feed
    at: datetime


class ResyncStore:
    """The plan of resyncs."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def due(self, terms: Terms) -> list[int]:
        """Connections to be looked at: not revoked, and read again or planned now."""
        async with self._store.reading() as transaction:
            due = _due(transaction, await transaction.now(), terms)
            query = select(_feed.c.connection_id).where(due).order_by(_feed.c.connection_id).limit(LOOK_BATCH)
            return [row.connection_id for row in await transaction.rows(query)]

    async def read_again(self, connection_id: int, terms: Terms) -> Begun | None:
        """Make everything known of the connection wanted if it is due, else plan when it will be.

        One process does it at a time. The plan moves after the marks: who dies in between leaves it to another, who
        marks what is left.
        """
        begun = await self._begin(connection_id, terms)
        if begun is None:
            return None
        found = await want_known(self._store, connection_id, "resync")
        async with self._store.transaction() as transaction:
            feed = await _locked(transaction, connection_id)
            if feed is not None:
                after = read_again(feed, begun.feed, await transaction.now(), terms, _spread())
                await _write(transaction, connection_id, after, reading_until=None)
        return replace(begun, targets=found)

    async def _begin(self, connection_id: int, terms: Terms) -> Begun | None:
        async with self._store.transaction() as transaction:
            now = await transaction.now()
            feed = await _locked(transaction, connection_id, unless_read_at=now)
            if feed is None:
                return None
            why = why_again(feed, now, terms)
            if why is None:
                await _write(transaction, connection_id, plan(feed, now, terms, _spread()), reading_until=None)
                return None
            await _write(transaction, connection_id, feed, reading_until=now + LEASE)
            return Begun(connection_id, why, 0, feed, now)


def _spread() -> float:
    return random.random()  # noqa: S311  # spreads load, guards nothing


async def _locked(
    transaction: Transaction, connection_id: int, *, unless_read_at: datetime | None = None
) -> Feed | None:
    """The connection's feed, locked; None: another process reads the connection again at that time."""
    query = select(_feed).where(_feed.c.connection_id == connection_id)
    if unless_read_at is not None:
        query = query.where(_free(unless_read_at))
    row = await transaction.row(query.with_for_update())
    return None if row is None else feed_of(row)


async def _write(transaction: Transaction, connection_id: int, feed: Feed, *, reading_until: datetime | None) -> None:
    values = asdict(feed) | {"reading_until": reading_until}
    await transaction.execute(update(_feed).where(_feed.c.connection_id == connection_id).values(values))


def _free(now: datetime) -> ColumnElement[bool]:
    return or_(_feed.c.reading_until.is_(None), _feed.c.reading_until < now)


def _due(transaction: Transaction, now: datetime, terms: Terms) -> ColumnElement[bool]:
    """What `why_again` and `plan` decide, so that only feeds with something to do are read."""
    revoked = exists().where(_connection.c.connection_id == _feed.c.connection_id, _connection.c.state == "revoked")
    reasons: list[ColumnElement[bool]] = [_feed.c.missed_at.is_not(None)]
    if terms.interval:
        reasons += [_feed.c.resync_at.is_(None), _feed.c.resync_at <= now, _feed.c.resync_at > now + terms.latest_plan]
    else:
        reasons.append(_feed.c.resync_at.is_not(None))
    if terms.burst_quiet:
        reasons.append(and_(_feed.c.first_read == false(), _feed.c.heard_at <= now - terms.burst_quiet))
    if terms.silence_after:
        known = and_(_feed.c.bursts >= KNOWN_AFTER_BURSTS, _feed.c.silent_since.is_(None))
        unusual = _seconds_since(transaction, _feed.c.heard_at, now) > UNUSUAL * _feed.c.usual_quiet
        reasons.append(and_(known, _feed.c.heard_at < now - terms.silence_after, unusual))
    return and_(or_(*reasons), _free(now), ~revoked)


def _seconds_since(transaction: Transaction, moment: Any, now: datetime) -> Any:
    until = literal(now, UtcDateTime())
    if transaction.postgres:
        return func.extract("epoch", until) - func.extract("epoch", moment)
    return (func.julianday(until) - func.julianday(moment)) * 86400

"""Making targets wanted: by webhooks, resyncs and doubts. Claiming them is the fetch worker's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec
from sqlalchemy import and_, case, select, update

from common.identity import place_of
from common.store.engine import Transaction
from common.store.insert import greatest, insert
from schemas.messages import PlatformIds, Reason
from schemas.tables import FeedRow, TargetRow, table_of

WEBHOOK, SECOND_LOOK, RESYNC = 0, 1, 2
"""Priorities: the smaller is claimed first."""

_BELOW = {"locations": "resources", "resources": "rates"}

_target = table_of(TargetRow)
_feed = table_of(FeedRow)


@dataclass(frozen=True)
class Wanted:
    """A URL that is wanted, and why; `mapping` holds what is known of the platform's own ids."""

    connection_id: int
    url: str
    mapping: PlatformIds
    reason: Reason
    delivery_id: str | None = None


async def want(transaction: Transaction, wanted: Sequence[Wanted]) -> list[int]:
    """Make targets wanted; a known target keeps its back-off. Gives each one's number, in order.

    Rows are locked in one order, so that two batches never wait for each other in a circle.
    """
    numbers = await transaction.numbers(len(wanted))
    latest = {(one.connection_id, one.url): (one, number) for one, number in zip(wanted, numbers, strict=True)}
    await _know_feeds(transaction, {connection_id for connection_id, _ in latest})
    for key in sorted(latest):
        one, number = latest[key]
        await transaction.execute(_upsert(transaction, one, number))
    return numbers


async def know(transaction: Transaction, wanted: Sequence[Wanted]) -> None:
    """Remember targets for the next resync, without wanting them now."""
    rows = {(one.connection_id, one.url): _row(one) for one in wanted}
    for key in sorted(rows):
        known = {"wanted": 0, "started": 0, "answered": 0, "attempts": 0, "priority": RESYNC, "reason": "resync"}
        statement = insert(transaction, _target).values(**rows[key], **known)
        await transaction.execute(statement.on_conflict_do_nothing())


async def _know_feeds(transaction: Transaction, connections: set[int]) -> None:
    if connections:
        rows = [{"connection_id": one, "first_read": False} for one in sorted(connections)]
        await transaction.execute(insert(transaction, _feed).on_conflict_do_nothing(), rows)


async def want_known(
    transaction: Transaction, connection_id: int, reason: Reason, location_id: str | None = None
) -> int:
    """Make every known target of the connection (or of one of its locations) wanted, and the collections in which
    they lie, behind all webhooks. Gives the number of targets.
    """
    where = _target.c.connection_id == connection_id
    if location_id is not None:
        where = and_(where, _target.c.location_id == location_id)
    rows = await transaction.rows(select(_target.c.url, _target.c.location_id).where(where).order_by(_target.c.url))
    nothing = PlatformIds()
    known = {row.url: Wanted(connection_id, row.url, nothing, reason) for row in rows}
    for row in rows:
        for url in collections_around(row.url):
            mapping = PlatformIds(location_id=row.location_id)
            known.setdefault(url, Wanted(connection_id, url, mapping, reason))
    await want(transaction, list(known.values()))
    return len(known)


async def look_again(transaction: Transaction, connection_id: int, url: str, at: datetime) -> None:
    """Ask once more at `at`, unless it is wanted again already.

    The attempt that wants the second look may not have been written down as the answer yet: its page travels faster.
    """
    await transaction.execute(
        update(_target)
        .where(_target.c.connection_id == connection_id, _target.c.url == url)
        .where(_target.c.wanted <= _target.c.started)
        .values(recheck_at=at)
    )


def collections_around(url: str) -> list[str]:
    """The collections that a resync reads for a known URL: those below it, and the one an item lies in.

    Never `/v1/locations` itself: the token is the platform's, and nothing says that the list is filtered.
    """
    place = place_of(url)
    if place.noun in (None, "locations"):
        return collections_below(url)
    return [*collections_below(url), _beside(url, place.scope)]


def collections_below(url: str) -> list[str]:
    """The collections that lie under the item of this URL."""
    place = place_of(url)
    below = _BELOW.get(place.noun or "") if place.segment else None
    return [] if below is None else [_beside(url, f"{place.path}/{below}")]


def _beside(url: str, path: str) -> str:
    """Another path on the URL's host."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def _upsert(transaction: Transaction, one: Wanted, number: int) -> Any:
    by_webhook = one.reason == "webhook"
    priority = WEBHOOK if by_webhook else RESYNC
    told = _told(one)
    values: dict[str, Any] = {"wanted": number, "turn": number, "priority": priority, "reason": one.reason}
    if by_webhook:
        values |= {"asked": number, "delivery_id": one.delivery_id}
    due = _target.c.wanted > _target.c.answered
    stays_urgent = and_(due, _target.c.priority < priority)
    kept = {name: case((stays_urgent, _target.c[name]), else_=values[name]) for name in ("priority", "reason")}
    most = greatest(transaction)
    change = values | kept | told | {"wanted": most(_target.c.wanted, number)}
    if by_webhook:
        change["asked"] = most(_target.c.asked, number)
    statement = insert(transaction, _target).values(**_row(one), **values, started=0, answered=0, attempts=0)
    return statement.on_conflict_do_update(index_elements=["connection_id", "url"], set_=change)


def _told(one: Wanted) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(one.mapping).items() if value is not None}


def _row(one: Wanted) -> dict[str, Any]:
    host = urlsplit(one.url).netloc.lower()
    return {"connection_id": one.connection_id, "url": one.url, "host": host, **_told(one)}

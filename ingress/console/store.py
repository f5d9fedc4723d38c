"""Events for the console: the latest ones, and those that came after a place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import case, false, func, select

from common.codec import decode
from common.store.engine import Store, Transaction
from ingress.admin.rules import Paging
from ingress.admin.store.connections import Connection, ConnectionStore
from ingress.console.rules import Choice, Kept
from schemas.tables import EventRow, ListingRow, table_of

LATE = timedelta(seconds=30)
"""Positions are given before a transaction commits: what commits up to so much later than its neighbours is still
found. No transaction of ours writes events for as long."""
WINDOW = 5000
"""Positions looked at again and again, at most: in a storm the latest."""
LOOKED_BACK = 5000
"""Events among which those that somebody wants are looked for."""
LARGEST = 64 * 1024
"""Characters of an event's data that are read for it."""

MOST_CONNECTIONS = 200
MOST_LISTINGS = 100_000
"""Of more than so many nobody counts which connection has how many."""

_event = table_of(EventRow)
_listing = table_of(ListingRow)


@dataclass(frozen=True)
class Recent:
    """Everything up to the position `settled` has been committed; `found` are the events after it, by position."""

    settled: int
    found: Sequence[tuple[int, str]]


class EventLogStore:
    """Every method is one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def settled(self) -> int:
        """The position up to which nothing new can appear any more."""
        async with self._store.reading() as transaction:
            return await _settled(transaction)

    async def recent(self) -> Recent:
        """Positions and ids of what is after that."""
        async with self._store.reading() as transaction:
            settled = await _settled(transaction)
            query = select(_event.c.position, _event.c.event_id).where(_event.c.position > settled)
            rows = await transaction.rows(query.order_by(_event.c.position.desc()).limit(WINDOW))
        return Recent(settled, [(row.position, row.event_id) for row in reversed(rows)])

    async def at(self, positions: Sequence[int]) -> list[Kept]:
        """The events there, by position."""
        query = _events().where(_event.c.position.in_(positions)).order_by(_event.c.position)
        async with self._store.reading() as transaction:
            return [_kept(row) for row in await transaction.rows(query)]

    async def latest(self, choice: Choice, limit: int, after: int = -1) -> list[Kept]:
        """Of those that are wanted and come after a position, the latest so many, the newest first."""
        back = select(_event.c.position).where(_event.c.position > after).order_by(_event.c.position.desc())
        among = back.limit(LOOKED_BACK).scalar_subquery()
        query = _events().where(_event.c.position.in_(among)).order_by(_event.c.position.desc()).limit(limit)
        if choice.connection_id is not None:
            query = query.where(_event.c.connection_id == choice.connection_id)
        if choice.kind is not None:
            query = query.where(_event.c.subject.contains(f"/{choice.kind}/", autoescape=True))
        async with self._store.reading() as transaction:
            return [_kept(row) for row in await transaction.rows(query)]


async def _settled(transaction: Transaction) -> int:
    before = await transaction.now() - LATE
    query = select(_event.c.position).where(_event.c.created_at < before)
    row = await transaction.row(query.order_by(_event.c.created_at.desc(), _event.c.event_id.desc()).limit(1))
    return 0 if row is None else int(row.position)


def _events() -> Any:
    names = ("event_id", "position", "type", "connection_id", "subject", "listing_id", "version", "headers")
    data = case((func.length(_event.c.data) <= LARGEST, _event.c.data), else_=None).label("data")
    return select(*(_event.c[name] for name in names), _event.c.created_at.label("at"), data)


def _kept(row: Any) -> Kept:
    read: dict[str, Any] = {
        "headers": decode(row.headers.encode(), dict[str, str]),
        "data": None if row.data is None else decode(row.data.encode(), dict[str, Any]),
    }
    return Kept(**{**row._mapping, **read})


class PeopleStore:
    """Connections as an operator looks at them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._connections = ConnectionStore(store)

    async def connections(self) -> list[tuple[Connection, int | None]]:
        """The first two hundred by number, each with how many listings of it live."""
        found = await self._connections.connections(None, Paging(None, MOST_CONNECTIONS))
        numbers = [one.connection_id for one in found]
        live = (_listing.c.deleted == false(), _listing.c.version > 0, _listing.c.connection_id.in_(numbers))
        some = select(_listing.c.connection_id).where(*live).limit(MOST_LISTINGS + 1).subquery()
        counts = select(some.c.connection_id, func.count().label("found")).group_by(some.c.connection_id)
        async with self._store.reading() as transaction:
            counted = {row.connection_id: row.found for row in await transaction.rows(counts)}
        known = sum(counted.values()) <= MOST_LISTINGS
        return [(one, counted.get(one.connection_id, 0) if known else None) for one in found]

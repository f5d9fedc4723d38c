"""How things stand: the grant, and how much there is of everything."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Select, exists, false, func, select

from common.store.engine import Store, Transaction
from common.store.parked import count_parked
from schemas.tables import (
    SYNCAROO_ACCOUNT,
    ConnectionRow,
    EventRow,
    FeedRow,
    GrantRow,
    ListingRow,
    SuspectRow,
    TargetRow,
    table_of,
)

SHOWN = 100

_connection = table_of(ConnectionRow)
_feed = table_of(FeedRow)
_listing = table_of(ListingRow)
_event = table_of(EventRow)
_target = table_of(TargetRow)
_suspect = table_of(SuspectRow)
_grant = table_of(GrantRow)


class GrantStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Our access to Syncaroo."""

    state: str = "none"
    expires_at: datetime | None = None


class Silent(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A connection that is quiet for unusually long."""

    heard_at: datetime | None
    silent_since: datetime
    next_resync_at: datetime | None


class Feeds(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The connections' webhooks together: the latest, the next resync by plan, how many connections are still to be
    read again because webhooks were missed, and who is silent (the first hundred)."""

    heard_at: datetime | None
    next_resync_at: datetime | None
    missed: int
    silent: dict[str, Silent]


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How much there is of everything."""

    grant: GrantStatus
    targets: dict[str, int]
    listings: int
    events: dict[str, int]
    parked: dict[str, int]
    held: int
    connections: dict[str, int]
    feeds: Feeds


class StatusStore:
    """What is counted; every method is one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def counts(self) -> Counts:
        """Everything counted."""
        due = select(func.count()).where(_target.c.wanted > _target.c.answered)
        live = select(func.count()).where(_listing.c.deleted == false(), _listing.c.version > 0)
        unpublished = select(func.count()).where(_event.c.published_at.is_(None))
        held = select(func.count()).where(_suspect.c.state == "held")
        states = select(_connection.c.state, func.count().label("found")).group_by(_connection.c.state)
        async with self._store.reading() as transaction:
            return Counts(
                grant=await _grant_status(transaction),
                targets={"due": await _number(transaction, due)},
                listings=await _number(transaction, live),
                events={"unpublished": await _number(transaction, unpublished)},
                parked=await count_parked(transaction),
                held=await _number(transaction, held),
                connections={row.state: row.found for row in await transaction.rows(states)},
                feeds=await _feeds(transaction),
            )


async def _grant_status(transaction: Transaction) -> GrantStatus:
    row = await transaction.row(select(_grant).where(_grant.c.account == SYNCAROO_ACCOUNT))
    return GrantStatus() if row is None else GrantStatus(state=row.state, expires_at=row.expires_at)


async def _feeds(transaction: Transaction) -> Feeds:
    revoked = exists().where(_connection.c.connection_id == _feed.c.connection_id, _connection.c.state == "revoked")
    (together,) = await transaction.rows(
        select(func.max(_feed.c.heard_at).label("heard_at"), func.min(_feed.c.resync_at).label("next")).where(~revoked)
    )
    missed = select(func.count()).where(_feed.c.missed_at.is_not(None), ~revoked)
    silent = select(_feed).where(_feed.c.silent_since.is_not(None), ~revoked).order_by(_feed.c.silent_since)
    found = {
        str(row.connection_id): Silent(
            heard_at=row.heard_at, silent_since=row.silent_since, next_resync_at=row.resync_at
        )
        for row in await transaction.rows(silent.limit(SHOWN))
    }
    waiting = await _number(transaction, missed)
    return Feeds(heard_at=together.heard_at, next_resync_at=together.next, missed=waiting, silent=found)


async def _number(transaction: Transaction, query: Select[Any]) -> int:
    return int((await transaction.execute(query)).scalar_one())

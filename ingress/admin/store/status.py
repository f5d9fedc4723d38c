"""How things stand: the grant, and how much there is of everything."""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import func, select

from common.store.engine import Store, Transaction
from common.store.parked import count_parked
from ingress.flow.store import (
    connections_by_state,
    count_of,
    held_listings,
    is_revoked,
    live_listings,
    unpublished_events,
)
from schemas.tables import SYNCAROO_ACCOUNT, FeedRow, GrantRow, TargetRow, table_of

SHOWN = 100

_feed = table_of(FeedRow)
_target = table_of(TargetRow)
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
        due = select(_target.c.wanted).where(_target.c.wanted > _target.c.answered)
        async with self._store.reading() as transaction:
            return Counts(
                grant=await _grant_status(transaction),
                targets={"due": await count_of(transaction, due)},
                listings=await count_of(transaction, live_listings()),
                events={"unpublished": await count_of(transaction, unpublished_events())},
                parked=await count_parked(transaction),
                held=await count_of(transaction, held_listings()),
                connections=await connections_by_state(transaction),
                feeds=await _feeds(transaction),
            )


async def _grant_status(transaction: Transaction) -> GrantStatus:
    row = await transaction.row(select(_grant).where(_grant.c.account == SYNCAROO_ACCOUNT))
    return GrantStatus() if row is None else GrantStatus(state=row.state, expires_at=row.expires_at)


async def _feeds(transaction: Transaction) -> Feeds:
    revoked = is_revoked(_feed.c.connection_id)
    (together,) = await transaction.rows(
        select(func.max(_feed.c.heard_at).label("heard_at"), func.min(_feed.c.resync_at).label("next")).where(~revoked)
    )
    missed = select(_feed.c.connection_id).where(_feed.c.missed_at.is_not(None), ~revoked)
    silent = select(_feed).where(_feed.c.silent_since.is_not(None), ~revoked).order_by(_feed.c.silent_since)
    found = {
        str(row.connection_id): Silent(
            heard_at=row.heard_at, silent_since=row.silent_since, next_resync_at=row.resync_at
        )
        for row in await transaction.rows(silent.limit(SHOWN))
    }
    waiting = await count_of(transaction, missed)
    return Feeds(heard_at=together.heard_at, next_resync_at=together.next, missed=waiting, silent=found)

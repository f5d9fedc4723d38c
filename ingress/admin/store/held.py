"""What is held: listings that vanished together with too many others, and a person's decision about them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, and_, delete, func, or_, select

from common.brake import Suspect
from common.store.engine import Store, Transaction
from common.store.suspects import put_suspects, suspects_of
from common.store.targets import MARK_CHUNK, Wanted, want
from common.store.turns import lock_feeds
from ingress.admin.rules import Paging
from ingress.admin.store.listings import IS_REVOKED, Listing, members_of
from schemas.messages import PlatformIds
from schemas.tables import ListingRow, SuspectRow, table_of

_suspect = table_of(SuspectRow)
_listing = table_of(ListingRow)

Decision = Literal["approve", "discard"]


class HeldListing(Listing, frozen=True, kw_only=True, rename="camel"):
    """A listing that is held: also its own URL (null: only a list tells of it), and since when."""

    own_url: str | None
    since: datetime


class HeldStore:
    """Held listings; every method is one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self, connection_id: int | None, paging: Paging) -> list[HeldListing]:
        """What is held (of one connection, or of all), by connection and id, after the cursor's."""
        query = _held().order_by(_suspect.c.connection_id, _suspect.c.listing_id).limit(paging.limit)
        if connection_id is not None:
            query = query.where(_suspect.c.connection_id == connection_id)
        if paging.after is not None:
            after, listing_id = paging.after
            later = and_(_suspect.c.connection_id == after, _suspect.c.listing_id > listing_id)
            query = query.where(or_(_suspect.c.connection_id > after, later))
        async with self._store.reading() as transaction:
            return [_shown(row) for row in await transaction.rows(query)]

    async def counts(self, connection_ids: Sequence[int]) -> dict[int, int]:
        """How many each of these connections holds."""
        found = func.count().label("found")
        query = select(_suspect.c.connection_id, found).group_by(_suspect.c.connection_id)
        query = query.where(_suspect.c.connection_id.in_(connection_ids), _suspect.c.state == "held")
        async with self._store.reading() as transaction:
            return {row.connection_id: row.found for row in await transaction.rows(query)}

    async def decide(self, connection_id: int, decision: Decision, expected: int | None) -> tuple[int, bool]:
        """Approve or discard all that the connection holds, if it is as many as `expected` (None: however many).

        Gives their number, and whether it was done.
        """
        async with self._store.transaction() as transaction:
            await lock_feeds(transaction, {connection_id})
            suspects = await suspects_of(transaction, connection_id)
            held = [one for one in suspects.values() if one.state == "held"]
            if expected not in (None, len(held)):
                return len(held), False
            if held and decision == "approve":
                await _approve(transaction, connection_id, held)
            elif held:
                await transaction.execute(delete(_suspect).where(_of(connection_id)))
            return len(held), True


async def _approve(transaction: Transaction, connection_id: int, held: Sequence[Suspect]) -> None:
    """Ask each at its own URL: only a 404 there deletes it. Those without one are concluded by the next walk."""
    for walk in sorted({one.walk for one in held}):
        vanished = [one.vanished for one in held if one.walk == walk]
        await put_suspects(transaction, connection_id, vanished, "approved", walk)
    wanted = [Wanted(connection_id, one.vanished.url, PlatformIds(), "hand") for one in held if one.vanished.url]
    for begin in range(0, len(wanted), MARK_CHUNK):
        await want(transaction, wanted[begin : begin + MARK_CHUNK])


def _of(connection_id: int) -> ColumnElement[bool]:
    return and_(_suspect.c.connection_id == connection_id, _suspect.c.state == "held")


def _held() -> Select[Any]:
    same = and_(_listing.c.connection_id == _suspect.c.connection_id, _listing.c.listing_id == _suspect.c.listing_id)
    return (
        select(_listing, IS_REVOKED, _suspect.c.url, _suspect.c.since)
        .select_from(_suspect.join(_listing, same))
        .where(_suspect.c.state == "held")
    )


def _shown(row: Any) -> HeldListing:
    return HeldListing(**members_of(row), own_url=row.url, since=row.since)

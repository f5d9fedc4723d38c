"""Suspects: listings that a complete walk over their collection did not meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, false, select

from common.brake import Vanished
from common.identity import place_of
from common.store.engine import Store, Transaction
from common.store.suspects import held_back, put_suspects, suspects_of
from common.store.targets import Wanted, want
from common.store.turns import lock_feeds
from schemas.messages import PlatformIds
from schemas.tables import ListingRow, TargetRow, table_of
from workers.fetch.absence import is_itself, is_whole_collection, sort_absent, vanished
from workers.fetch.claim import Claim

_listing = table_of(ListingRow)
_target = table_of(TargetRow)

_OLDER = (
    select(_listing.c.listing_id, _listing.c.item_id, _listing.c.own_url, _listing.c.own_path)
    .where(_listing.c.connection_id == bindparam("connection_id"), _listing.c.scope == bindparam("scope"))
    .where(_listing.c.deleted == false(), _listing.c.version > 0, _listing.c.began < bindparam("first"))
    .order_by(_listing.c.listing_id)
)
"""The collection's living listings that nothing answered since the walk began, in the order of their locks."""
_OLDER_LOCKED = _OLDER.with_for_update()


@dataclass(frozen=True)
class Judged:
    """What became of absent listings: asked at their own URLs, held for a person, or `gone` (their ids)."""

    asked: int = 0
    held: int = 0
    gone: tuple[str, ...] = ()


class SuspectStore:
    """Judges what the walks of this process (`owner`) did not meet; at most the share `brake` passes in an hour."""

    def __init__(self, store: Store, owner: str, *, brake: float) -> None:
        self._store = store
        self._owner = owner
        self._brake = brake

    async def judge(self, claim: Claim, seen_ids: frozenset[str]) -> Judged:
        """After a complete walk: listings of the collection that were absent are asked themselves.

        One that has no URL of its own is gone when a second complete walk does not meet it either. A list at the URL
        of one item, or behind a query, tells nothing about the rest of the collection.
        """
        if not is_whole_collection(claim.url):
            return Judged()
        async with self._store.reading() as transaction:  # nearly always nothing is absent: then nobody is held up
            rows = await transaction.rows(_OLDER, _of(claim))
        if all(row.item_id in seen_ids for row in rows):
            return Judged()
        async with self._store.transaction() as transaction:
            rows = await transaction.rows(_OLDER_LOCKED, _of(claim))
            absent = [_vanished(row, claim) for row in rows if row.item_id not in seen_ids]
            return await self._judge(transaction, claim, absent)

    async def judge_missing(self, claim: Claim) -> Judged:
        """After a 404 on a collection: each of its listings is asked itself. One that is the list is gone itself."""
        if not is_whole_collection(claim.url):
            return Judged()
        place = place_of(claim.url)
        async with self._store.transaction() as transaction:
            rows = await transaction.rows(_OLDER_LOCKED, _of(claim))
            gone = tuple(row.listing_id for row in rows if is_itself(row.own_url, row.own_path, place))
            others = [one for one in (_vanished(row, claim) for row in rows) if one.url is not None]
            judged = await self._judge(transaction, claim, others)
        return Judged(judged.asked, judged.held, gone)

    async def _judge(self, transaction: Transaction, claim: Claim, absent: Sequence[Vanished]) -> Judged:
        await lock_feeds(transaction, {claim.connection_id})
        if not await self._owns(transaction, claim):
            return Judged()
        known = await suspects_of(transaction, claim.connection_id)
        found = sort_absent(absent, known, claim.first, await transaction.now())
        await put_suspects(transaction, claim.connection_id, found.first, "absent", claim.first)
        held = await held_back(transaction, claim.connection_id, found.new, claim.first, self._brake)
        if not held:
            await put_suspects(transaction, claim.connection_id, found.new, "pending", claim.first)
        passed = found.again if held else [*found.again, *found.new]
        urls = [one.url for one in passed if one.url is not None]
        await want(transaction, [Wanted(claim.connection_id, url, PlatformIds(), "resync") for url in urls])
        gone = tuple(one.listing_id for one in passed if one.url is None)
        return Judged(len(urls), len(found.new) if held else 0, gone)

    async def _owns(self, transaction: Transaction, claim: Claim) -> bool:
        """Whether the lease is still this process's: who lost it, another one walks for."""
        query = select(_target.c.started).where(
            _target.c.connection_id == claim.connection_id,
            _target.c.url == claim.url,
            _target.c.started == claim.started,
            _target.c.lease_owner == self._owner,
        )
        return await transaction.row(query) is not None


def _of(claim: Claim) -> dict[str, Any]:
    return {"connection_id": claim.connection_id, "scope": place_of(claim.url).scope, "first": claim.first}


def _vanished(row: Any, claim: Claim) -> Vanished:
    return vanished(row.listing_id, row.own_url, row.own_path, claim.url)

"""Rows of listings: locked in one order, written many at a time.

Who inserts holds no lock on other listings yet: else two who insert could wait for each other in a circle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import select

from common.codec import decode
from common.store.bulk import given, insert_missing, is_one_of, update_rows
from common.store.engine import Transaction
from schemas.tables import ListingRow, table_of
from workers.reconcile.finding import Candidates
from workers.reconcile.rules import Listing, Outcome

_listing = table_of(ListingRow)
_MEMBERS = tuple(field.name for field in fields(Listing))
_KEY = ("connection_id", "listing_id")
_WRITTEN = [name for name in (*_MEMBERS, "deleted") if name not in _KEY]

COLUMNS = [_listing.c[name] for name in _MEMBERS]
"""Of which `listing_of` makes a value."""


@dataclass(frozen=True)
class Taken:
    """Listings whose rows are locked: as they were, and what is decided; `new` are written already, as decided."""

    known: Mapping[str, Listing]
    outcomes: Mapping[str, Outcome]
    new: frozenset[str]


async def take(transaction: Transaction, candidates: Candidates, at: datetime) -> Taken:
    """Lock the listings and decide; those that are not there are written as decided, at this time."""
    if not candidates:
        return Taken({}, {}, frozenset())
    ids, members = _queries(transaction.postgres)
    there = {row.listing_id for row in await transaction.rows(ids, _which(transaction, candidates, sorted(candidates)))}
    found = {one: candidates[one][1](candidates[one][0]) for one in sorted(candidates) if one not in there}
    new = await _insert(transaction, found, at)
    known = {one: candidates[one][0] for one in new}
    if left := [one for one in sorted(candidates) if one not in new]:
        rows = await transaction.rows(members, _which(transaction, candidates, left))
        known |= {listing.listing_id: listing for listing in map(listing_of, rows)}
    outcomes = {one: found[one] if one in new else candidates[one][1](known[one]) for one in sorted(candidates)}
    return Taken(known, outcomes, new)


async def update(transaction: Transaction, pairs: Sequence[tuple[Listing, Listing]], alike: Mapping[str, Any]) -> None:
    """Write, of listings before and after, the columns in which any of them differs: an index costs nothing then."""
    columns = [(_row(before), _row(after)) for before, after in pairs]
    names = [name for name in _WRITTEN if any(before[name] != after[name] for before, after in columns)]
    if names:
        rows = [{name: after[name] for name in (*_KEY, *names)} for _, after in columns]
        await update_rows(transaction, _listing, rows, alike, by=_KEY)


def listing_of(row: Any) -> Listing:
    """The value of a row of `COLUMNS`."""
    members = dict(zip(_MEMBERS, row, strict=True))
    text = members["body"] or "null"
    return Listing.stored({**members, "body": decode(text.encode(), Any)}, text)


async def _insert(transaction: Transaction, found: Mapping[str, Outcome], at: datetime) -> frozenset[str]:
    """Those of them that nobody else has inserted meanwhile."""
    if not found:
        return frozenset()
    rows = [_columns_of(one.listing) | {"changed_at": at if one.change else None} for one in found.values()]
    return frozenset(await insert_missing(transaction, _listing, rows, {}, key="listing_id"))


def _columns_of(listing: Listing) -> dict[str, Any]:
    row = _row(listing)
    return {name: row[name] for name in (*_KEY, *_WRITTEN)}


def _row(listing: Listing) -> dict[str, Any]:
    return {
        **listing.__dict__,
        "body": None if listing.body is None else listing.text,
        "deleted": listing.version > 0 and listing.body is None,
    }


@cache
def _queries(postgres: bool) -> tuple[Any, Any]:
    """For the ids of those of the listings that are there, and for their members, locked in order."""
    which = [is_one_of(_listing.c[name], name, postgres) for name in _KEY]
    return (
        select(_listing.c.listing_id).where(*which),
        select(*COLUMNS).where(*which).order_by(_listing.c.listing_id).with_for_update(),
    )


def _which(transaction: Transaction, candidates: Candidates, ids: Sequence[str]) -> dict[str, Any]:
    connections = {candidates[one][0].connection_id for one in ids}
    return {"connection_id": given(transaction, connections), "listing_id": given(transaction, ids)}

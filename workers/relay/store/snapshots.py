"""Listings as they are now, page by page, for snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, func, select, tuple_

from common.store.engine import Store, Transaction
from common.store.erasing import is_being_erased
from schemas.events import ListingNames, ListingSnapshot
from schemas.messages import SnapshotRequested
from schemas.tables import ListingRow, table_of
from workers.relay.store.pages import PAGE_BYTES, PAGE_ROWS, fitting, size_of

_listing = table_of(ListingRow)
_key = tuple_(_listing.c.connection_id, _listing.c.listing_id)


@dataclass(frozen=True)
class Page:
    """Some listings, in the order of their keys, and when they were read. Empty: there are no more."""

    listings: Sequence[ListingSnapshot]
    at: datetime


class SnapshotStore:
    """What a snapshot reads; each method is one transaction."""

    def __init__(self, store: Store, *, rows: int = PAGE_ROWS, size: int = PAGE_BYTES) -> None:
        self._store = store
        self._rows = rows
        self._size = size

    async def page(self, request: SnapshotRequested) -> Page:
        """The listings behind `request.after`, deleted ones among them; placeholders are nobody's business.

        Raises:
            StoreUnavailable.
            Permanent: `unstorable`, a filter that no row can have.
        """
        async with self._store.reading() as transaction:
            at = await transaction.now()
            while keys := await self._keys(transaction, request):
                fits = [*_wanted(request), *_behind(request), _key <= keys[-1]]
                rows = await transaction.rows(select(_listing).where(*fits).order_by(*_key))
                if rows:  # else they have been erased in between, and what lies behind them is looked for again
                    return Page([_value(row) for row in rows], at)
        return Page([], at)

    async def count(self, request: SnapshotRequested) -> int:
        """How many listings fit the request."""
        query = select(func.count()).select_from(_listing).where(*_wanted(request))
        async with self._store.reading() as transaction:
            row = await transaction.row(query)
        return 0 if row is None else int(row[0])

    async def _keys(self, transaction: Transaction, request: SnapshotRequested) -> list[tuple[int, str]]:
        """Those of the next page."""
        size = size_of(transaction, _listing.c.body)
        query = select(_listing.c.connection_id, _listing.c.listing_id, size)
        query = query.where(*_wanted(request), *_behind(request)).order_by(*_key).limit(self._rows)
        rows = await transaction.rows(query)
        return [(row[0], row[1]) for row in rows[: fitting([row[2] for row in rows], self._size)]]


def _wanted(request: SnapshotRequested) -> list[ColumnElement[bool]]:
    filters = (
        (_listing.c.connection_id, request.connection_id),
        (_listing.c.location_id, request.location_id),
        (_listing.c.attribute_type, request.attribute_type),
    )
    kept = ~is_being_erased(_listing.c.connection_id)
    return [_listing.c.version > 0, kept, *(column == value for column, value in filters if value is not None)]


def _behind(request: SnapshotRequested) -> list[ColumnElement[bool]]:
    if request.after is None:
        return []
    return [_key > (request.after.connection_id, request.after.listing_id)]


def _value(row: Any) -> ListingSnapshot:
    return ListingSnapshot(
        **{name: getattr(row, name) for name in ListingNames.__struct_fields__},
        version=row.version,
        current=msgspec.Raw((row.body or "null").encode()),
        deleted=row.deleted,
    )

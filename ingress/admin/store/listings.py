"""Listings as they are known, and how they came to be so."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Select, and_, or_, select

from common.store.engine import Store
from ingress.admin.rules import ListingFilter, Paging
from schemas.tables import EventRow, ListingRow, table_of

_listing = table_of(ListingRow)
_event = table_of(EventRow)


class Listing(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A listing: the members of an event's data that say which, and what it is now."""

    listing_id: str
    connection_id: int
    attribute_type: str
    item_id: str
    location_id: str | None
    resource_id: str | None
    resource_type: str | None
    version: int
    current: msgspec.Raw
    deleted: bool


class ListingStore:
    """Listings and their histories; every method is one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def listings(self, wanted: ListingFilter, paging: Paging) -> list[Listing]:
        """Listings by connection and id, after the cursor's."""
        key = (_listing.c.connection_id, _listing.c.listing_id)
        query = _seen_listings().order_by(*key).limit(paging.limit)
        for column, value in (
            (_listing.c.connection_id, wanted.connection_id),
            (_listing.c.location_id, wanted.location_id),
            (_listing.c.attribute_type, wanted.attribute_type),
        ):
            if value is not None:
                query = query.where(column == value)
        if paging.after is not None:
            connection_id, listing_id = paging.after
            later = and_(_listing.c.connection_id == connection_id, _listing.c.listing_id > listing_id)
            query = query.where(or_(_listing.c.connection_id > connection_id, later))
        async with self._store.reading() as transaction:
            return [_listing_of(row) for row in await transaction.rows(query)]

    async def listing(self, listing_id: str) -> Listing | None:
        """One listing."""
        async with self._store.reading() as transaction:
            row = await transaction.row(_seen_listings().where(_listing.c.listing_id == listing_id))
        return None if row is None else _listing_of(row)

    async def history(self, listing: Listing, paging: Paging) -> list[dict[str, Any]]:
        """The listing's events by version, after the cursor's: each event's data, and what led to it."""
        query = (
            select(_event)
            .where(_event.c.connection_id == listing.connection_id, _event.c.listing_id == listing.listing_id)
            .order_by(_event.c.version)
            .limit(paging.limit)
        )
        if paging.after is not None:
            query = query.where(_event.c.version > paging.after[0])
        async with self._store.reading() as transaction:
            return [_past(row) for row in await transaction.rows(query)]


def _seen_listings() -> Select[Any]:
    """Placeholders (version 0) are nobody's business."""
    return select(_listing).where(_listing.c.version > 0)


def _listing_of(row: Any) -> Listing:
    return Listing(
        listing_id=row.listing_id,
        connection_id=row.connection_id,
        attribute_type=row.attribute_type,
        item_id=row.item_id,
        location_id=row.location_id,
        resource_id=row.resource_id,
        resource_type=row.resource_type,
        version=row.version,
        current=msgspec.Raw((row.body or "null").encode()),
        deleted=row.deleted,
    )


def _past(row: Any) -> dict[str, Any]:
    data: dict[str, msgspec.Raw] = msgspec.json.decode(row.data, type=dict[str, msgspec.Raw])
    cause = None if row.cause is None else msgspec.Raw(row.cause.encode())
    told = {"eventId": row.event_id, "at": row.created_at, "publishedAt": row.published_at, "cause": cause}
    return {**told, **data}

"""Listings as they are known, and how they came to be so."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Select, and_, exists, or_, select

from common.store.engine import Store
from common.tracing import trace_id_of
from ingress.admin.rules import ListingFilter, Paging
from ingress.admin.store.targets import attempts_at
from schemas.events import ListingChanged, ListingNames
from schemas.messages import Source
from schemas.tables import ConnectionRow, EventRow, ListingRow, SuspectRow, table_of

_listing = table_of(ListingRow)
_event = table_of(EventRow)
_suspect = table_of(SuspectRow)
_connection = table_of(ConnectionRow)

IS_REVOKED = (
    exists()
    .where(_connection.c.connection_id == _listing.c.connection_id, _connection.c.state == "revoked")
    .label("revoked")
)
"""A column that `members_of` needs beside the listing's own."""


class Listing(ListingNames, frozen=True, kw_only=True):
    """A listing: the members of an event's data that say which, and what it is now.

    Of a revoked connection it is what was known when that ended.
    """

    version: int
    current: msgspec.Raw
    deleted: bool
    revoked: bool
    """Whether its connection is."""


class Suspicion(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """It may have vanished: absent (from a list), pending (being asked), held (for a person), approved (by one)."""

    state: str
    since: datetime


class KnownListing(Listing, frozen=True, kw_only=True, rename="camel"):
    """A listing with all that is known of it: where it lives, and the numbers of the latest answer that told it."""

    path: str
    collection: str
    """The path of the collection that it lies in."""
    url: str | None
    """Its own URL as it was asked; null: it was only ever seen in its collection."""
    unmapped: bool
    suspect: Suspicion | None
    changed_at: datetime | None
    began: int
    ended: int
    asked: int


class Change(ListingChanged, frozen=True, kw_only=True, rename="camel", tag="change", tag_field="kind"):
    """A version of a listing: the event's data, when it was told, and the answer that led to it (null: `unmapped`),
    and the trace that it is of (null: there was none)."""

    event_id: str
    position: int
    at: datetime
    published_at: datetime | None
    cause: Source | None
    trace_id: str | None


Past = tuple[int, Any]
"""A moment of a listing's history, behind its number in the store's sequence."""


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
            (_listing.c.item_id, wanted.item_id),
            (_listing.c.own_path, wanted.path),
        ):
            if value is not None:
                query = query.where(column == value)
        if paging.after is not None:
            connection_id, listing_id = paging.after
            later = and_(_listing.c.connection_id == connection_id, _listing.c.listing_id > listing_id)
            query = query.where(or_(_listing.c.connection_id > connection_id, later))
        async with self._store.reading() as transaction:
            return [Listing(**members_of(row)) for row in await transaction.rows(query)]

    async def listing(self, listing_id: str) -> KnownListing | None:
        """One listing."""
        of_it = and_(
            _suspect.c.connection_id == _listing.c.connection_id, _suspect.c.listing_id == _listing.c.listing_id
        )
        query = _seen_listings().where(_listing.c.listing_id == listing_id)
        query = query.add_columns(_suspect.c.state, _suspect.c.since).outerjoin(_suspect, of_it)
        async with self._store.reading() as transaction:
            row = await transaction.row(query)
        return None if row is None else _known(row)

    async def history(self, listing: KnownListing, paging: Paging) -> list[Past]:
        """The listing's events and the attempts for it and for its collection, the newest first."""
        paths = sorted({listing.path, listing.collection})
        async with self._store.reading() as transaction:
            events = await transaction.rows(_events(listing, paging))
            attempts = await attempts_at(transaction, listing.connection_id, paths, paging)
        told: list[Past] = [(row.position, _change(row)) for row in events]
        told += [(attempt.started, attempt) for attempt in attempts]
        return sorted(told, key=lambda one: one[0], reverse=True)[: paging.limit]


def _events(listing: KnownListing, paging: Paging) -> Select[Any]:
    query = (
        select(_event)
        .where(_event.c.connection_id == listing.connection_id, _event.c.listing_id == listing.listing_id)
        .order_by(_event.c.version.desc())
        .limit(paging.limit)
    )
    return query if paging.after is None else query.where(_event.c.position < paging.after[0])


def _seen_listings() -> Select[Any]:
    """Placeholders (version 0) are nobody's business."""
    return select(_listing, IS_REVOKED).where(_listing.c.version > 0)


def members_of(row: Any) -> dict[str, Any]:
    """Those of a `Listing`."""
    return {
        **{name: getattr(row, name) for name in ListingNames.__struct_fields__},
        "version": row.version,
        "current": msgspec.Raw((row.body or "null").encode()),
        "deleted": row.deleted,
        "revoked": bool(row.revoked),
    }


def _known(row: Any) -> KnownListing:
    return KnownListing(
        **members_of(row),
        path=row.own_path,
        collection=row.scope,
        url=row.own_url,
        unmapped=row.unmapped > 0,
        suspect=None if row.state is None else Suspicion(state=row.state, since=row.since),
        changed_at=row.changed_at,
        began=row.began,
        ended=row.ended,
        asked=row.asked,
    )


def _change(row: Any) -> dict[str, Any]:
    """A `Change`, its texts as they were stored."""
    data: dict[str, msgspec.Raw] = msgspec.json.decode(row.data, type=dict[str, msgspec.Raw])
    cause = None if row.cause is None else msgspec.Raw(row.cause.encode())
    return {
        "kind": "change",
        "eventId": row.event_id,
        "position": row.position,
        "at": row.created_at,
        "publishedAt": row.published_at,
        "cause": cause,
        "traceId": trace_id_of(row.traceparent),
        **data,
    }

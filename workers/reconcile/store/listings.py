"""Listings in the store: one transaction per page, rows locked in one order, bulk writes, events beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from functools import cache
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec
from sqlalchemy import and_, bindparam, or_, select

from common.brake import Suspect
from common.codec import decode
from common.identity import listing_id_of, place_of
from common.store.engine import Store, Transaction
from common.store.erasing import erased_among
from common.store.insert import insert
from common.store.parked import Parked, park
from common.store.targets import Wanted, collections_below, know, look_again, want
from schemas.events import ListingChanged
from schemas.messages import PlatformIds, Source
from schemas.tables import EventRow, ListingRow, table_of
from workers.reconcile.metrics import ReconcileMetrics
from workers.reconcile.rules import Listing, Outcome
from workers.reconcile.store.bulk import is_one_of_those, those, update_rows
from workers.reconcile.store.changes import append_changes
from workers.reconcile.store.suspects import brake, known_suspects, settle, suspect_children
from workers.reconcile.volatile import IN_A_ROW

_listing = table_of(ListingRow)
_event = table_of(EventRow)

_MEMBERS = tuple(field.name for field in fields(Listing))
_columns = [_listing.c[name] for name in _MEMBERS]
_WRITTEN = [name for name in (*_MEMBERS, "deleted") if name not in ("connection_id", "listing_id")]

Decide = Callable[[Listing], Outcome]
Tell = Callable[[Listing, Outcome], ListingChanged]


@dataclass(frozen=True)
class SecondLook:
    """A target to ask once more after so long, if its answer changes nothing: the API may lag its own webhook."""

    connection_id: int
    url: str
    after: timedelta


class Changed(msgspec.Struct, frozen=True, rename="camel"):
    """Of an event's data, what it changed."""

    changed_fields: list[str]


class ListingStore:
    """The reconcile worker's view of the store."""

    def __init__(self, store: Store, *, delete_brake: float, metrics: ReconcileMetrics | None = None) -> None:
        self._store = store
        self._metrics = metrics or ReconcileMetrics()
        self._brake = delete_brake

    async def apply(
        self,
        candidates: Mapping[str, tuple[Listing, Decide]],
        tell: Tell,
        source: Source | None,
        *,
        second_look: SecondLook | None = None,
        bad: Sequence[Parked] = (),
    ) -> dict[str, Outcome]:
        """Decide about each listing under its lock and write what changed, in one transaction.

        `candidates`: by listing id, the listing as it would be if it is new, and the decision. `bad`: items that park
        themselves. Without a `source` no answer decides but a webhook (`unmapped`): the brake does not hold it.
        Of an erased user's connection nothing is written.
        """
        with self._metrics.transaction_seconds.time():
            outcomes = await self._apply(candidates, tell, source, second_look, bad)
        self._metrics.count(outcomes.values())
        return outcomes

    async def _apply(
        self,
        candidates: Mapping[str, tuple[Listing, Decide]],
        tell: Tell,
        source: Source | None,
        second_look: SecondLook | None,
        bad: Sequence[Parked],
    ) -> dict[str, Outcome]:
        async with self._store.transaction() as transaction:
            if await erased_among(transaction, {listing.connection_id for listing, _ in candidates.values()}):
                return {}
            known = await self._lock(transaction, [listing for listing, _ in candidates.values()])
            outcomes = {one: candidates[one][1](known[one]) for one in sorted(candidates)}
            suspects = await known_suspects(transaction, known, outcomes)
            if source is not None:
                outcomes = await brake(transaction, suspects, known, outcomes, source, self._brake)
            await self._write(transaction, known, outcomes)
            changed = [(known[one], outcome) for one, outcome in outcomes.items() if outcome.change]
            await append_changes(transaction, [tell(before, outcome) for before, outcome in changed], source)
            await settle(transaction, suspects, outcomes)
            if source is not None:
                await self._follow(transaction, list(outcomes.values()), suspects, source)
            if second_look and not changed:
                at = await transaction.now() + second_look.after
                await look_again(transaction, second_look.connection_id, second_look.url, at)
            if bad:
                await park(transaction, bad)
        return outcomes

    async def at(self, connection_id: int, url: str) -> list[Listing]:
        """The listings whose own URL this is."""
        place = place_of(url)
        derived = listing_id_of(connection_id, place.scope, place.segment or place.scope.rsplit("/", 1)[-1])
        async with self._store.reading() as transaction:
            rows = await transaction.rows(
                select(*_columns)
                .where(_listing.c.connection_id == connection_id)
                .where(or_(_listing.c.own_path == place.path, _listing.c.listing_id == derived))
            )
        return [_value(row) for row in rows]

    async def get(self, connection_id: int, listing_id: str) -> list[Listing]:
        """The listing with this id, if there is one."""
        query = select(*_columns).where(_listing.c.connection_id == connection_id, _listing.c.listing_id == listing_id)
        async with self._store.reading() as transaction:
            return [_value(row) for row in await transaction.rows(query)]

    async def latest_changes(self, listings: Sequence[Listing]) -> list[tuple[Listing, list[list[str]]]]:
        """Beside each listing, the members that its latest versions changed, as far as one alarm looks back."""
        # The connection in each of them: beside them, SQLite looks through all events of the connection.
        recent = [
            and_(
                _event.c.connection_id == one.connection_id,
                _event.c.listing_id == one.listing_id,
                _event.c.version > one.version - IN_A_ROW,
            )
            for one in listings
        ]
        query = select(_event.c.listing_id, _event.c.data).where(or_(*recent))
        async with self._store.reading() as transaction:
            rows = await transaction.rows(query)
        told = [(row.listing_id, decode(row.data.encode(), Changed).changed_fields) for row in rows]
        return [(one, [fields for key, fields in told if key == one.listing_id]) for one in listings]

    async def _follow(
        self, transaction: Transaction, outcomes: Sequence[Outcome], suspects: Mapping[str, Suspect], source: Source
    ) -> None:
        """What an answer leads to: doubts are asked again, and what lies under a new or a deleted listing is read."""
        doubtful = [outcome.listing for outcome in outcomes if outcome.doubt]
        await self._ask_again(transaction, doubtful, source.url)
        gone = [outcome.listing for outcome in outcomes if outcome.change == "deleted"]
        await suspect_children(transaction, gone, suspects, source, self._brake)
        found = [outcome.listing for outcome in outcomes if outcome.change == "created"]
        await self._read_below(transaction, found, source)

    async def _lock(self, transaction: Transaction, listings: Sequence[Listing]) -> dict[str, Listing]:
        """The rows as they are, locked in the order of their ids; missing ones are inserted first, empty."""
        if not listings:
            return {}
        ordered = sorted(listings, key=lambda listing: listing.listing_id)
        which = {"connection_id": ordered[0].connection_id, **those(transaction, [one.listing_id for one in ordered])}
        ids, members = _queries(transaction.postgres)
        # Without a lock: who held one while it waits to insert could wait for somebody who waits for that one.
        there = {row.listing_id for row in await transaction.rows(ids, which)}
        missing = [_placeholder(listing) for listing in ordered if listing.listing_id not in there]
        if missing:
            await transaction.execute(insert(transaction, _listing).on_conflict_do_nothing(), missing)
        known = map(_value, await transaction.rows(members, which))
        return {listing.listing_id: listing for listing in known}

    async def _write(
        self, transaction: Transaction, known: Mapping[str, Listing], outcomes: Mapping[str, Outcome]
    ) -> None:
        changed = [(known[one], outcome.listing) for one, outcome in outcomes.items() if outcome.change]
        if changed:
            await _update(transaction, changed, {"changed_at": await transaction.now()})
        moved = [(known[one], outcome.listing) for one, outcome in outcomes.items() if not outcome.change]
        await _update(transaction, [(before, after) for before, after in moved if before != after], {})

    async def _ask_again(self, transaction: Transaction, doubtful: Sequence[Listing], asked_url: str) -> None:
        """The item's own URL, where it is known to have one; else the list that it was found in."""
        urls = {(one.connection_id, one.own_url or asked_url) for one in doubtful}
        await want(transaction, [Wanted(*key, PlatformIds(), "resync") for key in sorted(urls)])

    async def _read_below(self, transaction: Transaction, found: Sequence[Listing], source: Source) -> None:
        """What lies under a listing that only its list told of, no webhook may have told of either: a resync reads it
        along with the list, a webhook leaves it to the next resync."""
        host = urlsplit(source.url)[:2]
        below = [
            Wanted(one.connection_id, url, PlatformIds(location_id=one.location_id), "resync")
            for one in found
            if one.written_by == "list"
            for url in collections_below(urlunsplit((*host, one.own_path, "", "")))
        ]
        if source.reason == "webhook":
            await know(transaction, below)
        else:
            await want(transaction, below)


def _placeholder(listing: Listing) -> dict[str, Any]:
    return {
        "connection_id": listing.connection_id,
        "listing_id": listing.listing_id,
        "scope": listing.scope,
        "item_id": listing.item_id,
        "own_path": listing.own_path,
        "own_url": listing.own_url,
        "attribute_type": listing.attribute_type,
        "version": 0,
        "began": 0,
        "ended": 0,
        "own_began": 0,
        "asked": 0,
        "unmapped": 0,
        "deleted": False,
    }


@cache
def _queries(postgres: bool) -> tuple[Any, Any]:
    """For the ids of those of the listings that are there, and for their members, locked in order."""
    which = (_listing.c.connection_id == bindparam("connection_id"), is_one_of_those(_listing.c.listing_id, postgres))
    return (
        select(_listing.c.listing_id).where(*which),
        select(*_columns).where(*which).order_by(_listing.c.listing_id).with_for_update(),
    )


async def _update(transaction: Transaction, pairs: Sequence[tuple[Listing, Listing]], alike: Mapping[str, Any]) -> None:
    """Write, of listings before and after, the columns in which any of them differs: an index costs nothing then."""
    columns = [(_row(before), _row(after)) for before, after in pairs]
    names = [name for name in _WRITTEN if any(before[name] != after[name] for before, after in columns)]
    if names:
        rows = [{"listing_id": after["listing_id"], **{name: after[name] for name in names}} for _, after in columns]
        key = {"connection_id": pairs[0][0].connection_id}
        await update_rows(transaction, _listing, rows, alike, key, by="listing_id")


def _row(listing: Listing) -> dict[str, Any]:
    return {
        **listing.__dict__,
        "body": None if listing.body is None else listing.text,
        "deleted": listing.version > 0 and listing.body is None,
    }


def _value(row: Any) -> Listing:
    members = dict(zip(_MEMBERS, row, strict=True))
    text = members["body"] or "null"
    return Listing.stored({**members, "body": decode(text.encode(), Any)}, text)

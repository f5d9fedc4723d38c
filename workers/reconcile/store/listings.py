"""Listings in the store: one transaction for an answer, or for several of them, with the events of what changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from urllib.parse import urlsplit, urlunsplit

import msgspec
from sqlalchemy import and_, or_, select

from common.brake import Suspect
from common.codec import decode
from common.identity import listing_id_of, place_of
from common.store.engine import Store, Transaction
from common.store.erasing import erased_among
from common.store.events import Told, append_told, text_of
from common.store.parked import park
from common.store.targets import HAVE_BELOW, Wanted, collections_below, know, look_again, want
from schemas.messages import PlatformIds
from schemas.tables import EventRow, ListingRow, table_of
from workers.reconcile.finding import Candidates, Finding, Outcomes
from workers.reconcile.metrics import ReconcileMetrics
from workers.reconcile.rules import Listing
from workers.reconcile.store.rows import COLUMNS, Taken, listing_of, take, update
from workers.reconcile.store.suspects import any_suspects, brake, known_suspects, settle, suspect_children
from workers.reconcile.volatile import IN_A_ROW

_listing = table_of(ListingRow)
_event = table_of(EventRow)


Decided = Sequence[tuple[Finding, Outcomes]]


class Changed(msgspec.Struct, frozen=True, rename="camel"):
    """Of an event's data, what it changed."""

    changed_fields: list[str]


class _NotPlain(Exception):
    """A finding leads to more than is done for several of them at once."""


class ListingStore:
    """The reconcile worker's view of the store."""

    def __init__(self, store: Store, *, delete_brake: float, metrics: ReconcileMetrics | None = None) -> None:
        self._store = store
        self._metrics = metrics or ReconcileMetrics()
        self._brake = delete_brake

    async def apply(self, finding: Finding) -> Outcomes:
        """Decide about each listing under its lock and write what changed, in one transaction.

        Of an erased user's connection nothing is written.
        """
        with self._metrics.transaction_seconds.time():
            outcomes = await self._apply(finding)
        self._metrics.count(outcomes.values())
        return outcomes

    async def apply_together(self, findings: Sequence[Finding]) -> list[Outcomes] | None:
        """As `apply` of each, in one transaction for all; no listing is in two of them.

        None, and nothing is written, when one of them leads to more than its listings and their events: a deletion, a
        doubt, a suspect that was met, a collection to read. Each is then to be applied by itself.
        """
        try:
            with self._metrics.transaction_seconds.time():
                decided = await self._apply_plain(findings)
        except _NotPlain:
            return None
        for outcomes in decided:
            self._metrics.count(outcomes.values())
        return decided

    async def _apply(self, finding: Finding) -> Outcomes:
        source = finding.source
        async with self._store.transaction() as transaction:
            if await erased_among(transaction, _connections(finding.candidates)):
                return {}
            at = await transaction.now()
            taken = await take(transaction, finding.candidates, at)
            suspects = await known_suspects(transaction, taken.known, taken.outcomes)
            outcomes = taken.outcomes
            if source is not None:
                outcomes = await brake(transaction, suspects, taken.known, outcomes, source, self._brake)
            await _write(transaction, taken, [(finding, outcomes)], at)
            await settle(transaction, suspects, outcomes)
            await self._follow(transaction, finding, outcomes, suspects)
            await _look_again(transaction, [(finding, outcomes)], at)
        return outcomes

    async def _apply_plain(self, findings: Sequence[Finding]) -> list[Outcomes]:
        candidates = {key: one for finding in findings for key, one in finding.candidates.items()}
        async with self._store.transaction() as transaction:
            if await erased_among(transaction, _connections(candidates)):
                raise _NotPlain
            at = await transaction.now()
            taken = await take(transaction, candidates, at)
            decided = [(one, {key: taken.outcomes[key] for key in sorted(one.candidates)}) for one in findings]
            if not all(_is_plain(*one) for one in decided) or await any_suspects(transaction, taken.known):
                raise _NotPlain
            await _write(transaction, taken, decided, at)
            await _look_again(transaction, decided, at)
            # After the second looks: whoever inserts one of these meanwhile waits for none of those any more.
            await know(transaction, [one for finding, outcomes in decided for one in _below(finding, outcomes)])
        return [outcomes for _, outcomes in decided]

    async def at(self, connection_id: int, url: str) -> list[Listing]:
        """The listings whose own URL this is."""
        place = place_of(url)
        derived = listing_id_of(connection_id, place.scope, place.segment or place.scope.rsplit("/", 1)[-1])
        async with self._store.reading() as transaction:
            rows = await transaction.rows(
                select(*COLUMNS)
                .where(_listing.c.connection_id == connection_id)
                .where(or_(_listing.c.own_path == place.path, _listing.c.listing_id == derived))
            )
        return [listing_of(row) for row in rows]

    async def get(self, connection_id: int, listing_id: str) -> list[Listing]:
        """The listing with this id, if there is one."""
        query = select(*COLUMNS).where(_listing.c.connection_id == connection_id, _listing.c.listing_id == listing_id)
        async with self._store.reading() as transaction:
            return [listing_of(row) for row in await transaction.rows(query)]

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
        self, transaction: Transaction, finding: Finding, outcomes: Outcomes, suspects: Mapping[str, Suspect]
    ) -> None:
        """What an answer leads to: doubts are asked again, and what lies under a new or a deleted listing is read."""
        if finding.source is None:
            return
        doubtful = [outcome.listing for outcome in outcomes.values() if outcome.doubt]
        await _ask_again(transaction, doubtful, finding.source.url)
        gone = [outcome.listing for outcome in outcomes.values() if outcome.change == "deleted"]
        await suspect_children(transaction, gone, suspects, finding.source, self._brake)
        below = _below(finding, outcomes)
        await (know(transaction, below) if _is_of_webhook(finding) else want(transaction, below))


async def _write(transaction: Transaction, taken: Taken, decided: Decided, at: datetime) -> None:
    """What has changed, with its events; and what bad items there were."""
    every = [(one, taken.known[one], outcome) for _, outcomes in decided for one, outcome in outcomes.items()]
    old = [(before, outcome) for one, before, outcome in every if one not in taken.new]
    await update(transaction, [(before, now.listing) for before, now in old if now.change], {"changed_at": at})
    await update(transaction, [(before, now.listing) for before, now in old if not now.change], {})
    await append_told(transaction, [told for finding, outcomes in decided for told in _told(finding, taken, outcomes)])
    if bad := [one for finding, _ in decided for one in finding.bad]:
        await park(transaction, bad)


def _told(finding: Finding, taken: Taken, outcomes: Outcomes) -> list[Told]:
    cause = text_of(finding.source)
    changed = [(taken.known[one], outcome) for one, outcome in outcomes.items() if outcome.change]
    return [Told(finding.tell(before, outcome), cause, finding.trace) for before, outcome in changed]


async def _look_again(transaction: Transaction, decided: Decided, at: datetime) -> None:
    """Of the answers that changed nothing."""
    looks = [
        finding.second_look
        for finding, outcomes in decided
        if finding.second_look and not any(outcome.change for outcome in outcomes.values())
    ]
    await look_again(transaction, {(one.connection_id, one.url): at + one.after for one in looks})


def _is_plain(finding: Finding, outcomes: Outcomes) -> bool:
    """Whether nobody's feed is locked for what it leads to: that would have to come before the second looks."""
    leads_on = any(one.doubt or one.held or one.change == "deleted" for one in outcomes.values())
    return not leads_on and (_is_of_webhook(finding) or not _below(finding, outcomes))


def _is_of_webhook(finding: Finding) -> bool:
    return finding.source is not None and finding.source.reason == "webhook"


def _connections(candidates: Candidates) -> set[int]:
    return {listing.connection_id for listing, _ in candidates.values()}


async def _ask_again(transaction: Transaction, doubtful: Sequence[Listing], asked_url: str) -> None:
    """The item's own URL, where it is known to have one; else the list that it was found in."""
    urls = {(one.connection_id, one.own_url or asked_url) for one in doubtful}
    await want(transaction, [Wanted(*key, PlatformIds(), "resync") for key in sorted(urls)])


def _below(finding: Finding, outcomes: Outcomes) -> list[Wanted]:
    """What lies under a listing that only its list told of, no webhook may have told of either: a resync reads it along
    with the list, a webhook leaves it to the next resync."""
    if finding.source is None:
        return []
    host = urlsplit(finding.source.url)[:2]
    found = [one.listing for one in outcomes.values() if one.change == "created"]
    return [
        Wanted(one.connection_id, url, PlatformIds(location_id=one.location_id), "resync")
        for one in found
        if one.written_by == "list" and one.attribute_type in HAVE_BELOW
        for url in collections_below(urlunsplit((*host, one.own_path, "", "")))
    ]

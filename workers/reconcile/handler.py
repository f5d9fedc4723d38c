"""Reconcile's flow: answers → one decision per listing → listing and event rows in one transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from common import tracing
from common.broker.consumer import Delivery
from common.broker.following import followed
from common.broker.topology import queue_name, shard_key
from common.codec import dumps
from common.errors import Permanent, StoreUnavailable
from common.identity import own_id
from common.logs import get_logger
from common.store.parked import Parked
from schemas.messages import ItemGone, Json, ListingUnmapped, Message, PageFetched
from workers.reconcile.deletion import gone_answer
from workers.reconcile.finding import Decide, Finding, Outcomes, SecondLook
from workers.reconcile.rules import (
    Answer,
    Listing,
    Outcome,
    decide,
    event_of,
    listing_for,
    mapping_for,
    unmap,
)
from workers.reconcile.store.listings import ListingStore
from workers.reconcile.volatile import ignored_for, may_be_volatile, volatile_member

LOOKED_AT = 200
"""Listings of one page that the look for volatile members takes: a page of one kind has the same member in all."""

TOGETHER = 500
"""Listings of one transaction of several messages at most: one that is much longer holds others up."""

log = get_logger(__name__)


@dataclass(frozen=True)
class Taken:
    """A message in hand, and what it says; that of a deletion is read once those before it are applied."""

    delivery: Delivery
    message: Message
    finding: Finding | None = None

    @property
    def listings(self) -> Collection[str]:
        """Those that are known to be meant."""
        return self.finding.candidates.keys() if self.finding else ()


def first_group(taken: Iterable[Taken]) -> list[Taken]:
    """Those, from the first on, that may be applied in one transaction: no listing is in two of them."""
    group: list[Taken] = []
    listings: set[str] = set()
    for one in taken:
        fits = listings.isdisjoint(one.listings) and len(listings) + len(one.listings) <= TOGETHER
        if group and not (listings and one.listings and fits):
            break
        group.append(one)
        listings.update(one.listings)
    return group


class ReconcileHandler:
    """Brings listings to what Syncaroo answered; `wake_relay` is called when there is something to publish."""

    def __init__(
        self,
        store: ListingStore,
        wake_relay: Callable[[], Awaitable[None]],
        recheck_after: timedelta,
        ignored_fields: Collection[str] = (),
    ) -> None:
        self._store = store
        self._wake_relay = wake_relay
        self._recheck_after = recheck_after
        self._ignored_fields = ignored_fields

    async def __call__(self, deliveries: Sequence[Delivery]) -> int:
        """The first group of them: what it has written is not written again when one behind it fails."""
        group = first_group(map(self._taken, deliveries))
        outcomes = None
        if len(group) > 1:
            outcomes = await self._store.apply_together([one.finding for one in group if one.finding])
        if outcomes is None:
            group = group[:1]
            outcomes = [await self._apply(group[0])]
        await self._tell(group, outcomes)
        return len(group)

    def _taken(self, delivery: Delivery) -> Taken:
        with followed(delivery):
            message = delivery.message()
            match message:
                case PageFetched():
                    return Taken(delivery, message, self._page(message))
                case ItemGone() | ListingUnmapped():
                    return Taken(delivery, message)
                case _:
                    raise Permanent("unreadable_message", "not for this queue")

    async def _apply(self, taken: Taken) -> Outcomes:
        with followed(taken.delivery):
            match taken.message:
                case ItemGone() as gone:
                    finding = await self._gone(gone)
                case ListingUnmapped() as unmapped:
                    finding = await self._unmapped(unmapped)
                case _:
                    assert taken.finding is not None
                    finding = taken.finding
            return await self._store.apply(finding)

    def _page(self, page: PageFetched) -> Finding:
        good, bad = _sorted_items(page)
        candidates: dict[str, tuple[Listing, Decide]] = {}
        for item in good:
            listing = listing_for(page.connection_id, page.source.url, item, page.shape, page.mapping.attribute_type)
            ignored = ignored_for(self._ignored_fields, listing.attribute_type)
            how = partial(decide, answer=_answer(page, item, listing), ignored=ignored)
            candidates[listing.listing_id] = (listing, how)
        source = page.source
        return Finding(
            candidates,
            partial(event_of, reason=source.reason, delivery_id=source.delivery_id, fetched_at=source.fetched_at),
            source,
            second_look=self._second_look(page),
            bad=[_parked(page, item) for item in bad],
            trace=tracing.current(),
        )

    async def _gone(self, gone: ItemGone) -> Finding:
        source, listing_id = gone.source, gone.listing_id
        if listing_id is None:
            known = await self._store.at(gone.connection_id, source.url)
            # One that was never seen is remembered too, so that an older answer that comes later does not bring it in.
            known = known or [listing_for(gone.connection_id, source.url, None, "item", None)]
        else:
            known = await self._store.get(gone.connection_id, listing_id)
        answers = {one.listing_id: gone_answer(one, source, itself=listing_id is None) for one in known}
        return Finding(
            {one.listing_id: (one, partial(decide, answer=answers[one.listing_id])) for one in known},
            partial(event_of, reason="gone", delivery_id=source.delivery_id, fetched_at=source.fetched_at),
            source,
            second_look=self._second_look(gone) if listing_id is None else None,
            trace=tracing.current(),
        )

    async def _unmapped(self, unmapped: ListingUnmapped) -> Finding:
        known = await self._store.at(unmapped.connection_id, unmapped.url)
        # One that was never seen is remembered too, so that a resync does not bring it in.
        known = known or [listing_for(unmapped.connection_id, unmapped.url, None, "item", None)]
        return Finding(
            {one.listing_id: (one, partial(unmap, number=unmapped.number)) for one in known},
            partial(event_of, reason="unmapped", delivery_id=unmapped.delivery_id, fetched_at=unmapped.received_at),
            None,
            trace=tracing.current(),
        )

    def _second_look(self, answer: PageFetched | ItemGone) -> SecondLook | None:
        """The API may lag its own webhook: what it answers to one without a change is asked once more."""
        source = answer.source
        if answer.recheck or source.delivery_id is None or not self._recheck_after:
            return None
        return SecondLook(answer.connection_id, source.url, self._recheck_after)

    async def _tell(self, group: Sequence[Taken], outcomes: Sequence[Outcomes]) -> None:
        told: list[Outcome] = []
        for one, became in zip(group, outcomes, strict=True):
            with followed(one.delivery):
                mine = [outcome for outcome in became.values() if outcome.change or outcome.held]
                for outcome in mine:
                    _log(outcome)
                await self._look_for_volatile([outcome.listing for outcome in mine if outcome.change == "updated"])
            told += mine
        if told:
            await self._wake_relay()

    async def _look_for_volatile(self, updated: Sequence[Listing]) -> None:
        """Warn of a member that makes version after version alone: everybody downstream hears of each of them."""
        round_ones = [listing for listing in updated if may_be_volatile(listing.version)][:LOOKED_AT]
        if not round_ones:
            return
        try:
            latest = await self._store.latest_changes(round_ones)
        except StoreUnavailable as error:  # what is written must not be written again for a hint
            log.debug("listing.not_looked_at", reason=str(error))
            return
        for listing, changes in latest:
            if member := volatile_member(changes):
                log.warning(
                    "listing.volatile",
                    **_names(listing),
                    kind=listing.attribute_type,
                    member=member,
                    hint="if it does not matter to anybody, name it in IGNORED_FIELDS",
                )


def _log(outcome: Outcome) -> None:
    listing = outcome.listing
    if outcome.held:
        log.warning("listing.held", **_names(listing))
    else:
        log.info("listing.changed", **_names(listing), change=outcome.change, version=listing.version)


def _names(listing: Listing) -> dict[str, str]:
    """Of a listing, for log lines; `listing` is the subject of its events."""
    subject = f"{listing.connection_id}/{listing.attribute_type}/{listing.item_id}"
    return {"listing_id": listing.listing_id, "listing": subject}


def _sorted_items(page: PageFetched) -> tuple[list[Json], list[Json]]:
    """Items that can be listings, and those that cannot."""
    if page.shape == "whole":
        return [page.items], []
    good: list[Json] = []
    bad: list[Json] = []
    for item in page.items:
        is_listing = isinstance(item, dict) and (page.shape == "item" or own_id(item))
        (good if is_listing else bad).append(item)
    return good, bad


def _answer(page: PageFetched, item: Json, listing: Listing) -> Answer:
    source = page.source
    return Answer(
        item=item,
        shape=page.shape,
        began=source.began,
        ended=source.ended,
        asked=source.asked,
        mapping=mapping_for(page.mapping, page.shape, listing.attribute_type),
        own_url=listing.own_url,
    )


def _parked(page: PageFetched, item: Json) -> Parked:
    alone = PageFetched(
        connection_id=page.connection_id,
        source=page.source,
        mapping=page.mapping,
        shape=page.shape,
        items=[item],
        page=page.page,
    )
    return Parked(
        queue=queue_name("reconcile"),
        reason="bad_item",
        connection_id=page.connection_id,
        routing_key=shard_key("reconcile", page.connection_id),
        schema_name=type(alone).__name__,
        body=dumps(alone),
        attempts=0,
        traceparent=tracing.current(),
    )

"""What an answer makes of a listing. Pure: one comparison decides the order, one function the change.

Later-begun wins. Two requests that overlapped in time and differ prove nothing about which is newer: the item's own
URL is asked once more.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any

from common.codec import canonical
from common.identity import Place, item_id_of, listing_id_of, place_of
from schemas.events import Change, ListingChanged, PatchOperation
from schemas.messages import Json, PlatformIds, Reason, Shape
from workers.reconcile.patch import difference
from workers.reconcile.volatile import same_but_for

_place_of = lru_cache(maxsize=64)(place_of)
"""A page's items are all of one place."""


@dataclass(frozen=True)
class Listing:
    """What the store knows: `body` None is deleted or never seen (version 0)."""

    connection_id: int
    listing_id: str
    scope: str
    item_id: str
    own_path: str
    own_url: str | None = None
    attribute_type: str = ""
    location_id: str | None = None
    resource_id: str | None = None
    resource_type: str | None = None
    body: Json = None
    written_by: Shape | None = None
    version: int = 0
    began: int = 0
    ended: int = 0
    own_began: int = 0
    asked: int = 0
    unmapped: int = 0

    @property
    def live(self) -> bool:
        """Whether it exists in Syncaroo, as far as we know."""
        return self.version > 0 and self.body is not None

    @cached_property
    def text(self) -> str:
        """The body as canonical JSON: equal bodies have equal texts."""
        return canonical(self.body)

    @classmethod
    def stored(cls, members: dict[str, Any], text: str) -> Listing:
        """As the store has it, with the text that `members["body"]` was read from."""
        listing = object.__new__(cls)
        listing.__dict__.update(members, text=text)
        return listing

    def but(self, **changes: Any) -> Listing:
        """As `dataclasses.replace`, at a sixth of its cost: several are made of each listing in each answer."""
        after = object.__new__(Listing)
        after.__dict__.update(self.__dict__, **changes)
        if "body" in changes:
            after.__dict__.pop("text", None)
        return after


@dataclass(frozen=True)
class Answer:
    """One item of an answer; `item` None: it is gone (404, or it says so)."""

    item: Json
    shape: Shape
    began: int
    ended: int
    asked: int
    mapping: PlatformIds
    own_url: str | None


@dataclass(frozen=True)
class Outcome:
    """The listing afterwards, what happened to it, whether it must be asked again, and whether a person decides."""

    listing: Listing
    change: Change | None = None
    doubt: bool = False
    held: bool = False


def decide(known: Listing, answer: Answer, ignored: Collection[str] = ()) -> Outcome:
    """What the answer makes of the listing. A difference in `ignored` members alone is none: the body stays as the last
    event told it."""
    if answer.began == known.began:
        return Outcome(known)  # the same message again
    after = _applied(known, answer)
    if same_but_for(ignored, known.body, after.body):
        after = after.but(body=known.body)
    # Only a webhook for the item itself maps it again, not one for the list that it is in.
    if known.unmapped and (answer.asked <= known.unmapped or answer.shape == "list"):
        began = max(known.began, after.began)
        return Outcome(known.but(began=began, ended=after.ended, own_began=after.own_began))
    differs = after.text != known.text
    overlapped = answer.began <= known.ended and known.began <= answer.ended
    doubt = overlapped and differs
    if answer.began < known.began:
        # The item's own answer comes after a list's later one: only asking again tells what the list left out.
        overtaken = answer.shape == "item" and answer.began > known.own_began and differs
        return Outcome(_with_gaps_filled(known, answer), doubt=doubt or overtaken)
    after = after.but(unmapped=0) if after.unmapped else after
    change = _change(known, after)
    return Outcome(after.but(version=after.version + 1) if change else after, change, doubt)


def unmap(known: Listing, number: int) -> Outcome:
    """`action: unmapped`: gone for us, until a later webhook for it."""
    if known.asked > number or known.unmapped >= number:
        return Outcome(known)
    after = known.but(unmapped=number, body=None)
    change = _change(known, after)
    return Outcome(after.but(version=after.version + 1) if change else after, change)


def new_listing(connection_id: int, place: Place, item_id: str, attribute_type: str | None) -> Listing:
    """A listing that nobody has seen yet."""
    return Listing(
        connection_id=connection_id,
        listing_id=listing_id_of(connection_id, place.scope, item_id),
        scope=place.scope,
        item_id=item_id,
        own_path=place.item_path(item_id),
        attribute_type=place.noun or attribute_type or "unknown",
    )


def listing_for(connection_id: int, url: str, item: Json, shape: Shape, attribute_type: str | None) -> Listing:
    """The identity of an item found at a URL."""
    place = _place_of(url)
    listing = new_listing(connection_id, place, item_id_of(item, place), attribute_type)
    # Read alone, its own URL is the one that was asked, whatever id the item carries.
    return listing if shape == "list" else listing.but(own_path=place.path, own_url=url)


def mapping_for(mapping: PlatformIds, shape: Shape, attribute_type: str) -> PlatformIds:
    """Which of the webhook's ids hold for each item: a resource's own id does not hold for every resource in a list."""
    if shape == "list" and attribute_type == "resources":
        return PlatformIds(
            attribute_type=mapping.attribute_type, resource_type=None, location_id=mapping.location_id, resource_id=None
        )
    return mapping


def says_deleted(item: Json) -> bool:
    """Whether the item itself says that it is no more."""
    return isinstance(item, dict) and (item.get("deleted") is True or str(item.get("status")).lower() == "deleted")


def event_of(
    before: Listing, outcome: Outcome, *, reason: Reason, delivery_id: str | None, fetched_at: datetime
) -> ListingChanged:
    """The event that tells the change."""
    after, change = outcome.listing, outcome.change
    assert change is not None
    fields: list[str] = []
    patch: list[PatchOperation] = []
    if change == "updated":
        fields, patch = difference(before.body, after.body, (before.text, after.text))
    return ListingChanged(
        listing_id=after.listing_id,
        connection_id=after.connection_id,
        attribute_type=after.attribute_type,
        item_id=after.item_id,
        location_id=after.location_id,
        resource_id=after.resource_id,
        resource_type=after.resource_type,
        change=change,
        reason=reason,
        version=after.version,
        changed_fields=fields,
        patch=patch,
        previous=None if change == "created" else before.body,
        current=after.body,
        delivery_id=None if reason in ("resync", "hand") else delivery_id,
        fetched_at=fetched_at,
    )


def _applied(known: Listing, answer: Answer) -> Listing:
    mapping = answer.mapping
    body, writer = _body(known, answer)
    return known.but(
        body=body,
        written_by=writer,
        began=answer.began,
        ended=max(known.ended, answer.ended),  # the latest: a slow one may overlap with what comes after a quick one
        own_began=_own_began(known, answer),
        asked=known.asked if answer.shape == "list" else max(known.asked, answer.asked),
        own_url=answer.own_url or known.own_url,
        location_id=mapping.location_id or known.location_id,
        resource_id=mapping.resource_id or known.resource_id,
        resource_type=mapping.resource_type or known.resource_type,
    )


def _with_gaps_filled(known: Listing, answer: Answer) -> Listing:
    """An older answer tells nothing about the body, yet perhaps ids that nobody has told since."""
    mapping = answer.mapping
    return known.but(
        ended=max(known.ended, answer.ended),
        own_began=_own_began(known, answer),
        own_url=known.own_url or answer.own_url,
        location_id=known.location_id or mapping.location_id,
        resource_id=known.resource_id or mapping.resource_id,
        resource_type=known.resource_type or mapping.resource_type,
    )


def _own_began(known: Listing, answer: Answer) -> int:
    return max(known.own_began, answer.began) if answer.shape == "item" else known.own_began


def _body(known: Listing, answer: Answer) -> tuple[Json, Shape | None]:
    """A list may hold summaries: it changes only the members it has in a body that the item's own URL wrote."""
    if answer.item is None or says_deleted(answer.item):
        return None, known.written_by
    if answer.shape == "list" and known.written_by == "item" and isinstance(known.body, dict):
        return {**known.body, **answer.item}, "item"
    return answer.item, answer.shape


def _change(before: Listing, after: Listing) -> Change | None:
    if after.body is None:
        return "deleted" if before.live else None
    if not before.live:
        return "created"
    return "updated" if before.text != after.text else None

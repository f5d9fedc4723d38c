"""Which deletions have still to pass the brake, and when a suspect is none any more. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from common.brake import Suspect
from common.identity import place_of
from schemas.messages import PlatformIds, Shape, Source
from workers.reconcile.rules import Answer, Listing, Outcome


def gone_answer(listing: Listing, source: Source, *, itself: bool) -> Answer:
    """What a 404 says; `itself`: the source is the item's own URL, by the identity of URLs alone.

    Else the source may be a list that only did not hold the listing: it answers no webhook for the item itself.
    """
    itself = itself or (listing.own_url is not None and listing.own_path == place_of(source.url).path)
    shape: Shape = "item" if itself else "list"
    own_url = source.url if itself else None
    return Answer(None, shape, source.began, source.ended, source.asked, PlatformIds(), own_url)


def deletions(outcomes: Mapping[str, Outcome]) -> list[str]:
    """The listings that would be deleted."""
    return [one for one, outcome in outcomes.items() if outcome.change == "deleted"]


def undecided(listing_ids: Iterable[str], suspects: Mapping[str, Suspect], now: datetime) -> list[str]:
    """Those that have not passed the brake, held ones among them."""
    return [one for one in listing_ids if one not in suspects or not suspects[one].passed(now)]


def is_held(listing_id: str, suspects: Mapping[str, Suspect]) -> bool:
    """Whether a person decides about it already."""
    return listing_id in suspects and suspects[listing_id].state == "held"


def is_settled(after: Listing, suspect: Suspect) -> bool:
    """Whether the listing is deleted now, or an answer that began after it was missed shows it alive."""
    return not after.live or after.began > suspect.walk

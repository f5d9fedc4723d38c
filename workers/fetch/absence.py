"""What a walk makes of the listings that it did not meet. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from common.brake import Suspect, Vanished
from common.identity import Place, item_url, place_of


@dataclass(frozen=True)
class Absence:
    """`new` ask the brake as one batch; `again` passed it before; `first`: only a second complete walk tells."""

    new: list[Vanished]
    again: list[Vanished]
    first: list[Vanished]


def is_whole_collection(url: str) -> bool:
    """Whether the URL stands for all that lies in a collection: a query may filter, an item's URL names one of them."""
    return place_of(url).segment is None and not urlsplit(url).query


def vanished(listing_id: str, own_url: str | None, own_path: str, walked: str) -> Vanished:
    """An absent listing, with its own URL when that is another one than the URL that was walked."""
    url = own_url or item_url(own_path, walked)
    itself = url is not None and place_of(url).path == place_of(walked).path
    return Vanished(listing_id, None if itself else url)


def is_itself(own_url: str | None, own_path: str, place: Place) -> bool:
    """Whether the place is where the listing itself was read, not only a list that it was in."""
    return own_url is not None and own_path == place.path


def sort_absent(absent: Sequence[Vanished], known: Mapping[str, Suspect], walk: int, now: datetime) -> Absence:
    """What is to be done about each; those that are held wait for a person."""
    new: list[Vanished] = []
    again: list[Vanished] = []
    first: list[Vanished] = []
    for one in absent:
        suspect = known.get(one.listing_id)
        if suspect and suspect.state == "held":
            continue
        if suspect and suspect.passed(now):
            again.append(one)
        elif one.url is not None or (suspect and suspect.walk < walk):
            new.append(one)
        elif suspect is None:
            first.append(one)
    return Absence(new, again, first)

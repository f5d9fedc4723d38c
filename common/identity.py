"""What a listing is: where it lives in Syncaroo's API (DESIGN, Identity and order). Pure.

A path such as `/v1/locations/12/resources/7` has the scope `/v1/locations/12/resources` (up to and including its last
collection noun) and the segment `7`. Documented by Syncaroo: the nouns. Everything else is our decision.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, unquote_to_bytes, urlsplit, urlunsplit

from schemas.messages import Json

NOUNS = frozenset({"locations", "resources", "rates", "availability", "extras", "bookings"})
ID_MEMBERS = ("ID", "id", "syncarooId")

_PLAIN = "!$&'()*+,;=:@"
"""What a path's segment may hold as it is, beside letters, digits and `-._~`."""
_ID = re.compile(r"[^\x00-\x1f\x7f]{1,500}")
_LARGEST_ID = 10**100

_NAMESPACE = uuid.UUID("5a9d1c1e-6b0f-5d2e-9a57-3f0c6f1f8e11")


@dataclass(frozen=True)
class Place:
    """Where a URL points: the collection (`scope`) and, when it names a single item, its `segment`."""

    scope: str
    segment: str | None
    noun: str | None

    @property
    def path(self) -> str:
        """The path without trailing or doubled slashes, escaped where it must be: what spellings of one URL share."""
        return self.scope if self.segment is None else f"{self.scope}/{self.segment}"

    def item_path(self, item_id: str) -> str:
        """The path of the item's own URL, if it was found in this collection."""
        return f"{self.scope}/{as_segment(item_id)}" if self.noun else self.scope


def place_of(url: str) -> Place:
    """The place of an absolute URL; query and fragment do not matter."""
    segments = [_spelled(part) for part in urlsplit(url).path.split("/") if part]
    last = max((index for index, part in enumerate(segments) if part in NOUNS), default=None)
    if last is None:
        return Place(scope="/" + "/".join(segments), segment=None, noun=None)
    scope = "/" + "/".join(segments[: last + 1])
    rest = segments[last + 1 :]
    return Place(scope=scope, segment="/".join(rest) or None, noun=segments[last])


def item_url(own_path: str, near: str) -> str | None:
    """The own URL of the item with this path, on the host of the URL `near`; None when nothing says that it has one."""
    if place_of(own_path).segment is None:
        return None
    parts = urlsplit(near)
    return urlunsplit((parts.scheme, parts.netloc, own_path, "", ""))


def as_segment(item_id: str) -> str:
    """An item's id as a segment of its own URL's path."""
    return quote(item_id, safe=_PLAIN)


def _spelled(segment: str) -> str:
    return quote(unquote_to_bytes(segment), safe=_PLAIN)


def own_id(item: Json) -> str | None:
    """The id that the item itself carries, as text; None when it has none that a URL and both databases can hold."""
    if not isinstance(item, dict):
        return None
    for name in ID_MEMBERS:
        value = item.get(name)
        if isinstance(value, str) and _ID.fullmatch(value):
            return value
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST_ID:
            return str(value)
    return None


def item_id_of(item: Json, place: Place) -> str:
    """The item's own id, else the segment after the collection noun, else the last segment of the path."""
    return own_id(item) or place.segment or place.scope.rsplit("/", 1)[-1]


def listing_id_of(connection_id: int, scope: str, item_id: str) -> str:
    """The stable public id of a listing (UUIDv5)."""
    return str(uuid.uuid5(_NAMESPACE, f"{connection_id}\n{scope}\n{item_id}"))


@lru_cache(maxsize=256)
def plural(attribute_type: str | None) -> str | None:
    """Syncaroo's attribute types come in singular or plural and in any case; ours are plural and lower case."""
    name = (attribute_type or "").strip().lower()
    if not name:
        return None
    return name + "s" if name + "s" in NOUNS else name

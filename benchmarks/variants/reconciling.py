"""Pages of 100 listings, as fetch publishes them, each page again and again: other bodies each time, or the same."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from datetime import UTC, datetime

from benchmarks.variants.pages import listing
from common.broker.outgoing import outgoing
from common.codec import canonical, dumps
from schemas.messages import Json, Message, PageFetched, PlatformIds, Source

LISTINGS = 100
CONNECTION = 99
DATABASE = os.environ.get("BENCH_DATABASE", "")
PAGES = int(os.environ.get("BENCH_PAGES", "40"))
"""So many pages are there; who asks gets one after the other, and each in its turn again."""
STORED = os.environ.get("BENCH_STORED") == "1"
"""Whether their listings are stored already."""
CHANGING = os.environ.get("BENCH_CHANGING", "1") == "1"
"""Whether the bodies are others each time."""
STEP = 7919
"""Between one page and the next, so that neighbours in the store are no neighbours in time; a prime."""

_REVISION = 7777777771
_BEGAN = 7777777772
_PAGE = 7777777773


@dataclass(frozen=True)
class Turn:
    """One page once: its message's body, and what is in it."""

    page: int
    revision: int
    body: bytes


def scope(page: int) -> str:
    """The path of the collection that a page is of: its own, so that its items are its own."""
    return f"/v1/locations/1198/resources/{page}/rates"


def first_version(page: int) -> int:
    """Of a page's listings, as they are stored beforehand: each has another history."""
    return 1 + page % 10


def item(number: int, revision: int) -> dict[str, Json]:
    """One item of any page: two members are others with each revision."""
    return {**listing(number), "ID": f"{number}", "revision": revision, "updated": f"{revision}"}


def stored_body(number: int, revision: int) -> str:
    """As the store keeps it."""
    return canonical(item(number, revision))


def message(page: int, began: int, revision: int) -> Message:
    """What fetch publishes of a resync's page."""
    return PageFetched(
        connection_id=CONNECTION,
        source=Source(
            url=f"https://api.syncaroo.com{scope(page)}",
            began=began,
            ended=began,
            asked=0,
            attempt=0,
            reason="resync",
            delivery_id=None,
            fetched_at=datetime.now(UTC),
            status=200,
        ),
        mapping=PlatformIds(attribute_type="rates", location_id="1198", resource_id="7843"),
        shape="list",
        items=[item(number, revision) for number in range(LISTINGS)],
        page=1,
    )


class Pages:
    """Makes messages faster than encoding them would: the spelling between the numbers is always the same."""

    def __init__(self, began: int) -> None:
        made = dumps(message(_PAGE, _BEGAN, _REVISION))
        self._parts = made.split(b"%d" % _REVISION)
        self._numbers = itertools.count(began)
        self._visits = itertools.count()
        self._revisions: dict[int, int] = {}
        self.headers = dict(outgoing(message(1, 1, 1), "reconcile", CONNECTION).headers)

    def next(self) -> Turn:
        """The next page in its turn."""
        page = next(self._visits) * STEP % PAGES
        known = self._revisions.get(page, first_version(page) if STORED else 0)
        revision = known + 1 if CHANGING or not known else known
        self._revisions[page] = revision
        head, *rest = self._parts
        head = head.replace(b"%d" % _PAGE, b"%d" % page).replace(b"%d" % _BEGAN, b"%d" % next(self._numbers))
        return Turn(page, revision, (b"%d" % revision).join([head, *rest]))

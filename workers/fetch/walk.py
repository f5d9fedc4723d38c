"""The way over `pages.next`: what it has seen, how an answer is read, when it is complete. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from common.codec import decode, dumps
from common.errors import BadJson, UpstreamRefused
from common.identity import own_id, place_of
from schemas.messages import Json, Shape
from workers.fetch.answers import Page

MAX_PAGES = 1000
MAX_ITEMS = 200_000
MAX_BYTES = 256 * 1024 * 1024
MAX_WHOLE_ITEMS = 20_000
MAX_WHOLE_BYTES = 5 * 1024 * 1024
"""Of a list that is one listing: its event holds it twice and the patch, and a broker's message holds 16 MiB."""
MAX_SAVED = 1024 * 1024


@dataclass(frozen=True)
class Walk:
    """What a walk over `pages.next` has seen so far; a value, so that each step can be tested alone."""

    url: str
    first: int
    """The number of its first GET: it answers whatever was wanted by then."""
    visited: frozenset[str] = frozenset()
    pages: int = 0
    shape: Shape | None = None
    seen_ids: frozenset[str] = frozenset()
    anomalies: tuple[str, ...] = ()
    count: int | None = None
    size: int = 0
    gathered: tuple[Json, ...] = field(default=(), repr=False)

    @property
    def complete(self) -> bool:
        """Whether every page from 1 to the count was seen, without anything odd: only then is absence a sign."""
        return self.shape == "list" and not (self.url or self.anomalies) and self._counted

    @property
    def broken(self) -> bool:
        """Whether pages are known to be missing: a list that is one listing is then not the list. Without a count one
        page is all there is to go by."""
        return bool(self.anomalies) or not (self._counted or self.count is None)

    @property
    def empty(self) -> bool:
        """Whether it was a list of nothing: then its shape cannot be told from the answer."""
        return self.shape == "list" and self.pages == 1 and not (self.url or self.seen_ids or self.anomalies)

    @property
    def _counted(self) -> bool:
        """Whether the count is that of the pages seen; a list of nothing may count none."""
        nothing = self.count == 0 and self.pages == 1 and not (self.seen_ids or self.gathered)
        return nothing or self.pages == self.count


def saved(walk: Walk) -> str | None:
    """The walk as text, to go on from its next page after a crash; None when it begins again instead.

    A list that is one listing is applied as a whole, so that its pages cannot be told by halves.
    """
    if not walk.url or walk.pages == 0 or walk.shape == "whole":
        return None
    text = dumps(walk).decode()
    return text if len(text) <= MAX_SAVED else None


def resumed(text: str | None, wanted: int) -> Walk | None:
    """The saved walk, when it answers all that is wanted."""
    try:
        walk = decode(text.encode(), Walk) if text else None
    except BadJson:  # of another version of ours
        return None
    return walk if walk is not None and wanted <= walk.first else None


def step(walk: Walk, page: Page) -> Walk:
    """The walk after one more page; its `url` is the page that comes next, or empty at the end.

    Raises:
        UpstreamRefused: `too_large`, of a list that is one listing.
    """
    shape = walk.shape or shape_of(walk.url, page)
    ids = [own_id(item) for item in page.items]
    after = replace(
        walk,
        url=page.next_url or "",
        visited=walk.visited | {walk.url},
        pages=walk.pages + 1,
        shape=shape,
        seen_ids=walk.seen_ids | {one for one in ids if one is not None},
        count=page.count,
        size=walk.size + page.size,
        gathered=(*walk.gathered, *page.items) if shape == "whole" else (),
    )
    if shape == "whole" and (len(after.gathered) > MAX_WHOLE_ITEMS or after.size > MAX_WHOLE_BYTES):
        raise UpstreamRefused("too_large", "the items without ids are too much for one listing", status=200)
    ends = _ends(after)
    odd = [*_oddities(walk, page), *ends]
    if shape == "list" and None in ids:
        odd.append("an item without an id")
    new = [one for one in odd if one not in walk.anomalies]
    return replace(after, url="" if ends else after.url, anomalies=(*walk.anomalies, *new))


def _oddities(walk: Walk, page: Page) -> list[str]:
    """What a page says that does not fit the pages before it."""
    pages = walk.pages + 1
    nothing = page.current == 0 == page.count and not page.items
    found = []
    if page.current not in (None, pages) and not nothing:
        found.append("page numbers do not follow each other")
    if walk.pages and page.count != walk.count:
        found.append("the count of pages changed")
    if page.odd:
        found.append(page.odd)
    return found


def _ends(after: Walk) -> list[str]:
    """Why the walk ends though there is a next link: it would come round, or never come to an end."""
    caps = {
        "pages": (after.pages, MAX_PAGES),
        "items": (len(after.seen_ids), MAX_ITEMS),
        "bytes": (after.size, MAX_BYTES),
    }
    if not after.url:
        return []
    loops = ["the next link was visited before"] if after.url in after.visited else []
    return loops + [f"too many {what}" for what, (had, most) in caps.items() if had >= most]


def shape_of(url: str, page: Page) -> Shape:
    """How the first page of an answer is to be read.

    A URL that names an item answers with it, alone or as a list of one (the guide's example is a list).
    """
    named = place_of(url).segment is not None
    if page.single or (named and len(page.items) <= 1):
        return "item"
    if page.items and not any(map(own_id, page.items)):
        return "whole"
    return "list"

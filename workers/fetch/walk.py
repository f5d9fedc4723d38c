"""The way over `pages.next`: what it has seen, how an answer is read, when it is complete. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from common.codec import decode, dumps
from common.errors import BadJson, UpstreamRefused
from common.identity import own_id, place_of
from schemas.messages import Json, Shape
from workers.fetch.answers import Page

MAX_PAGES = 1000
MAX_WHOLE_ITEMS = 20_000
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
    gathered: tuple[Json, ...] = field(default=(), repr=False)

    @property
    def complete(self) -> bool:
        """Whether every page from 1 to the count was seen, without anything odd: only then is absence a sign."""
        return self.shape == "list" and not self.anomalies and self.count is not None and self.pages == self.count

    @property
    def broken(self) -> bool:
        """Whether pages are known to be missing: a list that is one listing is then not the list. Without a count one
        page is all there is to go by; a list of nothing may count no page."""
        nothing = self.count == 0 and not self.gathered
        return bool(self.anomalies) or not (nothing or self.count in (None, self.pages))

    @property
    def empty(self) -> bool:
        """Whether it was a list of nothing: then its shape cannot be told from the answer."""
        return self.shape == "list" and self.pages == 1 and not (self.url or self.seen_ids or self.anomalies)


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
    """The walk after one more page; its `url` is the page that comes next, or empty at the end."""
    shape = walk.shape or shape_of(walk.url, page)
    pages = walk.pages + 1
    visited = walk.visited | {walk.url}
    odd = list(walk.anomalies)
    if page.current not in (None, pages):
        odd.append("page numbers do not follow each other")
    if walk.pages and page.count != walk.count:
        odd.append("the count of pages changed")
    next_url = page.next_url or ""
    if next_url in visited:
        odd.append("the next link was visited before")
        next_url = ""
    if next_url and pages >= MAX_PAGES:
        odd.append("too many pages")
        next_url = ""
    ids = [own_id(item) for item in page.items]
    if shape == "list" and None in ids:
        odd.append("an item without an id")
    return Walk(
        url=next_url,
        first=walk.first,
        visited=visited,
        pages=pages,
        shape=shape,
        seen_ids=walk.seen_ids | {one for one in ids if one is not None},
        anomalies=tuple(odd),
        count=page.count,
        gathered=_gather(walk, page) if shape == "whole" else (),
    )


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


def _gather(walk: Walk, page: Page) -> tuple[Json, ...]:
    if len(walk.gathered) + len(page.items) > MAX_WHOLE_ITEMS:
        raise UpstreamRefused("too_large", f"more than {MAX_WHOLE_ITEMS} items without ids")
    return (*walk.gathered, *page.items)

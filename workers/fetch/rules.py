"""What an answer of Syncaroo's API means, and when to resync. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin

from common.codec import loads
from common.errors import BadJson, UpstreamFailed, UpstreamRefused
from common.identity import as_segment, own_id, place_of
from schemas.messages import Json, Shape

MAX_PAGES = 1000
MAX_WHOLE_ITEMS = 20_000
MAX_RETRY_AFTER = timedelta(hours=1)

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_TRANSIENT_CLIENT_ERRORS = frozenset({408, 425, 429})


@dataclass(frozen=True)
class Response:
    """An HTTP answer: `retry_after` as it came."""

    status: int
    body: bytes = b""
    content_type: str = ""
    retry_after: str | None = None


@dataclass(frozen=True)
class Page:
    """One page: its items, and what it says of itself (None: it does not say)."""

    items: list[Json]
    single: bool
    next_url: str | None
    current: int | None
    count: int | None


@dataclass(frozen=True)
class Walk:
    """What a walk over `pages.next` has seen so far; a value, so that each step can be tested alone."""

    url: str
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


def check_status(response: Response, now: datetime) -> None:
    """Sort what is not a success.

    Raises:
        UpstreamFailed: it passes (5xx, 429, time-outs).
        UpstreamRefused: it is final.
    """
    status = response.status
    if status == 200:
        return
    if status >= 500 or status in _TRANSIENT_CLIENT_ERRORS:
        wait = retry_after_seconds(response.retry_after, now)
        raise UpstreamFailed(f"answered {status}", status=status, retry_after=wait)
    if status in (404, 410):
        raise UpstreamRefused("not_found", f"answered {status}", status=status)
    if 300 <= status < 400:
        raise UpstreamRefused("redirected", f"answered {status}", status=status)
    raise UpstreamRefused("refused", f"answered {status}", status=status)


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """`Retry-After` in either form, from 0 to an hour; None when it is absent or garbage."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:10])
    else:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER.total_seconds())


def parse_page(response: Response, url: str) -> Page:
    """The page in a 200 answer. A relative `next` is resolved; an absolute one is kept byte for byte.

    Raises:
        UpstreamRefused: `not_json` or `bad_shape`.
    """
    if "json" not in response.content_type.lower():
        raise UpstreamRefused("not_json", "the content type is not JSON", status=response.status)
    try:
        body = loads(response.body)
    except BadJson as error:
        raise UpstreamRefused("not_json", error.detail, status=response.status) from error
    data = body.get("data") if isinstance(body, dict) else None
    if isinstance(data, dict):
        items, single = [data], True
    elif isinstance(data, list):
        items, single = data, False
    else:
        raise UpstreamRefused("bad_shape", "no `data` in the answer", status=response.status)
    pages = body.get("pages")
    pages = pages if isinstance(pages, dict) else {}
    return Page(
        items, single, _next_url(pages.get("next"), url), _whole(pages.get("current")), _whole(pages.get("count"))
    )


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


def _next_url(value: Json, url: str) -> str | None:
    if not isinstance(value, str) or not value:
        return None
    if _SCHEME.match(value):
        return value
    try:
        return urljoin(url, value)
    except ValueError:
        return value  # whatever it is, it is no address, and where it leads is checked before it is called


def _whole(value: Json) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def next_resync(interval: timedelta, spread: float, *, first: bool) -> timedelta:
    """How long until a connection is read again: the interval and up to a tenth of it; at first anything up to it.

    `spread` (0 to 1, random) keeps connections that began together from staying together.
    """
    return interval * (spread if first else 1 + spread / 10)


def item_urls(url: str, ids: Sequence[str]) -> list[str]:
    """The own URLs of items found in the collection at `url`."""
    base = url.split("?", 1)[0].split("#", 1)[0].rstrip("/")
    return [f"{base}/{as_segment(one)}" for one in ids]

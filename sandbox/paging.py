"""Cuts a list into pages and writes the `pages` member: pure functions.

`next` is null on the last page and `prev` on the first (the guide does not say). A link carries a `cursor` that must
come back letter by letter: the guide calls the links prepared, so nobody may rebuild them.
"""

import hashlib
from typing import Any
from urllib.parse import quote

from msgspec import Struct


class Page(Struct, frozen=True):
    """Page `current` of `count` of a list of `total`; `start` and `stop` are its slice."""

    current: int
    count: int
    start: int
    stop: int


def cut(total: int, size: int, current: int) -> Page | None:
    """The page, None when there is none of that number; an empty list has one empty page."""
    count = max(1, -(-total // size))
    if not 1 <= current <= count:
        return None
    return Page(current, count, (current - 1) * size, min(total, current * size))


def link(url: str, number: int) -> str:
    """The prepared URL of a page; the first is the plain URL."""
    return url if number == 1 else f"{url}?page={number}&cursor={_cursor(url, number)}"


def asked(url: str, raw_query: str) -> int | None:
    """The number of the page that a query asks for, None when it is no link that we prepared."""
    if not raw_query:
        return 1
    number = raw_query.removeprefix("page=").split("&")[0]
    known = number.isdecimal() and f"{url}?{raw_query}" == link(url, int(number))
    return int(number) if known else None


def pages(url: str, page: Page) -> dict[str, Any]:
    """The `pages` member as the guide prints it."""
    return {
        "count": page.count,
        "current": page.current,
        "first": link(url, 1),
        "next": link(url, page.current + 1) if page.current < page.count else None,
        "prev": link(url, page.current - 1) if page.current > 1 else None,
        "last": link(url, page.count),
    }


def _cursor(url: str, number: int) -> str:
    """Ends in an escaped slash and equals sign: a client that re-serialises URLs gives itself away."""
    return quote(hashlib.sha256(f"{url} {number}".encode()).hexdigest()[:8] + "/=", safe="")

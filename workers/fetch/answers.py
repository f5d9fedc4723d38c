"""What one answer of Syncaroo's API means: a page, trouble that passes, or a refusal. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin

from common.codec import loads
from common.errors import BadJson, UpstreamFailed, UpstreamRefused
from schemas.messages import Json

MAX_RETRY_AFTER = timedelta(hours=1)
MAX_PAGE_ITEMS = 20_000
MAX_LINK = 8192

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_CUT_OFF = "Input data was truncated"
_SECONDS = re.compile(r"-?[0-9]+")
_TRANSIENT_CLIENT_ERRORS = frozenset({407, 408, 425, 429})  # 407 is said by a proxy of ours


@dataclass(frozen=True)
class Response:
    """An HTTP answer: `retry_after` as it came."""

    status: int
    body: bytes = b""
    content_type: str = ""
    retry_after: str | None = None


@dataclass(frozen=True)
class Page:
    """One page: its items, and what it says of itself (None: it does not say); `size` in bytes."""

    items: list[Json]
    single: bool
    next_url: str | None
    current: int | None
    count: int | None
    odd: str | None = None
    """What is wrong with its next link, which is then none."""
    size: int = field(default=0, compare=False)


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
    """`Retry-After` in either form, cut to 0 to an hour; None when it is absent or garbage."""
    if value is None:
        return None
    text = value.strip()
    if _SECONDS.fullmatch(text):
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
        UpstreamFailed: it was cut off.
        UpstreamRefused: `not_json`, `bad_shape` or `too_large`.
    """
    if "json" not in response.content_type.lower():
        raise UpstreamRefused("not_json", "the content type is not JSON", status=response.status)
    try:
        body = loads(response.body)
    except BadJson as error:
        if error.detail == _CUT_OFF:  # by a proxy, inside what is compressed, or where the end of it is not told
            raise UpstreamFailed("the answer was cut off", status=response.status) from error
        raise UpstreamRefused("not_json", error.detail, status=response.status) from error
    items, single = _items(body.get("data") if isinstance(body, dict) else None, response.status)
    pages = body.get("pages")
    pages = pages if isinstance(pages, dict) else {}
    next_url, odd = _next_url(pages.get("next"), url)
    current, count = _whole(pages.get("current")), _whole(pages.get("count"))
    return Page(items, single, next_url, current, count, odd, len(response.body))


def _items(data: Json, status: int) -> tuple[list[Json], bool]:
    if isinstance(data, dict):
        return [data], True
    if not isinstance(data, list):
        raise UpstreamRefused("bad_shape", "no `data` in the answer", status=status)
    if len(data) > MAX_PAGE_ITEMS:
        raise UpstreamRefused("too_large", f"more than {MAX_PAGE_ITEMS} items in a page", status=status)
    return data, False


def _next_url(value: Json, url: str) -> tuple[str | None, str | None]:
    """The link to the next page, or what is wrong with it; neither at the end of the pages."""
    if not value:
        return None, None
    if not isinstance(value, str):
        return None, "the next link is no text"
    if len(value) > MAX_LINK:
        return None, "the next link is too long"
    if _SCHEME.match(value):
        return value, None
    try:
        return urljoin(url, value), None
    except ValueError:
        return value, None  # whatever it is, it is no address, and where it leads is checked before it is called


def _whole(value: Json) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None

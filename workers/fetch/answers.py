"""What one answer of Syncaroo's API means: a page, trouble that passes, or a refusal. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin

from common.codec import loads
from common.errors import BadJson, UpstreamFailed, UpstreamRefused
from schemas.messages import Json

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

"""Asking an HTTP address without tokens, and telling DNS, TCP, TLS and HTTP apart when it does not answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp
from aiohttp import hdrs

from common.bodies import read_at_most

SECONDS = aiohttp.ClientTimeout(total=6, connect=4)
MOST_BYTES = 256 * 1024


class Unreached(Exception):
    """No answer; the text says which step failed, as the rest of a sentence."""


@dataclass(frozen=True)
class Answered:
    """An answer; `ahead` is by how many seconds its `Date` is ahead of this machine's clock, None: it has none."""

    status: int
    location: str
    body: bytes
    ahead: float | None


async def ask(url: str, *, method: str = "GET", proxy: str | None = None, data: bytes | None = None) -> Answered:
    """One request, without redirects.

    Raises:
        Unreached.
    """
    before = datetime.now(UTC)
    try:
        async with (
            aiohttp.ClientSession(timeout=SECONDS, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False) as session,
            session.request(method, url, proxy=proxy, data=data, allow_redirects=False) as answer,
        ):
            date, location = answer.headers.get(hdrs.DATE), answer.headers.get(hdrs.LOCATION, "")
            body = await read_at_most(answer, MOST_BYTES) or b""
            return Answered(answer.status, location, body, _ahead(date, before, datetime.now(UTC)))
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise Unreached(words_of(error)) from None


_STEPS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    (
        (aiohttp.ClientHttpProxyError, aiohttp.ClientProxyConnectionError),
        "the proxy (EGRESS_PROXY) does not let us through",
    ),
    ((aiohttp.ClientConnectorDNSError,), "DNS does not know the name"),
    (
        (aiohttp.ClientConnectorCertificateError,),
        "TLS: its certificate is not valid for that name, or nobody we trust has signed it",
    ),
    ((aiohttp.ClientSSLError,), "TLS fails: what listens there speaks no TLS, or another version"),
    ((aiohttp.ClientConnectorError,), "no TCP connection"),
    ((TimeoutError,), "no answer in time"),
)
"""From the special to the general."""


def words_of(error: BaseException) -> str:
    """Which step failed. Pure; the library's own texts hold addresses and are not told."""
    kind = type(getattr(error, "os_error", error)).__name__
    told = next((words for kinds, words in _STEPS if isinstance(error, kinds)), "it does not answer in HTTP")
    return told if isinstance(error, TimeoutError) else f"{told} ({kind})"


def _ahead(date: str | None, before: datetime, after: datetime) -> float | None:
    """Between 0 and 1 s of what `Date` says is lost, as it tells whole seconds."""
    if date is None:
        return None
    try:
        there = parsedate_to_datetime(date)
    except ValueError:
        return None
    if there.tzinfo is None:
        there = there.replace(tzinfo=UTC)
    return (there - (before + (after - before) / 2)).total_seconds() + 0.5

"""Where a Syncaroo token may go: the one check of a URL, at the webhook and at every link (CONTRACT §5.5). Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from yarl import URL

from common.errors import ForbiddenHost, SettingsError

_PRINTABLE = re.compile(r"[!-\[\]-~]+")
"""Visible ASCII without the backslash: everything else is read differently by somebody."""
_AUTHORITY = re.compile(r"[a-z]+://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::([0-9]+))?(?=[/?#]|$)", re.IGNORECASE)


class AllowedHosts:
    """`SYNCAROO_API_HOSTS`: exact host and port, https unless `allow_http`.

    A host listed without a port means the scheme's own.

    Raises:
        SettingsError: an entry is not host[:port].
    """

    def __init__(self, hosts: Sequence[str], allow_http: bool) -> None:
        self._schemes = ("https", "http") if allow_http else ("https",)
        self._allowed = frozenset(
            place for scheme in self._schemes for host in hosts if (place := _place(f"{scheme}://{host}")) is not None
        )
        if any(_place(f"https://{host}") is None or not _AUTHORITY.fullmatch(f"https://{host}") for host in hosts):
            raise SettingsError(["SYNCAROO_API_HOSTS: is not a comma list of host or host:port"])

    def check(self, url: str) -> None:
        """Let the URL pass, as `URL(url, encoded=True)` would be sent.

        Raises:
            ForbiddenHost: scheme, host or port is not allowed, there is userinfo, or it cannot be read in one way only.
        """
        place = _place(url)
        if place is None:
            raise ForbiddenHost("not a plain URL")
        if place[0] not in self._schemes:
            raise ForbiddenHost("the scheme is not https")
        if place not in self._allowed:
            raise ForbiddenHost("not one of SYNCAROO_API_HOSTS")


def _place(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of the parsed URL that would be sent; None when there are two ways to read it."""
    plain = _AUTHORITY.match(url)
    if not _PRINTABLE.fullmatch(url) or plain is None:
        return None
    return _read(plain[0], plain[1])


@lru_cache(maxsize=1024)
def _read(beginning: str, host: str) -> tuple[str, str, int] | None:
    """As `_place`, of all that stands before the path; what follows is plain and has no say in it."""
    try:
        parsed = URL(beginning, encoded=True)
        port = parsed.port
    except ValueError:
        return None
    read = (parsed.raw_host or "").lower()
    if read != host.strip("[]").lower() or port is None or parsed.raw_user is not None:
        return None
    return parsed.scheme, read, port

"""What an answer of Syncaroo's token endpoint means, when to renew, when to give up. Pure.

Documented by Syncaroo: the four members of a good answer, 600 s, single-use refresh tokens. Its errors are not; that
`invalid_grant` is spelt as in RFC 6749 is our assumption.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from common.codec import loads
from common.errors import BadJson
from common.token_pair import Pair

DOCUMENTED_LIFETIME = timedelta(seconds=600)
LONGEST_LIFETIME = timedelta(days=30)
LEASE = timedelta(seconds=20)
CODE_LIFETIME = timedelta(minutes=10)
"""How long a code is tried; Syncaroo does not say how long it lives."""

_ACCESS_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
_REFRESH_TOKEN = re.compile(r"[\x20-\x7e]{1,16384}")
_ERRORS = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
        "temporarily_unavailable",
        "server_error",
    }
)


@dataclass(frozen=True)
class Reply:
    """An answer as it came; a body over the cap is cut and so is not JSON."""

    status: int
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class NoReply:
    """No whole answer came. `sent` is False only when the request provably never left."""

    detail: str
    sent: bool


@dataclass(frozen=True)
class Obtained:
    """A whole pair."""

    pair: Pair
    lifetime: timedelta


@dataclass(frozen=True)
class Refused:
    """`invalid_grant`: this code or refresh token will never be accepted."""

    detail: str


@dataclass(frozen=True)
class Unknown:
    """Anything else: whether the token was used up is not known. `our_fault`: Syncaroo says the request is wrong."""

    detail: str
    sent: bool = True
    our_fault: bool = False


Outcome = Obtained | Refused | Unknown


def classify(reply: Reply | NoReply) -> Outcome:
    """What the answer means for the token that was presented."""
    if isinstance(reply, NoReply):
        return Unknown(reply.detail, sent=reply.sent)
    members = _members(reply.body)
    if 200 <= reply.status <= 299:
        return _obtained(members) or Unknown(f"HTTP {reply.status} without a token pair")
    error = _error(members)
    if reply.status in (400, 401) and error == "invalid_grant":
        return Refused(f"HTTP {reply.status} invalid_grant")
    ours = 400 <= reply.status <= 499 and reply.status not in (408, 425, 429)
    return Unknown(f"HTTP {reply.status} {error}".rstrip(), our_fault=ours)


def lifetime_of(expires_in: Any) -> timedelta:
    """`expiresIn` in seconds, as a number or as text.

    A pair whose lifetime is missing or makes no sense is still the only pair there is, as its predecessor is used up:
    it is kept, with the documented 600 s.
    """
    if isinstance(expires_in, str) and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", expires_in.strip()):
        expires_in = float(expires_in)
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float):
        return DOCUMENTED_LIFETIME
    if not 0 < expires_in <= LONGEST_LIFETIME.total_seconds():
        return DOCUMENTED_LIFETIME
    return timedelta(seconds=expires_in)


def refresh_after(lifetime: timedelta, spread: float) -> timedelta:
    """When to renew a pair that is valid for so long: at 60 to 70 % (`spread` from 0 to 1), daily at least.

    Never within the first second: a lifetime that is always over at once must not make a hot loop.
    """
    return min(max(lifetime * (0.6 + 0.1 * spread), timedelta(seconds=1)), timedelta(days=1))


def is_code_spent(age: timedelta, delay: timedelta | None) -> bool:
    """Whether another try after `delay` (None: there is none) would come too late for a code of this age."""
    return delay is None or age + delay > CODE_LIFETIME


@dataclass(frozen=True)
class Look:
    """The grant row as it was at `now`, by the store's clock."""

    now: datetime
    state: str = "none"
    sealed_pair: str | None = field(default=None, repr=False)
    rt_version: int = 0
    expires_at: datetime | None = None
    refresh_at: datetime | None = None
    lease_owner: str | None = None
    lease_until: datetime | None = None
    intent: str | None = None
    attempts: int = 0

    @property
    def is_renewable(self) -> bool:
        """Whether there is a refresh token that may still be good."""
        return self.state == "active" and self.sealed_pair is not None

    @property
    def longest_wait(self) -> timedelta:
        """The most that `refresh_after` can have put between storing the pair and renewing it: 7/3 of what it left."""
        if self.expires_at is None or self.refresh_at is None:
            return LONGEST_LIFETIME
        return min(max((self.expires_at - self.refresh_at) * 7 / 3, timedelta(seconds=1)), LONGEST_LIFETIME)


class Watch:
    """Times of the store as this process has seen them go by, on its own monotonic clock.

    A moment counts as passed by whichever clock says so first, so that a store clock that is put back by an hour does
    not stop renewing for an hour. Forgets what is no longer in the row.
    """

    def __init__(self) -> None:
        self._deadlines: dict[tuple[object, ...], float] = {}

    def is_due(self, look: Look, monotonic: float) -> bool:
        """Whether the pair is to be renewed now, and nobody's lease or back-off stands in the way."""
        due, free = ("refresh", look.rt_version, look.refresh_at), ("lease", look.lease_owner, look.lease_until)
        self._deadlines = {key: value for key, value in self._deadlines.items() if key in (due, free)}
        longest = LEASE if look.lease_owner is not None else LONGEST_LIFETIME
        is_free = self._passed(free, look.lease_until, look.now, monotonic, longest)
        is_due = self._passed(due, look.refresh_at, look.now, monotonic, look.longest_wait)
        return look.is_renewable and is_due and is_free

    def is_silent(self, look: Look, monotonic: float) -> bool:
        """Whether nobody's lease says that it may be talking to Syncaroo now.

        A lease without an owner is a back-off: nobody is talking, and a code need not wait for it.
        """
        lease = ("lease", look.lease_owner, look.lease_until)
        self._deadlines = {key: value for key, value in self._deadlines.items() if key == lease}
        return look.lease_owner is None or self._passed(lease, look.lease_until, look.now, monotonic, LEASE)

    def _passed(
        self, key: tuple[object, ...], moment: datetime | None, now: datetime, monotonic: float, longest: timedelta
    ) -> bool:
        if moment is None or moment <= now:
            return True
        left = min(moment - now, longest).total_seconds()
        return monotonic >= self._deadlines.setdefault(key, monotonic + left)


def _members(body: bytes) -> dict[str, Any]:
    try:
        value = loads(body)
    except BadJson:
        return {}
    return value if isinstance(value, dict) else {}


def _obtained(members: dict[str, Any]) -> Obtained | None:
    access, refresh = members.get("accessToken"), members.get("refreshToken")
    if not (isinstance(access, str) and _ACCESS_TOKEN.fullmatch(access)):
        return None
    if not (isinstance(refresh, str) and _REFRESH_TOKEN.fullmatch(refresh)):
        return None
    return Obtained(Pair(access_token=access, refresh_token=refresh), lifetime_of(members.get("expiresIn")))


def _error(members: dict[str, Any]) -> str:
    """The error's name when it is a known one: what Syncaroo writes elsewhere might repeat a secret."""
    error = members.get("error")
    return error if isinstance(error, str) and error in _ERRORS else ""

"""The access tokens that we issue to Syncaroo: signed, so that checking one needs no store.

Documented by Syncaroo: it sends the token back as `Authorization: Bearer`. What is in it is our decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from common.signed_text import SignedText

PREFIX = "sgw_at_"
REMEMBERED = 4096
"""Tokens whose signature was looked at before: each comes again and again for an hour."""


@dataclass(frozen=True)
class AccessToken:
    """What a valid token says: whose it is, which family issued it, until when (Unix seconds) it lives."""

    connection_id: int
    family: str
    expires_at: int


@dataclass(frozen=True)
class Expired:
    """An authentic token whose time is over."""

    token: AccessToken


class AccessTokens:
    """Issues and reads access tokens."""

    def __init__(self, keys: Sequence[str], seconds: int) -> None:
        """`keys` are `SECRET_KEYS`, newest first; `seconds` is the life of a token."""
        self._texts = SignedText(keys, "access-token", PREFIX)
        self._signed = lru_cache(maxsize=REMEMBERED)(self._check)
        self.seconds = seconds

    def issue(self, connection_id: int, family: str, now: int) -> str:
        """A token that lives for `seconds` from `now` (Unix seconds)."""
        return self._texts.sign(str(connection_id), family, str(now + self.seconds))

    def read(self, token: str, now: int) -> AccessToken | Expired | None:
        """What the token says at `now`; None: it is not one of ours. Revocation is another question."""
        found = self._signed(token) if self._texts.may_be(token) else None
        return found if found is None or now < found.expires_at else Expired(found)

    def _check(self, token: str) -> AccessToken | None:
        parts = self._texts.read(token)
        if parts is None:
            return None
        connection_id, family, expires_at = parts
        return AccessToken(int(connection_id), family, int(expires_at))

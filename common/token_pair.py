"""The token pair as it is sealed in the grant row: written by the token worker, read by it and by the fetch worker."""

from __future__ import annotations

import msgspec

from common.codec import decode, dumps
from common.errors import BadJson, Permanent


class Pair(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Syncaroo's tokens for us; never shown."""

    access_token: str
    refresh_token: str

    def __repr__(self) -> str:
        return "Pair(…)"


def pack(pair: Pair) -> bytes:
    """The pair as it is sealed: `{"accessToken", "refreshToken"}`."""
    return dumps(pair)


def unpack(raw: bytes) -> Pair:
    """The pair that was sealed.

    Raises:
        Permanent: `unreadable_secret`, it is not one.
    """
    try:
        return decode(raw, Pair)
    except BadJson:
        raise Permanent("unreadable_secret", "not a token pair") from None

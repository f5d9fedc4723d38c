"""Looking for secrets where none belongs: every canary, in every spelling, in every place."""

from __future__ import annotations

import html
import re
from base64 import b64encode
from collections.abc import Mapping
from urllib.parse import quote, quote_plus

from common.codec import dumps

SHORTEST = 8
"""A shorter canary would be found by chance."""


def found(canaries: Mapping[str, str], places: Mapping[str, bytes]) -> list[str]:
    """`name in place`, for each canary that is there as it is or encoded; nothing shows a canary's value."""
    wanted = {name: _spellings(value) for name, value in canaries.items()}
    return [
        f"{name} in {place}"
        for place, content in places.items()
        for name, spellings in wanted.items()
        if any(spelling in content for spelling in spellings)
    ]


def _spellings(secret: str) -> set[bytes]:
    """As it is, as in a URL, in JSON, in HTML, in hex, in base64 wherever it begins, and the wrong way round."""
    assert len(secret) >= SHORTEST, "too short to be a canary"
    raw = secret.encode()
    texts = {secret, quote(secret, safe=""), quote_plus(secret), html.escape(secret), dumps(secret).decode()[1:-1]}
    return {
        *(text.encode() for text in texts),
        raw[::-1],
        raw.hex().encode(),
        raw.hex().upper().encode(),
        *_base64(raw),
    }


def _base64(raw: bytes) -> set[bytes]:
    """The part of its base64 that does not depend on what stands before and after it, for each place to begin."""
    spellings = set()
    for before in range(3):
        encoded = b64encode(b"\0" * before + raw)
        whole = encoded[4 if before else 0 : len(encoded) - 4]
        spellings |= {whole, re.sub(rb"[+/]", lambda one: {b"+": b"-", b"/": b"_"}[one[0]], whole)}
    return spellings

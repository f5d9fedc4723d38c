"""The search for secrets finds what it is there for."""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote

import pytest

from common.codec import dumps
from common.crypto import TokenCipher
from tests.canaries import found

CANARY = "canary/1 ü+\"'<>?~"
KEY = "zH4nNqkS3G9hI0W0x3N2m1m0cJ0n7u4m6Vw0o8m9Q3E="


@pytest.mark.parametrize(
    "planted",
    [
        CANARY.encode(),
        f"Bearer {CANARY}".encode(),
        quote(CANARY, safe="").encode(),
        dumps({"token": CANARY}),
        CANARY.encode().hex().encode(),
        *(b64encode(b"x" * before + CANARY.encode() + b"yz") for before in range(4)),
        *(urlsafe_b64encode(b"x" * before + CANARY.encode() + b"yz") for before in range(4)),
        b"\x00\x01" * 1000 + CANARY.encode() + b"\xff",
        CANARY.encode()[::-1],
    ],
)
def test_what_was_planted_is_found(planted: bytes) -> None:
    """T-SECRETS-LOG, T-SECRETS-AMQP: the test of the test."""
    assert found({"secret": CANARY, "other": "another canary"}, {"there": planted, "elsewhere": b"nothing"}) == [
        "secret in there"
    ]


def test_what_is_sealed_is_not_found() -> None:
    assert found({"secret": CANARY}, {"there": TokenCipher([KEY]).seal(CANARY.encode()).encode()}) == []


def test_what_could_be_there_by_chance_is_no_canary() -> None:
    with pytest.raises(AssertionError, match="too short"):
        found({"secret": "1234567"}, {})

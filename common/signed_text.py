"""Texts that we issue and recognise again without a store: `prefix` + parts + HMAC, joined by dots."""

from __future__ import annotations

import binascii
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Sequence

from common.crypto import Signer

MAX_LENGTH = 512


class SignedText:
    """Signs short texts for one purpose; nothing in them is secret, the signature makes them unforgeable."""

    def __init__(self, keys: Sequence[str], purpose: str, prefix: str) -> None:
        self._signer = Signer(keys, purpose)
        self._prefix = prefix

    def __repr__(self) -> str:
        return f"SignedText({self._prefix}…)"

    def sign(self, *parts: str) -> str:
        """`prefix` `part.part.….signature`; the parts hold no dots. Signed with the newest key."""
        message = ".".join(parts)
        return f"{self._prefix}{message}.{_encode(self._signer.sign(message.encode()))}"

    def may_be(self, text: str) -> bool:
        """Whether it looks like one, whoever signed it."""
        return text.startswith(self._prefix) and len(text) <= MAX_LENGTH and text.isascii()

    def read(self, text: str) -> list[str] | None:
        """The parts, when one of the keys signed them; None for anything else. Constant time in the signature."""
        if not self.may_be(text):
            return None
        message, _, signature = text.removeprefix(self._prefix).rpartition(".")
        given = _decode(signature)
        if given is None or not self._signer.verify(message.encode(), given):
            return None
        return message.split(".")


def _encode(signature: bytes) -> str:
    return urlsafe_b64encode(signature).decode().rstrip("=")


def _decode(text: str) -> bytes | None:
    padding = "=" * (-len(text) % 4)
    try:
        signature = b64decode(text + padding, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    # One signature has one spelling: stray bits and the other alphabet are refused.
    return signature if _encode(signature) == text else None

"""Secrets at rest and signatures: Fernet for what is stored or sent, HMAC keys derived from the same `SECRET_KEYS`.

The newest key encrypts and signs; every key decrypts and verifies, so that keys can be rotated by a rolling restart
(append the new one everywhere, then move it to the front).
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from common.errors import Permanent


class TokenCipher:
    """Encrypts what must not be read in the store or on the broker."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def __repr__(self) -> str:
        return "TokenCipher(…)"

    def seal(self, clear: bytes) -> str:
        """Encrypt; the text is safe to store and to publish."""
        return self._fernet.encrypt(clear).decode()

    def open(self, sealed: str) -> bytes:
        """Decrypt with any of the keys.

        Raises:
            Permanent: `unreadable_secret`, when no key fits.
        """
        try:
            return self._fernet.decrypt(sealed)
        except (InvalidToken, ValueError):
            raise Permanent("unreadable_secret", "no key of SECRET_KEYS decrypts it") from None


class Signer:
    """HMAC-SHA256 for one purpose, with keys derived from `SECRET_KEYS`."""

    def __init__(self, keys: Sequence[str], purpose: str) -> None:
        self._keys = [_derive(key, purpose) for key in keys]

    def __repr__(self) -> str:
        return "Signer(…)"

    def sign(self, message: bytes) -> bytes:
        """32 bytes, by the newest key."""
        return _mac(self._keys[0], message)

    def all_signatures(self, message: bytes) -> list[bytes]:
        """What each key would sign, newest first."""
        return [_mac(key, message) for key in self._keys]

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether any key signed it; constant time in the signature."""
        matches = [hmac.compare_digest(signature, expected) for expected in self.all_signatures(message)]
        return any(matches)


def same_secret(given: str, expected: str) -> bool:
    """Constant-time comparison of two texts of any characters."""
    # HTTP headers may bring lone surrogates: even those are compared, not stumbled over.
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode("utf-8", "surrogatepass"))


def any_secret(given: str, expected: Sequence[str]) -> bool:
    """Whether it is one of them; all are compared."""
    matches = [same_secret(given, one) for one in expected]
    return any(matches)


def _derive(key: str, purpose: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.encode()).derive(key.encode())


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")

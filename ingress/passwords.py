"""Passwords of local accounts: argon2id, off the event loop, a few at a time (each takes 64 MiB)."""

from __future__ import annotations

import asyncio
import functools
import secrets

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

AT_ONCE = 2
MAX_CHARACTERS = 1024


class Passwords:
    """Hashes and verifies."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        """`hasher` for other costs than argon2-cffi's defaults (RFC 9106, low memory)."""
        self._hasher = hasher or PasswordHasher()
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def hash(self, password: str) -> str:
        """The text to store."""
        async with self._turns:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether it is the password; takes equally long when there is no such account (`stored` is None)."""
        async with self._turns:
            matches = await asyncio.to_thread(self._matches, stored, password[:MAX_CHARACTERS])
        return matches and stored is not None

    @functools.cached_property
    def _nobody(self) -> str:
        """The hash of a password that nobody has."""
        return self._hasher.hash(secrets.token_urlsafe())

    def _matches(self, stored: str | None, password: str) -> bool:
        nobody = self._nobody  # before anything depends on whether there is such an account: making it takes time, too
        try:
            return self._hasher.verify(stored or nobody, password)
        except (VerificationError, InvalidHashError):
            return False

"""Logging a user in with a local account."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ingress.oauth.store import Account, OAuthStore
from ingress.oauth.throttle import Throttle
from ingress.passwords import Passwords

AT_ONCE = 2


@dataclass(frozen=True)
class LoggedIn:
    """The password was right."""

    account: Account


@dataclass(frozen=True)
class WrongPassword:
    """Login or password is wrong; nobody is told which."""


@dataclass(frozen=True)
class TooMany:
    """Too many wrong ones; try again in so many seconds."""

    seconds: float


class Login:
    """Checks passwords, a few at a time."""

    def __init__(self, store: OAuthStore, passwords: Passwords, throttle: Throttle) -> None:
        self._store = store
        self._passwords = passwords
        self._throttle = throttle
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def attempt(self, login: str, password: str, address: str) -> LoggedIn | WrongPassword | TooMany:
        """Whether this person is who they say they are.

        Raises:
            StoreUnavailable: nobody can tell; not counted as wrong.
        """
        if refused := self._refused(login, address):  # at once, before anything costs
            return refused
        async with self._turns:
            # Again: of a thousand that came at once, only the first few are tried.
            if refused := self._refused(login, address):
                return refused
            account = await self._store.account_of(login)
            stored = None if account is None else account.password_hash
            if not await self._passwords.verify(stored, password) or account is None:
                self._throttle.failed(login, address)
                return WrongPassword()
        self._throttle.succeeded(login)
        return LoggedIn(account)

    def _refused(self, login: str, address: str) -> TooMany | None:
        seconds = self._throttle.wait(login, address)
        return TooMany(seconds) if seconds > 0 else None

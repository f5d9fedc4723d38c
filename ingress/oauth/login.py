"""Logging a user in with a local account."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from common.errors import Unavailable
from ingress.oauth.store import Account, OAuthStore
from ingress.oauth.throttle import Throttle, of_account, of_address
from ingress.passwords import Passwords

AT_ONCE = 2
MOST_WAITING = 100
"""Some seconds of work. Who comes beyond that is told to come back, rather than to wait behind a flood."""


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
        self._waiting = 0

    async def attempt(self, login: str, password: str, address: str) -> LoggedIn | WrongPassword | TooMany:
        """Whether this person is who they say they are.

        Raises:
            Unavailable: nobody can tell now; not counted as wrong.
        """
        if refused := self._refused(login, address):  # at once, before anything costs
            return refused
        if self._waiting >= MOST_WAITING:
            raise Unavailable("too many people are logging in at once")
        self._waiting += 1
        try:
            return await self._in_turn(login, password, address)
        finally:
            self._waiting -= 1

    async def _in_turn(self, login: str, password: str, address: str) -> LoggedIn | WrongPassword | TooMany:
        async with self._turns:
            # Again: of a thousand that came at once, only the first few are tried.
            if refused := self._refused(login, address):
                return refused
            account = await self._store.account_of(login)
            stored = None if account is None else account.password_hash
            if not await self._passwords.verify(stored, password) or account is None:
                self._throttle.failed(of_account(login), of_address(address))
                return WrongPassword()
        self._throttle.succeeded(of_account(login))
        return LoggedIn(account)

    def _refused(self, login: str, address: str) -> TooMany | None:
        seconds = self._throttle.wait(of_account(login), of_address(address))
        return TooMany(seconds) if seconds > 0 else None

"""Who is at the other end of a page: the session's user, as long as their account is the one that logged in."""

from __future__ import annotations

from typing import Protocol

from aiohttp import web
from aiohttp_session import Session

from common.crypto import same_secret
from ingress.oauth.store import Account, OAuthStore
from ingress.pages.session import USER, mark_of, sign_in, signed_in


class SignIn(Protocol):
    """How users say who they are: with a local account, or at the platform's identity provider."""

    async def ask(self, request: web.Request) -> web.Response:
        """What to answer to somebody whom we do not know; once they are logged in they come back to this address."""

    async def ask_again(self, request: web.Request, page: str) -> web.Response:
        """What to answer to a form whose session has ended; `page` is the address that it was shown at."""

    async def answer(self, request: web.Request, form: dict[str, str]) -> web.Response:
        """What to answer to a form that `ask` has shown."""


class Visitors:
    """Logs users in, and recognises them."""

    def __init__(self, store: OAuthStore) -> None:
        self._store = store

    async def enter(self, request: web.Request, account: Account) -> None:
        """The browser's session is this user's from now on; it is a fresh one."""
        await sign_in(request, USER, account.user_id, account.mark)

    async def account(self, session: Session) -> Account | None:
        """Whose session it is; None also when the user was erased, or has another password, since they logged in."""
        user_id = signed_in(session, USER)
        account = None if user_id is None else await self._store.account(user_id)
        if account is None or not same_secret(mark_of(session, USER), account.mark):
            return None
        return account

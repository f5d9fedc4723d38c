"""Who is at the browser: the user that is signed in, else the login page, in the place where one was going."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from aiohttp import hdrs, web
from aiohttp_session import Session, get_session

from ingress.oauth.login import LoggedIn, Login, TooMany
from ingress.oauth.store import Account, OAuthStore
from ingress.pages.render import redirect, render
from ingress.pages.session import USER, check_csrf, csrf_token, sign_in, signed_in

TOO_OLD = "This page was too old, or cookies are off. Please try again."


class SignIn:
    """For every page of a user. `why` is the sentence that the login page gives for asking."""

    def __init__(self, store: OAuthStore, login: Login) -> None:
        self._store = store
        self._login = login

    async def account(self, session: Session) -> Account | None:
        """The user who is signed in."""
        user_id = signed_in(session, USER)
        return None if user_id is None else await self._store.account(user_id)

    def ask(
        self,
        request: web.Request,
        session: Session,
        why: str,
        message: str = "",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> web.Response:
        """The login page; what is typed there comes back by POST to this same address, for `answer`."""
        context = {"csrf": csrf_token(session), "message": message, "why": why}
        return render(request, "login.html", context, status=status, headers=headers)

    async def answer(self, request: web.Request, form: Mapping[str, str], why: str) -> web.Response:
        """Back to this address, signed in; or the login page again, with what was wrong."""
        session = await get_session(request)
        login = form.get("login", "").strip()
        if not check_csrf(session, form):
            return self.ask(request, session, why, TOO_OLD, 400)
        outcome = await self._login.attempt(login, form.get("password", ""), request.remote or "")
        if isinstance(outcome, LoggedIn):
            await sign_in(request, USER, outcome.user_id)
            return redirect(_here(request))
        if isinstance(outcome, TooMany):
            seconds = math.ceil(outcome.seconds)
            message = f"Too many wrong passwords. Please try again in {seconds} seconds."
            return self.ask(request, session, why, message, 429, {hdrs.RETRY_AFTER: str(seconds)})
        return self.ask(request, session, why, "Login or password is wrong.", 401)


def _here(request: web.Request) -> str:
    """The same address with the same parameters; one slash at its beginning, so that it stays on this site."""
    path = re.sub("/+", "/", request.rel_url.raw_path)
    query = request.rel_url.raw_query_string
    return f"{path}?{query}" if query else path

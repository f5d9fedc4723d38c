"""The login page of local accounts."""

from __future__ import annotations

import math
from collections.abc import Mapping

from aiohttp import hdrs, web
from aiohttp_session import get_session

from common.logs import get_logger
from ingress.oauth.login import LoggedIn, Login, TooMany
from ingress.oauth.visitor import Visitors
from ingress.pages.render import here, redirect, render
from ingress.pages.session import check_csrf, csrf_token

log = get_logger(__name__)


class LocalSignIn:
    """Login and password, where the person is; `SignIn` with local accounts."""

    def __init__(self, login: Login, visitors: Visitors) -> None:
        self._login = login
        self._visitors = visitors

    async def ask(self, request: web.Request) -> web.Response:
        """The login page."""
        return await _login_page(request, "", 200)

    async def ask_again(self, request: web.Request, page: str) -> web.Response:
        """The login page; by a redirect when the form went to another address than its page's."""
        if page != here(request):
            return redirect(page)
        return await _login_page(request, "Please sign in again.", 401)

    async def answer(self, request: web.Request, form: dict[str, str]) -> web.Response:
        """Back to the same address when the password is right; else the login page again."""
        if not check_csrf(await get_session(request), form):
            return await _login_page(request, "This page was too old, or cookies are off. Please try again.", 403)
        login = form.get("login", "").strip()
        outcome = await self._login.attempt(login, form.get("password", ""), request.remote or "")
        if isinstance(outcome, LoggedIn):
            log.info("login.succeeded", user_id=outcome.account.user_id, address=request.remote)
            await self._visitors.enter(request, outcome.account)
            return redirect(here(request))
        # Not what was typed: people type passwords there.
        log.warning("login.refused", address=request.remote, throttled=isinstance(outcome, TooMany))
        if isinstance(outcome, TooMany):
            seconds = math.ceil(outcome.seconds)
            message = f"Too many wrong passwords. Please try again in {seconds} seconds."
            return await _login_page(request, message, 429, {hdrs.RETRY_AFTER: str(seconds)}, login)
        return await _login_page(request, "Login or password is wrong.", 401, login=login)


async def _login_page(
    request: web.Request, message: str, status: int, headers: Mapping[str, str] | None = None, login: str = ""
) -> web.Response:
    """`login`: what was typed last."""
    context = {"csrf": csrf_token(await get_session(request)), "message": message, "login": login}
    return render(request, "login.html", context, status=status, headers=headers)

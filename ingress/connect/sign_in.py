"""The operators' login as a page: asks for an `ADMIN_TOKEN`, and leads on once it is right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from aiohttp import hdrs, web
from aiohttp_session import Session, get_session

from common.logs import get_logger
from ingress.connect.login import AdminLogin
from ingress.pages.render import redirect, render
from ingress.pages.session import ADMIN, check_csrf, csrf_token, mark_of, sign_in, signed_in

log = get_logger(__name__)


class OperatorSignIn:
    """Needs an application that `setup_pages` was called for. Pages that share `login` share its count of guesses."""

    def __init__(self, login: AdminLogin, template: str, form_origins: Sequence[str] = ()) -> None:
        """`form_origins`: to which origins what follows the login may redirect."""
        self._login = login
        self._template = template
        self._form_origins = form_origins

    def operator(self, session: Session) -> str | None:
        """Who is signed in; None: nobody, or their token is none any more."""
        return signed_in(session, ADMIN) if self._login.knows(mark_of(session, ADMIN)) else None

    def ask(
        self,
        request: web.Request,
        session: Session,
        *,
        then: str = "",
        message: str = "",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> web.Response:
        """The login page; the form gives `then` back."""
        context = {"csrf": csrf_token(session), "message": message, "then": then}
        return render(request, self._template, context, status=status, form_origins=self._form_origins, headers=headers)

    async def answer(self, request: web.Request, form: Mapping[str, str], then: str) -> web.Response:
        """What comes of a login; a right token leads on to `then`."""
        session = await get_session(request)
        address = request.remote or ""
        if wait := math.ceil(self._login.wait(address)):
            message = f"Too many wrong tokens. Please try again in {wait} seconds."
            later: dict[str, str] = {hdrs.RETRY_AFTER: str(wait)}
            return self.ask(request, session, then=then, message=message, status=429, headers=later)
        if not check_csrf(session, form):
            message = "This page was too old, or cookies are off. Please try again."
            return self.ask(request, session, then=then, message=message, status=400)
        operator = self._login.attempt(form.get("password", ""), address)
        if operator is None:
            log.warning("admin.login_refused", address=address)
            return self.ask(request, session, then=then, message="This is not the admin token.", status=401)
        log.info("admin.logged_in", name=operator.name, address=address)
        await sign_in(request, ADMIN, operator.name, operator.mark)
        return redirect(then)

"""One request of an operator who is signed in: what a page's maker is given, and how it answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp_session import Session, get_session

from common.clock import length
from common.errors import StoreUnavailable
from common.foreign import harmless
from common.words import things
from ingress.admin.rules import read_name
from ingress.connect.sign_in import OperatorSignIn
from ingress.console.rules import ROOT, since
from ingress.pages.forms import read_form
from ingress.pages.render import error_page, here, page, redirect, render
from ingress.pages.session import check_csrf, csrf_token
from ingress.parameters import BadInput, singles
from ingress.problems import retry_after

_TOLD = "console_told"
"""Where the session keeps what is to be told on the next page."""


SHARED: Mapping[str, Any] = {"root": ROOT, "length": length, "since": since, "things": things, "harmless": harmless}
"""What every template of the console knows."""


@dataclass(frozen=True)
class Visit:
    """Who asks for what; `form` are the fields that were sent."""

    request: web.Request
    session: Session = field(repr=False)
    operator: str
    form: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def query(self) -> dict[str, str]:
        """Parameters, each once, without the empty ones: a form sends those that nobody filled in, too.

        Raises:
            BadInput: one occurs twice.
        """
        return {name: value for name, value in singles(self.request.query.items()).items() if value.strip()}

    def page(self, template: str, context: Mapping[str, Any], *, status: int = 200) -> web.Response:
        """A page of the console, with what the last action has come to."""
        told = self.session.pop(_TOLD, None)
        shared = {"csrf": csrf_token(self.session), "operator": self.operator, "told": told, **SHARED}
        return render(self.request, f"console/{template}", {**shared, **context}, status=status)

    def done(self, text: str, *, mood: str = "good", back: str = ROOT) -> web.Response:
        """An action is over: what came of it is told on the page that follows."""
        self.session[_TOLD] = {"text": text, "mood": mood}
        return redirect(back)

    def missing(self, what: str) -> web.Response:
        """404."""
        return self.page("missing.html", {"what": what}, status=404)


Act = Callable[[Visit], Awaitable[web.StreamResponse]]


class Door:
    """Lets operators in to what a page or an action does; everybody else is asked to sign in."""

    def __init__(self, sign_in: OperatorSignIn, act: Act) -> None:
        self._sign_in = sign_in
        self._act = act

    @page
    async def get(self, request: web.Request) -> web.StreamResponse:
        """A page, or first the login, which leads back to it."""
        for name, value in request.match_info.items():
            read_name(value, name)
        session = await get_session(request)
        operator = self._sign_in.operator(session)
        if operator is None:
            return self._sign_in.ask(request, session, then=here(request))
        return await self._answer(Visit(request, session, operator))

    @page
    async def post(self, request: web.Request) -> web.StreamResponse:
        """An action, which only a form of this session can ask for."""
        form = await read_form(request)
        session = await get_session(request)
        operator = self._sign_in.operator(session)
        if operator is None:
            message = "You are signed out. Nothing was done."
            return self._sign_in.ask(request, session, then=ROOT, message=message, status=401)
        if not check_csrf(session, form):
            message = "This page was too old, or was sent from elsewhere. Nothing was done. Open the console again."
            return error_page(request, 403, message)
        return await self._answer(Visit(request, session, operator, form))

    async def _answer(self, visit: Visit) -> web.StreamResponse:
        try:
            return await self._act(visit)
        except StoreUnavailable as error:
            away = "The store does not answer. Please try again in a few seconds."
            return error_page(visit.request, 503, away, retry_after(error))


def needed(form: Mapping[str, str], name: str) -> str:
    """A field that must be there.

    Raises:
        BadInput: it is not.
    """
    if not form.get(name):
        raise BadInput(f"{name} is missing: please use the page's own form")
    return form[name]

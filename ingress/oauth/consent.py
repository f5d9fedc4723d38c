"""The authorize pages: log in, see what would be shared, allow or deny (CONTRACT §3.1).

Documented by Syncaroo: the address's parameters, the confirmation, and `connectionId` and `code` on the way back. Ours:
`state`, and `error=access_denied` for a refusal.
"""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64encode
from dataclasses import asdict
from datetime import timedelta

from aiohttp import web
from aiohttp_session import Session, get_session

from common.codec import canonical
from common.crypto import Signer
from common.logs import get_logger
from common.settings import PlatformSettings
from ingress.oauth.rules import Authorization, hash_of, origin_of, read_authorization, way_back
from ingress.oauth.shared import shared_of
from ingress.oauth.store import Account, Consent, NewCode, OAuthStore
from ingress.oauth.visitor import SignIn, Visitors
from ingress.pages.forms import read_form
from ingress.pages.render import here, page, redirect, render
from ingress.pages.session import CSRF_FIELD, check_csrf, csrf_token
from ingress.parameters import BadInput, singles
from ingress.platform.listings import Listings

log = get_logger(__name__)


class ConsentPages:
    """One address: what it shows depends on who is looking."""

    def __init__(
        self,
        store: OAuthStore,
        platform: PlatformSettings,
        visitors: Visitors,
        sign_in: SignIn,
        signer: Signer,
        listings: Listings,
    ) -> None:
        self._store = store
        self._listings = listings
        self._platform = platform
        self._visitors = visitors
        self._sign_in = sign_in
        self._signer = signer

    @page
    async def show(self, request: web.Request) -> web.Response:
        """GET: the login, or the consent page of whoever is logged in."""
        wanted = self._wanted(request)
        session = await get_session(request)
        account = await self._visitors.account(session)
        if account is None:
            return await self._sign_in.ask(request)
        return await self._consent_page(request, session, wanted, account)

    @page
    async def answer(self, request: web.Request) -> web.Response:
        """POST: a login, or a decision."""
        wanted = self._wanted(request)
        form = await read_form(request)
        if "decision" in form:
            return await self._decide(request, wanted, form)
        return await self._sign_in.answer(request, form)

    def _wanted(self, request: web.Request) -> Authorization:
        platform = self._platform
        values = singles(request.query.items())
        return read_authorization(values, platform.platform_client_id, platform.platform_redirect_uris)

    async def _consent_page(
        self, request: web.Request, session: Session, wanted: Authorization, account: Account
    ) -> web.Response:
        if refusal := await self._store.refusal(wanted.connection_id, account.user_id):
            return _refused(request, account, refusal)
        kept = await self._store.locations(account.user_id)
        locations = await self._listings.of(account.user_id, wanted.connection_id, kept)
        return render(
            request,
            "consent.html",
            {
                "account": account.login or account.user_id,
                "connection_id": wanted.connection_id,
                "shared": shared_of(locations),
                "csrf": csrf_token(session),
                "once": secrets.token_urlsafe(16),
            },
            form_origins=[origin_of(wanted.redirect_uri)],
        )

    async def _decide(self, request: web.Request, wanted: Authorization, form: dict[str, str]) -> web.Response:
        session = await get_session(request)
        account = await self._visitors.account(session)
        if account is None:
            return await self._sign_in.ask_again(request, here(request))
        if not check_csrf(session, form):
            raise web.HTTPForbidden
        if form["decision"] == "allow":
            code = self._code(wanted, account, form)
            return await self._allow(request, wanted, account, code)
        if form["decision"] == "deny":
            return redirect(way_back(wanted, error="access_denied"))
        raise BadInput("decision must be allow or deny")

    def _code(self, wanted: Authorization, account: Account, form: dict[str, str]) -> str:
        """The code of this very page: a page that is sent twice, as by a double click, has one.

        A secret to all but this session, whose CSRF token is in it.
        """
        once = form.get("once") or secrets.token_urlsafe(16)
        parts = [form[CSRF_FIELD], once, account.user_id, account.mark, canonical(asdict(wanted))]
        return urlsafe_b64encode(self._signer.sign("\n".join(parts).encode())).decode().rstrip("=")

    async def _allow(self, request: web.Request, wanted: Authorization, account: Account, code: str) -> web.Response:
        remembered = NewCode(
            code_hash=hash_of(code, wanted.challenge),
            connection_id=wanted.connection_id,
            user_id=account.user_id,
            client_id=wanted.client_id,
            redirect_uri=wanted.redirect_uri,
        )
        match await self._store.allow(remembered, timedelta(seconds=self._platform.code_seconds)):
            case Consent.GIVEN:
                log.info("oauth.consented", connection_id=wanted.connection_id, user_id=account.user_id)
                return redirect(way_back(wanted, code=code))
            case Consent.SPENT:
                raise BadInput("this page was answered already: please go back to Syncaroo, and begin again there")
            case refusal:
                return _refused(request, account, refusal)


def _refused(request: web.Request, account: Account, refusal: Consent) -> web.Response:
    context = {"account": account.login or account.user_id, "ended": refusal is Consent.ENDED}
    return render(request, "not_yours.html", context, status=400)

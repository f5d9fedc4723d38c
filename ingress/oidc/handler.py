"""`SignIn` at the platform's identity provider: a person is sent there and comes back to `/login/callback`."""

from __future__ import annotations

from aiohttp import web
from aiohttp_session import Session, get_session

from common.logs import get_logger
from ingress.oauth.store import OAuthStore
from ingress.oauth.visitor import Visitors
from ingress.oidc.attempts import find, forget, remember
from ingress.oidc.provider import IdentityProvider
from ingress.oidc.rules import Attempt, Declined, SignInRefused, new_attempt, read_callback
from ingress.pages.render import here, page, redirect, render
from ingress.parameters import BadInput, singles

log = get_logger(__name__)


class OidcSignIn:
    """There and back. Where to come back to was kept in the person's own session, never in the address."""

    def __init__(self, provider: IdentityProvider, store: OAuthStore, visitors: Visitors) -> None:
        self._provider = provider
        self._store = store
        self._visitors = visitors

    async def ask(self, request: web.Request) -> web.Response:
        """On to the provider.

        Raises:
            IdentityUnavailable: it cannot be told where that is.
        """
        attempt = new_attempt(here(request))
        state = remember(await get_session(request), attempt)
        return redirect(await self._provider.address(state, attempt))

    async def ask_again(self, request: web.Request, page: str) -> web.Response:
        """A page that leads there by a link: browsers hold form-action against every redirect that follows a form."""
        return _not_signed_in(request, "Your session has ended, and nothing was done.", page, 401)

    async def answer(self, request: web.Request, form: dict[str, str]) -> web.Response:
        """We show no form: whoever sends one has an old page."""
        return await self.ask_again(request, here(request))

    @page
    async def callback(self, request: web.Request) -> web.Response:
        """Back from the provider."""
        values = singles(request.query.items())
        came = read_callback(values)
        session = await get_session(request)
        state = values.get("state", "")
        attempt = find(session, state)
        if attempt is None:
            return await self._unknown(request, session)
        if isinstance(came, Declined):
            forget(session, state)
            return self._refused(request, attempt, f"The sign-in service answered: {came.error}", "declined")
        try:
            user_id = await self._user(came.code, came.issuer, attempt)
        except SignInRefused as refused:
            forget(session, state)
            return self._refused(request, attempt, "The sign-in could not be verified.", refused.detail)
        # An IdentityUnavailable passes above, and leaves the attempt: a reload may try again.
        return await self._entered(request, user_id, attempt)

    async def _unknown(self, request: web.Request, session: Session) -> web.Response:
        """Signing in began a fresh session, so that of two tabs that began together the second comes here."""
        if await self._visitors.account(session) is not None:
            return render(request, "signed_in_already.html", {}, status=400)
        raise BadInput(
            "this sign-in is too old, was used already, or was begun in another browser: "
            "please go back to where you came from, and try again"
        )

    async def _user(self, code: str, issuer: str | None, attempt: Attempt) -> str:
        if issuer not in (None, self._provider.issuer):  # RFC 9207: an answer of another provider
            raise SignInRefused("it came from another issuer")
        return await self._provider.subject(code, attempt)

    async def _entered(self, request: web.Request, user_id: str, attempt: Attempt) -> web.Response:
        account = await self._store.known(user_id)
        await self._visitors.enter(request, account)
        log.info("oidc.logged_in", user_id=user_id)
        return redirect(attempt.back)

    def _refused(self, request: web.Request, attempt: Attempt, message: str, reason: str) -> web.Response:
        log.warning("oidc.refused", issuer=self._provider.issuer, reason=reason)
        return _not_signed_in(request, message, attempt.back, 403)


def _not_signed_in(request: web.Request, message: str, back: str, status: int) -> web.Response:
    return render(request, "not_signed_in.html", {"message": message, "back": back}, status=status)


class NoOidc:
    """The same address where users have local accounts."""

    @page
    async def callback(self, request: web.Request) -> web.Response:
        """Nobody comes here."""
        raise web.HTTPNotFound

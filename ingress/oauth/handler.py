"""The provider's addresses, composed."""

from __future__ import annotations

from aiohttp import web

from common.access_tokens import AccessTokens
from common.clock import Monotonic, monotonic_seconds
from common.crypto import Signer
from common.settings import KeySettings, PlatformSettings
from common.signed_text import SignedText
from common.store.engine import Store
from ingress.oauth.check import CheckEndpoint
from ingress.oauth.consent import ConsentPages
from ingress.oauth.exchange import REFRESH_PREFIX, TokenEndpoint
from ingress.oauth.local_sign_in import LocalSignIn
from ingress.oauth.login import Login
from ingress.oauth.store import OAuthStore
from ingress.oauth.throttle import Throttle
from ingress.oauth.visitor import SignIn, Visitors
from ingress.oidc.handler import NoOidc, OidcSignIn
from ingress.oidc.provider import IdentityProvider
from ingress.oidc.rules import CALLBACK
from ingress.passwords import Passwords
from ingress.platform.client import PlatformInventory
from ingress.platform.listings import Listings
from ingress.platform.store import InventoryStore


class OAuthHandler:
    """Authorize, token, check_connection. Needs an application that `setup_pages` was called for.

    `visitors` and `sign_in` are for the other pages of users.
    """

    def __init__(
        self,
        store: Store,
        platform: PlatformSettings,
        keys: KeySettings,
        tokens: AccessTokens,
        passwords: Passwords,
        identities: IdentityProvider | None = None,
        inventory: PlatformInventory | None = None,
        *,
        clock: Monotonic = monotonic_seconds,
    ) -> None:
        """`identities`: where users log in, instead of with local accounts; `inventory`: where the platform is asked
        for users' listings, if it can be.
        """
        rows = OAuthStore(store)
        self.visitors = Visitors(rows)
        refresh_tokens = SignedText(keys.clear(), "refresh-token", REFRESH_PREFIX)
        self._callback: OidcSignIn | NoOidc
        if identities is None:
            self._callback = NoOidc()
            self.sign_in: SignIn = LocalSignIn(Login(rows, passwords, Throttle(clock)), self.visitors)
        else:
            self.sign_in = self._callback = OidcSignIn(identities, rows, self.visitors)
        listings = Listings(InventoryStore(store), inventory)
        codes = Signer(keys.clear(), "code")
        self._consent = ConsentPages(rows, platform, self.visitors, self.sign_in, codes, listings)
        self._token = TokenEndpoint(rows, platform, tokens, refresh_tokens, Throttle(clock))
        self._check = CheckEndpoint(rows, tokens, listings)

    def routes(self, prefix: str) -> list[web.RouteDef]:
        """The routes below `prefix` (`SiteSettings.prefix`), without trailing slashes."""
        checks = {f"{prefix}/check_connection", "/check_connection"}
        return [
            web.get(f"{prefix}/oauth/authorize", self._consent.show),
            web.post(f"{prefix}/oauth/authorize", self._consent.answer),
            web.post(f"{prefix}/oauth/token", self._token.exchange),
            web.get(CALLBACK, self._callback.callback, allow_head=False),
            *(web.get(path, self._check.check) for path in sorted(checks)),
        ]

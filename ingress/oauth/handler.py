"""The provider's addresses, composed."""

from __future__ import annotations

from aiohttp import web

from common.access_tokens import AccessTokens
from common.clock import monotonic_seconds
from common.settings import KeySettings, PlatformSettings
from common.signed_text import SignedText
from common.store.engine import Store
from ingress.oauth.check import CheckEndpoint
from ingress.oauth.consent import ConsentPages
from ingress.oauth.exchange import REFRESH_PREFIX, TokenEndpoint
from ingress.oauth.login import Login
from ingress.oauth.store import OAuthStore
from ingress.oauth.throttle import Throttle
from ingress.passwords import Passwords
from ingress.platform.client import PlatformInventory
from ingress.platform.listings import Listings
from ingress.platform.store import InventoryStore


class OAuthHandler:
    """Authorize, token, check_connection. Needs an application that `setup_pages` was called for."""

    def __init__(
        self,
        store: Store,
        platform: PlatformSettings,
        keys: KeySettings,
        tokens: AccessTokens,
        passwords: Passwords,
        inventory: PlatformInventory | None = None,
    ) -> None:
        """`inventory`: where the platform is asked for users' listings, if it can be."""
        rows = OAuthStore(store)
        refresh_tokens = SignedText(keys.clear(), "refresh-token", REFRESH_PREFIX)
        login = Login(rows, passwords, Throttle(monotonic_seconds))
        self._consent = ConsentPages(rows, platform, login)
        self._token = TokenEndpoint(rows, platform, tokens, refresh_tokens)
        self._check = CheckEndpoint(rows, tokens, Listings(InventoryStore(store), inventory))

    def routes(self, prefix: str) -> list[web.RouteDef]:
        """The routes below `prefix` (`SiteSettings.prefix`), without trailing slashes."""
        checks = {f"{prefix}/check_connection", "/check_connection"}
        return [
            web.get(f"{prefix}/oauth/authorize", self._consent.show),
            web.post(f"{prefix}/oauth/authorize", self._consent.answer),
            web.post(f"{prefix}/oauth/token", self._token.exchange),
            *(web.get(path, self._check.check) for path in sorted(checks)),
        ]

"""The identity provider as a whole: an address to send a person to, and a code for who they are.

What it says of itself and its keys are kept for an hour; keys are asked for again when a token's is not among them, so
that the provider may rotate them at any time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

from joserfc.jwk import KeySet

from common.clock import Monotonic, monotonic_seconds, wall_seconds
from common.errors import IdentityUnavailable, IdentityUnusable
from common.logs import get_logger
from common.settings import OidcSettings, SiteSettings
from ingress.oidc.client import OidcClient
from ingress.oidc.rules import (
    CALLBACK,
    Attempt,
    BadProvider,
    Client,
    Provider,
    SignInRefused,
    UnknownKey,
    authorization_url,
    discovery_url,
    read_keys,
    read_provider,
    read_tokens,
    subject_of,
    token_form,
    token_headers,
)

TOTAL_SECONDS = 10.0
KEPT_SECONDS = 3600.0

T = TypeVar("T")

log = get_logger(__name__)


class IdentityProvider:
    """Both methods end within `seconds`, and raise `IdentityUnavailable` when the provider is of no use now."""

    def __init__(self, client: Client, clock: Monotonic, *, http: OidcClient, seconds: float = TOTAL_SECONDS) -> None:
        self.issuer = client.issuer
        self._client = client
        self._http = http
        self._seconds = seconds
        self._described = _Kept(self._describe, clock)
        self._keys = _Kept(self._fetch_keys, clock)

    async def address(self, state: str, attempt: Attempt) -> str:
        """Where the person says who they are."""
        async with self._bounded():
            return authorization_url(await self._described.get(), self._client, state, attempt)

    async def subject(self, code: str, attempt: Attempt) -> str:
        """Who it was: the provider's `sub`.

        Raises:
            SignInRefused: the provider does not credibly vouch for anybody.
        """
        async with self._bounded():
            provider = await self._described.get()
            form, headers = token_form(provider, self._client, code, attempt), token_headers(provider, self._client)
            tokens = read_tokens(*await self._http.post(provider.token_endpoint, form, headers))
            try:
                return self._subject(tokens, await self._keys.get(), provider, attempt)
            except UnknownKey:
                return self._with_new_keys(tokens, await self._keys.renew(), provider, attempt)

    def _with_new_keys(self, tokens: dict[str, Any], keys: KeySet, provider: Provider, attempt: Attempt) -> str:
        try:
            return self._subject(tokens, keys, provider, attempt)
        except UnknownKey:
            raise SignInRefused("its id_token is signed by no key of its own") from None

    def _subject(self, tokens: dict[str, Any], keys: KeySet, provider: Provider, attempt: Attempt) -> str:
        return subject_of(tokens, keys, provider, self._client, attempt, wall_seconds())

    async def _describe(self) -> Provider:
        return read_provider(await self._http.get(discovery_url(self.issuer)), self.issuer)

    async def _fetch_keys(self) -> KeySet:
        return read_keys(await self._http.get((await self._described.get()).jwks_uri))

    @asynccontextmanager
    async def _bounded(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._seconds):
                yield
        except TimeoutError:
            log.warning("oidc.unavailable", reason="no answer in time")
            raise IdentityUnavailable("no answer in time") from None
        except BadProvider as error:
            log.error("oidc.unusable", issuer=self.issuer, reason=error.detail)
            raise IdentityUnusable(error.detail) from error
        except IdentityUnavailable as error:
            log.warning("oidc.unavailable", reason=str(error))
            raise


def identity_provider(oidc: OidcSettings, site: SiteSettings) -> IdentityProvider | None:
    """That of the settings; None: users have local accounts."""
    if oidc.oidc_issuer is None or oidc.oidc_client_id is None or oidc.oidc_client_secret is None:
        return None
    secret = oidc.oidc_client_secret.get_secret_value()
    # Where to come back to is a setting, and never the host that a request names.
    client = Client(oidc.oidc_issuer, oidc.oidc_client_id, secret, f"{site.site_uri}{CALLBACK}")
    return IdentityProvider(client, monotonic_seconds, http=OidcClient())


class _Kept(Generic[T]):
    """What was fetched, for an hour; of several who want it one fetches."""

    def __init__(self, fetch: Callable[[], Awaitable[T]], clock: Monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._fetching = asyncio.Lock()
        self._value: T | None = None
        self._until = 0.0

    async def get(self) -> T:
        """As it was fetched within the hour."""
        async with self._fetching:
            if self._value is not None and self._clock() < self._until:
                return self._value
            return await self._fetched()

    async def renew(self) -> T:
        """As it is now."""
        async with self._fetching:
            return await self._fetched()

    async def _fetched(self) -> T:
        value = await self._fetch()
        self._value, self._until = value, self._clock() + KEPT_SECONDS
        return value

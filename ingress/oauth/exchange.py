"""The token endpoint: codes and refresh tokens for access tokens (CONTRACT §3.2).

Documented by Syncaroo: the form, and an answer of exactly `accessToken`, `expires` (UTC, without offset) and
`refreshToken`, the last a one-time token. Ours: how a lost answer is mended, and RFC 6749's errors.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import TypeVar

import msgspec
from aiohttp import hdrs, web

from common.access_tokens import AccessTokens
from common.clock import wall_seconds
from common.codec import dumps
from common.crypto import any_secret, same_secret
from common.errors import Unavailable
from common.ids import new_id
from common.logs import get_logger
from common.settings import PlatformSettings
from common.signed_text import SignedText
from ingress.oauth.rules import CodeGrant, OAuthError, RefreshGrant, expires_text, read_client, read_grant
from ingress.oauth.store import Issued, OAuthStore
from ingress.oauth.throttle import Throttle, of_client
from ingress.pages.forms import read_form
from ingress.parameters import BadInput
from ingress.problems import retry_after

REFRESH_PREFIX = "sgw_rt_"
NO_STORE: dict[str, str] = {hdrs.CACHE_CONTROL: "no-store", hdrs.PRAGMA: "no-cache"}
CHALLENGE: dict[str, str] = {hdrs.WWW_AUTHENTICATE: 'Basic realm="token", charset="UTF-8"'}

log = get_logger(__name__)

S = TypeVar("S")
Method = Callable[[S, web.Request], Awaitable[web.Response]]


def answering_rfc6749(method: Method[S]) -> Method[S]:
    """What the method raises becomes `{"error","errorDescription"}`."""

    @functools.wraps(method)
    async def answer(self: S, request: web.Request) -> web.Response:
        try:
            return await method(self, request)
        except OAuthError as error:
            return _error(error.status, error.reason, error.detail, error.headers)
        except BadInput as error:
            return _error(400, "invalid_request", f"{error.detail}.")
        except web.HTTPRequestEntityTooLarge:
            return _error(413, "invalid_request", "The body is too large.")
        except web.HTTPUnsupportedMediaType:
            return _error(400, "invalid_request", "The body must be application/x-www-form-urlencoded.")
        except Unavailable as error:
            detail = "We cannot do this right now. Try again with the same values."
            return _error(503, "temporarily_unavailable", detail, retry_after(error))

    return answer


class TokenPair(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What Syncaroo gets: `expires` is UTC without an offset, the refresh token is one-time."""

    access_token: str
    expires: str
    refresh_token: str


class Refusal(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Why there are no tokens (RFC 6749 §5.2)."""

    error: str
    error_description: str


class TokenEndpoint:
    """Exchanges grants for tokens."""

    def __init__(
        self,
        store: OAuthStore,
        platform: PlatformSettings,
        tokens: AccessTokens,
        refresh_tokens: SignedText,
        throttle: Throttle,
    ) -> None:
        self._store = store
        self._platform = platform
        self._tokens = tokens
        self._refresh_tokens = refresh_tokens
        self._throttle = throttle
        self._lifetime = timedelta(days=platform.refresh_token_days)

    @answering_rfc6749
    async def exchange(self, request: web.Request) -> web.Response:
        """POST: who calls, what they bring, what they get for it."""
        form = await read_form(request)
        client_id = self._known_client(request, form)
        grant = read_grant(form)
        issued = await (self._redeem(grant, client_id) if isinstance(grant, CodeGrant) else self._refresh(grant))
        if issued is None:
            raise OAuthError("invalid_grant", "The code or refresh token is wrong, used, expired or revoked.")
        return self._pair(issued)

    def _known_client(self, request: web.Request, form: dict[str, str]) -> str:
        client = read_client(request.headers.getall(hdrs.AUTHORIZATION, []), form)
        guesses = of_client(request.remote or "")
        if wait := math.ceil(self._throttle.wait(guesses)):
            detail = f"Too many wrong client secrets from this address. Try again in {wait} seconds."
            raise OAuthError("temporarily_unavailable", detail, status=429, headers={hdrs.RETRY_AFTER: str(wait)})
        known = same_secret(client.client_id, self._platform.platform_client_id)
        if not any_secret(client.secret, self._platform.secrets()) or not known:
            self._throttle.failed(guesses)
            log.warning("oauth.client_refused", address=request.remote)
            detail = "clientId or clientSecret is wrong."
            raise OAuthError("invalid_client", detail, status=401, headers=CHALLENGE if client.by_basic else None)
        self._throttle.succeeded(guesses)
        return client.client_id

    async def _redeem(self, grant: CodeGrant, client_id: str) -> Issued | None:
        return await self._store.redeem(
            grant.code_hash, client_id, grant.redirect_uri, family=new_id(), lifetime=self._lifetime
        )

    async def _refresh(self, grant: RefreshGrant) -> Issued | None:
        parts = self._refresh_tokens.read(grant.refresh_token)
        if parts is None:
            return None
        family, generation = parts
        return await self._store.rotate(family, int(generation), self._lifetime)

    def _pair(self, issued: Issued) -> web.Response:
        now = wall_seconds()
        body = TokenPair(
            access_token=self._tokens.issue(issued.connection_id, issued.family, now),
            expires=expires_text(now + self._tokens.seconds),
            refresh_token=self._refresh_tokens.sign(issued.family, str(issued.generation)),
        )
        return web.Response(body=dumps(body), content_type="application/json", headers=NO_STORE)


def _error(status: int, error: str, description: str, headers: Mapping[str, str] | None = None) -> web.Response:
    body = dumps(Refusal(error=error, error_description=description))
    return web.Response(
        status=status, body=body, content_type="application/json", headers={**NO_STORE, **(headers or {})}
    )

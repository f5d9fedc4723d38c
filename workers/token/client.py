"""Syncaroo's token endpoint: one POST, no redirect, no retry, an answer read up to a cap."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import aiohttp
from pydantic import SecretStr
from yarl import URL

from common import tracing
from common.bodies import read_at_most
from workers.token.rules import NoReply, Reply

TOTAL_SECONDS = 10.0
CONNECT_SECONDS = 5.0
LAST_LOOK_SECONDS = 0.5
"""A process that was stopped for longer than all its time finds an answer that has been waiting for it."""
LARGEST_ANSWER = 64 * 1024

_NEVER_SENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    aiohttp.ClientHttpProxyError,  # the proxy opened no way to Syncaroo
)


class TokenClient:
    """Posts the guide's forms; each over a connection of its own, so that no reused one dies under a token."""

    def __init__(
        self,
        *,
        base_url: str,
        client_id: str,
        client_secret: str,
        redirect_uri: str,
        proxy: SecretStr | None = None,
    ) -> None:
        self._url = f"{base_url}/api/token"
        self._client_id = client_id
        self._client_secret = client_secret
        self._redirect_uri = redirect_uri
        self._proxy = proxy

    def __repr__(self) -> str:
        return f"TokenClient({self._url})"

    async def exchange(self, code: str) -> Reply | NoReply:
        """Trade an authorization code for a pair (guide: Getting Syncaroo API Access Tokens)."""
        return await self._post(
            {
                "clientId": self._client_id,
                "redirectUri": self._redirect_uri,
                "clientSecret": self._client_secret,
                "code": code,
                "grantType": "authorization_code",
            }
        )

    async def refresh(self, refresh_token: str) -> Reply | NoReply:
        """Trade a single-use refresh token for the next pair (guide: Refreshing access tokens)."""
        return await self._post(
            {
                "clientId": self._client_id,
                "clientSecret": self._client_secret,
                "refreshToken": refresh_token,
                "grantType": "refresh_token",
            }
        )

    async def _post(self, form: Mapping[str, str]) -> Reply | NoReply:
        asking = asyncio.create_task(self._asked(form))
        try:
            for seconds in (TOTAL_SECONDS, LAST_LOOK_SECONDS):
                await asyncio.wait([asking], timeout=seconds)
                if asking.done():
                    return asking.result()
            return NoReply("TimeoutError", sent=True)
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _asked(self, form: Mapping[str, str]) -> Reply | NoReply:
        with tracing.span("POST", "client", tracing.request("POST", URL(self._url))):
            reply = await self._asked_once(form)
            match reply:
                case Reply(status=status):
                    tracing.note({"http.response.status_code": status})
                case NoReply(kind):
                    tracing.note({"error.type": kind})
            return reply

    async def _asked_once(self, form: Mapping[str, str]) -> Reply | NoReply:
        try:
            async with self._session() as session, session.post(self._url, data=form, allow_redirects=False) as answer:
                return Reply(answer.status, await read_at_most(answer, LARGEST_ANSWER) or b"")
        except _NEVER_SENT as error:
            return NoReply(type(error).__name__, sent=False)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return NoReply(type(error).__name__, sent=True)

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            # Without a total: aiohttp's would win over an answer that is there by the time it strikes.
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS, sock_connect=CONNECT_SECONDS),
            headers={"Accept": "application/json"},
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=None if self._proxy is None else self._proxy.get_secret_value(),
            trust_env=False,  # the environment's proxies are not asked
        )

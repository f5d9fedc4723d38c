"""GET to Syncaroo's API: bounded in time and size, no redirects, the token only to allowed hosts."""

from __future__ import annotations

import asyncio

import aiohttp
from pydantic import SecretStr
from yarl import URL

from common import tracing
from common.bodies import read_at_most
from common.errors import UpstreamFailed, UpstreamRefused
from common.urls import AllowedHosts
from workers.fetch.addresses import PublicResolver, refuse_private_literal
from workers.fetch.answers import Response
from workers.fetch.metrics import FetchMetrics, status_class

MAX_PAGE_BYTES = 5 * 1024 * 1024
TIMEOUT = aiohttp.ClientTimeout(total=30, connect=5, sock_connect=5, sock_read=10)


class SyncarooApi:
    """Syncaroo's API; use as an async context manager."""

    def __init__(
        self,
        allowed: AllowedHosts,
        *,
        allow_private: bool,
        concurrency: int,
        proxy: SecretStr | None = None,
        metrics: FetchMetrics | None = None,
    ) -> None:
        self._allowed = allowed
        # A proxy resolves names itself, and may stand inside: where they lead is then for it to judge.
        self._public_only = not allow_private and proxy is None
        self._concurrency = concurrency
        self._proxy = proxy
        self._metrics = metrics or FetchMetrics()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> SyncarooApi:
        resolver = PublicResolver() if self._public_only else None
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._concurrency, resolver=resolver),
            proxy=None if self._proxy is None else self._proxy.get_secret_value(),
            timeout=TIMEOUT,
            trust_env=False,  # the environment's proxies are not asked
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=(_asked_once,),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, url: str, access_token: str) -> Response:
        """One GET, exactly to that URL.

        Raises:
            ForbiddenHost: the token must not go there; nothing was sent.
            UpstreamFailed: no whole answer: refused, reset, cut off, too slow, name unknown.
            UpstreamRefused: `too_large`.
        """
        assert self._session is not None, "used outside its context"
        self._allowed.check(url)
        target = URL(url, encoded=True)  # encoded: a prepared link must arrive as it was given
        if self._public_only:
            refuse_private_literal(target.raw_host or "")
        headers = {"Authorization": f"Bearer {access_token}", "Accept": "application/json"}
        with tracing.span("GET", "client", tracing.request("GET", target)):
            return await self._counted(target, headers)

    async def _counted(self, target: URL, headers: dict[str, str]) -> Response:
        status = 0
        try:
            with self._metrics.call_seconds.time():
                response = await self._get(target, headers)
            status = response.status
            return response
        finally:
            self._metrics.calls.labels(status_class(status)).inc()

    async def _get(self, target: URL, headers: dict[str, str]) -> Response:
        assert self._session is not None
        try:
            async with self._session.get(target, headers=headers, allow_redirects=False) as answer:
                tracing.note({"http.response.status_code": answer.status})
                return Response(
                    status=answer.status,
                    body=await _read(answer) if answer.status == 200 else b"",
                    content_type=answer.headers.get("Content-Type", ""),
                    retry_after=answer.headers.get("Retry-After"),
                )
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, OSError) as error:
            raise _no_answer(error) from None


async def _asked_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Else the library would ask a GET whose connection broke again by itself, out of our budget of calls."""
    try:
        return await handler(request)
    except aiohttp.ClientError as error:
        raise _no_answer(error) from None


def _no_answer(error: Exception) -> UpstreamFailed:
    """The library's own texts hold the URL and the headers: only the kind is told."""
    return UpstreamFailed(f"no answer ({type(error).__name__})")


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    body = await read_at_most(answer, MAX_PAGE_BYTES)
    if body is None:
        raise UpstreamRefused("too_large", f"more than {MAX_PAGE_BYTES} bytes in a page", status=answer.status)
    return body

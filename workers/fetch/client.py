"""GET to Syncaroo's API: bounded in time and size, no redirects, the token only to allowed hosts."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver
from yarl import URL

from common.errors import ForbiddenHost, UpstreamFailed, UpstreamRefused
from common.urls import AllowedHosts
from workers.fetch.answers import Response

MAX_PAGE_BYTES = 5 * 1024 * 1024
TIMEOUT = aiohttp.ClientTimeout(total=30, connect=5, sock_connect=5, sock_read=10)


class PublicResolver(AbstractResolver):
    """Refuses names that resolve to private, loopback or link-local addresses: a name can be pointed anywhere."""

    def __init__(self) -> None:
        self._resolver = DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of the name.

        Raises:
            ForbiddenHost: one of them is not public.
        """
        found = await self._resolver.resolve(host, port, family)
        refuse_private([one["host"] for one in found])
        return found

    async def close(self) -> None:
        """Release the resolver."""
        await self._resolver.close()


def refuse_private(addresses: Sequence[str]) -> None:
    """Let only public addresses pass.

    Raises:
        ForbiddenHost: naming no address.
    """
    if not all(ipaddress.ip_address(address).is_global for address in addresses):
        raise ForbiddenHost("the name resolves to an address that is not public")


class SyncarooApi:
    """Syncaroo's API; use as an async context manager."""

    def __init__(self, allowed: AllowedHosts, *, allow_private: bool, concurrency: int) -> None:
        self._allowed = allowed
        self._allow_private = allow_private
        self._concurrency = concurrency
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> SyncarooApi:
        resolver = None if self._allow_private else PublicResolver()
        connector = aiohttp.TCPConnector(limit=self._concurrency, resolver=resolver)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=TIMEOUT, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()
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
        headers = {"Authorization": f"Bearer {access_token}", "Accept": "application/json"}
        try:
            # encoded: a prepared link must arrive as it was given.
            async with self._session.get(URL(url, encoded=True), headers=headers, allow_redirects=False) as answer:
                return Response(
                    status=answer.status,
                    body=await _read(answer) if answer.status == 200 else b"",
                    content_type=answer.headers.get("Content-Type", ""),
                    retry_after=answer.headers.get("Retry-After"),
                )
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, OSError) as error:
            # The library's own texts hold the URL and the headers: only the kind is told.
            raise UpstreamFailed(f"no answer ({type(error).__name__})") from None


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_chunked(65_536):
        body += chunk
        if len(body) > MAX_PAGE_BYTES:
            raise UpstreamRefused("too_large", f"more than {MAX_PAGE_BYTES} bytes in a page", status=answer.status)
    return bytes(body)

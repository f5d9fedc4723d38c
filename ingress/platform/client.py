"""GET to the platform's own inventory (`INVENTORY_URL`): a user's listings, bounded in time and size, no redirects."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import aiohttp
from aiohttp import hdrs
from yarl import URL

from common.bodies import read_at_most
from common.codec import loads
from common.errors import UpstreamFailed
from common.settings import USER_ID, InventorySettings
from ingress.inventory import Location, read_locations
from ingress.limits import MAX_BODY

SECONDS = 5.0
"""For all of it: Syncaroo is waiting."""


class PlatformInventory:
    """Asks the platform; a connection of its own for each call, as they are far between."""

    def __init__(self, url: str, token: str | None, *, seconds: float = SECONDS) -> None:
        self._url = url
        self._headers = {hdrs.ACCEPT: "application/json", hdrs.ACCEPT_ENCODING: "identity"}
        if token is not None:
            self._headers[hdrs.AUTHORIZATION] = f"Bearer {token}"
        self._seconds = seconds

    async def locations(self, user_id: str) -> list[Location]:
        """The user's listings, checked like those that an operator tells.

        Raises:
            UpstreamFailed: no whole answer in time, or another one than 200.
            BadJson, BadInput: it is not the map that `PUT users/{userId}/locations` takes, or larger than that.
        """
        if user_id in (".", ".."):  # no encoding keeps these from leading elsewhere
            raise UpstreamFailed("not asked, as the user's id is dots")
        url = URL(self._url.replace(USER_ID, quote(user_id, safe="")), encoded=True)
        try:
            async with asyncio.timeout(self._seconds):
                body = await self._get(url)
        except (aiohttp.ClientError, TimeoutError, OSError, asyncio.IncompleteReadError) as error:
            # The library's own texts hold the URL and the headers: only the kind is told.
            raise UpstreamFailed(f"no answer ({type(error).__name__})") from None
        return read_locations(loads(body))

    async def _get(self, url: URL) -> bytes:
        async with (
            aiohttp.ClientSession(trust_env=False, auto_decompress=False, headers=self._headers) as session,
            session.get(url, allow_redirects=False) as answer,
        ):
            if answer.status != 200:
                raise UpstreamFailed(f"status {answer.status}", status=answer.status)
            return await _read(answer)


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    body = await read_at_most(answer, MAX_BODY)
    if body is None:
        raise UpstreamFailed(f"more than {MAX_BODY} bytes", status=answer.status)
    return body


def platform_inventory(settings: InventorySettings) -> PlatformInventory | None:
    """The platform's inventory, where there is one to be asked."""
    if settings.inventory_url is None:
        return None
    token = settings.inventory_token
    return PlatformInventory(settings.inventory_url, None if token is None else token.get_secret_value())

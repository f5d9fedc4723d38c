"""Which access tokens are refused although they are authentic and alive: known from memory, renewed off the path."""

from __future__ import annotations

import asyncio

from common.access_tokens import AccessToken
from common.errors import StoreUnavailable
from common.logs import get_logger
from common.process import pause
from common.store.engine import Store
from ingress.oauth.store import OAuthStore

POLL_SECONDS = 2.0

log = get_logger(__name__)


class Revocations:
    """The families revoked within the life of an access token. While the store is away it keeps what it knows."""

    def __init__(self, store: Store, token_seconds: int) -> None:
        self._store = OAuthStore(store)
        self._token_seconds = token_seconds
        self._families: frozenset[str] = frozenset()

    def is_revoked(self, token: AccessToken) -> bool:
        """Whether the token was revoked, as far as is known: within seconds of it."""
        return token.family in self._families

    async def refresh(self) -> None:
        """Ask the store once.

        Raises:
            StoreUnavailable: nothing was learned.
        """
        self._families = await self._store.revoked_families(self._token_seconds)

    async def run(self, stop: asyncio.Event) -> None:
        """Ask again and again, until `stop`."""
        told = False
        while not stop.is_set():
            try:
                await self.refresh()
                told = False
            except StoreUnavailable as error:
                if not told:
                    log.warning("revocations.stale", reason=str(error))
                told = True
            await pause(stop, POLL_SECONDS)

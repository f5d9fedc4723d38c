"""The GETs of one claim: each with a number taken right before it, a share of the budget, and a valid token."""

from __future__ import annotations

import asyncio

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from common.clock import utc_now
from common.crypto import TokenCipher
from common.errors import CallsUnavailable, GrantUnavailable, Permanent, UpstreamFailed
from common.token_pair import unpack
from workers.fetch.answers import Page, Response, check_status, parse_page
from workers.fetch.claim import Claim, Grant
from workers.fetch.client import SyncarooApi
from workers.fetch.metrics import FetchMetrics
from workers.fetch.store.grants import GrantStore
from workers.fetch.store.outcomes import OutcomeStore

GRANT_SECONDS = 12.0
GRANT_POLL = 0.2
BUDGET_SECONDS = 20.0
BUDGET_PAUSE = 0.05
MAX_BUDGET_PAUSE = 0.2


class Attempt:
    """Holds the claim's token, and the newer one after a 401."""

    def __init__(
        self,
        store: OutcomeStore,
        grants: GrantStore,
        api: SyncarooApi,
        cipher: TokenCipher,
        claim: Claim,
        grant: Grant,
        metrics: FetchMetrics | None = None,
    ) -> None:
        self._store = store
        self._grants = grants
        self._api = api
        self._cipher = cipher
        self._claim = claim
        self._grant = grant
        self._metrics = metrics or FetchMetrics()
        self._began: int | None = claim.started  # the claim itself has paid for the first GET
        self._progress: str | None = None

    async def get(self, url: str, progress: str | None = None) -> tuple[Page, int, int]:
        """One page, and the numbers between which it was asked; `progress` is kept with the target before.

        Raises:
            UpstreamFailed: no answer, or one that passes.
            UpstreamRefused: an answer that is final.
            ForbiddenHost: the token must not go there.
            GrantUnavailable, CallsUnavailable: not now.
        """
        self._progress = progress
        blips = AsyncRetrying(
            retry=retry_if_exception(_is_blip),
            stop=stop_after_attempt(2),
            wait=wait_random_exponential(max=1),
            reraise=True,
        )
        async for attempt in blips:
            with attempt:
                return await self._once(url)
        raise AssertionError("unreachable: tenacity raises the last error")

    async def _once(self, url: str) -> tuple[Page, int, int]:
        began, response = await self._call(url)
        if response.status == 401:
            began, response = await self._with_new_token(url)
        check_status(response, utc_now())
        page = parse_page(response, url)
        self._metrics.pages.inc()
        return page, began, await self._store.number()

    async def _call(self, url: str) -> tuple[int, Response]:
        began = await self._number()
        return began, await self._api.get(url, self._access_token())

    def _access_token(self) -> str:
        try:
            return unpack(self._cipher.open(self._grant.sealed_pair)).access_token
        except Permanent as error:
            raise GrantUnavailable("no key of SECRET_KEYS opens the grant") from error

    async def _number(self) -> int:
        began, self._began = self._began, None
        if began is not None:
            return began
        waited, pause = 0.0, BUDGET_PAUSE
        while began is None:
            if waited >= BUDGET_SECONDS:
                self._metrics.budget_denied.inc()
                raise CallsUnavailable("no share of the calls to the host came free")
            began = await self._store.next_call(self._claim, self._progress)
            self._progress = None
            if began is None:
                await asyncio.sleep(pause)
                waited, pause = waited + pause, min(2 * pause, MAX_BUDGET_PAUSE)
        self._metrics.budget_wait_seconds.observe(waited)
        return began

    async def _with_new_token(self, url: str) -> tuple[int, Response]:
        """After a 401: one refresh for everybody who held this token, and one more try with the new one."""
        newer = await self._grants.newer_grant(self._grant.rt_version)
        self._grant = newer or await self._renewed()
        began, response = await self._call(url)
        if response.status == 401:
            raise UpstreamFailed("answered 401 to a new token", status=401)
        return began, response

    async def _renewed(self) -> Grant:
        if self._claim.last_status == 401:
            raise UpstreamFailed("answered 401 again", status=401)
        if not await self._grants.reject_token(self._grant.rt_version):
            raise UpstreamFailed("answered 401 to a token that is new", status=401)
        if (newer := await self._wait_for_grant()) is None:
            raise GrantUnavailable("answered 401, and no new token came yet")
        return newer

    async def _wait_for_grant(self) -> Grant | None:
        waited = 0.0
        while waited < GRANT_SECONDS:
            if newer := await self._grants.newer_grant(self._grant.rt_version):
                return newer
            await asyncio.sleep(GRANT_POLL)
            waited += GRANT_POLL
        return None


def _is_blip(error: BaseException) -> bool:
    """Trouble of a moment, worth one more try at once: no answer, or a gateway's."""
    return isinstance(error, UpstreamFailed) and error.status in (0, 502, 503, 504) and error.retry_after is None

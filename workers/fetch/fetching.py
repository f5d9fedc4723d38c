"""One claim's way: its pages are walked and go to reconcile; failures are sorted here, once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import structlog

from common.broker.publisher import Publisher, outgoing
from common.broker.retry import RetryPolicy, jittered
from common.clock import utc_now
from common.crypto import TokenCipher
from common.errors import (
    BrokerUnavailable,
    ForbiddenHost,
    GrantUnavailable,
    StoreUnavailable,
    UpstreamFailed,
    UpstreamRefused,
)
from common.identity import place_of
from common.logs import get_logger
from schemas.messages import ItemGone, PageFetched, Source
from workers.fetch.answers import Page
from workers.fetch.attempt import Attempt
from workers.fetch.claim import Claim, Grant
from workers.fetch.client import SyncarooApi
from workers.fetch.store.grants import GrantStore
from workers.fetch.store.outcomes import OutcomeStore
from workers.fetch.walk import Walk, step

AWAY_PAUSE = timedelta(seconds=1)

log = get_logger(__name__)


class Fetcher:
    """Drives one claim to answered, put off, or parked."""

    def __init__(
        self,
        store: OutcomeStore,
        grants: GrantStore,
        api: SyncarooApi,
        publisher: Publisher,
        cipher: TokenCipher,
        retry: RetryPolicy,
    ) -> None:
        self._store = store
        self._grants = grants
        self._api = api
        self._publisher = publisher
        self._cipher = cipher
        self._retry = retry

    async def fetch(self, claim: Claim, grant: Grant) -> None:
        """Never raises for what Syncaroo or the broker does; a bug of ours is tried again like a failure of theirs.

        Raises:
            StoreUnavailable: the store is away; the lease runs out by itself.
        """
        with structlog.contextvars.bound_contextvars(connection_id=claim.connection_id, delivery_id=claim.delivery_id):
            try:
                await self._walk(claim, Attempt(self._store, self._grants, self._api, self._cipher, claim, grant))
            except UpstreamFailed as error:
                await self._failed(claim, error)
            except UpstreamRefused as error:
                await self._refused(claim, error)
            except ForbiddenHost as error:
                await self._give_up(claim, error.reason, 0)
            except (BrokerUnavailable, GrantUnavailable) as error:
                log.warning("fetch.put_off", reason=str(error))
                await self._store.put_off(claim, AWAY_PAUSE, str(error), counts=False)
            except StoreUnavailable:
                raise
            except Exception as error:
                # Else the lease would run out and the target be claimed again, for ever, with nobody the wiser.
                log.exception("fetch.bug", path=place_of(claim.url).path)
                await self._failed(claim, UpstreamFailed(f"bug: {type(error).__name__}"))

    async def _walk(self, claim: Claim, attempt: Attempt) -> None:
        walk = Walk(claim.url, claim.started)
        first = began = claim.started
        while walk.url:
            page, began, ended = await attempt.get(walk.url)
            walk = step(walk, page)
            if walk.empty and await self._store.is_one_listing(claim):
                walk = replace(walk, shape="whole")
            if walk.shape != "whole":
                await self._publish(claim, page, walk, attempt.source(began, ended))
        if walk.shape == "whole":
            if walk.broken:
                raise UpstreamFailed("pages of the list are missing", status=200)
            page = Page(list(walk.gathered), single=False, next_url=None, current=None, count=None)
            await self._publish(claim, page, walk, attempt.source(first, ended))
        if walk.complete:
            suspects = await self._store.answered_walk(claim, walk.seen_ids, pages=walk.pages)
        else:
            suspects = 0
            await self._store.answered(claim, 200, pages=walk.pages, odd=walk.anomalies)
        log.info(
            "fetch.answered", path=place_of(claim.url).path, pages=walk.pages, suspects=suspects, odd=walk.anomalies
        )

    async def _publish(self, claim: Claim, page: Page, walk: Walk, source: Source) -> None:
        assert walk.shape is not None
        message = PageFetched(
            connection_id=claim.connection_id,
            source=source,
            mapping=claim.mapping,
            shape=walk.shape,
            items=page.items,
            page=walk.pages,
            recheck=claim.second_look,
        )
        await self._publisher.publish(outgoing(message, "reconcile", claim.connection_id))

    async def _failed(self, claim: Claim, error: UpstreamFailed) -> None:
        delay = self._retry.delay(claim.attempts)
        if delay is None:
            await self._give_up(claim, "retries_exhausted", error.status)
            return
        wait = max(jittered(delay), timedelta(seconds=error.retry_after or 0))
        if error.status == 429:
            await self._store.block_host(claim.host, timedelta(seconds=error.retry_after or 1))
        log.info("fetch.put_off", status=error.status, reason=str(error), attempt=claim.attempts, wait=wait)
        await self._store.put_off(claim, wait, str(error), status=error.status)

    async def _refused(self, claim: Claim, error: UpstreamRefused) -> None:
        if error.status in (404, 410):
            await self._missing(claim, error)
        else:
            await self._give_up(claim, error.reason, error.status)

    async def _missing(self, claim: Claim, error: UpstreamRefused) -> None:
        """404 and 410: of a known item the end, of a known collection a doubt, of anything else perhaps too early."""
        if await self._store.knows(claim):
            if place_of(claim.url).segment is None:
                await self._store.answered_missing(claim, error.status)
                return
            source = Source(
                url=claim.url,
                began=claim.started,
                ended=await self._store.number(),
                asked=claim.asked,
                attempt=claim.attempts,
                reason="gone",
                delivery_id=claim.delivery_id,
                fetched_at=utc_now(),
                status=error.status,
            )
            gone = ItemGone(connection_id=claim.connection_id, source=source)
            await self._publisher.publish(outgoing(gone, "reconcile", claim.connection_id))
            await self._store.answered(claim, error.status)
        elif not claim.answers_webhook or claim.attempts >= len(self._retry.delays):
            await self._give_up(claim, "not_found", error.status)
        else:
            wait = jittered(self._retry.nth(claim.attempts))
            await self._store.put_off(claim, wait, str(error), status=error.status)

    async def _give_up(self, claim: Claim, reason: str, status: int) -> None:
        """Park what a webhook still waits for. A resync only asked again: the next one will, too."""
        if not claim.answers_webhook:
            log.info("fetch.gave_up", reason=reason, status=status, path=place_of(claim.url).path)
            await self._store.gave_up(claim, reason, status)
            return
        log.warning("fetch.parked", reason=reason, status=status, path=place_of(claim.url).path)
        await self._store.park(claim, reason, status=status)

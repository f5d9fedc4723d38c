"""One claim's way to its end: answered, put off, or parked."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from typing import Any

from common import tracing
from common.broker.outgoing import outgoing
from common.broker.retry import RetryPolicy, jittered
from common.clock import utc_now
from common.crypto import TokenCipher
from common.errors import GatewayError, StoreUnavailable, UpstreamFailed, UpstreamRefused
from common.identity import place_of
from common.logs import bound, get_logger
from schemas.messages import ItemGone
from workers.fetch.attempt import Attempt
from workers.fetch.claim import Claim, Grant
from workers.fetch.client import SyncarooApi
from workers.fetch.metrics import FetchMetrics
from workers.fetch.store.grants import GrantStore
from workers.fetch.store.outcomes import OutcomeStore
from workers.fetch.store.suspects import Judged, SuspectStore
from workers.fetch.verdicts import GiveUp, PutOff, verdict
from workers.fetch.walk import Walk
from workers.fetch.walking import PAGE_SECONDS, Publishes, Walking

log = get_logger(__name__)


class Fetcher:
    """Drives one claim to answered, put off, or parked."""

    def __init__(
        self,
        store: OutcomeStore,
        suspects: SuspectStore,
        grants: GrantStore,
        api: SyncarooApi,
        publisher: Publishes,
        cipher: TokenCipher,
        retry: RetryPolicy,
        metrics: FetchMetrics | None = None,
    ) -> None:
        self._store = store
        self._suspects = suspects
        self._grants = grants
        self._api = api
        self._publisher = publisher
        self._cipher = cipher
        self._retry = retry
        self._metrics = metrics or FetchMetrics()

    async def fetch(self, claim: Claim, grant: Grant) -> None:
        """Never raises for what Syncaroo or the broker does; a bug of ours is tried again like a failure of theirs.

        Raises:
            StoreUnavailable: the store is away; the lease runs out by itself.
            TimeoutError: a bug: it was not written within 5 min what became of the claim; as above.
        """
        attempt = Attempt(self._store, self._grants, self._api, self._cipher, claim, grant, self._metrics)
        walking = Walking(self._store, self._publisher, attempt, claim)
        with bound(**_ids(claim)), _span(claim):
            try:
                await self._drive(claim, walking)
            except StoreUnavailable:
                raise
            except GatewayError as error:
                await self._conclude(claim, error, walking.progress)
            except Exception as error:
                # Else the lease would run out and the target be claimed again, for ever, with nobody the wiser.
                log.exception("fetch.bug", path=place_of(claim.url).path)
                await self._conclude(claim, UpstreamFailed(f"bug: {type(error).__name__}"), "")

    async def _drive(self, claim: Claim, walking: Walking) -> None:
        try:
            walk = await walking.run()
        except UpstreamRefused as error:
            if error.reason != "not_found":
                raise
            ending = self._missing(claim, error)
        else:
            ending = self._answered(walking.claim, walk)
        async with asyncio.timeout(PAGE_SECONDS):
            await ending

    async def _answered(self, claim: Claim, walk: Walk) -> None:
        judged = await self._suspects.judge(claim, walk.seen_ids) if walk.complete else Judged()
        await self._tell(claim, judged, 200)
        await self._store.answered(claim, 200, pages=walk.pages, odd=walk.anomalies)
        self._count("answered")
        tracing.note({"gateway.outcome": "answered", "gateway.pages": walk.pages})
        log.info(
            "fetch.answered",
            path=place_of(claim.url).path,
            pages=walk.pages,
            suspects=judged.asked,
            odd=walk.anomalies,
        )

    async def _missing(self, claim: Claim, error: UpstreamRefused) -> None:
        """404 and 410: of a known item the end, of a known collection a doubt, of anything else perhaps too early."""
        if not await self._store.knows(claim):
            if claim.answers_webhook and claim.attempts < len(self._retry.delays):
                raise UpstreamFailed(str(error), status=error.status)
            if place_of(claim.url).segment is not None:
                # What an earlier answer told of it may still be on its way to reconcile.
                await self._gone(claim, claim.started, error.status)
            raise error
        if place_of(claim.url).segment is not None:
            await self._gone(claim, claim.started, error.status)
        else:
            await self._tell(claim, await self._suspects.judge_missing(claim), error.status)
        await self._store.answered(claim, error.status)
        self._count("gone")
        tracing.note({"gateway.outcome": "gone", "http.response.status_code": error.status})

    async def _tell(self, claim: Claim, judged: Judged, status: int) -> None:
        for listing_id in judged.gone:
            await self._gone(claim, claim.first, status, listing_id)
        if judged.held:
            log.warning("fetch.held", path=place_of(claim.url).path, held=judged.held)

    async def _gone(self, claim: Claim, began: int, status: int, listing_id: str | None = None) -> None:
        source = claim.source(began, await self._store.number(), utc_now(), status, "gone")
        gone = ItemGone(
            connection_id=claim.connection_id, source=source, listing_id=listing_id, recheck=claim.second_look
        )
        await self._publisher.publish(outgoing(gone, "reconcile", claim.connection_id))

    async def _conclude(self, claim: Claim, error: GatewayError, progress: str | None) -> None:
        async with asyncio.timeout(PAGE_SECONDS):
            match verdict(error, claim.attempts, self._retry):
                case PutOff() as off:
                    await self._put_off(claim, off, str(error), progress)
                case GiveUp(reason, status):
                    await self._give_up(claim, reason, status)

    async def _put_off(self, claim: Claim, off: PutOff, reason: str, progress: str | None) -> None:
        wait = max(jittered(off.delay), off.at_least)
        tracing.note({"gateway.outcome": "put_off", "http.response.status_code": off.status or None})
        log.info("fetch.put_off", status=off.status, reason=reason, attempt=claim.attempts, wait=wait)
        if off.block:
            self._metrics.backoffs.inc()
            await self._store.block_host(claim.host, off.block)
        await self._store.put_off(claim, wait, reason, status=off.status, counts=off.counts, walk=progress)
        self._count("put_off")

    async def _give_up(self, claim: Claim, reason: str, status: int) -> None:
        """Park what a webhook still waits for. A resync only asked again: the next one will, too."""
        outcome = "parked" if claim.answers_webhook else "gave_up"
        tracing.note(
            {"gateway.outcome": outcome, "gateway.reason": reason, "http.response.status_code": status or None}
        )
        if not claim.answers_webhook:
            log.info("fetch.gave_up", reason=reason, status=status, path=place_of(claim.url).path)
            await self._store.gave_up(claim, reason, status)
            self._count("gave_up")
            return
        log.warning("fetch.parked", reason=reason, status=status, path=place_of(claim.url).path)
        await self._store.park(claim, reason, status=status)
        self._count("parked")

    def _count(self, outcome: str) -> None:
        self._metrics.fetches.labels(outcome).inc()


def _ids(claim: Claim) -> dict[str, Any]:
    """What log lines about the claim carry."""
    ids = {"connection_id": claim.connection_id, "delivery_id": claim.delivery_id}
    return {name: value for name, value in ids.items() if value is not None}


def _span(claim: Claim) -> AbstractContextManager[None]:
    """In the latest webhook's trace, with links to the others that it answers; a resync's is a trace of its own."""
    attributes: tracing.Attributes = {
        "gateway.connection_id": claim.connection_id,
        "gateway.delivery_id": claim.delivery_id,
        "gateway.reason_asked": claim.reason,
        "gateway.attempt": claim.attempts,
        "gateway.second_look": claim.second_look,
        "server.address": claim.host,
        "url.path": place_of(claim.url).path,
    }
    latest = claim.traces[0] if claim.traces else None
    return tracing.span("fetch", attributes=attributes, parent=latest, links=claim.traces[1:])

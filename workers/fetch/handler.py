"""Fetch's flow: webhooks mark targets, claims walk their pages, pages go to reconcile.

`MarkHandler` is the consumer's end, `Fetcher` one claim's way; failures of a claim are sorted in one place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import structlog
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from common.broker.consumer import Delivery
from common.broker.publisher import Publisher, outgoing, outgoing_dead
from common.broker.retry import RetryPolicy, jittered
from common.clock import utc_now
from common.crypto import TokenCipher
from common.errors import (
    BrokerUnavailable,
    ForbiddenHost,
    GrantUnavailable,
    Permanent,
    StoreUnavailable,
    UpstreamFailed,
    UpstreamRefused,
)
from common.identity import place_of
from common.logs import get_logger
from common.token_pair import unpack
from common.urls import AllowedHosts
from schemas.messages import (
    ItemGone,
    ListingUnmapped,
    PageFetched,
    ResyncWanted,
    Source,
    UnusableWebhook,
    WebhookReceived,
)
from workers.fetch.client import SyncarooApi
from workers.fetch.rules import Page, Walk, check_status, parse_page, step
from workers.fetch.store import Claim, Grant, TargetStore

GRANT_SECONDS = 12.0
GRANT_POLL = 0.2
BUDGET_PAUSE = 0.05
AWAY_PAUSE = timedelta(seconds=1)

log = get_logger(__name__)


class MarkHandler:
    """What the fetch queue brings: webhooks and wishes for a resync."""

    def __init__(
        self, store: TargetStore, publisher: Publisher, allowed: AllowedHosts, wake: Callable[[], None]
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._allowed = allowed
        self._wake = wake

    async def __call__(self, deliveries: Sequence[Delivery]) -> None:
        messages = [delivery.message() for delivery in deliveries]
        webhooks: list[WebhookReceived] = []
        for message in messages:
            match message:
                case WebhookReceived(action="unmapped"):
                    # Numbers are given in the order of arrival: a webhook before it must not count as a later one.
                    await self._mark(webhooks)
                    webhooks = []
                    await self._unmap(message)
                case WebhookReceived():
                    self._allowed.check(message.url)  # a replayed one may still be forbidden
                    webhooks.append(message)
                case ResyncWanted():
                    found = await self._store.mark_known(message)
                    log.info("resync.wanted", connection_id=message.connection_id, targets=found)
                case UnusableWebhook():
                    await self._publisher.publish(outgoing_dead(message, "fetch", "unusable_webhook"))
                case _:
                    raise Permanent("unreadable_message", "not for this queue")
        await self._mark(webhooks)
        self._wake()

    async def _mark(self, webhooks: Sequence[WebhookReceived]) -> None:
        if webhooks:
            await self._store.mark(webhooks)

    async def _unmap(self, webhook: WebhookReceived) -> None:
        message = ListingUnmapped(
            connection_id=webhook.connection_id,
            url=webhook.url,
            number=await self._store.number(),
            delivery_id=webhook.delivery_id,
            received_at=webhook.received_at,
        )
        await self._publisher.publish(outgoing(message, "reconcile", webhook.connection_id))


class Fetcher:
    """Drives one claim to answered, put off, or parked."""

    def __init__(
        self, store: TargetStore, api: SyncarooApi, publisher: Publisher, cipher: TokenCipher, retry: RetryPolicy
    ) -> None:
        self._store = store
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
                await self._walk(claim, Attempt(self._store, self._api, self._cipher, claim, grant))
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
        walk = Walk(claim.url)
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
            suspects = await self._store.answered_walk(claim, walk.seen_ids)
        else:
            suspects = 0
            await self._store.answered(claim, 200)
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
            await self._store.answered(claim, status)
            return
        log.warning("fetch.parked", reason=reason, status=status, path=place_of(claim.url).path)
        await self._store.park(claim, reason, status=status)


class Attempt:
    """The GETs of one claim: each with a number taken right before it, a share of the budget, and a valid token."""

    def __init__(self, store: TargetStore, api: SyncarooApi, cipher: TokenCipher, claim: Claim, grant: Grant) -> None:
        self._store = store
        self._api = api
        self._cipher = cipher
        self._claim = claim
        self._grant = grant
        self._began: int | None = claim.started  # the claim itself has paid for the first GET

    async def get(self, url: str) -> tuple[Page, int, int]:
        """One page, and the numbers between which it was asked.

        Raises:
            UpstreamFailed, UpstreamRefused, ForbiddenHost: as sorted by the rules.
        """
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

    def source(self, began: int, ended: int) -> Source:
        """The attempt, as reconcile and the event's cause see it."""
        claim = self._claim
        return Source(
            url=claim.url,
            began=began,
            ended=ended,
            asked=claim.asked,
            attempt=claim.attempts,
            reason=claim.reason,
            delivery_id=claim.delivery_id,
            fetched_at=utc_now(),
            status=200,
        )

    async def _once(self, url: str) -> tuple[Page, int, int]:
        began, response = await self._call(url)
        if response.status == 401:
            began, response = await self._with_new_token(url)
        check_status(response, utc_now())
        page = parse_page(response, url)
        return page, began, await self._store.number()

    async def _call(self, url: str) -> tuple[int, Any]:
        began = await self._number()
        return began, await self._api.get(url, self._access_token())

    def _access_token(self) -> str:
        try:
            return unpack(self._cipher.open(self._grant.sealed_pair)).access_token
        except Permanent as error:
            raise GrantUnavailable("no key of SECRET_KEYS opens the grant") from error

    async def _number(self) -> int:
        began, self._began = self._began, None
        while began is None:
            began = await self._store.next_call(self._claim.host)
            if began is None:
                await asyncio.sleep(BUDGET_PAUSE)
        return began

    async def _with_new_token(self, url: str) -> tuple[int, Any]:
        """After a 401: one refresh for everybody who held this token, and one more try with the new one."""
        if self._claim.last_status == 401:
            raise UpstreamFailed("answered 401 again", status=401)
        await self._store.reject_token(self._grant.rt_version)
        newer = await self._wait_for_grant()
        if newer is None:
            raise GrantUnavailable("answered 401, and no new token came yet")
        self._grant = newer
        began, response = await self._call(url)
        if response.status == 401:
            raise UpstreamFailed("answered 401 to a new token", status=401)
        return began, response

    async def _wait_for_grant(self) -> Grant | None:
        waited = 0.0
        while waited < GRANT_SECONDS:
            if newer := await self._store.newer_grant(self._grant.rt_version):
                return newer
            await asyncio.sleep(GRANT_POLL)
            waited += GRANT_POLL
        return None


def _is_blip(error: BaseException) -> bool:
    """Trouble of a moment, worth one more try at once: no answer, or a gateway's."""
    return isinstance(error, UpstreamFailed) and error.status in (0, 502, 503, 504) and error.retry_after is None

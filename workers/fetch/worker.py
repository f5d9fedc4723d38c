"""The fetch worker's composition root."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Protocol

from common.broker.consumer import stage_consumer
from common.broker.publisher import Publisher
from common.broker.retry import RetryPolicy
from common.crypto import TokenCipher
from common.errors import StoreUnavailable
from common.logs import get_logger
from common.parking import parking_consumer
from common.process import Run, done_before, pause, until_stopped
from common.settings import (
    BrokerSettings,
    FetchSettings,
    KeySettings,
    RetrySettings,
    SiteSettings,
    StoreSettings,
    SyncarooSettings,
)
from common.store.engine import Store
from common.store.setup import wait_for_store
from common.urls import AllowedHosts
from workers.fetch.client import SyncarooApi
from workers.fetch.handler import Fetcher, MarkHandler
from workers.fetch.store import Claim, Grant, TargetStore

SECTIONS = (
    BrokerSettings,
    StoreSettings,
    KeySettings,
    SiteSettings,
    SyncarooSettings,
    FetchSettings,
    RetrySettings,
)

MARK_BATCH = 200
POLL_SECONDS = 0.25
RENEW_SECONDS = 5.0
WIND_UP_SECONDS = 8.0
RESYNC_LOOK_SECONDS = 30.0

log = get_logger(__name__)


def build(
    broker: BrokerSettings,
    store_settings: StoreSettings,
    keys: KeySettings,
    site: SiteSettings,
    syncaroo: SyncarooSettings,
    fetch: FetchSettings,
    retry_settings: RetrySettings,
) -> Run:
    """The worker, ready to run until it is stopped."""
    url = broker.amqp_url.get_secret_value()
    retry = RetryPolicy(retry_settings.retry_delays, retry_settings.retry_for)
    allowed = AllowedHosts(syncaroo.syncaroo_api_hosts, syncaroo.syncaroo_allow_http)

    async def run(stop: asyncio.Event) -> None:
        store = Store(store_settings.database_url.get_secret_value())
        publisher = Publisher(url, "fetch publishes")
        targets = TargetStore(store, rate=fetch.api_rate_per_second, interval=fetch.target_interval)
        wake = asyncio.Event()
        api = SyncarooApi(allowed, allow_private=syncaroo.syncaroo_allow_http, concurrency=fetch.fetch_concurrency)
        publisher.start()
        try:
            async with api:
                facts = {"SYNCAROO_BASE_URL": syncaroo.syncaroo_base_url, "EVENT_SOURCE": site.source}
                if not await done_before(stop, wait_for_store(store, facts)):
                    return
                fetcher = Fetcher(targets, api, publisher, TokenCipher(keys.clear()), retry)
                mark = MarkHandler(targets, publisher, allowed, wake.set)
                await until_stopped(
                    stop,
                    stage_consumer(url, "fetch", mark, publisher, retry, batch=MARK_BATCH).run(stop),
                    parking_consumer(url, "fetch", store, publisher, retry).run(stop),
                    resync_regularly(targets, fetch.resync_interval, wake, stop),
                    ClaimLoop(targets, fetcher, wake, fetch.fetch_concurrency).run(stop),
                )
        finally:
            await publisher.close()
            await store.close()

    return run


async def resync_regularly(targets: TargetStore, interval: timedelta, wake: asyncio.Event, stop: asyncio.Event) -> None:
    """Read every connection again each interval (0: never): what no webhook told comes right all the same."""
    look_every = min(RESYNC_LOOK_SECONDS, interval.total_seconds() / 10)
    while interval and not stop.is_set():
        try:
            for connection_id in await targets.resync_due(interval):
                log.info("resync.begun", connection_id=connection_id)
                wake.set()
        except StoreUnavailable as error:
            log.warning("fetch.waiting", reason=str(error))
        await pause(stop, look_every)


class Fetches(Protocol):
    """What the loop needs of the fetcher."""

    async def fetch(self, claim: Claim, grant: Grant) -> None:
        """Drive the claim to answered, put off, or parked; may raise `StoreUnavailable`."""


class ClaimLoop:
    """Claims what is due, up to `concurrency` at once, and keeps the leases of what is being fetched."""

    def __init__(
        self,
        targets: TargetStore,
        fetcher: Fetches,
        wake: asyncio.Event,
        concurrency: int,
        *,
        wind_up_seconds: float = WIND_UP_SECONDS,
    ) -> None:
        self._targets = targets
        self._fetcher = fetcher
        self._wake = wake
        self._concurrency = concurrency
        self._wind_up_seconds = wind_up_seconds
        self._running: dict[asyncio.Task[None], Claim] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; then what is in hand is finished, or given back after 8 s."""
        renewing = asyncio.create_task(self._keep_leases())
        stopping = asyncio.create_task(self._wake_at(stop))
        try:
            while not stop.is_set():
                self._wake.clear()
                if not await self._claim_some():
                    await pause(self._wake, POLL_SECONDS)
            await self._wind_up()
        finally:
            renewing.cancel()
            stopping.cancel()
            for task in self._running:
                task.cancel()

    async def _wind_up(self) -> None:
        if not self._running:
            return
        _, late = await asyncio.wait(self._running, timeout=self._wind_up_seconds)
        claims = [self._running[task] for task in late]
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        if claims:
            await self._give_back(claims)

    async def _give_back(self, claims: list[Claim]) -> None:
        try:
            await self._targets.release(claims)
            log.info("fetch.given_back", claims=len(claims))
        except StoreUnavailable as error:
            log.warning("fetch.not_given_back", reason=str(error), claims=len(claims))  # the leases run out

    async def _claim_some(self) -> bool:
        """Start what can be started; whether there may be more at once."""
        free = self._concurrency - len(self._running)
        try:
            if free == 0 or not await self._targets.anything_due():
                return False
            claims, grant = await self._targets.claim(free)
        except StoreUnavailable as error:
            log.warning("fetch.waiting", reason=str(error))
            return False
        for claim in claims:
            assert grant is not None
            self._start(claim, grant)
        return bool(claims)

    def _start(self, claim: Claim, grant: Grant) -> None:
        task = asyncio.create_task(self._fetch(claim, grant))
        self._running[task] = claim
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self._wake.set()

    async def _fetch(self, claim: Claim, grant: Grant) -> None:
        try:
            await self._fetcher.fetch(claim, grant)
        except StoreUnavailable as error:
            log.warning("fetch.abandoned", reason=str(error))  # the lease runs out, then it is claimed again
        except Exception:
            log.exception("fetch.bug", path=claim.url)

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                if self._running:
                    await self._targets.renew(list(self._running.values()))
            except StoreUnavailable as error:
                log.warning("fetch.lease_not_renewed", reason=str(error))

    async def _wake_at(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()

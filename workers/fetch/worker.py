"""The fetch worker's composition root."""

from __future__ import annotations

import asyncio

from common.broker.consumer import stage_consumer
from common.broker.publisher import Publisher
from common.broker.retry import RetryPolicy
from common.broker.topology import queue_name
from common.crypto import TokenCipher
from common.ids import new_id
from common.parking import parking_consumer
from common.process import Run, done_before, until_stopped
from common.settings import (
    BrokerSettings,
    EgressSettings,
    FetchSettings,
    KeySettings,
    ReconcileSettings,
    ResyncSettings,
    RetrySettings,
    SiteSettings,
    StoreSettings,
    SyncarooSettings,
)
from common.store.engine import Store
from common.store.schema import facts_of, wait_for_store
from common.urls import AllowedHosts
from workers.fetch.backlog import Backlog
from workers.fetch.claim_loop import POLL_SECONDS, ClaimLoop
from workers.fetch.client import SyncarooApi
from workers.fetch.fetching import Fetcher
from workers.fetch.handler import MarkHandler
from workers.fetch.metrics import FetchMetrics
from workers.fetch.resync import Rereading
from workers.fetch.store.claims import ClaimStore
from workers.fetch.store.grants import GrantStore
from workers.fetch.store.marks import MarkStore
from workers.fetch.store.outcomes import OutcomeStore
from workers.fetch.store.resyncs import ResyncStore
from workers.fetch.store.suspects import SuspectStore
from workers.monitor import Monitor

SECTIONS = (
    BrokerSettings,
    StoreSettings,
    KeySettings,
    SiteSettings,
    SyncarooSettings,
    FetchSettings,
    ResyncSettings,
    ReconcileSettings,
    RetrySettings,
    EgressSettings,
)

MARK_BATCH = 200


def build(
    broker: BrokerSettings,
    store_settings: StoreSettings,
    keys: KeySettings,
    site: SiteSettings,
    syncaroo: SyncarooSettings,
    fetch: FetchSettings,
    resync: ResyncSettings,
    reconcile: ReconcileSettings,
    retry_settings: RetrySettings,
    egress: EgressSettings,
    monitor: Monitor | None = None,
) -> Run:
    """The worker, ready to run until it is stopped."""
    url = broker.amqp_url.get_secret_value()
    retry = RetryPolicy(retry_settings.retry_delays, retry_settings.retry_for)
    allowed = AllowedHosts(syncaroo.syncaroo_api_hosts, syncaroo.syncaroo_allow_http)
    monitor = monitor or Monitor()
    stage, metrics = monitor.stage("fetch"), FetchMetrics(monitor.registry)

    async def run(stop: asyncio.Event) -> None:
        store = Store(store_settings.database_url.get_secret_value())
        publisher = Publisher(url, "fetch publishes", monitor.broker)
        owner = new_id()
        api = _api(allowed, syncaroo, fetch, egress, metrics)
        publisher.start()
        try:
            async with api:
                cipher = TokenCipher(keys.clear())
                if not await done_before(stop, wait_for_store(store, facts_of(site, syncaroo), cipher)):
                    return
                claims = ClaimStore(
                    store,
                    owner,
                    rate=fetch.api_rate_per_second,
                    interval=fetch.target_interval,
                    line_up_every=POLL_SECONDS,
                )
                outcomes = OutcomeStore(store, owner, rate=fetch.api_rate_per_second)
                suspects = SuspectStore(store, owner, brake=reconcile.delete_brake)
                fetcher = Fetcher(outcomes, suspects, GrantStore(store), api, publisher, cipher, retry, metrics)
                backlog = Backlog(lambda: publisher.depth(queue_name("reconcile")), fetch.reconcile_backlog)
                claiming = ClaimLoop(claims, fetcher, fetch.fetch_concurrency, held=backlog.pausing, metrics=metrics)
                rereading = Rereading(ResyncStore(store), resync, claiming.wake)
                mark = MarkHandler(MarkStore(store), publisher, allowed, claiming.wake, rereading.look)
                consumers = [
                    stage_consumer(url, "fetch", mark, publisher, retry, batch=MARK_BATCH, metrics=monitor.broker),
                    parking_consumer(url, "fetch", store, publisher, retry, monitor.broker),
                ]
                stage.begins(store, publisher, consumers)
                await until_stopped(
                    stop, *(one.run(stop) for one in consumers), rereading.run(stop), claiming.run(stop)
                )
        finally:
            await publisher.close()
            await store.close()

    return run


def _api(
    allowed: AllowedHosts,
    syncaroo: SyncarooSettings,
    fetch: FetchSettings,
    egress: EgressSettings,
    metrics: FetchMetrics,
) -> SyncarooApi:
    return SyncarooApi(
        allowed,
        allow_private=syncaroo.syncaroo_allow_http,
        concurrency=fetch.fetch_concurrency,
        proxy=egress.egress_proxy,
        metrics=metrics,
    )

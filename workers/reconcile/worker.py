"""The reconcile worker's composition root."""

from __future__ import annotations

import asyncio

from common.broker.consumer import stage_consumer
from common.broker.publisher import Publisher
from common.broker.retry import RetryPolicy
from common.broker.topology import RELAY_POKE
from common.parking import parking_consumer
from common.process import Run, done_before, until_stopped
from common.settings import (
    BrokerSettings,
    ReconcileSettings,
    RetrySettings,
    SiteSettings,
    StoreSettings,
    SyncarooSettings,
)
from common.store.engine import Store
from common.store.schema import facts_of, wait_for_store
from workers.monitor import Monitor
from workers.reconcile.handler import ReconcileHandler
from workers.reconcile.metrics import ReconcileMetrics
from workers.reconcile.store.listings import ListingStore

SECTIONS = (BrokerSettings, StoreSettings, SiteSettings, SyncarooSettings, ReconcileSettings, RetrySettings)

CONCURRENCY = 4
BATCH = 5


def build(
    broker: BrokerSettings,
    store_settings: StoreSettings,
    site: SiteSettings,
    syncaroo: SyncarooSettings,
    settings: ReconcileSettings,
    retry_settings: RetrySettings,
    monitor: Monitor | None = None,
) -> Run:
    """The worker, ready to run until it is stopped."""
    url = broker.amqp_url.get_secret_value()
    retry = RetryPolicy(retry_settings.retry_delays, retry_settings.retry_for)
    monitor = monitor or Monitor()
    stage, metrics = monitor.stage("reconcile"), ReconcileMetrics(monitor.registry)

    async def run(stop: asyncio.Event) -> None:
        store = Store(store_settings.database_url.get_secret_value())
        publisher = Publisher(url, "reconcile publishes", monitor.broker)

        async def wake_relay() -> None:
            publisher.poke(RELAY_POKE)  # may get lost: the relay looks by itself every second

        publisher.start()
        try:
            if not await done_before(stop, wait_for_store(store, facts_of(site, syncaroo))):
                return
            listings = ListingStore(store, delete_brake=settings.delete_brake, metrics=metrics)
            handler = ReconcileHandler(listings, wake_relay, settings.recheck_after, settings.ignored_fields)
            consumers = [
                stage_consumer(
                    url,
                    "reconcile",
                    handler,
                    publisher,
                    retry,
                    batch=BATCH,
                    concurrency=CONCURRENCY,
                    metrics=monitor.broker,
                ),
                parking_consumer(url, "reconcile", store, publisher, retry, monitor.broker),
            ]
            stage.begins(store, publisher, consumers)
            await until_stopped(stop, *(one.run(stop) for one in consumers))
        finally:
            await publisher.close()
            await store.close()

    return run

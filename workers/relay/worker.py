"""The relay's composition root."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from common.broker.broadcast import Broadcast
from common.broker.poke import listen
from common.broker.topology import RELAY_POKE
from common.process import Run, done_before, until_stopped
from common.settings import (
    BrokerSettings,
    EventBrokerSettings,
    HistorySettings,
    SiteSettings,
    StoreSettings,
    SyncarooSettings,
)
from common.store.engine import Store
from common.store.erasing import ErasureStore
from common.store.leader import Leadership
from common.store.schema import facts_of, wait_for_store
from workers.monitor import Monitor
from workers.relay.erasing import Erasing
from workers.relay.handler import Parts, Relay
from workers.relay.metrics import RelayMetrics
from workers.relay.pruning import Pruning
from workers.relay.requests import serve_requests
from workers.relay.store.events import EventStore
from workers.relay.store.history import HistoryStore

SECTIONS = (BrokerSettings, EventBrokerSettings, StoreSettings, SiteSettings, SyncarooSettings, HistorySettings)


def build(
    broker: BrokerSettings,
    events: EventBrokerSettings,
    store_settings: StoreSettings,
    site: SiteSettings,
    syncaroo: SyncarooSettings,
    history: HistorySettings,
    monitor: Monitor | None = None,
) -> Run:
    """The worker, ready to run until it is stopped."""
    work_url = broker.amqp_url.get_secret_value()
    events_url = events.url(broker)
    monitor = monitor or Monitor()
    stage, metrics = monitor.stage("relay"), RelayMetrics(monitor.registry)

    async def run(stop: asyncio.Event) -> None:
        store = Store(store_settings.database_url.get_secret_value())
        broadcast = Broadcast(events_url, "relay publishes", monitor.broker)
        broadcast.start()
        try:
            if not await done_before(stop, wait_for_store(store, facts_of(site, syncaroo))):
                return
            parts = Parts(EventStore(store), broadcast, Leadership(store, "relay"), site.source, metrics=metrics)
            keep = timedelta(days=history.listing_history_days)
            pruning = Pruning(HistoryStore(store, keep), Leadership(store, "history"))
            pokes = listen(work_url, RELAY_POKE, parts.signal.poke, stop)
            requests = serve_requests(events_url, store, site.source, stop)
            erasing = Erasing(ErasureStore(store))
            stage.begins(store, broadcast)
            await until_stopped(stop, Relay(parts).run(stop), pokes, pruning.run(stop), erasing.run(stop), requests)
        finally:
            await broadcast.close()
            await store.close()

    return run

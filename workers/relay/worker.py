"""The relay's composition root."""

from __future__ import annotations

import asyncio

from common.broker.poke import listen
from common.broker.publisher import Publisher
from common.broker.topology import RELAY_POKE
from common.process import Run, done_before, until_stopped
from common.settings import BrokerSettings, EventBrokerSettings, SiteSettings, StoreSettings, SyncarooSettings
from common.store.engine import Store
from common.store.leader import Leadership
from common.store.setup import facts_of, wait_for_store
from workers.relay.handler import Relay
from workers.relay.store import EventStore

SECTIONS = (BrokerSettings, EventBrokerSettings, StoreSettings, SiteSettings, SyncarooSettings)


def build(
    broker: BrokerSettings,
    events: EventBrokerSettings,
    store_settings: StoreSettings,
    site: SiteSettings,
    syncaroo: SyncarooSettings,
) -> Run:
    """The worker, ready to run until it is stopped."""
    work_url = broker.amqp_url.get_secret_value()
    events_url = (events.events_amqp_url or broker.amqp_url).get_secret_value()

    async def run(stop: asyncio.Event) -> None:
        store = Store(store_settings.database_url.get_secret_value())
        publisher = Publisher(events_url, "relay publishes")
        wake = asyncio.Event()
        publisher.start()
        try:
            if not await done_before(stop, wait_for_store(store, facts_of(site, syncaroo))):
                return
            relay = Relay(EventStore(store), publisher, Leadership(store, "relay"), site.source, wake)
            await until_stopped(stop, relay.run(stop), listen(work_url, RELAY_POKE, wake.set, stop))
        finally:
            await publisher.close()
            await store.close()

    return run

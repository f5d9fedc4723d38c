"""The token worker's composition root."""

from __future__ import annotations

import asyncio

from common.broker.consumer import stage_consumer
from common.broker.publisher import Publisher
from common.broker.retry import RetryPolicy
from common.crypto import TokenCipher
from common.errors import SettingsError
from common.parking import parking_consumer
from common.process import Run, done_before, until_stopped
from common.settings import (
    BrokerSettings,
    ClientSettings,
    EgressSettings,
    KeySettings,
    RetrySettings,
    SiteSettings,
    StoreSettings,
    SyncarooSettings,
)
from common.store.engine import Store
from common.store.schema import facts_of, wait_for_store
from workers.monitor import Monitor
from workers.token.client import TokenClient
from workers.token.handler import TokenHandler
from workers.token.keeping import PairKeeper
from workers.token.metrics import TokenMetrics
from workers.token.refresh import Refresher
from workers.token.store import GrantStore

SECTIONS = (
    BrokerSettings,
    StoreSettings,
    KeySettings,
    SiteSettings,
    SyncarooSettings,
    ClientSettings,
    RetrySettings,
    EgressSettings,
)

CONCURRENCY = 4
"""More than one, so that a pair on its way to the store does not wait behind a code; the lease keeps them apart."""
KEEP_SECONDS = 25 * 60.0
"""A pair in hand, the only one, is not given up while store and broker are both away; the broker waits for an ack a
little longer than that."""


def build(
    broker: BrokerSettings,
    store_settings: StoreSettings,
    keys: KeySettings,
    site: SiteSettings,
    syncaroo: SyncarooSettings,
    ourselves: ClientSettings,
    retry_settings: RetrySettings,
    egress: EgressSettings,
    monitor: Monitor | None = None,
) -> Run:
    """The worker, ready to run until it is stopped.

    Raises:
        SettingsError: our secret and tokens would travel in clear.
    """
    if syncaroo.syncaroo_base_url.startswith("http:") and not syncaroo.syncaroo_allow_http:
        raise SettingsError(
            ["SYNCAROO_BASE_URL: must be https (SYNCAROO_ALLOW_HTTP=true permits http, for the sandbox)"]
        )
    url = broker.amqp_url.get_secret_value()
    retry = RetryPolicy(retry_settings.retry_delays, retry_settings.retry_for)
    cipher = TokenCipher(keys.clear())
    monitor = monitor or Monitor()
    stage, metrics = monitor.stage("token"), TokenMetrics(monitor.registry)
    client = TokenClient(
        base_url=syncaroo.syncaroo_base_url,
        client_id=ourselves.syncaroo_client_id,
        client_secret=ourselves.syncaroo_client_secret.get_secret_value(),
        redirect_uri=f"{site.site_uri}/confirm",
        proxy=egress.egress_proxy,
    )

    async def run(stop: asyncio.Event) -> None:
        store = Store(store_settings.database_url.get_secret_value())
        publisher = Publisher(url, "token publishes", monitor.broker)
        grants = GrantStore(store)
        keeper = PairKeeper(grants, publisher, cipher)
        publisher.start()
        try:
            if not await done_before(stop, wait_for_store(store, facts_of(site, syncaroo), cipher)):
                return
            handler = TokenHandler(grants, client, keeper, cipher, retry, stop=stop)
            refresher = Refresher(grants, client, keeper, cipher, retry, metrics=metrics)
            consumers = [
                stage_consumer(
                    url,
                    "token",
                    handler,
                    publisher,
                    retry,
                    concurrency=CONCURRENCY,
                    seconds=KEEP_SECONDS,
                    metrics=monitor.broker,
                ),
                parking_consumer(url, "token", store, publisher, retry, monitor.broker),
            ]
            stage.begins(store, publisher, consumers)
            await until_stopped(stop, *(one.run(stop) for one in consumers), refresher.run(stop))
        finally:
            await keeper.close()
            await publisher.close()
            await store.close()

    return run

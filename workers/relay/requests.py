"""Serving what others ask of the relay: any number of relays do, whichever of them publishes."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial

from common.broker.consumer import stage_consumer
from common.broker.direct import direct
from common.broker.publisher import Publisher
from common.broker.retry import RetryPolicy
from common.broker.topology import SNAPSHOT_DELAY
from common.parking import parking_consumer
from common.process import until_stopped
from common.store.engine import Store
from workers.relay.snapshots import SnapshotHandler, Snapshots
from workers.relay.store.snapshots import SnapshotStore

CONCURRENCY = 2
RETRY = RetryPolicy([SNAPSHOT_DELAY], timedelta(hours=1))
"""How long a full queue is tried again; then the request is parked, and goes on from there when it is replayed."""


async def serve_requests(url: str, store: Store, source: str, stop: asyncio.Event) -> None:
    """Until `stop`: requests for snapshots on the events' broker, and those of them that cannot be served."""
    publisher = Publisher(url, "relay answers requests")
    handler = SnapshotHandler(Snapshots(SnapshotStore(store), partial(direct, url), source), publisher)
    publisher.start()
    try:
        await until_stopped(
            stop,
            stage_consumer(url, "snapshot", handler, publisher, RETRY, concurrency=CONCURRENCY).run(stop),
            parking_consumer(url, "snapshot", store, publisher, RETRY).run(stop),
        )
    finally:
        await publisher.close()

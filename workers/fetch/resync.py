"""Reading everything known again from time to time."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from common.errors import StoreUnavailable
from common.logs import get_logger
from common.process import pause
from workers.fetch.store.resyncs import ResyncStore

LOOK_SECONDS = 30.0

log = get_logger(__name__)


async def resync_regularly(store: ResyncStore, interval: timedelta, wake: asyncio.Event, stop: asyncio.Event) -> None:
    """Read every connection again each interval (0: never): what no webhook told comes right all the same."""
    look_every = min(LOOK_SECONDS, interval.total_seconds() / 10)
    while interval and not stop.is_set():
        try:
            for connection_id in await store.resync_due(interval):
                log.info("resync.begun", connection_id=connection_id)
                wake.set()
        except StoreUnavailable as error:
            log.warning("fetch.waiting", reason=str(error))
        await pause(stop, look_every)

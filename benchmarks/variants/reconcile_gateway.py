"""The reconcile stage as its worker builds it, handed message after message; its log lines come before the sum."""

import gc
from datetime import timedelta

import uvloop

from benchmarks.variants.reconciling import DATABASE, PAGES, STORED, Pages
from benchmarks.variants.timed import timed
from common.broker.consumer import Delivery
from common.broker.topology import shard_key
from common.logs import configure
from common.process import GARBAGE
from common.settings import LogSettings
from common.store.engine import Store
from workers.reconcile.handler import ReconcileHandler
from workers.reconcile.store.listings import ListingStore
from workers.reconcile.worker import CONCURRENCY


async def nobody() -> None:
    """No relay is there to be woken."""


async def main() -> None:
    """Reconcile."""
    configure(LogSettings(log_format="json"))
    store = Store(DATABASE)
    handler = ReconcileHandler(ListingStore(store, delete_brake=0.2), nobody, timedelta(seconds=5))
    pages = Pages(await store.number() + 1)
    key = shard_key("reconcile", 99)

    async def one() -> None:
        await handler([Delivery(pages.next().body, pages.headers, key)])

    for _ in range(0 if STORED else PAGES):
        await one()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE)
    await timed(one, min(CONCURRENCY, PAGES))
    await store.close()


if __name__ == "__main__":
    uvloop.run(main())

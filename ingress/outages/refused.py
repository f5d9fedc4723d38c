"""The connections whose webhooks had to be refused: resynced once the broker confirms again (CONTRACT §3.4, §5.8)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from itertools import islice

from prometheus_client import Gauge

from common.broker.outgoing import outgoing
from common.errors import BrokerUnavailable, StoreUnavailable
from common.logs import get_logger
from common.process import pause
from ingress.outages.store import OutageStore
from ingress.webhook.deposit import Publishes
from schemas.messages import ResyncWanted

LIMIT = 50_000
BATCH = 1000
PAUSE_SECONDS = 1.0

log = get_logger(__name__)


class Refused:
    """A bounded set: each connection is remembered once, however many of its webhooks were refused.

    What is remembered is also written down, behind the webhooks' back and as far as the store is there. A row goes only
    after the broker has confirmed its resync, so whoever finds one that nobody cares for publishes it.
    """

    def __init__(
        self,
        publisher: Publishes,
        store: OutageStore,
        store_is_up: Callable[[], bool],
        remembered: Gauge,
        *,
        limit: int = LIMIT,
    ) -> None:
        self._publisher = publisher
        self._store = store
        self._store_is_up = store_is_up
        self._remembered = remembered
        self._limit = limit
        self._connections: set[int] = set()
        self._publishing: int | None = None
        self._fresh: set[int] = set()
        """Refused since they were last written down."""
        self._kept: dict[int, datetime] = {}
        """Written down, and since when."""
        self._overflowed = False
        self._everyone = False
        """Whether everyone is yet to be written down."""

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, connection_id: int) -> None:
        """Remember one. Beyond the limit it is everyone who is resynced."""
        if len(self._connections) < self._limit or connection_id in self._connections:
            self._connections.add(connection_id)
            self._fresh.add(connection_id)
        elif not self._overflowed:
            self._overflowed = self._everyone = True
            log.error("refused.overflow", limit=self._limit, then="every connection is resynced")
        self._remembered.set(len(self._connections))

    async def run(self, stop: asyncio.Event) -> None:
        """Publish what is remembered as soon as the broker takes it; at `stop` try once more."""
        await asyncio.gather(_regularly(self._publish_all, stop), _regularly(self._tend_rows, stop))
        await self._publish_all()
        await self._tend_rows(adopting=False)
        forgotten = sorted(self._connections - self._kept.keys())
        if forgotten or self._everyone:
            log.error("refused.forgotten", connections=forgotten[:100], count=len(forgotten), everyone=self._everyone)

    # --- the broker ---

    async def _publish_all(self) -> None:
        told = 0
        try:
            while self._connections:
                await self._publish_one(next(iter(self._connections)))
                told += 1
        except BrokerUnavailable as error:
            log.debug("refused.waiting", count=len(self._connections), reason=str(error))
        if told:
            log.info("refused.resyncs_wanted", count=told)
        if len(self._connections) < self._limit:
            self._overflowed = False
        self._remembered.set(len(self._connections))

    async def _publish_one(self, connection_id: int) -> None:
        self._connections.discard(connection_id)  # a refusal from now on counts anew
        self._publishing = connection_id
        try:
            await self._publisher.publish(outgoing(ResyncWanted(connection_id=connection_id), "fetch", connection_id))
        except BaseException:
            self._connections.add(connection_id)
            raise
        finally:
            self._publishing = None

    # --- the store ---

    async def _tend_rows(self, *, adopting: bool = True) -> None:
        if not self._store_is_up():
            return
        try:
            if self._everyone:
                await self._store.keep_everyone()
                self._everyone = False
            await self._keep()
            await self._drop()
            if adopting:
                await self._adopt()
        except StoreUnavailable as error:
            log.debug("refused.not_written_down", count=len(self._connections), reason=str(error))

    async def _keep(self) -> None:
        fresh, self._fresh = self._fresh, set()
        while waiting := set(islice((one for one in fresh if self._waits(one)), BATCH)):
            try:
                since = await self._store.keep(waiting)
            except BaseException:
                self._fresh |= fresh
                raise
            self._kept |= dict.fromkeys(waiting, since)
            fresh -= waiting

    async def _drop(self) -> None:
        settled = dict(islice(((one, since) for one, since in self._kept.items() if not self._waits(one)), BATCH))
        if settled:
            await self._store.drop(settled)
            for one in settled:
                del self._kept[one]

    async def _adopt(self) -> None:
        """Take over what others have left behind, a part at a time, and only when nothing of our own is waiting."""
        if self._connections or self._kept:
            return
        self._kept = await self._store.adopt(min(BATCH, self._limit))
        self._connections |= self._kept.keys()
        self._remembered.set(len(self._connections))

    def _waits(self, connection_id: int) -> bool:
        return connection_id in self._connections or connection_id == self._publishing


async def _regularly(work: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
    while not await pause(stop, PAUSE_SECONDS):
        await work()

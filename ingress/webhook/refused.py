"""The connections whose webhooks had to be refused: resynced once the broker confirms again (CONTRACT §3.4, §5.8)."""

from __future__ import annotations

import asyncio

from prometheus_client import Gauge

from common.broker.publisher import outgoing
from common.errors import BrokerUnavailable
from common.logs import get_logger
from common.process import pause
from ingress.webhook.deposit import Publishes
from schemas.messages import ResyncWanted

LIMIT = 50_000
PAUSE_SECONDS = 1.0

log = get_logger(__name__)


class Refused:
    """A bounded set: each connection is remembered once, however many of its webhooks were refused."""

    def __init__(self, publisher: Publishes, remembered: Gauge, *, limit: int = LIMIT) -> None:
        self._publisher = publisher
        self._remembered = remembered
        self._limit = limit
        self._connections: set[int] = set()
        self._overflowed = False

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, connection_id: int) -> None:
        """Remember one."""
        if len(self._connections) < self._limit:
            self._connections.add(connection_id)
        elif connection_id not in self._connections and not self._overflowed:
            self._overflowed = True
            log.error("refused.overflow", limit=self._limit, todo="resync every connection by hand")
        self._remembered.set(len(self._connections))

    async def run(self, stop: asyncio.Event) -> None:
        """Publish what is remembered as soon as the broker takes it; at `stop` try once more."""
        while not await pause(stop, PAUSE_SECONDS):
            await self._publish_all()
        await self._publish_all()
        if self._connections:
            log.error("refused.forgotten", connections=sorted(self._connections)[:100], count=len(self._connections))

    async def _publish_all(self) -> None:
        try:
            while self._connections:
                await self._publish_one(next(iter(self._connections)))
        except BrokerUnavailable as error:
            log.debug("refused.waiting", count=len(self._connections), reason=str(error))
        self._remembered.set(len(self._connections))

    async def _publish_one(self, connection_id: int) -> None:
        self._connections.discard(connection_id)  # a refusal from now on counts anew
        try:
            await self._publisher.publish(outgoing(ResyncWanted(connection_id=connection_id), "fetch", connection_id))
        except BaseException:
            self._connections.add(connection_id)
            raise
        log.info("refused.resync_wanted", connection_id=connection_id)

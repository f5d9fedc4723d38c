"""The relay's flow: oldest unpublished first, many in flight, at most one unconfirmed per listing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from common.broker.publisher import Publisher
from common.errors import BrokerUnavailable, StoreUnavailable
from common.logs import get_logger
from common.process import pause
from common.store.leader import Leadership
from workers.relay.rules import PendingEvent, on_the_wire, ready_now
from workers.relay.store.events import EventStore

BATCH = 500
POLL_SECONDS = 1.0
AWAY_SECONDS = 1.0

log = get_logger(__name__)


class Relay:
    """Publishes event rows while it leads; `wake` is set when there may be something new."""

    def __init__(
        self, store: EventStore, publisher: Publisher, leadership: Leadership, source: str, wake: asyncio.Event
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._leadership = leadership
        self._source = source
        self._wake = wake

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; events in flight are confirmed or left for the next relay."""
        try:
            while not stop.is_set():
                self._wake.clear()
                try:
                    more = await self._leadership.held() and await self.publish_some()
                except (StoreUnavailable, BrokerUnavailable) as error:
                    log.warning("relay.waiting", reason=str(error))
                    await pause(stop, AWAY_SECONDS)
                    continue
                if not more:
                    await _either(stop, self._wake, POLL_SECONDS)
        finally:
            await self._leadership.release()

    async def publish_some(self) -> bool:
        """Publish one round; whether there is more to do at once.

        Raises:
            BrokerUnavailable: an event was not confirmed; those that were are marked.
        """
        pending = await self._store.pending(BATCH)
        if not pending:
            return False
        ready = ready_now(pending)
        results = await asyncio.gather(*map(self._publish, ready), return_exceptions=True)
        confirmed = [event for event, result in zip(ready, results, strict=True) if result is None]
        if confirmed:
            await self._store.published(confirmed)
            log.info("relay.published", events=len(confirmed))
        _raise_first(results)
        return True

    async def _publish(self, event: PendingEvent) -> None:
        await self._publisher.publish(on_the_wire(event, self._source))


def _raise_first(results: Sequence[BaseException | None]) -> None:
    for result in results:
        if result is not None:
            raise result


async def _either(stop: asyncio.Event, wake: asyncio.Event, seconds: float) -> None:
    waits = [asyncio.create_task(one.wait()) for one in (stop, wake)]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waits:
            task.cancel()

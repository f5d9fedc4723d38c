"""The ingress' heartbeat: a row says when webhooks could last be taken, so that a later start knows what was missed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from common.clock import Monotonic
from common.errors import StoreUnavailable
from common.logs import get_logger
from common.process import pause
from ingress.outages.store import OutageStore

BEAT_SECONDS = 10.0
TICK_SECONDS = 1.0

log = get_logger(__name__)


class Heartbeat:
    """Beats as long as the process serves, and notices when nobody did.

    It counts its own seconds of service since the last beat: a process that was stopped, or whose machine was, did not
    serve meanwhile, whatever the clocks say; one that only missed the store did.
    """

    def __init__(
        self,
        store: OutageStore,
        store_is_up: Callable[[], bool],
        clock: Monotonic,
        *,
        tick_seconds: float = TICK_SECONDS,
        beat_seconds: float = BEAT_SECONDS,
    ) -> None:
        self._store = store
        self._store_is_up = store_is_up
        self._clock = clock
        self._tick_seconds = tick_seconds
        self._beat_seconds = beat_seconds
        self._served = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`."""
        await asyncio.gather(self._count(stop), self._beat_regularly(stop))

    async def _count(self, stop: asyncio.Event) -> None:
        last = self._clock()
        while not await pause(stop, self._tick_seconds):
            now = self._clock()
            self._served += min(now - last, 2 * TICK_SECONDS)
            last = now

    async def _beat_regularly(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await pause(stop, self._beat_seconds if await self._beat() else self._tick_seconds)

    async def _beat(self) -> bool:
        if not self._store_is_up():
            return False
        served = self._served
        try:
            missed = await self._store.beat(timedelta(seconds=served))
        except StoreUnavailable as error:
            log.debug("heartbeat.waiting", reason=str(error))
            return False
        self._served -= served
        if missed is not None:
            seconds = round(missed.gap.total_seconds() - served)
            log.warning("ingress.was_away", seconds=seconds, connections=missed.connections, then="they are resynced")
        return True

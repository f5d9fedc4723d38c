"""Nothing is fetched while reconcile has too many pages before it: they would only wait in the queue, ageing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from common.clock import Monotonic, monotonic_seconds
from common.errors import BrokerUnavailable
from common.logs import get_logger
from workers.fetch.pacing import pauses

LOOK_SECONDS = 1.0

log = get_logger(__name__)


class Backlog:
    """Looks at the depth of reconcile's queue about once a second."""

    def __init__(self, depth: Callable[[], Awaitable[int]], limit: int, clock: Monotonic = monotonic_seconds) -> None:
        self._depth = depth
        self._limit = limit
        self._clock = clock
        self._looked: float | None = None
        self._paused = False

    async def too_deep(self) -> bool:
        """Whether to claim nothing now. A depth that cannot be had is no reason to."""
        now = self._clock()
        if self._looked is None or now - self._looked >= LOOK_SECONDS:
            depth = await self._look()
            self._looked = now
            paused = pauses(self._paused, depth, self._limit)
            if paused != self._paused:
                log.warning("fetch.paused" if paused else "fetch.resumed", pages=depth, limit=self._limit)
            self._paused = paused
        return self._paused

    async def _look(self) -> int | None:
        try:
            return await self._depth()
        except BrokerUnavailable as error:
            log.debug("fetch.depth_unknown", reason=str(error))
            return None

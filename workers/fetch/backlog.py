"""Nothing is fetched that reconcile could not take up soon: while its queue is deep, and while the broker is away."""

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

    async def pausing(self) -> bool:
        """Whether to claim nothing now. While the depth cannot be had, no page could be handed on either: the calls
        would be made for nothing."""
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

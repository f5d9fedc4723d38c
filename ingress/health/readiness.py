"""Whether this process should be sent webhooks: the broker answers, its queues are there, and it is not stopping."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from common.broker.topology import work_queues
from common.clock import Monotonic
from common.errors import BrokerUnavailable

REMEMBERED_SECONDS = 1.0
QUEUES = tuple(queue.name for queue in work_queues([]))


class Checks(Protocol):
    """The part of the publisher that is needed here."""

    async def check(self, queues: Sequence[str], *, seconds: float = 2.0) -> None:
        """Return when the broker answers and has the queues; raise BrokerUnavailable otherwise."""


class Readiness:
    """Asks the broker at most once a second, however often it is asked itself."""

    def __init__(self, broker: Checks, clock: Monotonic) -> None:
        self._broker = broker
        self._clock = clock
        self._asking = asyncio.Lock()
        self._asked_at: float | None = None
        self._trouble: str | None = None
        self.stopping = False

    async def trouble(self) -> str | None:
        """Why it is not ready; None: it is."""
        async with self._asking:
            if self._asked_at is None or self._clock() - self._asked_at > REMEMBERED_SECONDS:
                self._trouble = await self._ask()
                self._asked_at = self._clock()
        return "stopping" if self.stopping else self._trouble

    async def _ask(self) -> str | None:
        try:
            await self._broker.check(QUEUES)
        except BrokerUnavailable as error:
            return str(error)
        return None

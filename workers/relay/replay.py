"""A replay: events of the table, as they were first published, into one queue; of one listing always in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from common.errors import GatewayError, Permanent, Retryable
from workers.relay.rules import on_the_wire, order_key
from workers.relay.snapshots import Open, Way
from workers.relay.store.past import Found, PastStore, Told, Wanted

BATCH = 100
"""Messages that may be unconfirmed at once."""
PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds before a broker or a queue that takes nothing is tried again; then a person is told."""


class ReplayStopped(GatewayError):
    """It broke off: `sent` events are in the queue; those told from `go_on` on are left."""

    def __init__(self, cause: Exception, sent: int, go_on: datetime | None) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.sent = sent
        self.go_on = go_on


def in_order(told: Sequence[Told], most: int = BATCH) -> list[Told]:
    """The first ones that may be under way together: at most one of a listing, so that none overtakes another. Pure."""
    batch: list[Told] = []
    keys: set[str] = set()
    for one in told[:most]:
        if order_key(one.event) in keys:
            break
        keys.add(order_key(one.event))
        batch.append(one)
    return batch


@dataclass
class _Course:
    """How far a replay has come."""

    position: int
    sent: int = 0


class Replay:
    """Sends what was found."""

    def __init__(self, store: PastStore, open_way: Open, source: str, *, pauses: Sequence[float] = PAUSES) -> None:
        self._store = store
        self._open = open_way
        self._source = source
        self._pauses = pauses

    async def send(
        self, wanted: Wanted, found: Found, queue: str, on_sent: Callable[[int], object] = lambda sent: None
    ) -> int:
        """All of it → how many; `on_sent` is told how many there are already.

        Raises:
            ReplayStopped: the queue is not there, or full, or broker or store are away for long.
        """
        course = _Course(found.first_position - 1)
        failures = 0
        while True:
            before = course.sent
            try:
                await self._send_rest(course, wanted, found, queue, on_sent)
            except (Retryable, Permanent) as error:
                failures = 0 if course.sent > before else failures
                if isinstance(error, Permanent) or failures == len(self._pauses):
                    raise await self._stopped(error, course, wanted, found) from error
                await asyncio.sleep(self._pauses[failures])
                failures += 1
            else:
                return course.sent

    async def _send_rest(
        self, course: _Course, wanted: Wanted, found: Found, queue: str, on_sent: Callable[[int], object]
    ) -> None:
        async with self._open(queue) as way:
            while told := await self._store.page(wanted, course.position, found.last_position):
                while told:
                    number = await self._send(way, in_order(told))
                    course.position, course.sent = told[number - 1].position, course.sent + number
                    told = told[number:]
                    on_sent(course.sent)

    async def _send(self, way: Way, told: Sequence[Told]) -> int:
        return await way.send([on_the_wire(one.event, self._source) for one in told])

    async def _stopped(self, error: Exception, course: _Course, wanted: Wanted, found: Found) -> ReplayStopped:
        try:
            go_on = await self._store.earliest(wanted, course.position, found.last_position)
        except Retryable:
            go_on = None
        return ReplayStopped(error, course.sent, go_on)

"""Handing a webhook to the broker: confirmed in time, or refused and remembered."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Protocol

from common.broker.outgoing import Outgoing
from common.broker.publisher import PUBLISH_SECONDS
from common.clock import monotonic_seconds
from common.errors import BrokerUnavailable
from ingress.webhook.metrics import WebhookMetrics

IN_FLIGHT = 4000
"""With much less, clients that come together fill it in one turn of the event loop, and most of its time goes into
refusing them: 1,000 took 1,500 webhooks a second of 4,000 clients who were not told to wait, instead of 6,600."""
IN_FLIGHT_BYTES = 64 * 1024 * 1024
SLOW_SECONDS = 1.5
"""A broker that leaves somebody waiting for so long gets no more: else it would get, and confirm, only what has timed
out here by then."""
ANSWER_SECONDS = 4.8
"""An answer is due within 5 s of the request."""
LEAST_SECONDS = 0.5


class Publishes(Protocol):
    """The part of the publisher that is needed here."""

    async def publish(self, message: Outgoing, *, seconds: float = PUBLISH_SECONDS) -> None:
        """Return when the broker has it; raise BrokerUnavailable otherwise."""


class Remembers(Protocol):
    """Where a refused connection is remembered."""

    def add(self, connection_id: int) -> None:
        """Remember one."""


class Deposit:
    """Publishes; what waits at once is limited in number, bytes and time, and what is over is refused at once instead
    of queueing in memory."""

    def __init__(
        self, publisher: Publishes, refused: Remembers, metrics: WebhookMetrics, *, in_flight: int = IN_FLIGHT
    ) -> None:
        self._publisher = publisher
        self._refused = refused
        self._most = in_flight
        self._bytes = self._count = self._waiting = 0
        self._began: dict[str, dict[int, float]] = defaultdict(dict)
        """Of all that wait, in order, by the kind of queue: dead letters, for which there is no room, hold up none."""
        metrics.in_flight.set_function(lambda: self._waiting)

    async def put(self, connection_id: int, messages: Sequence[Outgoing], elapsed: float, size: int) -> None:
        """Return when all are confirmed; `elapsed` are the seconds that the request has taken so far, `size` its bytes.

        Raises:
            BrokerUnavailable: not all were confirmed in time; the connection is remembered for a resync.
        """
        if not messages:
            return
        try:
            began = self._began[messages[0].routing_key.partition(".")[0]]
            self._ensure_room(began)
            await self._publish(
                messages, began, max(LEAST_SECONDS, min(PUBLISH_SECONDS, ANSWER_SECONDS - elapsed)), size
            )
        except BrokerUnavailable as error:
            self._refused.add(connection_id)
            # Whoever was refused together shall not come back together.
            raise BrokerUnavailable(str(error), retry_after=random.uniform(2, 8)) from error  # noqa: S311  # spreads load, guards nothing

    def _ensure_room(self, began: Mapping[int, float]) -> None:
        if self._waiting >= self._most or self._bytes > IN_FLIGHT_BYTES:
            raise BrokerUnavailable("too many webhooks at once")
        if began and monotonic_seconds() - next(iter(began.values())) > SLOW_SECONDS:
            raise BrokerUnavailable("the broker is slow")

    async def _publish(self, messages: Sequence[Outgoing], began: dict[int, float], seconds: float, size: int) -> None:
        self._count += 1
        mine = self._count
        began[mine] = monotonic_seconds()
        self._waiting += 1
        self._bytes += size
        try:
            if len(messages) == 1:  # nearly always
                await self._publisher.publish(messages[0], seconds=seconds)
            else:
                await self._publish_all(messages, seconds)
        finally:
            del began[mine]
            self._waiting -= 1
            self._bytes -= size

    async def _publish_all(self, messages: Sequence[Outgoing], seconds: float) -> None:
        publishing = [self._publisher.publish(message, seconds=seconds) for message in messages]
        for error in await asyncio.gather(*publishing, return_exceptions=True):
            if error is not None:
                raise error

"""Handing a webhook to the broker: confirmed in time, or refused and remembered."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Protocol

from common.broker.outgoing import Outgoing
from common.broker.publisher import PUBLISH_SECONDS
from common.errors import BrokerUnavailable
from ingress.webhook.metrics import WebhookMetrics

IN_FLIGHT = 4000
"""What is answered within a second, and some 60 MiB with its connections. With much less, clients that come together
fill it in one turn of the event loop, and most of its time goes into refusing them."""
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
    """Publishes; at most so many webhooks wait at once, the next is refused at once instead of queueing in memory."""

    def __init__(
        self, publisher: Publishes, refused: Remembers, metrics: WebhookMetrics, *, in_flight: int = IN_FLIGHT
    ) -> None:
        self._publisher = publisher
        self._refused = refused
        self._free = in_flight
        metrics.in_flight.set_function(lambda: in_flight - self._free)

    def ensure_room(self, connection_id: int) -> None:
        """To be asked before anything is spent on a webhook that could not go anywhere.

        Raises:
            BrokerUnavailable: as many wait as may; the connection is remembered for a resync.
        """
        if self._free <= 0:
            raise self._refusal(connection_id, "too many webhooks at once")

    async def put(self, connection_id: int, messages: Sequence[Outgoing], elapsed: float) -> None:
        """Return when all are confirmed; `elapsed` are the seconds that the request has taken so far.

        Raises:
            BrokerUnavailable: not all were confirmed in time; the connection is remembered for a resync.
        """
        if not messages:
            return
        try:
            await self._publish(messages, max(LEAST_SECONDS, min(PUBLISH_SECONDS, ANSWER_SECONDS - elapsed)))
        except BrokerUnavailable as error:
            raise self._refusal(connection_id, str(error)) from error

    def _refusal(self, connection_id: int, why: str) -> BrokerUnavailable:
        self._refused.add(connection_id)
        # Whoever was refused together shall not come back together.
        return BrokerUnavailable(why, retry_after=random.uniform(2, 8))  # noqa: S311

    async def _publish(self, messages: Sequence[Outgoing], seconds: float) -> None:
        self._free -= 1
        try:
            if len(messages) == 1:  # nearly always
                await self._publisher.publish(messages[0], seconds=seconds)
            else:
                await self._publish_all(messages, seconds)
        finally:
            self._free += 1

    async def _publish_all(self, messages: Sequence[Outgoing], seconds: float) -> None:
        publishing = [self._publisher.publish(message, seconds=seconds) for message in messages]
        for error in await asyncio.gather(*publishing, return_exceptions=True):
            if error is not None:
                raise error

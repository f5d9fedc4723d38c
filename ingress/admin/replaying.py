"""Parked messages are published again where they came from."""

from __future__ import annotations

from typing import Protocol

from common.broker.outgoing import Outgoing
from common.broker.topology import EVENT_STAGES, queue_name
from common.store.parked import Parked
from ingress.admin.store.dead_letters import DeadLetterStore

EVENT_QUEUES = frozenset(map(queue_name, EVENT_STAGES))


class Broker(Protocol):
    """What an operator needs of a publisher."""

    @property
    def ready(self) -> bool:
        """Whether a publish has a chance."""

    async def publish(self, message: Outgoing) -> None:
        """Return once the broker has it.

        Raises:
            Unroutable: no queue takes it.
            BrokerUnavailable: it does not, or nobody knows.
        """


class Replaying:
    """For whoever lets an operator replay."""

    def __init__(self, store: DeadLetterStore, broker: Broker, events_broker: Broker) -> None:
        """`events_broker`: where events are."""
        self._store = store
        self._broker = broker
        self._events_broker = events_broker

    async def replay(self, parked: Parked) -> None:
        """Publish it where it came from; it is forgotten only after the broker has confirmed.

        Raises:
            Unroutable: no queue takes it; it is kept.
            BrokerUnavailable: nobody knows whether the broker has it; it is kept.
        """
        broker = self._events_broker if parked.queue in EVENT_QUEUES else self._broker
        await broker.publish(Outgoing(parked.routing_key, parked.body, headers=parked.headers))
        await self._store.drop(parked.parked_id)

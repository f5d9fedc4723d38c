"""Draining a stage's dead queue into the `parked` table, where people see it and can replay it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from common.broker.consumer import Consumer, Delivery, reason_of
from common.broker.following import followed, traceparent_of
from common.broker.metrics import BrokerMetrics
from common.broker.publisher import Publisher
from common.broker.retry import RetryPolicy
from common.broker.topology import Stage, dead_queue_name, queue_name, shard_key
from common.codec import loads
from common.errors import BadJson
from common.logs import get_logger
from common.store.engine import Store
from common.store.parked import Parked, park

log = get_logger(__name__)


class ParkingHandler:
    """Writes dead messages to the store."""

    def __init__(self, store: Store, stage: Stage) -> None:
        self._store = store
        self._stage: Stage = stage

    async def __call__(self, deliveries: Sequence[Delivery]) -> None:
        parked = [parked_from(self._stage, delivery) for delivery in deliveries]
        async with self._store.transaction() as transaction:
            await park(transaction, parked)
        for delivery, one in zip(deliveries, parked, strict=True):
            with followed(delivery):
                log.warning("parked", queue=one.queue, reason=one.reason)


def parking_consumer(
    url: str,
    stage: Stage,
    store: Store,
    publisher: Publisher,
    retry: RetryPolicy,
    metrics: BrokerMetrics | None = None,
) -> Consumer:
    """The consumer of a stage's dead queue."""
    handler = ParkingHandler(store, stage)
    return Consumer(url, dead_queue_name(stage), stage, handler, publisher, retry, batch=50, metrics=metrics)


def parked_from(stage: Stage, delivery: Delivery) -> Parked:
    """What to remember of a dead message. Pure."""
    connection_id = _connection_id(delivery.body)
    return Parked(
        queue=queue_name(stage),
        reason=_plain(reason_of(delivery.headers)),
        connection_id=connection_id,
        routing_key=shard_key(stage, connection_id or 0),
        schema_name=_plain(str(delivery.headers.get("schema", ""))),
        body=delivery.body,
        attempts=delivery.attempt,
        traceparent=traceparent_of(delivery),
    )


def _plain(text: str) -> str:
    # What cannot be stored would go from the dead queue to the dead queue, for ever.
    return "".join(character for character in text if character.isprintable())[:200]


def _connection_id(body: bytes) -> int | None:
    try:
        value = loads(body)
    except (BadJson, msgspec.MsgspecError):
        return None
    found = value.get("connectionId") if isinstance(value, dict) else None
    return found if type(found) is int and abs(found) < 2**63 else None

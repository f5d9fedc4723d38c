"""What is published, and how a publish can fail."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from common.broker.topology import WORK, Stage, dead_key, shard_key
from common.codec import dumps
from common.errors import BrokerUnavailable
from schemas.messages import Message

MAX_BODY = (16 * 1024 - 64) * 1024
"""Bytes. RabbitMQ from 4.0 on takes messages of up to 16 MiB, and closes the channel over a larger one."""
FREE_BYTES = 2**20
SLOWEST_LINK = 1_000_000
"""Bytes per second; what is larger than `FREE_BYTES` has so much more time."""


class PublishRefused(BrokerUnavailable):
    """The broker answered, and did not take it: nacked, as a queue is full."""


class Unroutable(PublishRefused):
    """No queue wants it: the topology is not set up, or the queue that was named is not there."""


class Outgoing(msgspec.Struct, frozen=True):
    """A message to publish; what follows `headers` are AMQP properties."""

    routing_key: str
    body: bytes
    exchange: str = WORK
    headers: Mapping[str, Any] = msgspec.field(default_factory=dict)
    content_type: str = "application/json"
    correlation_id: str | None = None
    message_id: str | None = None
    timestamp: datetime | None = None
    type: str | None = None


def outgoing(message: Message, stage: Stage, connection_id: int, *, attempt: int = 0) -> Outgoing:
    """A message of ours, addressed to the shard of its connection."""
    return Outgoing(shard_key(stage, connection_id), dumps(message), headers=_headers(message, attempt))


def outgoing_dead(message: Message, stage: Stage, reason: str) -> Outgoing:
    """A message that is parked at once, with its reason."""
    return Outgoing(dead_key(stage), dumps(message), headers=_headers(message, 0) | {"reason": reason})


def _headers(message: Message, attempt: int) -> dict[str, Any]:
    return {"schema": type(message).__name__, "attempt": attempt}


def sending_seconds(size: int) -> float:
    """How much longer than a small message one of this many bytes may take, or several together."""
    return max(0, size - FREE_BYTES) / SLOWEST_LINK

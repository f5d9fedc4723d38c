"""The topology as one table: `gateway setup` declares it, processes check it, README's diagram is drawn from it.

Queue arguments hold only what can never change (a change is refused by the broker); ages and lengths are policies.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import lru_cache
from typing import Any, Literal

from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel

WORK = "syncaroo.work"
EVENTS = "syncaroo.events"
EVENT_LOG = "syncaroo.events.log"
LOG = "syncaroo.log"
"""The way to the event log alone, past all subscribers."""
EXCHANGES = (WORK, EVENTS, LOG)
DIRECT = ""
"""AMQP's default exchange, which is always there: its routing keys are names of queues."""

Stage = Literal["token", "fetch", "reconcile", "snapshot"]
STAGES: tuple[Stage, ...] = ("token", "fetch", "reconcile")
EVENT_STAGES: tuple[Stage, ...] = ("snapshot",)
"""Those on the events' broker."""
DELAYED_STAGES: tuple[Stage, ...] = ("token", "reconcile", "snapshot")

SNAPSHOT_DELAY = timedelta(seconds=5)
"""How long a snapshot waits for a full queue to have room again."""

SHARDS = 64
DELIVERY_LIMIT = 20
UNLIMITED = 2**31 - 1
RELAY_POKE = "relay.poke"


@dataclass(frozen=True)
class Binding:
    """Messages of `exchange` whose routing key matches `key`."""

    exchange: str
    key: str


@dataclass(frozen=True)
class Queue:
    """A durable queue, what flows into it, and who reads it."""

    name: str
    bindings: tuple[Binding, ...]
    reader: str
    arguments: dict[str, Any] = field(default_factory=dict)


@lru_cache(maxsize=4096)
def shard_key(stage: Stage, connection_id: int) -> str:
    """The routing key of a connection's messages, such as `fetch.17`."""
    return f"{stage}.{zlib.crc32(str(connection_id).encode()) % SHARDS}"


def delay_key(stage: Stage, delay: timedelta) -> str:
    """The routing key that brings a message back to the stage after the delay."""
    return f"delay.{stage}.{duration_name(delay)}"


def dead_key(stage: Stage) -> str:
    """The routing key of what a stage cannot process."""
    return f"dead.{stage}"


def queue_name(stage: Stage) -> str:
    """The stage's work queue."""
    return f"syncaroo.{stage}"


def dead_queue_name(stage: Stage) -> str:
    """The queue of what the stage cannot process."""
    return f"{queue_name(stage)}.dead"


def duration_name(delay: timedelta) -> str:
    """`2s`, `1m`, `500ms`: the largest unit that leaves a whole number."""
    millis = round(delay.total_seconds() * 1000)
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if millis and millis % size == 0:
            return f"{millis // size}{unit}"
    return f"{millis}ms"


def work_queues(retry_delays: Sequence[timedelta]) -> list[Queue]:
    """Everything on `syncaroo.work`."""
    queues: list[Queue] = []
    delayed: list[Queue] = []
    for stage in STAGES:
        queues.append(_stage_queue(stage))
        queues.append(_dead_queue(stage))
        if stage in DELAYED_STAGES:
            delayed += [_delay_queue(stage, delay) for delay in sorted(set(retry_delays))]
    return queues + delayed


def event_queues() -> list[Queue]:
    """Everything on the events' broker: the stream that keeps every event for replay, and requests for snapshots."""
    log = Queue(
        name=EVENT_LOG,
        bindings=(Binding(EVENTS, "#"), Binding(LOG, "#")),
        reader="anyone, from an offset or a time",
        arguments={"x-queue-type": "stream"},
    )
    snapshots = [_stage_queue("snapshot"), _dead_queue("snapshot"), _delay_queue("snapshot", SNAPSHOT_DELAY)]
    return [replace(queue, reader=f"{queue.reader}; on the events' broker") for queue in (log, *snapshots)]


def work_stages() -> list[str]:
    """Whose messages are published to `syncaroo.work` by connection, as the queues are bound."""
    keys = [one.key for queue in (*work_queues(()), *event_queues()) for one in queue.bindings if one.exchange == WORK]
    return [key.removesuffix(".*") for key in keys if key.endswith(".*")]


READERS: dict[Stage, str] = {"snapshot": "relay"}
"""Whoever is not the worker of the stage's own name."""


def _stage_queue(stage: Stage) -> Queue:
    return Queue(
        name=queue_name(stage),
        bindings=(Binding(WORK, f"{stage}.*"),),
        reader=_reader(stage),
        arguments=_quorum() | _dead_letter(dead_key(stage)) | {"x-delivery-limit": DELIVERY_LIMIT},
    )


def _dead_queue(stage: Stage) -> Queue:
    return Queue(
        name=dead_queue_name(stage),
        bindings=(Binding(WORK, dead_key(stage)),),
        reader=f"{_reader(stage)}, into the table `parked`",
        arguments=_quorum() | {"x-delivery-limit": UNLIMITED},  # stays until its row is written
    )


def _reader(stage: Stage) -> str:
    return READERS.get(stage, f"{stage} worker")


def _delay_queue(stage: Stage, delay: timedelta) -> Queue:
    return Queue(
        name=f"{queue_name(stage)}.delay.{duration_name(delay)}",
        bindings=(Binding(WORK, delay_key(stage, delay)),),
        reader=f"nobody; back to {queue_name(stage)} after {duration_name(delay)}",
        arguments=_quorum() | _dead_letter(f"{stage}.retry") | {"x-message-ttl": round(delay.total_seconds() * 1000)},
    )


def _quorum() -> dict[str, Any]:
    return {"x-queue-type": "quorum"}


def _dead_letter(key: str) -> dict[str, Any]:
    # At-least-once: a message leaves the queue only when its next queue has confirmed it.
    return {
        "x-dead-letter-exchange": WORK,
        "x-dead-letter-routing-key": key,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


async def declare(channel: AbstractChannel, queues: Sequence[Queue]) -> None:
    """Create exchanges, queues and bindings; twice changes nothing.

    Raises:
        aio_pika.exceptions.ChannelPreconditionFailed: something of that name exists with other arguments.
    """
    for name in EXCHANGES:
        await channel.declare_exchange(name, ExchangeType.TOPIC, durable=True)
    for queue in queues:
        declared = await channel.declare_queue(queue.name, durable=True, arguments=queue.arguments)
        for binding in queue.bindings:
            await declared.bind(binding.exchange, binding.key)


def diagram(retry_delays: Sequence[timedelta]) -> str:
    """The table as text: exchange, key, queue, reader."""
    rows = [("exchange", "routing key", "queue", "read by")]
    rows += [
        (binding.exchange, binding.key, queue.name, queue.reader)
        for queue in [*work_queues(retry_delays), *event_queues()]
        for binding in queue.bindings
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)), row[3]]) for row in rows
    )

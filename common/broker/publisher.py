"""Publishing: persistent, mandatory, confirmed, bounded in time. Returning means that the broker has the message."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aio_pika
from aio_pika import DeliveryMode
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractRobustConnection
from aio_pika.exceptions import ChannelNotFoundEntity, DeliveryError, PublishError
from pamqp.commands import Basic

from common.broker.connection import CONNECT_SECONDS, bounded, close, connect, keep_trying
from common.broker.topology import DIRECT, EXCHANGES, WORK, Stage, dead_key, shard_key
from common.codec import dumps
from common.errors import BrokerUnavailable
from schemas.messages import Message

MAX_BODY = (16 * 1024 - 64) * 1024
"""Bytes. RabbitMQ from 4.0 on takes messages of up to 16 MiB, and closes the channel over a larger one."""
PUBLISH_SECONDS = 4.0
"""How long a confirm may take; the ingress answers 503 within 5 s."""


FREE_BYTES = 2**20
SLOWEST_LINK = 1_000_000
"""Bytes per second; what is larger than `FREE_BYTES` has so much more time."""


def sending_seconds(size: int) -> float:
    """How much longer than a small message one of this many bytes may take, or several together."""
    return max(0, size - FREE_BYTES) / SLOWEST_LINK


class PublishRefused(BrokerUnavailable):
    """The broker answered, and did not take it: nacked, as a queue is full."""


class Unroutable(PublishRefused):
    """No queue wants it: the topology is not set up, or the queue that was named is not there."""


@dataclass(frozen=True)
class Outgoing:
    """A message to publish."""

    routing_key: str
    body: bytes
    exchange: str = WORK
    headers: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)
    """More AMQP properties: `message_id`, `type`, `content_type`, …"""


def outgoing(message: Message, stage: Stage, connection_id: int, *, attempt: int = 0) -> Outgoing:
    """A message of ours, addressed to the shard of its connection."""
    return Outgoing(shard_key(stage, connection_id), dumps(message), headers=_headers(message, attempt))


def outgoing_dead(message: Message, stage: Stage, reason: str) -> Outgoing:
    """A message that is parked at once, with its reason."""
    return Outgoing(dead_key(stage), dumps(message), headers=_headers(message, 0) | {"reason": reason})


def _headers(message: Message, attempt: int) -> dict[str, Any]:
    return {"schema": type(message).__name__, "attempt": attempt}


class Publisher:
    """Publishes to one broker over a connection of its own. Any number of tasks may publish at once."""

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name
        self._connection: AbstractRobustConnection | None = None
        self._exchanges: dict[str, AbstractExchange] = {}
        self._connecting: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether a publish has a chance: connected now, and the exchanges were there."""
        connection = self._connection
        return self._ready.is_set() and connection is not None and connection.connected.is_set()

    def start(self) -> None:
        """Begin to connect; a broker that is away is waited for in the background."""
        self._connecting = asyncio.create_task(self._connect(), name=f"connect {self._name}")

    async def wait_ready(self) -> None:
        """Wait until the first connection stands."""
        await self._ready.wait()

    async def close(self) -> None:
        """Close the connection; publishing fails from now on."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        self._ready.clear()
        await close(self._connection)

    async def publish(self, message: Outgoing, *, seconds: float = PUBLISH_SECONDS) -> None:
        """Publish and wait for the broker's confirm; a large message has more time (`sending_seconds`).

        Raises:
            Unroutable: no queue wants it.
            PublishRefused: the broker nacked it: a queue that should have it has not.
            BrokerUnavailable: no confirm in `seconds`; the message may or may not be stored.
        """
        exchange = self._exchanges.get(message.exchange)
        if exchange is None:
            raise BrokerUnavailable("broker: not connected yet")
        await send(exchange, message, seconds + sending_seconds(len(message.body)))

    async def check(self, queues: Sequence[str], *, seconds: float = 2.0) -> None:
        """Ask the broker whether it answers and these queues are there.

        Raises:
            BrokerUnavailable: it does not answer, or one is missing: `gateway setup` has not run.
        """
        connection = self._connection
        if connection is None or not self.ready:
            raise BrokerUnavailable("broker: not connected")
        await bounded(_look_for(connection, queues), seconds)

    async def depth(self, queue: str, *, seconds: float = 2.0) -> int:
        """How many messages are ready in the queue.

        Raises:
            BrokerUnavailable: it does not answer, or the queue is missing.
        """
        connection = self._connection
        if connection is None or not self.ready:
            raise BrokerUnavailable("broker: not connected")
        return (await bounded(_look_for(connection, [queue]), seconds))[0]

    async def poke(self, routing_key: str) -> None:
        """Send a wake-up that carries nothing and may get lost."""
        exchange = self._exchanges.get(WORK)
        if exchange is None or not self.ready:
            return
        message = aio_pika.Message(b"", delivery_mode=DeliveryMode.NOT_PERSISTENT)
        await bounded(exchange.publish(message, routing_key, mandatory=False, timeout=PUBLISH_SECONDS), PUBLISH_SECONDS)

    async def _connect(self) -> None:
        connection = self._connection = await connect(self._url, self._name)
        channel = await keep_trying(lambda: bounded(confirming_channel(connection), CONNECT_SECONDS), self._name)
        for name in EXCHANGES:
            self._exchanges[name] = await channel.get_exchange(name, ensure=False)
        self._exchanges[DIRECT] = channel.default_exchange
        self._ready.set()


async def send(exchange: AbstractExchange, message: Outgoing, seconds: float) -> None:
    """Publish on an exchange of a confirming channel; raises what `Publisher.publish` does."""
    properties = {"content_type": "application/json", **message.properties}
    body = aio_pika.Message(
        message.body, delivery_mode=DeliveryMode.PERSISTENT, headers=dict(message.headers), **properties
    )
    try:
        confirmation = await bounded(
            exchange.publish(body, message.routing_key, mandatory=True, timeout=seconds), seconds
        )
    except BrokerUnavailable as error:
        raise _refusal(message, error.__cause__) or error from error.__cause__
    if not isinstance(confirmation, Basic.Ack):
        raise PublishRefused(f"broker refused {message.routing_key}")


def _refusal(message: Outgoing, cause: BaseException | None) -> BrokerUnavailable | None:
    """What the broker said against it, if it said something."""
    if isinstance(cause, ChannelNotFoundEntity):
        return BrokerUnavailable(f"broker: there is no exchange {message.exchange}; run `gateway setup`")
    if isinstance(cause, PublishError):
        return Unroutable(f"broker: no queue for {message.routing_key}")
    return PublishRefused(f"broker refused {message.routing_key}") if isinstance(cause, DeliveryError) else None


async def confirming_channel(connection: AbstractConnection) -> AbstractChannel:
    """A channel for publishing: confirms, and returns that raise."""
    # Without on_return_raises an unroutable message would count as published.
    return await connection.channel(publisher_confirms=True, on_return_raises=True)


async def _look_for(connection: AbstractRobustConnection, queues: Sequence[str]) -> list[int]:
    """The number of ready messages in each."""
    # A channel of the transport: the robust kind would try for ever to reopen after the 404 of a missing queue.
    transport = connection.transport
    if transport is None:
        raise BrokerUnavailable("broker: not connected")
    channel = await transport.connection.channel()
    try:
        found = [await channel.queue_declare(queue, passive=True) for queue in queues]
        return [answer.message_count or 0 for answer in found]
    except ChannelNotFoundEntity as error:
        raise BrokerUnavailable("broker: a queue is missing; run `gateway setup`") from error
    finally:
        if not channel.is_closed:
            await channel.close()

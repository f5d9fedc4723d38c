"""Sending into one queue by its name, over a connection that lives as long as that work and serves nothing else.

A queue that never confirms stops its connection after some 400 messages (a quorum queue without a leader), and where we
may not publish to the default exchange the broker closes the channel: neither may touch what others publish.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aio_pika.abc import AbstractConnection
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity
from msgspec.structs import replace

from common.broker.channel import PublishChannel
from common.broker.connection import CONNECT_SECONDS, bounded, close, connect_plainly
from common.broker.outgoing import Outgoing, PublishRefused, Unroutable
from common.broker.topology import DIRECT
from common.errors import BrokerUnavailable, Permanent, Retryable

CONFIRM_SECONDS = 20.0


class NoSuchQueue(Permanent):
    """There is no queue of that name."""

    def __init__(self, queue: str) -> None:
        super().__init__("no_such_queue", queue)


class MayNotSend(Permanent):
    """The broker does not let us publish to the default exchange, which leads to queues by their names."""

    def __init__(self) -> None:
        super().__init__("may_not_send", "our user needs the right to write to amq.default")


class QueueFull(Retryable):
    """The queue refuses what is over its length, or does not confirm."""


class Direct:
    """The way into one queue."""

    def __init__(self, connection: AbstractConnection, channel: PublishChannel, queue: str) -> None:
        self._connection = connection
        self._channel = channel
        self._queue = queue
        self._exchange = DIRECT

    async def send(self, messages: Sequence[Outgoing]) -> int:
        """Publish them, pipelined, in order → how many, from the first on, are in the queue for sure.

        Raises, when not one is:
            NoSuchQueue, MayNotSend, QueueFull.
            BrokerUnavailable: the connection was lost.
        """
        results = await asyncio.gather(*map(self._send, messages), return_exceptions=True)
        for number, result in enumerate(results):
            if result is not None and (number == 0 or not isinstance(result, BrokerUnavailable)):
                raise self._meaning(result)
            if result is not None:
                return number
        return len(messages)

    async def _send(self, message: Outgoing) -> None:
        addressed = replace(message, exchange=self._exchange, routing_key=self._queue)
        await self._channel.publish(addressed, CONFIRM_SECONDS)

    def _meaning(self, error: BaseException) -> BaseException:
        if isinstance(error, Unroutable):
            return NoSuchQueue(self._queue)
        if isinstance(error.__cause__, ChannelAccessRefused):
            return MayNotSend()
        if isinstance(error, PublishRefused):
            return QueueFull(f"queue {self._queue} is full, or has no leader")
        if isinstance(error, BrokerUnavailable) and self._connection.connected.is_set():
            return QueueFull(f"queue {self._queue} does not confirm")
        return error


@dataclass(frozen=True)
class Seen:
    """What a queue is like: how many messages wait in it, and how many consumers it has."""

    messages: int
    consumers: int


async def look_at(url: str, queue: str) -> Seen | None:
    """What the broker says of a queue; None: it is there, and no more is said (no leader, or somebody's own).

    Raises:
        NoSuchQueue.
        BrokerUnavailable: no broker there, or it refuses us.
    """
    connection = await connect_plainly(url, "looks at a queue")
    try:
        channel = await bounded(connection.channel(), CONNECT_SECONDS)
        found = (await bounded(channel.get_queue(queue), CONNECT_SECONDS)).declaration_result  # declares passively
    except BrokerUnavailable as error:
        if isinstance(error.__cause__, ChannelNotFoundEntity) and "no queue" in str(error.__cause__):
            raise NoSuchQueue(queue) from error
        if connection.is_closed:
            raise
        return None
    finally:
        await close(connection)
    return Seen(found.message_count or 0, found.consumer_count or 0)


@asynccontextmanager
async def direct(url: str, queue: str) -> AsyncIterator[Direct]:
    """The way into a queue, until the end of the block.

    Raises:
        BrokerUnavailable: no broker there, or it refuses us.
    """
    connection = await connect_plainly(url, "sends into a queue")
    try:
        yield Direct(connection, await PublishChannel.open(connection), queue)
    finally:
        await close(connection)

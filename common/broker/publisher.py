"""Publishing: persistent, mandatory, confirmed, bounded in time. Returning means that the broker has the message."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from aio_pika.abc import AbstractRobustConnection
from aio_pika.exceptions import ChannelNotFoundEntity
from msgspec.structs import replace

from common.broker.channel import PublishChannel
from common.broker.connection import bounded, close, connect, keep_trying
from common.broker.metrics import BrokerMetrics
from common.broker.outgoing import Outgoing, PublishRefused, Unroutable, sending_seconds
from common.broker.topology import WORK
from common.clock import monotonic_seconds, utc_now
from common.errors import BrokerUnavailable
from common.logs import get_logger

PUBLISH_SECONDS = 4.0
"""How long a confirm may take; the ingress answers 503 within 5 s."""
REOPEN_SECONDS = 0.2
"""A channel that the broker closes over a message is not opened again at once: the next would close it again."""


log = get_logger(__name__)


class Publisher:
    """Publishes to one broker over a connection of its own. Any number of tasks may publish at once."""

    def __init__(self, url: str, name: str, metrics: BrokerMetrics | None = None) -> None:
        """`name` is what the broker shows of the connection; metrics are labelled with its first word."""
        self._url = url
        self._name = name
        self._metrics = metrics or BrokerMetrics()
        self._label = name.split(maxsplit=1)[0]
        self._confirm_seconds = self._metrics.confirm_seconds.labels(self._label)
        self._connection: AbstractRobustConnection | None = None
        self._channel: PublishChannel | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether a publish has a chance: there is a channel now."""
        return self._channel is not None and self._channel.is_open

    def start(self) -> None:
        """Begin to connect; a broker that is away is waited for in the background."""
        self._connecting = asyncio.create_task(self._stay_open(), name=f"connect {self._name}")

    async def wait_ready(self) -> None:
        """Wait until the first connection stands."""
        await self._ready.wait()

    async def close(self) -> None:
        """Close the connection; publishing fails from now on."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        self._channel = None
        await close(self._connection)

    async def publish(self, message: Outgoing, *, seconds: float = PUBLISH_SECONDS) -> None:
        """Publish and wait for the broker's confirm; a large message has more time (`sending_seconds`).

        Raises:
            Unroutable: no queue wants it.
            PublishRefused: the broker nacked it: a queue that should have it has not.
            BrokerUnavailable: no confirm in `seconds`; the message may or may not be stored.
        """
        channel = self._channel
        if channel is None:
            raise BrokerUnavailable("broker: not connected yet")
        if message.exchange == WORK:  # for whoever takes it: how long did it wait?
            message = replace(message, timestamp=utc_now())
        began = monotonic_seconds()
        try:
            await channel.publish(message, seconds + sending_seconds(len(message.body)))
        except BrokerUnavailable as error:
            self._metrics.publish_failures.labels(self._label, kind_of_failure(error)).inc()
            raise
        self._confirm_seconds.observe(monotonic_seconds() - began)

    async def check(self, queues: Sequence[str], *, seconds: float = 2.0) -> None:
        """Ask the broker whether it answers and these queues are there.

        Raises:
            BrokerUnavailable: it does not answer, or one is missing: `gateway setup` has not run.
        """
        await self.depths(queues, seconds=seconds)

    async def depth(self, queue: str, *, seconds: float = 2.0) -> int:
        """How many messages are ready in the queue.

        Raises:
            BrokerUnavailable: it does not answer, or the queue is missing.
        """
        return (await self.depths([queue], seconds=seconds))[queue]

    async def depths(self, queues: Sequence[str], *, seconds: float = 2.0) -> dict[str, int]:
        """As `depth`, for several at once."""
        connection = self._connection
        if connection is None or not self.ready:
            raise BrokerUnavailable("broker: not connected")
        return dict(zip(queues, await bounded(_look_for(connection, queues), seconds), strict=True))

    def poke(self, routing_key: str) -> None:
        """Send a wake-up that carries nothing and may get lost."""
        if self._channel is not None:
            self._channel.poke(Outgoing(routing_key, b""))

    async def _stay_open(self) -> None:
        """A channel on the connection, and another when the broker has closed it or the connection has come back."""
        connection = self._connection = await connect(self._url, self._name)
        while True:
            try:
                channel = self._channel = await keep_trying(partial(_channel_of, connection), self._name)
                self._ready.set()
                await channel.closed.wait()
                log.warning("broker.channel_closed", step=self._name, then="another is opened")
            except Exception:  # whatever it is: without a channel nothing is published any more
                log.exception("broker.channel_failed", step=self._name)
            await asyncio.sleep(REOPEN_SECONDS)


async def _channel_of(connection: AbstractRobustConnection) -> PublishChannel:
    await connection.connected.wait()
    return await PublishChannel.open(connection)


def kind_of_failure(error: BrokerUnavailable) -> str:
    """Why a message is not published, in one word for metrics."""
    if isinstance(error, Unroutable):
        return "unroutable"
    return "refused" if isinstance(error, PublishRefused) else "unavailable"


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

"""A downstream service: its own queue on `syncaroo.events`, and all that came into it, in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage

from common.broker.connection import bounded, close, connect_plainly
from common.codec import loads
from common.errors import BrokerUnavailable
from schemas.events import BROADCAST

KEYS = tuple(kind.TYPE for kind in BROADCAST)
AGAIN_SECONDS = 0.5
CALL_SECONDS = 10.0

Event = dict[str, Any]


class Subscriber:
    """`async with Subscriber(amqp_url) as subscriber: …`; `events` are CloudEvents in the order of their arrival.

    `on_event` is called with each; `messages` are what they came in. The queue ends with the connection; one that has a
    name (`queue`) outlives the broker, too, and its connection is made again whenever it is lost.
    """

    def __init__(
        self,
        amqp_url: str,
        on_event: Callable[[Event], None] = lambda event: None,
        *,
        queue: str | None = None,
        keys: Sequence[str] = KEYS,
    ) -> None:
        self.events: list[Event] = []
        self.messages: list[AbstractIncomingMessage] = []
        self._url = amqp_url
        self._on_event = on_event
        self._queue = queue
        self._keys = keys
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._coming_back: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._connect()
        if self._queue is not None:
            self._coming_back = asyncio.create_task(self._come_back())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._coming_back is not None:
            self._coming_back.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._coming_back
        await close(self._connection)

    def changes(self, since: int = 0) -> list[dict[str, Any]]:
        """The data of `listing.changed` events, from the one that came as number `since`."""
        return [event["data"] for event in self.events[since:] if event["type"] == "listing.changed"]

    async def _connect(self) -> None:
        await close(self._connection)
        self._connection = await connect_plainly(self._url, "subscriber")
        self._channel = await bounded(self._subscribed(self._connection), CALL_SECONDS)

    async def _subscribed(self, connection: AbstractConnection) -> AbstractChannel:
        channel = await connection.channel()
        stays = self._queue is not None
        queue = await channel.declare_queue(self._queue, durable=stays, exclusive=not stays)
        for key in self._keys:
            await queue.bind("syncaroo.events", key)
        await queue.consume(self._came)
        return channel

    async def _come_back(self) -> None:
        """The library's own way back gives up where the broker answers and its queues are not there yet."""
        while True:
            await asyncio.sleep(AGAIN_SECONDS)
            if self._channel is None or self._channel.is_closed:
                self._channel = None
                with contextlib.suppress(BrokerUnavailable):
                    await self._connect()

    async def _came(self, message: AbstractIncomingMessage) -> None:
        event = loads(message.body)
        self.messages.append(message)
        self.events.append(event)
        self._on_event(event)
        await message.ack()

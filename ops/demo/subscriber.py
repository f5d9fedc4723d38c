"""A downstream service: its own queue on `syncaroo.events`, and all that came into it, in order."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import aio_pika
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage

from common.codec import loads
from schemas.events import BROADCAST

KEYS = tuple(kind.TYPE for kind in BROADCAST)

Event = dict[str, Any]


class Subscriber:
    """`async with Subscriber(amqp_url) as subscriber: …`; `events` are CloudEvents in the order of their arrival.

    `on_event` is called with each. The queue ends with the connection; one that `stays` outlives the broker, too, and
    its connection comes back by itself.
    """

    def __init__(
        self, amqp_url: str, on_event: Callable[[Event], None] = lambda event: None, *, stays: bool = False
    ) -> None:
        self.events: list[Event] = []
        self._url = amqp_url
        self._on_event = on_event
        self._stays = stays
        self._connection: AbstractConnection | None = None

    async def __aenter__(self) -> Self:
        self._connection = await (aio_pika.connect_robust if self._stays else aio_pika.connect)(self._url)
        channel = await self._connection.channel()
        name = f"subscriber-{secrets.token_hex(4)}" if self._stays else None
        queue = await channel.declare_queue(name, durable=self._stays, exclusive=not self._stays)
        for key in KEYS:
            await queue.bind("syncaroo.events", key)
        await queue.consume(self._came)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._connection is not None
        await self._connection.close()

    def changes(self, since: int = 0) -> list[dict[str, Any]]:
        """The data of `listing.changed` events, from the one that came as number `since`."""
        return [event["data"] for event in self.events[since:] if event["type"] == "listing.changed"]

    async def _came(self, message: AbstractIncomingMessage) -> None:
        event = loads(message.body)
        self.events.append(event)
        self._on_event(event)
        await message.ack()

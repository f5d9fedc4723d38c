"""A virtual host to measure on: an exchange and a durable quorum queue, both called `bench`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aio_pika
from aio_pika.abc import AbstractChannel

NAME = "bench"


@dataclass(frozen=True)
class Bench:
    """The queues that are measured, seen from beside."""

    url: str
    channel: AbstractChannel

    async def stored(self, queue: str = NAME) -> int:
        """How many messages wait in a queue."""
        declared = await self.channel.declare_queue(queue, passive=True)
        return declared.declaration_result.message_count or 0

    async def purge(self, queue: str = NAME) -> None:
        """Empty it."""
        await (await self.channel.get_queue(queue)).purge()


@asynccontextmanager
async def bench(url: str) -> AsyncIterator[Bench]:
    """With the exchange and the queue there and empty."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange(NAME, aio_pika.ExchangeType.TOPIC, durable=True)
        queue = await channel.declare_queue(NAME, durable=True, arguments={"x-queue-type": "quorum"})
        await queue.bind(exchange, "#")
        yield Bench(url, channel)

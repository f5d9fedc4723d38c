"""The floor's second half: aio-pika, aiohttp and SQLAlchemy's ORM on PostgreSQL, a page and a transaction at a time.

Four pages are under way at once. Each webhook's page is read, rows are written where they differ, and the changes are
published and confirmed before the message is acked.
"""

import asyncio
import json
import os
from typing import Any

import aio_pika
import aiohttp
import uvloop
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from benchmarks.variants.floor_rows import Base, change, items_of, known


async def main() -> None:
    """Work until killed."""
    engine = create_async_engine(os.environ["DATABASE_URL"])
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    begin = async_sessionmaker(engine, expire_on_commit=False).begin
    broker = await aio_pika.connect_robust(os.environ["AMQP_URL"])
    channel = await broker.channel(on_return_raises=True)
    await channel.set_qos(prefetch_count=4)
    events = await channel.get_exchange("events", ensure=False)
    headers = {"Authorization": f"Bearer {os.environ['BENCH_TOKEN']}"}

    async def told(event: dict[str, Any]) -> None:
        body = json.dumps(event).encode()
        message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await events.publish(message, "listing.changed", mandatory=True)

    async with aiohttp.ClientSession(headers=headers) as session:

        async def handle(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            url = json.loads(message.body)["url"]
            async with session.get(url) as answer:
                answer.raise_for_status()
                items = items_of(url, await answer.json())
            async with begin() as writing:
                changes = change(await writing.scalars(known(items)), items, writing.add)
            await asyncio.gather(*map(told, changes))
            await message.ack()

        queue = await channel.get_queue("bench")
        await queue.consume(handle)
        await asyncio.Future()


if __name__ == "__main__":
    uvloop.run(main())

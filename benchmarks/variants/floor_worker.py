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
from sqlalchemy import JSON, BigInteger, Text, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Of the tables."""


class Listing(Base):
    """What is known."""

    __tablename__ = "floor_listing"

    url: Mapped[str] = mapped_column(Text, primary_key=True)
    body: Mapped[dict[str, Any]] = mapped_column(JSON)
    version: Mapped[int] = mapped_column(BigInteger)


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
                items = {f"{url}/{item['ID']}": item for item in (await answer.json())["data"]}
            changes = []
            async with begin() as writing:
                known = await writing.scalars(select(Listing).where(Listing.url.in_(items)).with_for_update())
                rows = {row.url: row for row in known}
                for key, body in items.items():
                    row = rows.get(key)
                    if row is None:
                        changes.append({"url": key, "version": 1, "previous": None, "current": body})
                        writing.add(Listing(url=key, body=body, version=1))
                    elif row.body != body:
                        changes.append({"url": key, "version": row.version + 1, "previous": row.body, "current": body})
                        row.body, row.version = body, row.version + 1
            await asyncio.gather(*map(told, changes))
            await message.ack()

        queue = await channel.get_queue("bench")
        await queue.consume(handle)
        await asyncio.Future()


if __name__ == "__main__":
    uvloop.run(main())

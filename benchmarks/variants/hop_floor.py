"""aio-pika as its documents show it: `queue.consume`, a publish that is awaited, `message.ack()`."""

import asyncio

import aio_pika
import uvloop
from aio_pika.abc import AbstractIncomingMessage

from benchmarks.variants.hops import PREFETCH, SOURCE, TARGET, counted, tell
from benchmarks.variants.timed import URL


async def main() -> None:
    """Hop."""
    begun = done = 0
    async with await aio_pika.connect_robust(URL) as connection:
        channel = await connection.channel(on_return_raises=True)
        await channel.set_qos(prefetch_count=PREFETCH)
        exchange = await channel.get_exchange(TARGET, ensure=False)
        queue = await channel.get_queue(SOURCE)

        async def hop(taken: AbstractIncomingMessage) -> None:
            nonlocal begun, done
            begun += 1
            message = aio_pika.Message(
                taken.body,
                headers={"schema": "WebhookReceived", "attempt": 0},
                content_type="application/json",
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            )
            await exchange.publish(message, TARGET, mandatory=True)
            await taken.ack()
            done += 1

        tag = await queue.consume(hop)
        said = await counted(lambda: done)
        await queue.cancel(tag)
        while done < begun:  # noqa: ASYNC110  # nothing more than a number is shared
            await asyncio.sleep(0.01)
    tell(said, done)


if __name__ == "__main__":
    uvloop.run(main())

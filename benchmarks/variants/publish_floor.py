"""aio-pika as its documents show it: one channel, every publish awaited, 64 tasks at once."""

import aio_pika
import uvloop

from benchmarks.variants.timed import BODY, IN_FLIGHT, URL, timed


async def main() -> None:
    """Publish."""
    async with await aio_pika.connect_robust(URL) as connection:
        channel = await connection.channel(on_return_raises=True)
        exchange = await channel.get_exchange("bench", ensure=False)

        async def one() -> None:
            message = aio_pika.Message(
                BODY, content_type="application/json", delivery_mode=aio_pika.DeliveryMode.PERSISTENT
            )
            await exchange.publish(message, "bench", mandatory=True)

        await timed(one, IN_FLIGHT)


if __name__ == "__main__":
    uvloop.run(main())

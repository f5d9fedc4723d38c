"""FastStream's RabbitMQ broker: a subscriber that publishes, confirmed, and acks."""
# mypy: ignore-errors
# Its library is not installed beside ours.

import asyncio

import uvloop
from faststream import AckPolicy
from faststream.rabbit import Channel, RabbitBroker, RabbitExchange, RabbitMessage, RabbitQueue

from benchmarks.variants.hops import PREFETCH, SOURCE, TARGET, counted, tell
from benchmarks.variants.timed import URL

broker = RabbitBroker(URL, default_channel=Channel(prefetch_count=PREFETCH, on_return_raises=True), logger=None)
exchange = RabbitExchange(TARGET, declare=False)
counts = {"begun": 0, "done": 0}


@broker.subscriber(RabbitQueue(SOURCE, declare=False), ack_policy=AckPolicy.MANUAL)
async def hop(message: RabbitMessage) -> None:
    """One hop."""
    counts["begun"] += 1
    headers = {"schema": "WebhookReceived", "attempt": 0}
    await broker.publish(
        message.body,
        exchange=exchange,
        routing_key=TARGET,
        headers=headers,
        content_type="application/json",
        persist=True,
        mandatory=True,
    )
    await message.ack()
    counts["done"] += 1


async def main() -> None:
    """Hop."""
    await broker.start()
    said = await counted(lambda: counts["done"])
    for subscriber in broker.subscribers:
        await subscriber.stop()
    while counts["done"] < counts["begun"]:  # noqa: ASYNC110  # nothing more than a number is shared
        await asyncio.sleep(0.01)
    await broker.stop()
    tell(said, counts["done"])


if __name__ == "__main__":
    uvloop.run(main())

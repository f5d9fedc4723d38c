"""The gateway's consumer and publisher: a handler that publishes for each delivery of its batch, and returns.

Batch and concurrency are those of the fetch worker, whose queue is the one that webhooks come through.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import uvloop
from prometheus_client import CollectorRegistry

from benchmarks.variants.hops import SOURCE, TARGET, counted, tell
from benchmarks.variants.timed import URL
from common.broker.consumer import Consumer, Delivery
from common.broker.metrics import BrokerMetrics
from common.broker.outgoing import Outgoing
from common.broker.publisher import Publisher
from common.broker.retry import RetryPolicy
from workers.fetch.worker import MARK_BATCH

HEADERS = {"schema": "WebhookReceived", "attempt": 0}
RETRY = RetryPolicy([timedelta(seconds=1)], timedelta(minutes=1))


async def main() -> None:
    """Hop."""
    registry = CollectorRegistry()
    metrics = BrokerMetrics(registry)
    publisher = Publisher(URL, "hop publishes", metrics)
    stop = asyncio.Event()

    async def hop(deliveries: Sequence[Delivery]) -> None:
        await asyncio.gather(
            *(publisher.publish(Outgoing(TARGET, one.body, TARGET, HEADERS)) for one in deliveries),
        )

    def acked() -> int:
        found = registry.get_sample_value("gateway_messages_total", {"queue": SOURCE, "became": "acked"})
        return int(found or 0)

    publisher.start()
    await publisher.wait_ready()
    consumer = Consumer(URL, SOURCE, "fetch", hop, publisher, RETRY, batch=MARK_BATCH, metrics=metrics)
    consuming = asyncio.create_task(consumer.run(stop))
    try:
        said = await counted(acked)
    finally:
        stop.set()
        await consuming
        await publisher.close()
    tell(said, acked())


if __name__ == "__main__":
    uvloop.run(main())

"""What a publisher and a consumer count on a real broker."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry

from common.broker.consumer import Consumer, Delivery, stage_consumer
from common.broker.metrics import BrokerMetrics
from common.broker.outgoing import Outgoing, Unroutable, outgoing
from common.broker.publisher import Publisher
from common.errors import Permanent, Retryable
from ops.broker import Vhost
from tests.integration.test_broker_traps import RETRY, Bench, bench, webhook
from tests.waiting import until

QUEUE = "syncaroo.fetch"


async def handle(deliveries: Sequence[Delivery]) -> None:
    """Fails as the delivery id says."""
    for delivery in deliveries:
        if b'"later"' in delivery.body and not delivery.attempt:
            raise Retryable("later")
        if b'"never"' in delivery.body:
            raise Permanent("refused", "never")


class Counts:
    """The numbers of one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.metrics = BrokerMetrics(self._registry)

    def became(self) -> dict[str, float]:
        found = {
            kind: self._of("gateway_messages_total", queue=QUEUE, became=kind) for kind in ("acked", "delayed", "dead")
        }
        return {kind: number for kind, number in found.items() if number}

    def waited(self) -> float:
        return self._of("gateway_queue_wait_seconds_count", queue=QUEUE)

    def confirmed(self) -> float:
        return self._of("gateway_confirm_seconds_count", publisher="test")

    def failed(self, kind: str) -> float:
        return self._of("gateway_publish_failures_total", publisher="test", kind=kind)

    def _of(self, name: str, **labels: str) -> float:
        return self._registry.get_sample_value(name, labels) or 0.0


async def test_what_became_of_messages_and_how_long_they_waited(vhost: Vhost) -> None:
    counts = Counts()
    async with bench(vhost.url) as made:
        for name in ("now", "later", "never"):
            await made.publisher.publish(outgoing(webhook(name), "fetch", 99))
        consumer = _consumer(made, counts)
        consuming = [consumer.is_consuming]
        made.run(consumer)
        await until(lambda: counts.became() == {"acked": 2, "delayed": 1, "dead": 1}, 20, "all are settled")
        consuming.append(consumer.is_consuming)
        assert counts.waited() == 3, "what was retried is not counted again"
    assert [*consuming, consumer.is_consuming] == [False, True, False]


async def test_confirms_and_what_no_queue_wants(vhost: Vhost) -> None:
    counts = Counts()
    async with bench(vhost.url):
        publisher = Publisher(vhost.url, "test publishes", counts.metrics)
        publisher.start()
        await publisher.wait_ready()
        await publisher.publish(outgoing(webhook(), "fetch", 99))
        with pytest.raises(Unroutable):
            await publisher.publish(Outgoing("nobody.listens", b"{}"))
        assert (counts.confirmed(), counts.failed("unroutable")) == (1, 1)
        depths = await publisher.depths([QUEUE, "syncaroo.reconcile"])
        assert set(depths) == {QUEUE, "syncaroo.reconcile"}
        await publisher.close()


def _consumer(made: Bench, counts: Counts) -> Consumer:
    return stage_consumer(made.url, "fetch", handle, made.publisher, RETRY, metrics=counts.metrics)

"""Acks of many at once, on a real broker: what is in hand is never acked with others, a lost ack is a redelivery."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from common.broker.consumer import Consumer, Delivery, stage_consumer
from common.broker.deliveries import Taken
from common.broker.metrics import BrokerMetrics
from common.broker.outgoing import Outgoing, outgoing
from ops.broker import Vhost
from ops.prove.proxy import Proxy
from tests.integration.test_broker_reconsume import seen, send
from tests.integration.test_broker_traps import RETRY, Bench, Recorder, bench, webhook
from tests.waiting import until

QUEUE = "syncaroo.reconcile"


async def test_what_is_in_hand_is_not_acked_with_what_came_later(vhost: Vhost) -> None:
    async with bench(vhost.url) as made:
        handler, metrics = Holds("held"), BrokerMetrics()
        task = made.consume(handler, concurrency=3, metrics=metrics)
        await send(made, "held")
        await until(lambda: handler.holding)
        for number in range(10):
            await send(made, f"later {number}")
        await until(lambda: metrics.messages.labels(QUEUE, "acked")._value.get() == 10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        made._tasks.clear()
        after = Recorder()
        made.consume(after)
        await until(lambda: after.batches)
        made.stop.set()
        await made.end()
        assert seen(after) == ["held"], "that alone comes again"


async def test_what_a_stop_finishes_does_not_come_again(vhost: Vhost) -> None:
    names = [f"{number}" for number in range(600)]
    async with bench(vhost.url) as made:
        await asyncio.gather(*(send(made, name) for name in names))
        handler, rest = Recorder(), Recorder()

        async def stop_in_the_middle(deliveries: Sequence[Delivery]) -> None:
            await handler(deliveries)
            if len(handler.attempts) >= 200:
                made.stop.set()

        made.consume(stop_in_the_middle, batch=50)
        await until(made.stop.is_set)
        await made.end()
        done = seen(handler)
        assert 0 < len(done) < len(names)
        await until(lambda: _is_waiting(made, len(names) - len(done)), what="what was not begun, and nothing else")
    async with bench(vhost.url) as again:
        again.consume(rest, batch=50)
        await until(lambda: len(rest.attempts) >= len(names) - len(done))
        again.stop.set()
        await again.end()
    assert sorted(done + seen(rest)) == sorted(names), "each came once, to the one or to the other"


@pytest.mark.parametrize("what", ["connection", "channel"])
async def test_acks_that_are_lost_mean_that_messages_come_again_and_nothing_else(vhost: Vhost, what: str) -> None:
    """P16: the work was done, the broker does not know."""
    async with bench(vhost.url) as made:
        lost: list[str] = []

        class LosesItsAcks(Consumer):
            async def _handle(self, batch: list[Taken]) -> None:
                if not lost:
                    lost.append("once")
                    channel: Any = batch[0].channel
                    await (channel.connection if what == "connection" else channel).close(ConnectionResetError("cut"))
                await super()._handle(batch)

        handler = Recorder()
        consumer = LosesItsAcks(made.url, QUEUE, "reconcile", handler, made.publisher, RETRY, batch=5)
        names = [f"{number}" for number in range(5)]
        for name in names:
            await send(made, name)
        running = made.run(consumer)
        await until(lambda: sorted(set(seen(handler))) == names and seen(handler).count("0") == 2, 15, "all, once more")
        await send(made, "afterwards")
        await until(lambda: "afterwards" in seen(handler), 15)
        assert not running.done()
        made.stop.set()
        await made.end()
        again = [one for batch in handler.batches for one in batch if one.redelivered]
        assert again, "by way of the broker"
        assert {one.attempt for one in again} == {0}, "which is no retry of ours"
        assert [await made.waiting(queue) for queue in (QUEUE, f"{QUEUE}.dead")] == [0, 0]


@pytest.mark.parametrize("size", [0, 1, 131_064, 131_065, 3_000_000])
async def test_a_body_of_any_size_comes_as_it_was_sent(vhost: Vhost, size: int) -> None:
    """Frames have 128 KiB at most."""
    async with bench(vhost.url) as made:
        body = bytes(number % 251 for number in range(size))
        handler = Recorder()
        made.run(stage_consumer(made.url, "reconcile", handler, made.publisher, RETRY, batch=2))
        await made.publisher.publish(Outgoing("reconcile.1", body))
        await made.publisher.publish(outgoing(webhook("next"), "reconcile", 1))
        await until(lambda: sum(map(len, handler.batches)) == 2)
        assert handler.batches[0][0].body == body


class Holds(Recorder):
    """Never comes back from one message."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self.holding = False

    async def __call__(self, deliveries: Sequence[Delivery]) -> None:
        if self._name.encode() in deliveries[0].body:
            self.holding = True
            await asyncio.Event().wait()
        await super().__call__(deliveries)


async def _is_waiting(made: Bench, messages: int) -> bool:
    return await made.waiting(QUEUE) == messages


async def test_a_connection_that_ends_in_good_order_comes_back(vhost: Vhost) -> None:
    """FIN, as from a load balancer, or a broker that is killed: no frame says so."""
    async with Proxy.before(vhost.url) as proxy, bench(vhost.url) as made:
        handler = Recorder()
        consumer = stage_consumer(proxy.url(vhost.url), "reconcile", handler, made.publisher, RETRY)
        made.run(consumer)
        await send(made, "before")
        await until(lambda: seen(handler) == ["before"])
        for number in range(3):
            proxy.hang_up()
            await send(made, f"after {number}")
            await until(lambda: f"after {number}" in seen(handler), 15)  # noqa: B023  # awaited in the same round
        assert consumer.is_consuming


async def test_a_channel_that_ended_before_its_connection_costs_its_messages_and_nothing_else(vhost: Vhost) -> None:
    """They come again; the consumer goes on."""
    async with bench(vhost.url) as made:
        lost: list[Taken] = []

        class LosesBoth(Consumer):
            async def _handle(self, batch: list[Taken]) -> None:
                if not lost:
                    lost.extend(batch)
                    channel: Any = batch[0].channel
                    await channel.close(ConnectionResetError("first the channel"))
                    await channel.connection.close(ConnectionResetError("then its connection"))
                await super()._handle(batch)

        handler = Recorder()
        running = made.run(LosesBoth(made.url, QUEUE, "reconcile", handler, made.publisher, RETRY))
        await send(made, "twice")
        await until(lambda: seen(handler) == ["twice", "twice"], 15)
        assert not running.done()

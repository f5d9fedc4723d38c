"""What the broker and its libraries do when things go wrong, and that ours notice: RELIABILITY's traps B and P."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import aio_pika
import pytest
from aio_pika.exceptions import ChannelPreconditionFailed

from common.broker import consumer
from common.broker.consumer import Consumer, Delivery, reason_of, stage_consumer
from common.broker.outgoing import Outgoing, PublishRefused, outgoing
from common.broker.publisher import Publisher
from common.broker.retry import RetryPolicy
from common.broker.topology import DELIVERY_LIMIT, WORK, Queue, dead_queue_name, declare, queue_name, work_queues
from common.errors import BrokerUnavailable, Permanent, Retryable, StoreUnavailable, Unavailable
from common.parking import parking_consumer
from common.store.engine import Store
from common.store.parked import list_parked
from ops.broker import PrivateNode, Vhost
from schemas.messages import PlatformIds, WebhookReceived
from tests.waiting import until

DELAYS = (timedelta(milliseconds=200), timedelta(milliseconds=400))
RETRY = RetryPolicy(DELAYS, timedelta(milliseconds=900))
DEAD_LETTER_PAUSE = "dead_letter_worker_publisher_confirm_timeout"
"""After so many milliseconds a node tries again to dead-letter: three minutes, when nobody says otherwise."""


def webhook(name: str = "d", connection_id: int = 99) -> WebhookReceived:
    return WebhookReceived(
        delivery_id=name,
        connection_id=connection_id,
        url="https://api.syncaroo.com/v1/locations/1",
        mapping=PlatformIds(),
        received_at=datetime.now(UTC),
    )


class Recorder:
    """A handler that remembers, and fails as told."""

    def __init__(self, *failures: Exception) -> None:
        self.batches: list[list[Delivery]] = []
        self.failures = list(failures)

    async def __call__(self, deliveries: Sequence[Delivery]) -> None:
        self.batches.append(list(deliveries))
        if self.failures:
            raise self.failures.pop(0)

    @property
    def attempts(self) -> list[int]:
        return [delivery.attempt for batch in self.batches for delivery in batch]


class Bench:
    """A declared vhost, a publisher, and consumers that are stopped at the end."""

    def __init__(self, url: str, publisher: Publisher, channel: aio_pika.abc.AbstractChannel) -> None:
        self.url = url
        self.publisher = publisher
        self.channel = channel
        self.stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def consume(self, handler: Any, stage: Any = "reconcile", **limits: Any) -> asyncio.Task[None]:
        return self.run(stage_consumer(self.url, stage, handler, self.publisher, RETRY, **limits))

    def run(self, consumer: Consumer) -> asyncio.Task[None]:
        task = asyncio.create_task(consumer.run(self.stop))
        self._tasks.append(task)
        return task

    async def end(self) -> None:
        self.stop.set()
        await asyncio.gather(*self._tasks)

    async def waiting(self, queue: str) -> int:
        declared = await self.channel.declare_queue(queue, passive=True)
        return declared.declaration_result.message_count or 0


@asynccontextmanager
async def bench(url: str) -> AsyncIterator[Bench]:
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        await declare(channel, work_queues(DELAYS))
        publisher = Publisher(url, "test")
        publisher.start()
        await publisher.wait_ready()
        made = Bench(url, publisher, channel)
        try:
            yield made
        finally:
            await made.end()
            await publisher.close()


async def test_unroutable_is_refused_before_and_after_a_reconnect(vhost: Vhost) -> None:
    """T-BRK-UNROUTABLE, P1, P2: a message that no queue wants never counts as published."""
    async with bench(vhost.url) as made:
        lost = Outgoing("nobody.listens", b"{}")
        with pytest.raises(PublishRefused):
            await made.publisher.publish(lost)
        transport = made.publisher._connection.transport  # type: ignore[union-attr]  # only a lost connection will do
        assert transport is not None
        await transport.connection.close(ConnectionResetError("cut"))

        async def published_again() -> bool:
            try:
                await made.publisher.publish(outgoing(webhook(), "fetch", 99))
            except BrokerUnavailable:
                return False
            return True

        await until(published_again)
        with pytest.raises(PublishRefused):
            await made.publisher.publish(lost)


async def test_messages_are_persistent(vhost: Vhost) -> None:
    """P4."""
    async with bench(vhost.url) as made:
        await made.publisher.publish(outgoing(webhook(), "fetch", 99))
        queue = await made.channel.get_queue(queue_name("fetch"))
        message = await queue.get(timeout=5)
        assert message.delivery_mode == 2
        await message.ack()


async def test_a_full_queue_is_a_refusal(vhost: Vhost) -> None:
    """T-BRK-NACK, B7: reject-publish nacks."""
    async with bench(vhost.url) as made:
        arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish"}
        full = await made.channel.declare_queue("test.full", durable=True, arguments=arguments)
        await full.bind(WORK, "full")

        async def fill() -> None:
            for _ in range(50):
                await made.publisher.publish(Outgoing("full", b"{}"))

        with pytest.raises(PublishRefused):
            await fill()


async def test_changed_arguments_are_told_by_the_queues_name(vhost: Vhost) -> None:
    """B8: a queue that exists with other arguments is refused, not used."""
    async with bench(vhost.url) as made:
        other = [Queue(queue_name("fetch"), (), "", {"x-queue-type": "quorum", "x-delivery-limit": 3})]
        with pytest.raises(ChannelPreconditionFailed, match=r"syncaroo\.fetch"):
            await declare(made.channel, other)


async def test_retryable_comes_back_through_the_delay_queue_and_is_parked_in_the_end(vhost: Vhost) -> None:
    """T-NOHOTLOOP, B9, P11: copies, each with its attempt, without the broker's traces; then the dead queue."""
    async with bench(vhost.url) as made:
        handler = Recorder(*[Retryable("not yet")] * 10)
        made.consume(handler)
        await made.publisher.publish(outgoing(webhook(), "reconcile", 99))
        await until(lambda: len(handler.batches) == 3, what="200 ms, 400 ms; another 400 ms would pass the second")
        dead = await made.channel.get_queue(f"{queue_name('reconcile')}.dead")
        parked = await until(lambda: dead.get(fail=False), what="the dead letter")
        assert parked.headers["reason"] == "retries_exhausted"
        assert handler.attempts == [0, 1, 2]
        assert "x-death" in handler.batches[1][0].headers, "the broker leaves its trace"
        assert not [name for name in parked.headers if "death" in name], "and no copy carries it on"
        await parked.ack()


async def test_permanent_is_parked_at_once_and_lands_in_the_store(vhost: Vhost, database_url: str) -> None:
    """T-POISON: a poison message blocks nobody: its neighbours in the batch pass."""
    store = Store(database_url)
    async with bench(vhost.url) as made:

        class OnePoison(Recorder):
            async def __call__(self, deliveries: Sequence[Delivery]) -> None:
                if any(b"poison" in delivery.body for delivery in deliveries):
                    raise Permanent("bad_item", "it is poison")
                await super().__call__(deliveries)

        handler = OnePoison()
        for number in range(9):
            await made.publisher.publish(outgoing(webhook(f"good {number}"), "fetch", 99))
        await made.publisher.publish(outgoing(webhook("poison", 7), "fetch", 7))
        made.consume(handler, "fetch", batch=20)
        made.run(parking_consumer(vhost.url, "fetch", store, made.publisher, RETRY))
        (parked,) = await until(partial(_parked, store))
        await until(lambda: len(handler.attempts) == 9)
        assert (parked.queue, parked.reason, parked.connection_id) == ("syncaroo.fetch", "bad_item", 7)
        assert parked.schema_name == "WebhookReceived"
        assert b"poison" in parked.body
    await store.close()


async def test_a_message_that_nobody_understands_is_parked(vhost: Vhost) -> None:
    """T-POISON."""
    async with bench(vhost.url) as made:

        async def handler(deliveries: Sequence[Delivery]) -> None:
            deliveries[0].message()

        made.consume(handler)
        await made.publisher.publish(Outgoing("reconcile.1", b"{}", headers={"schema": "FromTheFuture"}))
        dead = await made.channel.get_queue(f"{queue_name('reconcile')}.dead")
        parked = await until(lambda: dead.get(fail=False))
        assert parked.headers["reason"] == "unreadable_message"
        await parked.ack()


async def test_a_bug_in_the_handler_never_wedges_the_consumer(vhost: Vhost) -> None:
    """T-SETTLE, P10: whatever a handler raises, the message is settled and the next one comes."""
    async with bench(vhost.url) as made:
        handler = Recorder(ZeroDivisionError(), KeyError("x"))
        made.consume(handler)
        for _ in range(3):
            await made.publisher.publish(outgoing(webhook(), "reconcile", 99))
        await until(lambda: sorted(handler.attempts) == [0, 0, 0, 1, 1])


async def test_without_a_dead_queue_a_message_is_kept_and_tried_again_slowly(vhost: Vhost) -> None:
    """T-DLX-MISSING, T-NOHOTLOOP (P11: requeueing it at once were hundreds of calls a second)."""
    dead = f"{queue_name('reconcile')}.dead"
    async with bench(vhost.url) as made:
        await made.channel.queue_delete(dead)
        handler = Recorder(*[Permanent("bad_item", "it is poison")] * 100)
        made.consume(handler)
        began = asyncio.get_running_loop().time()
        await made.publisher.publish(outgoing(webhook("kept"), "reconcile", 99))
        await until(lambda: len(handler.batches) == 4)
        assert asyncio.get_running_loop().time() - began > 2.5, "three pauses of a second"
        failures = made.publisher._metrics.publish_failures.labels("test", "unroutable")
        assert failures._value.get() >= 3, "which an alert is about"
        await declare(made.channel, work_queues(DELAYS))
        parked = await until(lambda: _first(made, dead))
        assert (parked.headers["reason"], b"kept" in parked.body) == ("bad_item", True)
        await until(lambda: _is_empty(made))
        assert handler.attempts == [0] * len(handler.batches)


@pytest.mark.parametrize("error", [ValueError("a bug"), Permanent("unstorable", "nothing holds it")])
async def test_what_cannot_be_parked_stays_where_it_is_and_is_tried_again_slowly(
    vhost: Vhost, error: Exception
) -> None:
    """T-NOHOTLOOP: neither back to work nor, as it is dead already, at once to where it came from."""
    async with bench(vhost.url) as made:
        handler = Recorder(*[error] * 2)
        await made.publisher.publish(outgoing(webhook("kept"), "reconcile", 99))
        queue = await made.channel.get_queue(queue_name("reconcile"))
        await (await until(lambda: queue.get(fail=False))).reject(requeue=False)
        began = asyncio.get_running_loop().time()
        made.run(Consumer(vhost.url, dead_queue_name("reconcile"), "reconcile", handler, made.publisher, RETRY))
        await until(lambda: len(handler.batches) == 3)
        pauses = asyncio.get_running_loop().time() - began
        assert pauses > DELAYS[0].total_seconds(), "two, each half of it at least"
        assert await made.waiting(dead_queue_name("reconcile")) == 0
        assert await made.waiting(queue_name("reconcile")) == 0
        assert handler.attempts == [0, 0, 0]
        assert {reason_of(one.headers) for batch in handler.batches for one in batch} == {"rejected"}


async def test_what_waits_for_long_to_be_parked_keeps_the_broker_s_reason(
    vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes to the end of its queue as a copy, which has no trace of the broker's."""
    monkeypatch.setattr(consumer, "HOLD_SECONDS", 0.0)
    async with bench(vhost.url) as made:
        handler = Recorder(StoreUnavailable("store: away"))
        await made.publisher.publish(outgoing(webhook("kept"), "reconcile", 99))
        queue = await made.channel.get_queue(queue_name("reconcile"))
        await (await until(lambda: queue.get(fail=False))).reject(requeue=False)
        made.run(Consumer(vhost.url, dead_queue_name("reconcile"), "reconcile", handler, made.publisher, RETRY))
        await until(lambda: len(handler.batches) == 2)
        [before], [copy] = handler.batches
        assert "x-death" in before.headers
        assert "x-death" not in copy.headers
        assert reason_of(copy.headers) == "rejected"


async def _first(made: Bench, queue: str) -> Any:
    return await (await made.channel.get_queue(queue)).get(no_ack=True, fail=False)


async def _is_empty(made: Bench) -> bool:
    return await made.waiting(queue_name("reconcile")) == 0


async def test_what_the_broker_gives_up_is_kept_until_there_is_a_dead_queue_and_parked(
    private_node: PrivateNode, private_vhost: Vhost, database_url: str
) -> None:
    """T-POISON-CRASH, T-DLX-MISSING: whoever takes it dies; beyond the broker's limit it waits for its way on."""
    private_node.ctl("eval", f"application:set_env(rabbit, {DEAD_LETTER_PAUSE}, 1000).")
    store = Store(database_url)
    try:
        async with bench(private_vhost.url) as made:
            await made.channel.queue_delete(f"{queue_name('reconcile')}.dead")
            await made.publisher.publish(outgoing(webhook("kept"), "reconcile", 99))
            queue = await made.channel.get_queue(queue_name("reconcile"))
            for _ in range(DELIVERY_LIMIT + 1):
                await (await until(lambda: queue.get(fail=False))).reject(requeue=True)
            assert await queue.get(fail=False) is None
            await declare(made.channel, work_queues(DELAYS))
            made.run(parking_consumer(private_vhost.url, "reconcile", store, made.publisher, RETRY))
            (parked,) = await until(partial(_parked, store), 30)
            assert (parked.queue, parked.reason, b"kept" in parked.body) == (queue.name, "delivery_limit", True)
    finally:
        await store.close()
        private_node.ctl("eval", f"application:set_env(rabbit, {DEAD_LETTER_PAUSE}, 180000).")  # without one it crashes


async def _parked(store: Store) -> list[Any]:
    async with store.reading() as transaction:
        return await list_parked(transaction)


async def test_unavailable_is_kept_and_tried_again_here(vhost: Vhost) -> None:
    """The store is away: nothing is wrong with the message, so it counts no attempt and goes nowhere."""
    async with bench(vhost.url) as made:
        handler = Recorder(Unavailable("away"), Unavailable("away"))
        made.consume(handler)
        await made.publisher.publish(outgoing(webhook(), "reconcile", 99))
        await until(lambda: len(handler.batches) >= 2)
        assert await made.waiting(queue_name("reconcile")) == 0
        assert await made.waiting(dead_queue_name("reconcile")) == 0
        await until(lambda: len(handler.batches) >= 3)
        first, *again = [delivery for batch in handler.batches for delivery in batch]
        assert (first.attempt, first.redelivered, len(again)) == (0, False, 2)
        for one in again:
            assert one == first
            assert one.body is first.body, "what is in hand: by way of the broker it would be another"


async def test_a_cancelled_handler_settles_nothing(vhost: Vhost) -> None:
    """T-TERM, P8: the message is there again for the next process."""
    async with bench(vhost.url) as made:
        begun = asyncio.Event()

        async def handler(_: Sequence[Delivery]) -> None:
            begun.set()
            await asyncio.Event().wait()

        task = made.consume(handler)
        await made.publisher.publish(outgoing(webhook("kept"), "reconcile", 99))
        await begun.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        made._tasks.clear()
        after = Recorder()
        made.consume(after)
        await until(lambda: after.batches)
        assert b"kept" in after.batches[0][0].body
        assert await made.waiting(f"{queue_name('reconcile')}.dead") == 0


async def test_a_stop_lets_the_handler_finish_and_ack(vhost: Vhost) -> None:
    """T-TERM, P9."""
    async with bench(vhost.url) as made:
        begun, go_on = asyncio.Event(), asyncio.Event()
        finished: list[int] = []

        async def handler(deliveries: Sequence[Delivery]) -> None:
            begun.set()
            await go_on.wait()
            finished.append(len(deliveries))

        task = made.consume(handler)
        await made.publisher.publish(outgoing(webhook(), "reconcile", 99))
        await begun.wait()
        made.stop.set()
        go_on.set()
        await task
        assert finished == [1]
        assert await made.waiting(queue_name("reconcile")) == 0


async def test_a_frozen_broker_is_unavailable_in_time_and_recovers(
    private_node: PrivateNode, private_vhost: Vhost
) -> None:
    """T-BRK-FREEZE, P5, P6: no confirm in time, and no CancelledError escapes; afterwards all goes on by itself."""
    async with bench(private_vhost.url) as made:
        private_node.settle()
        private_node.freeze()
        try:
            results = await asyncio.gather(
                *(made.publisher.publish(outgoing(webhook(), "fetch", 99), seconds=2) for _ in range(20)),
                return_exceptions=True,
            )
        finally:
            private_node.resume()
        assert {type(result) for result in results} == {BrokerUnavailable}
        await until(lambda: _publishes(made.publisher), timeout=30)


async def test_consuming_resumes_after_the_broker_was_killed(private_node: PrivateNode, private_vhost: Vhost) -> None:
    """T-BRK-DURABLE, P13, B4: what was confirmed and nobody had taken is still there; who consumed goes on."""
    async with bench(private_vhost.url) as made:
        handler = Recorder()
        made.consume(handler)
        await made.publisher.publish(outgoing(webhook("before"), "reconcile", 99))
        await until(lambda: handler.batches)
        private_node.settle()
        kept = [f"kept {number}" for number in range(20)]
        for name in kept:
            await made.publisher.publish(outgoing(webhook(name), "fetch", 99))
        await asyncio.to_thread(private_node.kill)
        with pytest.raises(BrokerUnavailable):
            await made.publisher.publish(outgoing(webhook(), "reconcile", 99))
        await asyncio.to_thread(private_node.start)
        await until(lambda: _publishes(made.publisher, "reconcile"), timeout=30)
        await until(lambda: len(handler.batches) >= 2, timeout=30)
        late = Recorder()
        made.consume(late, "fetch")
        await until(lambda: len(late.batches) >= len(kept), timeout=30)
        assert [getattr(one.message(), "delivery_id", "") for batch in late.batches for one in batch] == kept


async def test_a_memory_alarm_stops_publishing_but_not_acks(private_node: PrivateNode, private_vhost: Vhost) -> None:
    """T-BRK-ALARM, B6: two connections: what is in hand is still settled; P7: what timed out may arrive later."""
    async with bench(private_vhost.url) as made:
        for _ in range(5):
            await made.publisher.publish(outgoing(webhook(), "reconcile", 99))
        await asyncio.to_thread(private_node.starve)
        try:
            with pytest.raises(BrokerUnavailable):
                await made.publisher.publish(outgoing(webhook(), "fetch", 99), seconds=1)
            handler = Recorder()
            made.consume(handler)
            await until(lambda: len(handler.batches) == 5, timeout=20)
            made.stop.set()
            await made.end()
        finally:
            await asyncio.to_thread(private_node.feed)
        await until(lambda: _publishes(made.publisher), timeout=30)
        assert await made.waiting(queue_name("reconcile")) == 0, "the acks went through during the alarm"


async def _publishes(publisher: Publisher, stage: Any = "fetch") -> bool:
    try:
        await publisher.publish(outgoing(webhook(os.urandom(4).hex()), stage, 99))
    except BrokerUnavailable:
        return False
    return True

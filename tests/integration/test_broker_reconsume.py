"""A consumer that lost its channel, its queue or its neighbours: it goes on, and what waits holds nobody up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelPreconditionFailed

from common.broker.consumer import BATCH_BYTES, Consumer, Delivery, stage_consumer
from common.broker.deliveries import Taken
from common.broker.outgoing import Outgoing, outgoing
from common.broker.retry import RetryPolicy
from common.broker.topology import WORK, Stage, declare, work_queues
from common.errors import StoreUnavailable, Unavailable
from ops.broker import Vhost
from tests.integration.test_broker_traps import DELAYS, RETRY, Bench, Recorder, bench, webhook
from tests.waiting import until, within

SLOW = RetryPolicy([timedelta(seconds=30)], timedelta(hours=1))


def seen(recorder: Recorder) -> list[str]:
    return [getattr(delivery.message(), "delivery_id", "") for batch in recorder.batches for delivery in batch]


async def send(run: Bench, name: str, stage: Any = "reconcile") -> None:
    await run.publisher.publish(outgoing(webhook(name), stage, 99))


class AcksTwice(Consumer):
    """The second ack of a message is what the broker closes a channel for, with 406."""

    lost: AbstractChannel | None = None

    async def _process(self, batch: list[Taken]) -> None:
        first = batch[0]
        await super()._process(batch)
        if self.lost is None:
            self.lost = first.channel
            await first.channel.basic_ack(first.delivery_tag)


async def test_consuming_resumes_after_the_broker_closed_the_channel(vhost: Vhost) -> None:
    """T-RECONSUME, B3, P13: a 406, as an ack that comes too late brings it."""
    async with bench(vhost.url) as run:
        recorder = Recorder()
        consumer = AcksTwice(vhost.url, "syncaroo.reconcile", "reconcile", recorder, run.publisher, SLOW)
        run.run(consumer)
        await send(run, "first")
        lost = await until(lambda: consumer.lost)
        await until(lambda: lost.is_closed, what="the broker closes the channel")
        assert isinstance(lost.closing.exception(), ChannelPreconditionFailed)
        for name in ("second", "third"):
            await send(run, name)
            await until(lambda name=name: name in seen(recorder), what=name)


async def test_consuming_resumes_after_the_queue_was_deleted(vhost: Vhost, caplog: pytest.LogCaptureFixture) -> None:
    """T-RECONSUME, P13: the server cancels the consumer (as 4.3 does after an ack that is too late, B3)."""
    caplog.set_level("WARNING", logger="aiormq")  # whoever configured our logs in this process has silenced it
    async with bench(vhost.url) as run:
        recorder = Recorder()
        run.consume(recorder)
        await send(run, "first")
        await until(lambda: seen(recorder) == ["first"])
        await run.channel.queue_delete("syncaroo.reconcile")
        await until(lambda: "cancelled by the broker" in caplog.text)
        await declare(run.channel, work_queues(DELAYS))
        await send(run, "second")
        await until(lambda: seen(recorder) == ["first", "second"], timeout=15)


async def test_what_is_kept_while_the_store_is_away_comes_again_when_the_channel_is_lost_too(vhost: Vhost) -> None:
    """T-RECONSUME, P16: the broker gives it to the next consumer; ours goes on, and does not end with an error."""
    async with bench(vhost.url) as run:
        closed: list[str] = []

        class LosesItsChannel(Consumer):
            async def _hold(self, batch: Sequence[Taken], error: Unavailable, held: float) -> bool:
                if not closed:
                    closed.append("once")
                    await batch[0].channel.close()
                return await super()._hold(batch, error, held)

        recorder = Recorder(StoreUnavailable("store: away"))
        consuming = run.run(
            LosesItsChannel(vhost.url, "syncaroo.reconcile", "reconcile", recorder, run.publisher, SLOW)
        )
        await send(run, "kept")
        await until(lambda: seen(recorder) == ["kept", "kept"], timeout=15)
        assert recorder.batches[1][0].redelivered, "by way of the broker"
        assert not consuming.done()
        await until(lambda: _all_delivered(run))


@pytest.mark.parametrize("stage", ["fetch", "reconcile"])
async def test_a_bug_while_a_message_is_moved_gives_it_back(vhost: Vhost, stage: Stage) -> None:
    """P10: with and without delay queues; the consumer goes on, and somebody has the message again."""
    async with bench(vhost.url) as run:

        class Buggy:
            async def publish(self, message: Outgoing) -> None:
                raise ValueError("a bug")

        recorder = Recorder(RuntimeError("a bug"))
        buggy: Any = Buggy()
        consuming = run.run(Consumer(vhost.url, f"syncaroo.{stage}", stage, recorder, buggy, RETRY))
        await send(run, "moved", stage)
        await until(lambda: seen(recorder) == ["moved", "moved"], timeout=15)
        assert recorder.batches[1][0].redelivered
        assert not consuming.done()


async def test_what_is_tried_again_holds_nobody_up(vhost: Vhost) -> None:
    """T-POISON, P11, CONTRACT §5.7: fetch has no delay queue; a message waits 30 s here, its neighbours go on."""
    async with bench(vhost.url) as run:
        done: list[str] = []

        async def fail_for_one(deliveries: Sequence[Delivery]) -> None:
            names = [getattr(delivery.message(), "delivery_id", "") for delivery in deliveries]
            if "bad" in names:
                raise RuntimeError("a bug")
            done.extend(names)

        consumer = Consumer(vhost.url, "syncaroo.fetch", "fetch", fail_for_one, run.publisher, SLOW, batch=5)
        consuming = run.run(consumer)
        for name in ("bad", "good 1", "good 2"):
            await send(run, name, "fetch")
        await until(lambda: len(done) == 2, timeout=5)
        await send(run, "good 3", "fetch")
        await until(lambda: len(done) == 3, timeout=5)
        run.stop.set()
        async with within(5):
            await consuming
        (copy,) = [await (await run.channel.get_queue("syncaroo.fetch")).get(no_ack=True)]
        assert copy is not None
        assert (copy.routing_key, copy.headers["attempt"], copy.exchange) == ("fetch.retry", 1, WORK)


async def test_who_waits_for_the_store_waits_alone(vhost: Vhost) -> None:
    """T-POISON: a row that somebody holds: what else was in the batch goes on, though nothing behind wakes a worker."""
    async with bench(vhost.url) as run:
        done: list[str] = []
        batches: list[list[str]] = []
        go_on = asyncio.Event()

        async def wait_for_one(deliveries: Sequence[Delivery]) -> None:
            names = [getattr(delivery.message(), "delivery_id", "") for delivery in deliveries]
            batches.append(names)
            await go_on.wait()
            if "held" in names and len(done) < 4:
                raise StoreUnavailable("store: locked")
            done.extend(names)

        run.consume(wait_for_one, batch=5, concurrency=2)
        await send(run, "first")
        await until(lambda: len(batches) == 1)
        await send(run, "second")
        await until(lambda: len(batches) == 2)
        for name in ("held", "neighbour 1", "neighbour 2"):
            await send(run, name)
        await until(lambda: _all_delivered(run))
        go_on.set()
        await until(lambda: len(done) == 5)
        assert batches[2] == ["held", "neighbour 1", "neighbour 2"]
        assert done[-1] == "held"


async def test_where_one_works_what_fails_is_not_overtaken(vhost: Vhost) -> None:
    """Fetch numbers webhooks in the order of their arrival: one before an `unmapped` must not count as a later one."""
    async with bench(vhost.url) as run:
        done: list[str] = []
        go_on = asyncio.Event()
        failures: list[Exception] = [StoreUnavailable("store: away"), RuntimeError("a bug")]

        async def fail_twice(deliveries: Sequence[Delivery]) -> None:
            await go_on.wait()
            names = [getattr(delivery.message(), "delivery_id", "") for delivery in deliveries]
            if "changed" in names and failures:
                raise failures.pop(0)
            done.extend(names)

        run.consume(fail_twice, batch=2)
        await send(run, "first")
        await until(lambda: _all_delivered(run))
        for name in ("changed", "other", "unmapped"):
            await send(run, name)
        await until(lambda: _all_delivered(run))
        go_on.set()
        await until(lambda: len(done) == 4)
        assert done == ["first", "changed", "other", "unmapped"]


async def test_who_runs_alone_is_not_passed_by(vhost: Vhost) -> None:
    """Of two that work one is busy; the other takes a batch apart, and what came first goes first."""
    async with bench(vhost.url) as run:
        batches: list[list[str]] = []
        go_on = {"busy": asyncio.Event(), "first": asyncio.Event()}

        async def fail_together(deliveries: Sequence[Delivery]) -> None:
            batches.append([getattr(delivery.message(), "delivery_id", "") for delivery in deliveries])
            if wait := go_on.get(batches[-1][0]):
                await wait.wait()
            if batches[-1] == ["a", "b"]:
                raise StoreUnavailable("store: locked")

        run.consume(fail_together, batch=2, concurrency=2)
        await send(run, "busy")
        await until(lambda: batches == [["busy"]])
        await send(run, "first")
        await until(lambda: batches[1:] == [["first"]])
        for name in "abcdef":
            await send(run, name)
        await until(lambda: _all_delivered(run))
        go_on["first"].set()
        await until(lambda: sum(map(len, batches)) == 10)
        assert batches == [["busy"], ["first"], ["a", "b"], ["a"], ["b"], ["c", "d"], ["e", "f"]]
        go_on["busy"].set()


async def test_with_the_store_away_a_stop_leaves_what_waits_to_the_broker(vhost: Vhost) -> None:
    """Each of them would else be tried once more, for as long as the store takes to fail."""
    async with bench(vhost.url) as run:
        calls: list[int] = []
        trying = asyncio.Event()

        async def away(deliveries: Sequence[Delivery]) -> None:
            calls.append(len(deliveries))
            trying.set()
            await consumer._stopping.wait()
            raise StoreUnavailable("store: away")

        for number in range(30):
            await send(run, str(number))
        consumer = stage_consumer(vhost.url, "reconcile", away, run.publisher, SLOW, batch=5, concurrency=2)
        consuming = run.run(consumer)
        await trying.wait()
        await until(lambda: len(calls) == 2)
        run.stop.set()
        async with within(5):
            await consuming
        assert len(calls) == 2
        await until(lambda: _waits(run, 30), what="all to be there again")


async def _waits(run: Bench, count: int) -> bool:
    return await run.waiting("syncaroo.reconcile") == count


async def test_what_the_broker_has_given_to_somebody_else_is_not_sent_again(
    vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T-RECONSUME: kept for too long, on a channel that is lost meanwhile: there would be two of each."""
    monkeypatch.setattr("common.broker.consumer.HOLD_SECONDS", 0.0)
    async with bench(vhost.url) as run:
        recorder = Recorder()
        lost: list[str] = []

        class LosesItsChannel(Consumer):
            async def _handle(self, batch: list[Taken]) -> None:
                if not lost:
                    lost.append("once")
                    await batch[0].channel.close()
                    raise StoreUnavailable("store: away")
                await super()._handle(batch)

        run.run(LosesItsChannel(vhost.url, "syncaroo.reconcile", "reconcile", recorder, run.publisher, SLOW, batch=5))
        for number in range(5):
            await send(run, str(number))
        await until(lambda: len(set(seen(recorder))) == 5)
        await until(lambda: _waits(run, 0))
        assert sorted(seen(recorder)) == [str(number) for number in range(5)]


async def test_what_is_done_of_a_batch_is_acked_and_not_handed_on_again(vhost: Vhost) -> None:
    """T-POISON: a handler may do part of a batch at a time; the rest fails, and is taken apart."""
    async with bench(vhost.url) as run:
        calls: list[list[str]] = []
        go_on = asyncio.Event()

        async def one_at_a_time(deliveries: Sequence[Delivery]) -> int:
            await go_on.wait()
            calls.append([getattr(delivery.message(), "delivery_id", "") for delivery in deliveries])
            if calls[-1][0] == "b" and len(calls[-1]) > 1:
                raise RuntimeError("a bug")
            return 1

        run.consume(one_at_a_time, batch=3)
        await send(run, "first")
        await until(lambda: _all_delivered(run))
        for name in "abc":
            await send(run, name)
        await until(lambda: _all_delivered(run))
        go_on.set()
        await until(lambda: len(calls) == 5)
        assert calls == [["first"], ["a", "b", "c"], ["b", "c"], ["b"], ["c"]]
    async with bench(vhost.url) as again:
        assert await again.waiting("syncaroo.reconcile") == 0, "all were acked"


async def test_what_has_been_kept_for_too_long_goes_to_the_end_of_its_queue(
    vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far below the broker's limit for an ack; counted from its arrival, also for what waited behind another."""
    monkeypatch.setattr("common.broker.consumer.HOLD_SECONDS", 0.0)
    async with bench(vhost.url) as run:
        recorder = Recorder(*[StoreUnavailable("away")] * 3)
        run.consume(recorder)
        await send(run, "kept")
        await until(lambda: len(recorder.batches) == 4)
        assert [batch[0].redelivered for batch in recorder.batches] == [False] * 4, "each time a copy"
        assert recorder.attempts == [0] * 4, "no try of its own is counted"


async def test_what_was_delivered_before_runs_alone(vhost: Vhost) -> None:
    """T-POISON-CRASH: who killed its process once shall not take innocents along the second time."""
    async with bench(vhost.url) as run:
        batches: list[list[str]] = []
        go_on = asyncio.Event()

        async def wait_once(deliveries: Sequence[Delivery]) -> None:
            batches.append([getattr(delivery.message(), "delivery_id", "") for delivery in deliveries])
            await go_on.wait()

        await send(run, "crasher")
        crasher = await (await run.channel.get_queue("syncaroo.reconcile")).get()
        assert crasher is not None
        run.consume(wait_once, batch=10)
        await send(run, "first")
        await until(lambda: batches == [["first"]])
        for name in ("a", "b"):
            await send(run, name)
        await until(lambda: _all_delivered(run))
        await crasher.reject(requeue=True)
        await until(lambda: _all_delivered(run))
        go_on.set()
        await until(lambda: sum(map(len, batches)) == 4)
        assert ["crasher"] in batches


async def test_a_batch_has_its_limit_in_bytes_too(vhost: Vhost) -> None:
    """What is made of a body takes many times its place: large ones are handled one by one."""
    async with bench(vhost.url) as run:
        batches: list[list[int]] = []
        go_on = asyncio.Event()

        async def wait_once(deliveries: Sequence[Delivery]) -> None:
            batches.append([len(delivery.body) for delivery in deliveries])
            await go_on.wait()

        run.consume(wait_once, batch=10)
        large, small = BATCH_BYTES * 2 // 3, 100
        await run.publisher.publish(Outgoing("reconcile.1", b"0"))
        await until(lambda: batches == [[1]])
        for size in (small, small, large, large, small, large):
            await run.publisher.publish(Outgoing("reconcile.1", bytes(size)))
        await until(lambda: _all_delivered(run))
        go_on.set()
        await until(lambda: sum(map(len, batches)) == 7)
        assert batches[1:] == [[small, small, large], [large, small], [large]]


async def _all_delivered(run: Bench) -> bool:
    return await run.waiting("syncaroo.reconcile") == 0

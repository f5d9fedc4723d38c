"""common.broker.broadcast on a broker of its own: what a subscriber does is no reason to wait, and nothing counts as
published that is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from msgspec.structs import replace

from common.broker import connection
from common.broker.broadcast import LINE_LIMIT, Broadcast, Heard
from common.broker.direct import direct
from common.broker.outgoing import Outgoing, Unroutable
from common.broker.topology import EVENT_LOG, EVENTS, declare, event_queues
from common.errors import BrokerUnavailable
from ops.broker import PrivateNode, Vhost
from ops.prove.proxy import Mode, Proxy
from tests.waiting import until, within

QUORUM: dict[str, Any] = {"x-queue-type": "quorum"}


def event(number: int) -> Outgoing:
    return Outgoing("listing.changed", b"{}", exchange=EVENTS, message_id=f"event-{number}")


@asynccontextmanager
async def opened(url: str, *, log: bool = True) -> AsyncIterator[tuple[Broadcast, AbstractChannel]]:
    """A broadcast, and a channel beside it, with the topology; without the log, if so wanted."""
    beside = await aio_pika.connect(url)
    broadcast = Broadcast(url, "test")
    async with beside:
        channel = await beside.channel()
        await declare(channel, event_queues() if log else [])
        broadcast.start()
        try:
            if log:
                await until(lambda: _publishes(broadcast))
            yield broadcast, channel
        finally:
            await broadcast.close()


async def _publishes(broadcast: Broadcast) -> bool:
    try:
        return await broadcast.publish(event(0)) is Heard.BY_ALL
    except BrokerUnavailable:
        return False


async def subscribe(channel: AbstractChannel, name: str, **arguments: int | str) -> None:
    named = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    queue = await channel.declare_queue(name, durable=True, arguments=QUORUM | named)
    await queue.bind(EVENTS, "#")


async def waiting(channel: AbstractChannel, name: str) -> int:
    declared = await channel.declare_queue(name, passive=True)
    return declared.declaration_result.message_count or 0


async def publish(broadcast: Broadcast, count: int) -> set[Heard]:
    """So many, as many at once as may be; again, as a relay does, when nobody knows who has one."""
    free = asyncio.Semaphore(LINE_LIMIT // 2)

    async def one(number: int) -> Heard:
        async with free:
            while True:
                with suppress(BrokerUnavailable):
                    return await broadcast.publish(event(number))

    return set(await asyncio.gather(*map(one, range(count))))


async def test_with_no_subscriber_at_all_events_leave(vhost: Vhost) -> None:
    """T-OUT-NOSUB: the log is always there."""
    async with opened(vhost.url) as (broadcast, _):
        assert await publish(broadcast, 20) == {Heard.BY_ALL}


async def test_what_has_not_left_this_process_is_not_passed_by(vhost: Vhost, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the process is busy the broker may answer a later call and know nothing of the event."""
    async with opened(vhost.url) as (broadcast, channel):
        await subscribe(channel, "healthy")
        broadcast._in_trouble, broadcast._find_out_at = True, float("inf")  # it waits for a tenth of a second only
        line = await broadcast._usable_line()
        line.channel._writing.cancel()  # what is handed in waits for its turn
        has_left, said = line.channel.has_left, list[bool]()

        def told(message_id: str) -> bool:
            said.append(has_left(message_id))
            return said[-1]

        monkeypatch.setattr(line.channel, "has_left", told)
        publishing = asyncio.create_task(broadcast.publish(event(1)))
        await until(lambda: len(said) > 1 or publishing.done(), what="it does not leave, and is waited for again")
        assert (publishing.done(), any(said)) == (False, False)
        line.channel._writing = asyncio.create_task(line.channel._write())
        await publishing  # by all, or late by the log alone: the healthy queue was given it
        await until(lambda: _has(channel, "healthy", 1))


async def test_a_full_queue_is_passed_by(vhost: Vhost) -> None:
    """B7: its nack is for all, though all others have the event."""
    async with opened(vhost.url) as (broadcast, channel):
        await subscribe(channel, "healthy")
        await subscribe(channel, "full", max_length=1, overflow="reject-publish")
        await publish(broadcast, 20)
        assert await publish(broadcast, 50) == {Heard.BY_THE_LOG_ALONE}
        await until(lambda: _has(channel, "healthy", 70))
        await (await channel.get_queue("full")).delete(if_unused=False, if_empty=False)
        assert await publish(broadcast, 50) == {Heard.BY_ALL}


async def _has(channel: AbstractChannel, name: str, count: int) -> bool:
    return await waiting(channel, name) >= count


async def test_a_queue_without_a_leader_does_not_stop_the_others(
    private_node: PrivateNode, private_vhost: Vhost
) -> None:
    """Three times as many as make RabbitMQ stop reading from a connection."""
    async with opened(private_vhost.url) as (broadcast, channel):
        await subscribe(channel, "healthy")
        await subscribe(channel, "leaderless")
        name = f"'{private_vhost.name}_leaderless'"
        assert "ok" in private_node.ctl("eval", f"ra:stop_server(quorum_queues, {{{name}, node()}}).")
        assert await publish(broadcast, 1200) == {Heard.BY_THE_LOG_ALONE}
        await until(lambda: _has(channel, "healthy", 1200))
    assert await ids_in(private_vhost.url, "healthy") >= {f"event-{number}" for number in range(1200)}


async def test_what_nobody_confirms_does_not_count(private_node: PrivateNode, private_vhost: Vhost) -> None:
    """T-OUT-CONFIRM, P5, P7, B6: a frozen broker, one that is out of memory, one that was killed; each is over, and
    goes on. What was confirmed is there."""
    confirmed: set[str] = set()
    numbers = count(1)

    async def publishes() -> bool:
        number = next(numbers)
        with suppress(BrokerUnavailable):
            await broadcast.publish(event(number))
            confirmed.add(f"event-{number}")
            return True
        return False

    async def fails() -> bool:
        return not await publishes()

    async with opened(private_vhost.url) as (broadcast, channel):
        await subscribe(channel, "healthy")
        private_node.settle()
        private_node.freeze()
        assert await fails()
        private_node.resume()
        await until(publishes)
        private_node.starve()
        await until(fails, what="the alarm to reach the connection")
        private_node.feed()
        await until(publishes, 20)
        private_node.kill()
        assert await fails()
        private_node.start()
        await until(publishes, 20)
    assert len(confirmed) >= 3
    assert confirmed <= await ids_in(private_vhost.url, "healthy")


async def ids_in(url: str, name: str) -> set[str]:
    """Of all messages in a queue; they stay there."""
    async with await aio_pika.connect(url) as beside:
        queue = await (await beside.channel()).get_queue(name)
        found: set[str] = set()
        while message := await queue.get(fail=False):
            found.add(str(message.message_id))
        return found


async def test_without_any_queue_nothing_is_published(vhost: Vhost) -> None:
    """`gateway setup` has not run: the event waits."""
    async with opened(vhost.url, log=False) as (broadcast, _):

        async def is_refused() -> bool:
            try:
                await broadcast.publish(event(1))
            except Unroutable:
                return True
            except BrokerUnavailable:
                return False  # not connected yet
            pytest.fail("published to nobody")  # an AssertionError would be asked again

        await until(is_refused)


async def test_the_log_gets_everything_and_alone_what_others_refuse(vhost: Vhost) -> None:
    async with opened(vhost.url) as (broadcast, channel):
        await subscribe(channel, "full", max_length=1, overflow="reject-publish")
        await publish(broadcast, 30)
        await channel.set_qos(prefetch_count=100)
        heard: set[str | None] = set()

        async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            heard.add(message.message_id)
            assert (message.routing_key, message.delivery_mode) == ("listing.changed", 2)
            await message.ack()

        log = await channel.get_queue(EVENT_LOG)
        await log.consume(take, arguments={"x-stream-offset": "first"})
        await until(lambda: {f"event-{number}" for number in range(30)} <= heard)


async def test_a_large_event_gets_through_a_slow_link(vhost: Vhost, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what waits behind it does not give the connection up in the middle of it."""
    monkeypatch.setattr("common.broker.outgoing.SLOWEST_LINK", 50_000)  # slower than a busy machine's proxy
    async with Proxy.before(vhost.url) as proxy, opened(proxy.url(vhost.url)) as (broadcast, _):
        proxy.delay = 0.08  # for 64 KiB at most
        proxy.mode = Mode.DELAY
        large = replace(event(1), body=b"x" * (6 * 2**20))
        heard = await asyncio.gather(broadcast.publish(large), broadcast.publish(event(2)))
        assert set(heard) == {Heard.BY_ALL}


async def test_one_attempt_to_connect_serves_all_that_wait(vhost: Vhost) -> None:
    """A broker that refuses us is not stormed."""
    async with Proxy.before(vhost.url) as proxy:
        proxy.mode = Mode.RESET
        broadcast = Broadcast(proxy.url(vhost.url), "test")
        results = await asyncio.gather(*(broadcast.publish(event(n)) for n in range(100)), return_exceptions=True)
        assert {type(one) for one in results} == {BrokerUnavailable}
        assert proxy.accepted < 10
        await broadcast.close()


async def test_a_broker_that_reads_nothing_delays_no_end(
    private_node: PrivateNode, private_vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under an alarm the socket's buffer stays full, and the library would wait for it for as long as that lasts."""
    monkeypatch.setattr("common.broker.broadcast.sending_seconds", lambda _: 0)
    large = [replace(event(number), body=b"x" * 200_000) for number in range(LINE_LIMIT // 2)]
    async with opened(private_vhost.url) as (broadcast, _):
        private_node.starve()
        try:
            await asyncio.gather(*map(broadcast.publish, large), return_exceptions=True)
            assert broadcast._retired, "it was given up"
            async with within(30):
                await broadcast.close()
            assert connection._unclosed, "it was not closed"
        finally:
            private_node.feed()
        await until(lambda: not connection._unclosed, 60, what="the connections to be closed")


async def test_a_lost_connection_is_not_called_a_full_queue(vhost: Vhost) -> None:
    """Of the way into one queue: what meets a lost connection is tried again, and counts no attempt."""
    async with await aio_pika.connect(vhost.url) as beside, Proxy.before(vhost.url) as proxy:
        await (await beside.channel()).declare_queue("team")
        async with direct(proxy.url(vhost.url), "team") as way:
            assert await way.send([event(1)]) == 1
            proxy.mode = Mode.RESET
            with pytest.raises(BrokerUnavailable):
                await way.send([event(2)])

"""Many messages at once on one channel, on a real broker: each ends as it would have ended alone. What happens when the
broker is frozen, killed or out of memory: test_broker_traps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.abc import ChannelFrame
from msgspec.structs import replace

from common.broker import channel as module
from common.broker.channel import PublishChannel
from common.broker.outgoing import Outgoing, PublishRefused, Unroutable
from common.broker.publisher import Publisher
from common.errors import BrokerUnavailable
from ops.broker import Vhost
from ops.prove.proxy import Mode, Proxy
from tests.waiting import until

QUORUM: dict[str, Any] = {"x-queue-type": "quorum"}
SECONDS = 20.0


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[tuple[PublishChannel, AbstractChannel]]:
    """A channel to publish on, and one of another connection beside it, with a queue `there`."""
    async with opened_beside(url) as channel, await aio_pika.connect(url) as connection:
        yield await PublishChannel.open(connection), channel


@asynccontextmanager
async def opened_beside(url: str) -> AsyncIterator[AbstractChannel]:
    """A channel of the library's, with the queue `there`."""
    async with await aio_pika.connect(url) as beside:
        channel = await beside.channel()
        await channel.declare_queue("there", durable=True, arguments=QUORUM)
        yield channel


def to(queue: str, body: bytes = b"{}", **properties: Any) -> Outgoing:
    return Outgoing(queue, body, "", **properties)


async def waiting(channel: AbstractChannel, name: str) -> int:
    return (await channel.declare_queue(name, passive=True)).declaration_result.message_count or 0


async def outcomes(publishing: PublishChannel, *messages: Outgoing, seconds: float = SECONDS) -> list[Any]:
    """How each ends, when all are handed in at once: None, or the kind of the error."""
    found = await asyncio.gather(*(publishing.publish(one, seconds) for one in messages), return_exceptions=True)
    return [None if one is None else type(one) for one in found]


async def test_whatever_is_confirmed_is_there_and_nothing_else(vhost: Vhost) -> None:
    """T-BRK-NACK, T-BRK-UNROUTABLE: nothing is mixed up among those that come back, are refused, and are taken."""
    async with opened(vhost.url) as (publishing, beside):
        await beside.declare_queue(
            "full", durable=True, arguments=QUORUM | {"x-max-length": 1, "x-overflow": "reject-publish"}
        )
        await until(lambda: _refuses(publishing))
        kinds = [("there", None), ("nowhere", Unroutable), ("full", PublishRefused)]
        sent = [kinds[number % 3] for number in range(900)]
        found = await outcomes(publishing, *(to(name, str(number).encode()) for number, (name, _) in enumerate(sent)))
        assert found == [expected for _, expected in sent]
        await until(lambda: _has(beside, 300))
        queue = await beside.get_queue("there")
        bodies = [int(message.body) for _ in range(300) if (message := await queue.get(no_ack=True))]
        assert bodies == list(range(0, 900, 3)), "in the order in which they were handed in"


async def _refuses(publishing: PublishChannel) -> bool:
    """A quorum queue takes a few more than it should before it notices."""
    return await outcomes(publishing, to("full")) == [PublishRefused]


async def _has(channel: AbstractChannel, count: int) -> bool:
    return await waiting(channel, "there") == count


@pytest.mark.parametrize("first_is_lost", [True, False])
async def test_of_two_with_one_id_the_right_one_comes_back(vhost: Vhost, first_is_lost: bool) -> None:
    """T-BRK-MSGID, P3: the library takes the one for the other, and the lost one counts as published."""
    async with opened(vhost.url) as (publishing, beside):
        await beside.declare_exchange("unbound", durable=True)
        for lost in (to("nowhere", message_id="same"), replace(to("there", message_id="same"), exchange="unbound")):
            pair, expected = [lost, to("there", message_id="same")], [Unroutable, None]
            if not first_is_lost:
                pair, expected = pair[::-1], expected[::-1]
            assert await outcomes(publishing, *pair) == expected


async def test_large_bodies_are_whole(vhost: Vhost) -> None:
    async with opened(vhost.url) as (publishing, beside):
        bodies = [bytes([number]) * (number * 100_000) for number in range(1, 6)]
        assert await outcomes(publishing, *(to("there", body) for body in bodies)) == [None] * 5
        queue = await beside.get_queue("there")
        got = [(await queue.get(no_ack=True)).body for _ in bodies]
        assert got == bodies


async def test_who_is_cancelled_takes_nobody_with_it(vhost: Vhost) -> None:
    async with opened(vhost.url) as (publishing, _):
        tasks = [asyncio.create_task(publishing.publish(to("there"), SECONDS)) for _ in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in found] == [asyncio.CancelledError, type(None)] * 10
        assert await outcomes(publishing, to("there")) == [None]
        assert not publishing._waiting


async def test_pokes_and_what_cannot_be_encoded_put_nothing_out_of_step(vhost: Vhost) -> None:
    """The broker counts what it gets, and confirms it by that count."""
    async with opened(vhost.url) as (publishing, beside):
        for number in range(50):
            publishing.poke(to("nowhere"))
            publishing.poke(to("there"))
            with pytest.raises(TypeError):
                await publishing.publish(to("there", headers={"odd": object()}), SECONDS)
            name, expected = [("there", None), ("nowhere", Unroutable)][number % 2]
            assert await outcomes(publishing, to(name), to("there")) == [expected, None]
        assert await waiting(beside, "there") >= 75


async def test_what_nobody_waits_for_any_more_does_not_leave(vhost: Vhost) -> None:
    """After an alarm, or a broker that was frozen, only what is still wanted goes out."""
    async with opened(vhost.url) as (publishing, beside):
        publishing._writing.cancel()
        assert await outcomes(publishing, *[to("there")] * 20, seconds=0.1) == [BrokerUnavailable] * 20
        publishing._writing = asyncio.create_task(publishing._write())
        assert await outcomes(publishing, to("there")) == [None]
        assert await waiting(beside, "there") == 1


async def test_a_message_that_closes_the_channel_costs_no_connection(vhost: Vhost) -> None:
    """Others are published all the time: nothing may follow our answer to the close. Then there is a new channel."""
    async with opened(vhost.url):
        publisher = Publisher(vhost.url, "test")
        publisher.start()
        await publisher.wait_ready()
        connection = publisher._connection
        assert connection is not None
        lost: list[object] = []
        connection.close_callbacks.add(lambda *given: lost.append(given))
        over = False

        async def in_every_turn() -> None:
            while not over:
                if publisher._channel is not None:
                    publisher._channel.poke(to("there"))
                await asyncio.sleep(0)

        publishing = asyncio.create_task(in_every_turn())
        for _ in range(5):
            with pytest.raises(BrokerUnavailable):
                await publisher.publish(Outgoing("key", b"", "missing"))
            await until(lambda: publisher.ready, 1, patience=1)
        over = True
        await publishing
        await publisher.publish(to("there"))
        assert not lost
        await publisher.close()


async def test_an_error_without_a_kind_while_a_channel_opens_is_not_the_end(
    vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library throws a bare `Exception` when a connection ends in good order while somebody asks something."""
    real, tries = PublishChannel.open, count()

    async def opens(connection: AbstractConnection) -> PublishChannel:
        if next(tries) < 2:
            raise Exception  # the very thing
        return await real(connection)

    monkeypatch.setattr(PublishChannel, "open", opens)
    async with opened_beside(vhost.url):
        publisher = Publisher(vhost.url, "test")
        publisher.start()
        await until(lambda: publisher.ready)
        await publisher.publish(to("there"))
        await publisher.close()


async def test_a_missing_exchange_is_told_and_ends_the_channel(vhost: Vhost) -> None:
    """T-BRK-UNROUTABLE."""
    async with opened(vhost.url) as (publishing, _):
        with pytest.raises(BrokerUnavailable, match=r"no exchange 'missing'.*run `gateway setup`"):
            await publishing.publish(Outgoing("key", b"", "missing"), SECONDS)
        assert publishing.closed.is_set()
        with pytest.raises(BrokerUnavailable, match="no exchange"):
            await publishing.publish(to("there"), SECONDS)


async def test_a_confirm_that_never_comes_is_waited_for_no_longer_than_asked(vhost: Vhost) -> None:
    """T-BRK-LOSTCONFIRM."""
    async with Proxy.before(vhost.url) as proxy, opened(vhost.url) as (_, beside):
        async with await aio_pika.connect(proxy.url(vhost.url)) as connection:
            publishing = await PublishChannel.open(connection)
            proxy.mode = Mode.SWALLOW_ANSWERS
            loop = asyncio.get_running_loop()
            began = loop.time()
            assert await outcomes(publishing, *[to("there")] * 10, seconds=0.5) == [BrokerUnavailable] * 10
            assert loop.time() - began >= 0.5
            await until(lambda: _has(beside, 10), what="them to be stored all the same: the outcome was unknown")
            proxy.mode = Mode.PASS
        assert await until(publishing.closed.is_set)


async def test_all_that_there_is_room_for_leave_together(vhost: Vhost, monkeypatch: pytest.MonkeyPatch) -> None:
    """P7: when one at a time is let in, each waits for a turn of the loop, and under load the last for seconds."""
    monkeypatch.setattr(module, "UNSENT_BYTES", 20_000)
    async with opened(vhost.url) as (publishing, beside):
        writes: list[int] = []
        put = publishing._channel.write_queue.put

        async def counted(frames: ChannelFrame) -> None:
            writes.append(len(frames.payload))
            await put(frames)

        monkeypatch.setattr(publishing._channel.write_queue, "put", counted)
        assert await outcomes(publishing, *[to("there", b"x" * 1000)] * 300) == [None] * 300
        assert len(writes) < 30, writes
        assert await _has(beside, 300)


async def test_what_waits_for_room_fails_by_itself_when_it_cannot_be_encoded(
    vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNSENT_BYTES", 10)
    async with opened(vhost.url) as (publishing, _):
        bad = Outgoing("there", b"{}", headers={"x" * 256: "y"})
        assert await outcomes(publishing, to("there"), bad, to("there")) == [None, ValueError, None]


async def test_who_has_given_up_makes_room(vhost: Vhost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing leaves meanwhile: what is not sent is no longer wanted, and the next one is let in."""
    monkeypatch.setattr(module, "UNSENT_BYTES", 10)
    async with opened(vhost.url) as (publishing, _):
        publishing._writing.cancel()
        first = asyncio.create_task(publishing.publish(to("there"), 0.05))
        second = asyncio.create_task(publishing.publish(to("there"), SECONDS))
        with pytest.raises(BrokerUnavailable):
            await first
        await until(lambda: publishing._unsent and not publishing._outside)
        second.cancel()


async def test_what_the_socket_does_not_take_is_bounded(vhost: Vhost, monkeypatch: pytest.MonkeyPatch) -> None:
    """T-BRK-FREEZE, P7: whoever comes when too much waits already is not encoded, and fails in time."""
    monkeypatch.setattr(module, "UNSENT_BYTES", 2**20)
    async with (
        Proxy.before(vhost.url) as proxy,
        opened(vhost.url),
        await aio_pika.connect(proxy.url(vhost.url)) as connection,
    ):
        publishing = await PublishChannel.open(connection)
        proxy.mode = Mode.BLACKHOLE
        large = [to("there", b"x" * 2**20) for _ in range(64)]
        for one in large:
            assert await outcomes(publishing, one, seconds=0.05) == [BrokerUnavailable]
            assert publishing._unsent_bytes + publishing._leaving_bytes <= 3 * 2**20
        proxy.mode = Mode.RESET

"""Deliveries in the stream from the broker, cut anywhere; and which acks leave for a batch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from aiormq.abc import AbstractChannel
from aiormq.exceptions import InvalidFrameError
from pamqp import commands, frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from common.broker.deliveries import ALIVE, DeliveryStream, Taken, Unsettled, _acks, ack

QOS = frame.marshal(commands.Basic.QosOk(), 1)
MOMENT = datetime(2026, 11, 29, 12, tzinfo=UTC)
EVERYTHING = dict.fromkeys(("content_type", "content_encoding", "correlation_id", "reply_to", "message_id"), "text") | {
    "headers": {"attempt": 1},
    "delivery_mode": 2,
    "priority": 1,
    "expiration": "1",
    "timestamp": MOMENT,
    "message_type": "t",
    "user_id": "u",
    "app_id": "a",
}


class Channel:
    """Known by its number alone."""

    def __init__(self, number: int) -> None:
        self.number = number


def stream_to(taken: list[Taken], *numbers: int) -> DeliveryStream:
    stream = DeliveryStream(taken.append, asyncio.get_running_loop())
    stream.channels = {number: cast("AbstractChannel", Channel(number)) for number in numbers or (1,)}
    return stream


def delivery(
    tag: int, *bodies: bytes, channel: int = 1, redelivered: bool = False, key: str = "fetch.1", **properties: Any
) -> list[bytes]:
    deliver = commands.Basic.Deliver("consumer", tag, redelivered, "syncaroo.work", key)
    header = ContentHeader(0, sum(map(len, bodies)), commands.Basic.Properties(**properties))
    frames: list[Any] = [deliver, header, *map(ContentBody, bodies)]
    return [frame.marshal(one, channel) for one in frames]


def passed(stream: DeliveryStream) -> bytes:
    """What the library gets to see."""
    return bytes(stream._buffer)  # type: ignore[attr-defined]  # reading would wait


def told(taken: Sequence[Taken]) -> list[tuple[int, bytes]]:
    return [(one.delivery_tag, one.body) for one in taken]


@pytest.mark.parametrize("size", [1, 2, 7, 50, 10_000])
async def test_frames_are_told_apart_wherever_the_bytes_are_cut(size: int) -> None:
    taken: list[Taken] = []
    stream = stream_to(taken)
    stream._time = lambda: 0.0
    data = b"".join([QOS, *delivery(1, b"one"), *delivery(2), QOS, *delivery(3, b"a" * 500, b"b")])
    for at in range(0, len(data), size):
        stream.feed_data(data[at : at + size])
    assert told(taken) == [(1, b"one"), (2, b""), (3, b"a" * 500 + b"b")]
    assert passed(stream) == QOS + QOS
    assert list(taken[0].unsettled) == [1, 2, 3]


async def test_channels_may_interleave() -> None:
    taken: list[Taken] = []
    stream = stream_to(taken, 1, 2)
    first, second = delivery(1, b"first"), delivery(1, b"second", channel=2, redelivered=True, key="x")
    stream.feed_data(b"".join(part for both in zip(first, second, strict=True) for part in both))
    assert [(one.body, one.channel.number, one.redelivered, one.routing_key) for one in taken] == [
        (b"first", 1, False, "fetch.1"),
        (b"second", 2, True, "x"),
    ]
    assert [list(one.unsettled) for one in taken] == [[1], [1]]


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"headers": {"schema": "WebhookReceived", "attempt": 3}},
        {"headers": {"a": "b" * 1000, "inner": {"list": [1, None, True]}}, "timestamp": MOMENT},
        {"timestamp": MOMENT},
        EVERYTHING,
        {"content_encoding": "utf-8", "priority": 1, "expiration": "1", "timestamp": MOMENT},
    ],
    ids=lambda properties: ",".join(properties) or "none",
)
async def test_headers_and_timestamp_among_other_properties(properties: dict[str, Any]) -> None:
    taken: list[Taken] = []
    stream_to(taken).feed_data(b"".join(delivery(1, b"{}", **properties)))
    assert [(one.headers, one.timestamp) for one in taken] == [
        (properties.get("headers", {}), properties.get("timestamp"))
    ]


async def test_a_content_that_is_no_delivery_is_the_librarys() -> None:
    taken: list[Taken] = []
    stream = stream_to(taken)
    got = frame.marshal(commands.Basic.GetOk(1, False, "", "key", 0), 1) + b"".join(delivery(1, b"got")[1:])
    stream.feed_data(got)
    assert (passed(stream), taken) == (got, [])


async def test_what_comes_on_a_closed_channel_is_dropped() -> None:
    taken: list[Taken] = []
    stream = stream_to(taken, 2)
    stream.feed_data(b"".join([*delivery(1, b"late"), *delivery(7, b"one", channel=2)]))
    assert told(taken) == [(7, b"one")]


async def test_before_there_is_a_connection_nothing_is_said_for_the_broker() -> None:
    stream = stream_to([])
    stream.channels = {}
    for at in range(len(QOS)):
        stream.feed_data(QOS[at : at + 1])
    assert passed(stream) == QOS


async def test_the_library_sees_that_the_broker_is_alive_while_it_only_delivers() -> None:
    """Without it a busy connection would be closed after 33 s; the broker sends heartbeats only when it is idle."""
    taken: list[Taken] = []
    stream, now = stream_to(taken), 100.0
    stream._time = lambda: now
    for tag in range(1, 4):
        stream.feed_data(b"".join(delivery(tag, b"x")))
    assert passed(stream) == ALIVE == frame.marshal(Heartbeat(), 0)
    now += 2
    stream.feed_data(QOS)
    stream.feed_data(b"".join(delivery(4, b"x")))
    assert passed(stream) == ALIVE + QOS


@pytest.mark.parametrize("data", [b"AMQP\x00\x00\x09\x01", QOS[:-1] + b"!"], ids=["another protocol", "no end"])
async def test_what_is_no_frame_is_the_librarys_with_all_that_follows(data: bytes) -> None:
    taken: list[Taken] = []
    stream = stream_to(taken)
    stream.feed_data(QOS + data)
    stream.feed_data(b"more")
    assert (passed(stream), taken) == (QOS + data + b"more", [])


async def test_headers_that_nobody_can_read_end_the_connection_as_the_library_would() -> None:
    taken: list[Taken] = []
    stream = stream_to(taken)
    method, header, body = delivery(1, b"x", headers={"name": "value"})
    stream.feed_data(method + header.replace(b"name", b"\xff\xff\xff\xff") + body)
    assert not taken
    with pytest.raises(InvalidFrameError):
        await stream.readexactly(1)


async def test_the_end_within_a_frame_is_told() -> None:
    stream = stream_to([])
    stream.feed_data(QOS + QOS[:5])
    stream.feed_eof()
    assert await stream.read() == QOS + QOS[:5]


def batch_of(in_hand: Sequence[int], *tags: int) -> list[Taken]:
    unsettled = Unsettled()
    unsettled.update(dict.fromkeys(in_hand))
    channel = cast("AbstractChannel", Channel(3))
    return [Taken(channel, unsettled, tag, redelivered=False, routing_key="") for tag in tags]


@pytest.mark.parametrize(
    ("in_hand", "batch", "single", "through", "left"),
    [
        ([1, 2, 3, 4], [1, 2, 3], [], 3, [4]),
        ([1, 2, 3, 4], [2, 3], [2, 3], None, [1, 4]),
        ([1, 2, 3, 4], [4, 1, 2], [4], 2, [3]),
        ([5], [5], [], 5, []),
        ([7, 9], [9], [9], None, [7]),
    ],
)
def test_only_what_has_nothing_older_in_hand_is_acked_in_one_go(
    in_hand: list[int], batch: list[int], single: list[int], through: int | None, left: list[int]
) -> None:
    messages = batch_of(in_hand, *batch)
    acks = [commands.Basic.Ack(tag, False) for tag in single]
    if through is not None:
        acks.append(commands.Basic.Ack(through, True))
    assert _acks(3, messages) == b"".join(frame.marshal(one, 3) for one in acks)
    assert list(messages[0].unsettled) == left


async def test_what_could_not_be_given_back_is_never_acked_with_others() -> None:
    class Broken(Channel):
        async def basic_reject(self, tag: int, *, requeue: bool) -> None:
            raise ConnectionError(tag, requeue)

    first, second = batch_of([1, 2], 1, 2)
    first.channel = cast("AbstractChannel", Broken(3))
    with pytest.raises(ConnectionError):
        await first.reject(requeue=True)
    assert _acks(3, [second]) == frame.marshal(commands.Basic.Ack(2, False), 3)


async def test_acks_leave_in_the_order_in_which_they_are_reckoned() -> None:
    """An ack of a tag that an earlier one has taken along would cost the channel."""

    class Writing(Channel):
        def __init__(self, number: int) -> None:
            super().__init__(number)
            self.is_closed = False
            self.connection = self
            self.write_queue: asyncio.Queue[Any] = asyncio.Queue(maxsize=1)
            self.__dict__["_Channel__close_event"] = asyncio.Event()

        def create_future(self) -> asyncio.Future[None]:
            return asyncio.get_running_loop().create_future()

    channel = Writing(3)
    messages = batch_of([1, 2, 3], 1, 2, 3)
    for message in messages:
        message.channel = cast("AbstractChannel", channel)
    channel.write_queue.put_nowait(None)
    acking = [asyncio.create_task(ack([message])) for message in messages[:2]]
    await asyncio.sleep(0)
    channel.write_queue.get_nowait()
    acking.append(asyncio.create_task(ack(messages[2:])))
    left = [(await channel.write_queue.get()).payload for _ in messages]
    assert left == [frame.marshal(commands.Basic.Ack(tag, True), 3) for tag in (1, 2, 3)]
    for one in acking:
        one.cancel()
    await asyncio.gather(*acking, return_exceptions=True)


async def test_the_end_is_told_twice_and_heard_once() -> None:
    """By who ends the connection, and by the transport when it is gone: an error there would leave it half open."""
    for rest in (b"", QOS[:5]):
        stream = stream_to([])
        stream.feed_data(QOS + rest)
        stream.feed_eof()
        stream.feed_eof()
        assert (await stream.read(), stream.at_eof()) == (QOS + rest, True)


async def test_headers_that_nobody_can_read_are_none() -> None:
    """T-AMQP-ODD: nested so deep that reading them would end the connection, again and again: the message is parked."""
    taken: list[Taken] = []
    table = b""
    for _ in range(5000):
        table = b"\x01aF" + len(table).to_bytes(4, "big") + table
    properties = len(table).to_bytes(4, "big") + table
    header = b"\x00\x3c\x00\x00" + (1).to_bytes(8, "big") + (1 << 13).to_bytes(2, "big") + properties
    framed = b"\x02\x00\x01" + len(header).to_bytes(4, "big") + header + b"\xce"
    method, _, body = delivery(1, b"x")
    stream_to(taken).feed_data(method + framed + body)
    assert [(one.body, dict(one.headers)) for one in taken] == [(b"x", {})]

"""Messages whose properties and headers are odd, on a real broker: nothing is lost, parked or delayed over them."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from typing import Any

import aio_pika
import pamqp.encode
import pika
import pytest

from common.broker.consumer import Delivery, stage_consumer
from common.broker.outgoing import outgoing
from common.errors import Permanent
from ops.broker import Vhost
from tests.integration.test_broker_traps import RETRY, bench, webhook
from tests.waiting import until

QUEUE = "syncaroo.fetch"


def send(url: str, properties: dict[str, Any]) -> None:
    """As another client may."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    connection.channel().basic_publish("", QUEUE, b"{}", pika.BasicProperties(**properties))
    connection.close()


@pytest.mark.parametrize(
    "properties",
    [
        {"timestamp": 2**64 - 1},
        {"timestamp": 2**63},
        {"timestamp": 0},
        {"timestamp": 253_402_300_800},
        {"headers": {"traceparent": b"\xff"}},
        {"headers": {"traceparent": {"a": [1]}, "attempt": -5}},
        {"headers": {"traceparent": "00-" + "a" * 100_000}},
        {"headers": {"traceparent": 2**62}},
        {"headers": {"attempt": True, "traceparent": None}},
    ],
    ids=lambda one: str(one)[:60],
)
async def test_it_is_handled_and_so_is_what_follows(vhost: Vhost, properties: dict[str, Any]) -> None:
    """T-AMQP-ODD."""
    seen: list[Delivery] = []

    async def handle(deliveries: Sequence[Delivery]) -> None:
        seen.extend(deliveries)

    async with bench(vhost.url) as made:
        await asyncio.to_thread(send, vhost.url, properties)
        await made.publisher.publish(outgoing(webhook("one"), "fetch", 99))
        consumer = stage_consumer(vhost.url, "fetch", handle, made.publisher, RETRY)
        stop = asyncio.Event()
        running = asyncio.create_task(consumer.run(stop))
        try:
            await until(lambda: len(seen) >= 2, 15, what="both")
        finally:
            stop.set()
            await running
    assert [one.redelivered for one in seen] == [False, False]


class Encoded(bytes):
    """A value as it is on the wire, with its kind."""


DOUBLE = Encoded(b"d" + struct.pack(">d", 1e300))
NO_UTF_8 = Encoded(b"S" + struct.pack(">I", 2) + b"\xff\xfe")


@pytest.mark.parametrize("value", [DOUBLE, NO_UTF_8, {"inner": DOUBLE}], ids=["double", "no UTF-8", "inner"])
async def test_what_can_be_read_and_not_be_written_ends_no_consumer(
    vhost: Vhost, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T-AMQP-ODD: a message that fails is copied: with the headers that are ours alone."""
    failed: list[Delivery] = []

    async def fail(deliveries: Sequence[Delivery]) -> None:
        failed.extend(deliveries)
        raise Permanent("bad_item", "no")

    async with bench(vhost.url) as made:
        with monkeypatch.context() as patched:
            encode = pamqp.encode.encode_table_value
            patched.setattr(
                pamqp.encode,
                "encode_table_value",
                lambda one: bytes(one) if isinstance(one, Encoded) else encode(one),
            )
            headers = {"odd": value, "schema": "X"}
            await made.channel.default_exchange.publish(aio_pika.Message(b"{}", headers=headers), QUEUE)
        consuming = made.consume(fail, "fetch")
        dead = await made.channel.get_queue(f"{QUEUE}.dead")
        parked = await until(lambda: dead.get(fail=False), what="the dead letter")
        assert (parked.headers["reason"], parked.headers["schema"]) == ("bad_item", "X")
        assert len(failed) == 1
        assert not consuming.done()
        await parked.ack()

"""Snapshots on a broker of their own: it dies in the middle of one, and a queue without a leader holds up nobody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
import pytest

from common.broker.topology import declare, event_queues
from common.codec import dumps
from common.store.engine import Store
from ops.broker import PrivateNode, Vhost
from tests.integration.test_snapshots import REQUESTS, TEAM, Desk, _quick, completed, expected, listing
from tests.waiting import until

__all__ = ["_quick"]

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

QUORUM: dict[str, Any] = {"x-queue-type": "quorum"}


@asynccontextmanager
async def opened(url: str, database_url: str) -> AsyncIterator[Desk]:
    """A desk whose connection comes back."""
    store = Store(database_url)
    connection = await aio_pika.connect_robust(f"{url}?heartbeat=5")
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=50)
        await declare(channel, event_queues())
        yield Desk(url, store, channel)
    await store.close()


async def test_a_broker_that_is_killed_in_the_middle_of_a_snapshot(
    private_node: PrivateNode, private_vhost: Vhost, database_url: str
) -> None:
    """T-JOIN-KILL, P7, P16: what nobody confirmed is sent again; the request outlives the broker."""
    rows = [listing(number, listing_id=f"listing-{number:05}") for number in range(6000)]
    async with opened(private_vhost.url, database_url) as desk:
        await desk.known(rows)
        await desk.read(arguments=QUORUM)
        private_node.settle()
        async with desk.relay():
            request = aio_pika.Message(dumps({"to": TEAM}), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await desk.channel.default_exchange.publish(request, REQUESTS)
            await until(lambda: len(desk.consumer.state) > 300, what="the snapshot to be under way")
            assert not desk.consumer.completed
            private_node.kill()
            assert len(desk.consumer.state) < len(rows), "in the middle of it"
            private_node.start()
            await completed(desk, timeout=60)
        assert desk.consumer.state == expected(rows)
        assert not await desk.parked()


async def test_a_queue_without_a_leader_is_waited_for_and_others_are_served(
    private_node: PrivateNode, private_vhost: Vhost, database_url: str
) -> None:
    """T-JOIN-FULL, B5: it refuses what comes by a new connection."""
    rows = [listing(number) for number in range(50)]
    async with opened(private_vhost.url, database_url) as desk:
        await desk.known(rows)
        await desk.channel.declare_queue("leaderless", durable=True, arguments=QUORUM)
        private_node.settle()
        name = f"'{private_vhost.name}_leaderless'"
        assert "ok" in private_node.ctl("eval", f"ra:stop_server(quorum_queues, {{{name}, node()}}).")
        await desk.read()
        async with desk.relay():
            for _ in range(3):  # more than are served at once
                await desk.ask(dumps({"to": "leaderless"}))
            await desk.ask(dumps({"to": TEAM}))
            await completed(desk)
            assert not await desk.parked(), "they go on waiting"
        assert desk.consumer.state == expected(rows)

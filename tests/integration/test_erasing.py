"""Erasing as it is: a relay that is killed in the middle of it, the next one, and a subscriber that is told."""

from __future__ import annotations

from pathlib import Path

import aio_pika
from sqlalchemy import func, select

from common.broker.setup import declare_topology
from common.broker.topology import event_queues, work_queues
from common.codec import loads
from common.store.engine import Store
from common.store.erasing import ErasureStore
from ops.broker import Vhost
from ops.stack import Stack, environment
from schemas.tables import TargetRow, table_of
from tests.component.test_erasing import OTHER, PERSON, fill, left_of, own, places
from tests.waiting import until

ROWS = 1500
RELAY = """
import runpy, sys
from workers.relay import erasing
erasing.LOOK_SECONDS, erasing.BETWEEN_SECONDS = 0.1, float(sys.argv[1])
sys.argv = ["workers", "relay"]
runpy.run_module("workers", run_name="__main__", alter_sys=True)
"""
"""A relay that looks at once; with long pauses between two batches there is time to kill it, on any machine."""


async def test_a_relay_that_is_killed_in_the_middle_of_erasing_leaves_it_to_the_next(
    vhost: Vhost, database_url: str, tmp_path: Path
) -> None:
    """T-ERASE: with kill -9; and the one subscriber there is hears of the end."""
    store = Store(database_url)
    await own(store)
    await own(store, 7, OTHER)
    await fill(store, 99, PERSON, rows=ROWS)
    await fill(store, 7, OTHER)
    async with await aio_pika.connect(vhost.url) as connection:
        channel = await connection.channel()
        await declare_topology(vhost.url, [*work_queues([]), *event_queues()])
        queue = await channel.declare_queue("my-team", durable=True)
        await queue.bind("syncaroo.events", "#")
        assert await ErasureStore(store).erase(PERSON) == [99]
        async with Stack(environment(amqp_url=vhost.url, database_url=database_url), tmp_path / "runs") as stack:
            await stack.start("relay", command=["-c", RELAY, "1"])
            await until(lambda: _is_in_the_middle(store), 60)
            await stack.kill("relay-1")
            assert await ErasureStore(store).waiting() == [99]
            assert "listing" in await left_of(store, 99)
            await stack.start("relay", command=["-c", RELAY, "0"])
            await until(lambda: _is_done(store), 60)
        message = await queue.get()
        assert loads(message.body)["data"] == {"connectionId": 99, "userId": PERSON, "state": "revoked"}
        assert await queue.get(fail=False) is None, "it has told of nothing else"
    assert (await places(store, PERSON), await left_of(store, 99)) == (set(), set())
    assert "listing.body" in await places(store, OTHER)
    await store.close()


async def _is_in_the_middle(store: Store) -> bool:
    table = table_of(TargetRow)
    async with store.reading() as transaction:
        row = await transaction.row(select(func.count()).select_from(table).where(table.c.connection_id == 99))
    return row is not None and row[0] < ROWS


async def _is_done(store: Store) -> bool:
    return await ErasureStore(store).waiting() == []

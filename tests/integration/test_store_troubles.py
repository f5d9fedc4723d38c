"""A store in trouble under a stage that consumes: what it could not write stays in the queue, and nobody spins."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import text

from common.brake import NO_BRAKE
from common.broker.consumer import Delivery
from common.broker.outgoing import outgoing
from common.broker.topology import queue_name
from common.store.engine import Store
from ops.broker import Vhost
from schemas.tables import EventRow, ListingRow, table_of
from tests.answers import page
from tests.fixtures.database import ON_POSTGRESQL
from tests.integration.test_broker_traps import bench
from tests.waiting import until
from workers.reconcile.handler import ReconcileHandler
from workers.reconcile.store.listings import ListingStore

KILLS = 3


class CountedHandler:
    """Reconcile's handler, and how often it was called."""

    def __init__(self, store: Store) -> None:
        self._handler = ReconcileHandler(ListingStore(store, delete_brake=NO_BRAKE), self._nobody, timedelta(0))
        self.attempts: list[int] = []

    async def __call__(self, deliveries: Sequence[Delivery]) -> int:
        self.attempts += [delivery.attempt for delivery in deliveries]
        return await self._handler(deliveries)

    async def _nobody(self) -> None:
        """No relay is there to be woken."""


@ON_POSTGRESQL
async def test_a_message_outlives_the_connections_that_are_killed_under_it(vhost: Vhost, database_url: str) -> None:
    """T-DB-DOWN: `pg_terminate_backend` in the middle of a transaction, again and again: rolled back, tried again at
    leisure, counted as no attempt of the message's own, written once when the store lets it."""
    store, other = Store(database_url), Store(database_url)
    handler = CountedHandler(store)
    async with bench(vhost.url) as made:
        made.consume(handler)
        await made.publisher.publish(outgoing(page(10, {"ID": "7", "n": 1}), "reconcile", 99))
        await until(lambda: _versions(other, [1]))
        async with other.transaction() as transaction:
            await transaction.rows(table_of(ListingRow).select().with_for_update())
            await made.publisher.publish(outgoing(page(20, {"ID": "7", "n": 2}), "reconcile", 99))
            for _ in range(KILLS):
                await _kill_who_waits(other)
        await until(lambda: _versions(other, [1, 2]))
        await until(lambda: _is_empty(made, queue_name("reconcile")))
        assert handler.attempts == [0] * (1 + KILLS + 1), "once for each time that it could, and no more"
        assert await _is_empty(made, f"{queue_name('reconcile')}.dead")
    await store.close()
    await other.close()


async def _versions(store: Store, versions: list[int]) -> bool:
    async with store.reading() as transaction:
        rows = await transaction.rows(table_of(EventRow).select().order_by(table_of(EventRow).c.version))
    return [row.version for row in rows] == versions


async def _is_empty(made: Any, queue: str) -> bool:
    return bool(await made.waiting(queue) == 0)


async def _kill_who_waits(store: Store) -> None:
    """End the connection that waits for somebody's lock, as soon as there is one."""
    await until(lambda: _who_waits(store, "pg_terminate_backend(pid)"))
    await until(lambda: _nobody_waits(store))


async def _nobody_waits(store: Store) -> bool:
    return not await _who_waits(store, "pid")


async def _who_waits(store: Store, what: str) -> bool:
    waiting = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with store.reading() as transaction:
        return bool(await transaction.rows(text(f"SELECT {what} {waiting}")))

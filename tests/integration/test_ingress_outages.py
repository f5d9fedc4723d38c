"""`python -m ingress` is killed, and what it could not hand on, or nobody took, is resynced by the next one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aio_pika
import aiohttp
import pytest
from sqlalchemy import update

from common.broker.setup import declare_topology
from common.broker.topology import work_queues
from common.store.engine import Store
from common.store.targets import Wanted, want
from ops.broker import Vhost
from ops.children import free_port
from ops.stack import Stack, environment
from schemas.messages import PlatformIds
from schemas.tables import BeatRow, RefusedRow, table_of
from tests.ingress_app import bearer, webhook
from tests.waiting import until


class Outage:
    """Ingress processes of one stack, and what they leave behind."""

    def __init__(self, stack: Stack, store: Store) -> None:
        self.stack = stack
        self._store = store

    async def send(self, name: str, connection_id: int) -> int:
        """A webhook of this connection → how it was answered; 0: by nobody."""
        headers = bearer(connection_id, key=self.stack.environment["SECRET_KEYS"])
        url, body = f"{self.stack.url_of(name)}/update", json.dumps(webhook(connectionId=connection_id))
        async with aiohttp.ClientSession() as session:
            try:
                async with session.post(url, data=body, headers=headers) as answer:
                    return answer.status
            except aiohttp.ClientConnectionError:
                return 0

    async def rows(self, table: type[Any]) -> list[Any]:
        async with self._store.reading() as transaction:
            return list(await transaction.rows(table_of(table).select()))

    async def refused(self) -> list[int]:
        return sorted(row.connection_id for row in await self.rows(RefusedRow))

    async def know(self, *connections: int) -> None:
        wanted = [
            Wanted(one, "https://api.syncaroo.com/v1/locations/1", PlatformIds(), "webhook") for one in connections
        ]
        async with self._store.transaction() as transaction:
            await want(transaction, wanted)

    async def leave(self, connection_id: int) -> None:
        """As an ingress that has died left one whose webhooks it had refused."""
        async with self._store.transaction() as transaction:
            row = {"connection_id": connection_id, "since": await transaction.now()}
            await transaction.execute(table_of(RefusedRow).insert().values(row))

    async def beat_was(self, ago: timedelta) -> None:
        async with self._store.transaction() as transaction:
            await transaction.execute(update(table_of(BeatRow)).values(at=datetime.now(UTC) - ago))


@pytest.fixture
async def outage(vhost: Vhost, database_url: str, tmp_path: Path) -> AsyncIterator[Outage]:
    await declare_topology(vhost.url, work_queues([]))
    settings = environment(amqp_url=vhost.url, database_url=database_url, settings={"DRAIN_SECONDS": "0"})
    store = Store(database_url)
    async with Stack(settings, tmp_path / "stack") as stack:
        yield Outage(stack, store)
    await store.close()


async def test_what_a_killed_ingress_had_refused_is_resynced_by_the_next_one(outage: Outage, vhost: Vhost) -> None:
    """T-BRK-DOWN: the broker is away for the first one, who dies with it."""
    (dying,) = await outage.stack.start("ingress", settings={"AMQP_URL": f"amqp://127.0.0.1:{free_port()}/"})
    for connection_id in (98, 99):
        await until(lambda one=connection_id: _is_refused(outage, dying, one), 20)  # type: ignore[misc]  # mypy infers no lambda with a default
    await until(lambda: _are_written_down(outage, 98, 99), what="both are written down")
    assert await outage.stack.kill(dying) == -9

    await outage.stack.start("ingress")
    await until(lambda: _are_written_down(outage), 20, what="both are resynced")
    assert await _resyncs(vhost.url) == [98, 99]


async def test_who_starts_after_a_long_absence_has_everyone_resynced(outage: Outage, vhost: Vhost) -> None:
    await outage.know(1, 2, 3)
    (first,) = await outage.stack.start("ingress")
    await until(lambda: outage.rows(BeatRow), 20, what="a heartbeat")
    await outage.leave(98)
    await until(lambda: _are_written_down(outage), 20, what="what was left, and was decided before, is resynced")
    assert await outage.stack.kill(first) == -9
    assert await _resyncs(vhost.url) == [98], "a first start asks for nothing"

    await outage.beat_was(timedelta(minutes=2))
    names = await outage.stack.start("ingress", 2)
    await until(lambda: "ingress.was_away" in "".join(map(outage.stack.logs, names)), 20, what="one of them notices")
    await until(lambda: _are_written_down(outage), 20, what="all are resynced")
    assert await _resyncs(vhost.url) == [1, 2, 3], "each once"


async def _is_refused(outage: Outage, name: str, connection_id: int) -> bool:
    return await outage.send(name, connection_id) == 503


async def _are_written_down(outage: Outage, *connections: int) -> bool:
    return await outage.refused() == list(connections)


async def _resyncs(url: str) -> list[int]:
    """The connections whose resync waits for the fetch worker."""
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        queue = await channel.get_queue("syncaroo.fetch")
        found = []
        while message := await queue.get(no_ack=True, fail=False, timeout=5):
            assert message.headers["schema"] == "ResyncWanted"
            found.append(int(json.loads(message.body)["connectionId"]))
        return sorted(found)

"""The token worker as it runs: a real broker, a real database, the stand-in Syncaroo."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import aio_pika
import pytest
from pydantic import SecretStr

from common.broker import consumer as consuming
from common.broker.consumer import Consumer
from common.broker.outgoing import outgoing
from common.broker.publisher import Publisher
from common.broker.topology import declare, event_queues, work_queues
from common.codec import dumps
from common.crypto import TokenCipher
from common.settings import (
    BrokerSettings,
    ClientSettings,
    EgressSettings,
    KeySettings,
    RetrySettings,
    SiteSettings,
    StoreSettings,
    SyncarooSettings,
)
from common.token_pair import Pair, pack
from ops.broker import Vhost
from schemas.messages import CodeReceived, PairObtained
from schemas.tables import ParkedRow, table_of
from tests.component.token_parts import Bench, bench
from tests.waiting import until, within
from workers.token.worker import build

DELAYS = (timedelta(milliseconds=100), timedelta(milliseconds=300))
SITE = SiteSettings(site_uri="http://gateway.test")


@pytest.fixture(name="bench")
async def _bench(database_url: str) -> AsyncIterator[Bench]:
    async with bench(database_url) as made:
        yield made


@asynccontextmanager
async def running(made: Bench, amqp_url: str, *, workers: int = 1) -> AsyncIterator[Publisher]:
    """So many token workers, and a publisher to talk to them; all end within the time of a stop."""
    async with await aio_pika.connect(amqp_url) as connection:
        await declare(await connection.channel(), [*work_queues(DELAYS), *event_queues()])
    run = build(
        BrokerSettings(amqp_url=SecretStr(amqp_url)),
        StoreSettings(database_url=SecretStr(made.database_url)),
        KeySettings(secret_keys=(SecretStr(made.key),)),
        SITE,
        SyncarooSettings(syncaroo_base_url=made.base_url, syncaroo_allow_http=True),
        ClientSettings(syncaroo_client_id="sandbox-client", syncaroo_client_secret=SecretStr("sandbox-secret")),
        RetrySettings(retry_delays=DELAYS),
        EgressSettings(),
    )
    stop = asyncio.Event()
    publisher = Publisher(amqp_url, "test")
    publisher.start()
    tasks = [asyncio.ensure_future(run(stop)) for _ in range(workers)]
    try:
        await publisher.wait_ready()
        yield publisher
    finally:
        stop.set()
        async with within(15):
            await asyncio.gather(*tasks)
        await publisher.close()


async def test_a_code_becomes_access_that_renews_itself(bench: Bench, vhost: Vhost) -> None:
    """From the code to the third pair, unattended, by three workers of which one acts at a time."""
    bench.sandbox.config = bench.sandbox.config.__class__(locations=1, resources=1, rates=0, token_seconds=2)
    bench.order("token_status", status=503)
    attempt_id = await bench.begin()
    sealed = TokenCipher([bench.key]).seal(bench.issue_code().encode())
    message = CodeReceived(attempt_id=attempt_id, sealed_code=sealed)

    async def third() -> bool:
        row = await bench.grant()
        return row is not None and row.rt_version >= 3

    async with running(bench, vhost.url, workers=3) as publisher:
        await publisher.publish(outgoing(message, "token", 0))
        await publisher.publish(outgoing(message, "token", 0))  # as after a time-out of the page's publish
        await until(third, timeout=30)
    assert await bench.attempt(attempt_id) == ("active", None)
    assert await bench.events() == ["active"]
    assert bench.requests[0] == "failed"
    assert bench.violations() == []
    bench.assert_one_at_a_time()
    assert await bench.holds_live_pair()


async def test_a_pair_in_hand_is_given_up_no_sooner_than_the_broker_makes_us(
    bench: Bench, vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T-RT-DBFAIL: with store and broker away, the handler of its code must not be cancelled as one that hangs."""
    limits: list[float] = []

    class Noted(Consumer):
        def __init__(self, *parts: Any, seconds: float, **more: Any) -> None:
            limits.append(seconds)
            super().__init__(*parts, seconds=seconds, **more)

    monkeypatch.setattr(consuming, "Consumer", Noted)
    async with running(bench, vhost.url):
        await until(lambda: limits)
    assert 20 * 60 < limits[0] < consuming.ACK_SECONDS - consuming.END_SECONDS


async def test_a_pair_from_the_broker_is_stored_and_renewed(bench: Bench, vhost: Vhost) -> None:
    """T-RT-DBFAIL: its process is gone; whoever reads the queue stores it, before the old token is tried again."""
    await bench.authorise(intent="refresh", lease_owner="dead")
    await bench.change(lease_until=timedelta(seconds=-1))
    pair = Pair(access_token="access-1", refresh_token=bench.issue_refresh_token())
    sealed = TokenCipher([bench.key]).seal(pack(pair))

    async def renewed() -> bool:
        return bool((await bench.grant()).rt_version == 3)

    async with running(bench, vhost.url, workers=2) as publisher:
        await publisher.publish(outgoing(PairObtained(rt_version=1, sealed_pair=sealed), "token", 0))
        await until(renewed, timeout=20)
    assert bench.requests == ["issued"]
    assert await bench.holds_live_pair()
    assert await bench.events() == []


async def test_what_cannot_be_processed_is_parked(bench: Bench, vhost: Vhost) -> None:
    message = CodeReceived(attempt_id="nobody", sealed_code=TokenCipher([bench.key]).seal(b"the code"))
    parked = table_of(ParkedRow)

    async def rows() -> list[tuple[str, str, bytes]]:
        async with bench.store.reading() as transaction:
            found = await transaction.rows(parked.select())
        return [(row.queue, row.reason, bytes(row.body)) for row in found]

    async with running(bench, vhost.url) as publisher:
        await publisher.publish(outgoing(message, "token", 0))
        found = await until(rows, timeout=20)
    assert found == [("syncaroo.token", "unknown_attempt", dumps(message))]

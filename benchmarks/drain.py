"""Fifty thousand webhooks that wait in the queue: nothing else grows while they drain, and every one is answered."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import func, select

from benchmarks.broker import Bench
from benchmarks.databases import database
from benchmarks.measure import Goal, Sample, Variant
from benchmarks.pipeline import connect
from benchmarks.processes import Failed, program, usage
from common.broker.outgoing import outgoing
from common.broker.publisher import Publisher
from common.store.engine import Store
from ops.children import free_port
from ops.stack import Stack, environment
from schemas.messages import PlatformIds, WebhookReceived
from schemas.tables import EventRow, ListingRow, TargetRow, table_of

WEBHOOKS, TARGETS, LISTINGS = 50_000, 500, 20
CONNECTION = 99
PUBLISHED_AT_ONCE = 1000
END_SECONDS = 300.0
LOOK_SECONDS = 0.25
WORKERS = ("fetch", "reconcile", "relay")
QUEUES = ("syncaroo.fetch", "syncaroo.reconcile")

_target, _listing, _event = table_of(TargetRow), table_of(ListingRow), table_of(EventRow)


async def prepare(bench: Bench, directory: Path) -> tuple[Mapping[str, Variant], Sequence[Goal]]:
    """One process of each stage, started when all of them wait."""

    async def gateway() -> Sample:
        port = free_port()
        api = [sys.executable, "-m", "benchmarks.variants.pages", str(port), str(LISTINGS), "0"]
        async with database() as url, program(api, {}, port, directory / "api.log"):
            settings = {"SYNCAROO_API_HOSTS": f"127.0.0.1:{port}", "API_RATE_PER_SECOND": "100000"}
            made = environment(amqp_url=bench.url, database_url=url, settings=settings)
            async with Stack(made, directory / "drain") as stack:
                if (done := await stack.run("-m", "ops", "setup")).code:
                    raise Failed(done.output)
                await connect(made["SECRET_KEYS"], url)
                await _publish(bench.url, f"127.0.0.1:{port}")
                pids = [stack.pid(name) for role in WORKERS for name in await stack.start(role)]
                return await _drain(bench, Store(url), pids)

    return {"gateway": gateway}, ()


async def _publish(amqp_url: str, host: str) -> None:
    """As an ingress would; each target is wanted a hundred times."""
    publisher = Publisher(amqp_url, "bench")
    publisher.start()
    await publisher.wait_ready()
    for first in range(0, WEBHOOKS, PUBLISHED_AT_ONCE):
        messages = [_webhook(host, number) for number in range(first, first + PUBLISHED_AT_ONCE)]
        await asyncio.gather(*(publisher.publish(outgoing(one, "fetch", CONNECTION), seconds=30) for one in messages))
    await publisher.close()


def _webhook(host: str, number: int) -> WebhookReceived:
    room = number % TARGETS
    return WebhookReceived(
        delivery_id=f"delivery-{number}",
        connection_id=CONNECTION,
        url=f"http://{host}/v1/locations/1198/resources/{room}/rates",
        mapping=PlatformIds(location_id="1198", resource_id=str(room), attribute_type="rates"),
        received_at=datetime.now(UTC),
    )


async def _drain(bench: Bench, store: Store, pids: Sequence[int]) -> Sample:
    """Until nothing is wanted any more → with the most memory that the processes had together, in bytes.

    Raises:
        Failed: it takes five minutes, a target is not answered, or there is another event than one for each listing.
    """
    began, most, backlog = time.perf_counter(), 0, 0
    while not await _is_done(bench, store):
        if time.perf_counter() - began > END_SECONDS:
            raise Failed(f"after {END_SECONDS:g} s webhooks still wait")
        most = max(most, sum(usage(pid).rss for pid in pids))
        backlog = max(backlog, await bench.stored(QUEUES[1]))
        await asyncio.sleep(LOOK_SECONDS)
    seconds = time.perf_counter() - began
    async with store.reading() as transaction:
        listings = await transaction.row(select(func.count(), func.max(_listing.c.version)).select_from(_listing))
        events = await transaction.row(select(func.count()).select_from(_event))
    await store.close()
    if tuple(listings or ()) != (TARGETS * LISTINGS, 1) or tuple(events or ()) != (TARGETS * LISTINGS,):
        raise Failed(f"{TARGETS * LISTINGS} listings were to be told once each: {listings} and {events} events")
    more = {"mostWaitingForReconcile": float(backlog)}
    return Sample(WEBHOOKS, seconds, sum(usage(pid).cpu_seconds for pid in pids), most, more)


async def _is_done(bench: Bench, store: Store) -> bool:
    """Nothing waits in a queue, all targets are known and answered, all events are published."""
    if any([await bench.stored(queue) for queue in QUEUES]):
        return False
    async with store.reading() as transaction:
        answered = await transaction.row(
            select(func.count()).select_from(_target).where(_target.c.wanted <= _target.c.answered)
        )
        waiting = await transaction.row(select(func.count()).select_from(_event).where(_event.c.published_at.is_(None)))
    return tuple(answered or ()) == (TARGETS,) and tuple(waiting or ()) == (0,)

"""Answers per second and process, with one, two and four fetch workers, of an API that answers in 50 ms.

What is asked is whether processes stand in each other's way in the store or at the broker. So each of them may have
few calls under way: it waits for the API, and two processors are enough for all of them.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import func, select

from benchmarks.broker import Bench
from benchmarks.databases import database
from benchmarks.fetch import served
from benchmarks.measure import Goal, Sample, Variant
from benchmarks.processes import Failed, program, usage
from common.broker.outgoing import outgoing
from common.broker.publisher import Publisher
from common.broker.topology import Stage, declare, queue_name, work_queues
from common.crypto import TokenCipher
from common.settings import RetrySettings
from common.store.engine import Store
from common.token_pair import Pair, pack
from ops.children import free_port
from ops.migrating import upgrade
from ops.stack import Stack, environment
from schemas.messages import PlatformIds, WebhookReceived
from schemas.tables import SYNCAROO_ACCOUNT, GrantRow, TargetRow, table_of

ANSWER_SECONDS = 0.05
CONCURRENCY = 1
"""Calls of one process that are under way at once."""
CONNECTIONS = 16
"""More than there are calls: of one connection a process leaves room for others."""
START_SECONDS = 60.0
WARM_SECONDS = 0.5
SECONDS = 3.0
TARGETS = round(CONCURRENCY / ANSWER_SECONDS * 10)
"""Of each process: more than it can have asked for when the time is over."""
SETTINGS = {
    "FETCH_CONCURRENCY": str(CONCURRENCY),
    "API_RATE_PER_SECOND": "100000",
    "RECONCILE_BACKLOG": "100000",
}
GOALS = (
    Goal("4 processes", "1 process", "rate", must=0.9, aim=0.98),
    Goal("4 processes, SQLite", "1 process, SQLite", "rate", must=0.9, aim=0.98),
)

WORKED: Sequence[Stage] = ("fetch", "reconcile")
"""Their queues are empty when a variant begins."""

Database = Callable[[], AbstractAsyncContextManager[str]]

_target = table_of(TargetRow)


@dataclass(frozen=True)
class Counts:
    """What came of the targets."""

    known: int
    answered: int
    workers: int
    """Processes that fetch right now."""


async def prepare(bench: Bench, directory: Path) -> tuple[Mapping[str, Variant], Sequence[Goal]]:
    """Each variant starts its workers, a database and an API of its own."""
    await declare(bench.channel, work_queues(RetrySettings().retry_delays))

    def workers(count: int, place: Database) -> Variant:
        return lambda: _run(bench, directory, count, place)

    @asynccontextmanager
    async def file() -> AsyncIterator[str]:
        with tempfile.TemporaryDirectory(dir=directory) as made:
            yield f"sqlite+aiosqlite:///{made}/gateway.db"

    return {
        "1 process": workers(1, database),
        "2 processes": workers(2, database),
        "4 processes": workers(4, database),
        "1 process, SQLite": workers(1, file),
        "4 processes, SQLite": workers(4, file),
    }, GOALS


async def _run(bench: Bench, directory: Path, count: int, place: Database) -> Sample:
    port = free_port()
    host = f"127.0.0.1:{port}"
    api = [sys.executable, "-m", "benchmarks.variants.pages", str(port), "1", str(ANSWER_SECONDS)]
    async with place() as url, program(api, {}, port, directory / "api.log"):
        made = environment(amqp_url=bench.url, database_url=url, settings={**SETTINGS, "SYNCAROO_API_HOSTS": host})
        store = Store(url)
        async with Stack(made, directory / "scale") as stack:
            await upgrade(url)
            for queue in map(queue_name, WORKED):
                await bench.purge(queue)
            await authorise(store, made["SECRET_KEYS"])
            await publish(bench.url, host, count * TARGETS)
            names = await stack.start("fetch", count)
            await _all_at_work(store, stack, count)
            sample = await _measure(f"http://{host}", [stack.pid(name) for name in names])
            await stack.stop()
        await _check(bench, store, await served(f"http://{host}"))
        await store.close()
    return sample


async def authorise(store: Store, key: str) -> None:
    """Put a token pair into the store, as the token worker does, for longer than this takes."""
    sealed = TokenCipher([key]).seal(pack(Pair(access_token="access-1", refresh_token="refresh-1")))
    expires = datetime.now(UTC) + timedelta(hours=1)
    grant = {"account": SYNCAROO_ACCOUNT, "state": "active", "sealed_pair": sealed, "expires_at": expires}
    async with store.transaction() as transaction:
        await transaction.execute(table_of(GrantRow).insert().values(rt_version=1, attempts=0, **grant))


async def publish(amqp_url: str, host: str, count: int) -> None:
    """So many webhooks, each about an item of its own, as an ingress would have published them."""
    publisher = Publisher(amqp_url, "bench")
    publisher.start()
    await publisher.wait_ready()
    messages = [outgoing(_webhook(host, number), "fetch", _connection(number)) for number in range(count)]
    await asyncio.gather(*(publisher.publish(message, seconds=30) for message in messages))
    await publisher.close()


def _webhook(host: str, number: int) -> WebhookReceived:
    connection = _connection(number)
    return WebhookReceived(
        delivery_id=f"delivery-{number}",
        connection_id=connection,
        url=f"http://{host}/v1/locations/{connection}/resources/{number}",
        mapping=PlatformIds(location_id=str(connection), resource_id=str(number)),
        received_at=datetime.now(UTC),
    )


def _connection(number: int) -> int:
    return 1 + number % CONNECTIONS


async def _all_at_work(store: Store, stack: Stack, workers: int) -> None:
    """Wait until all webhooks are taken up, and every process fetches.

    Raises:
        Failed: it takes too long, or one has ended.
    """
    until, wanted = time.monotonic() + START_SECONDS, workers * TARGETS
    while (seen := await _counts(store)).known < wanted or seen.workers < workers:
        if time.monotonic() > until or len(stack.names("fetch")) < workers:
            raise Failed(f"{seen} of {workers} workers:\n{stack.logs('fetch-1')[-600:]}")
        await asyncio.sleep(0.1)
    await asyncio.sleep(WARM_SECONDS)


async def _measure(api: str, pids: Sequence[int]) -> Sample:
    """Of one process: what all did, in the seconds of all of them."""
    before, asked, began = _cpu(pids), await served(api), time.perf_counter()
    await asyncio.sleep(SECONDS)
    answers, seconds, after = await served(api) - asked, time.perf_counter() - began, _cpu(pids)
    rss = sum(usage(pid).rss for pid in pids)
    return Sample(answers, seconds * len(pids), after - before, rss // len(pids), {"allPerSecond": answers / seconds})


def _cpu(pids: Sequence[int]) -> float:
    return sum(usage(pid).cpu_seconds for pid in pids)


async def _check(bench: Bench, store: Store, sent: int) -> None:
    """Each answer that was sent is an answered target and a page for reconcile, and there was work to the end.

    Raises:
        Failed: else.
    """
    counts, pages = await _counts(store), await bench.stored(queue_name("reconcile"))
    if not sent == counts.answered == pages < counts.known:
        raise Failed(f"{sent} answers, {pages} pages published, {counts}")


async def _counts(store: Store) -> Counts:
    answered = func.count().filter(_target.c.answered >= _target.c.wanted)
    async with store.reading() as transaction:
        row = await transaction.row(
            select(func.count(), answered, func.count(_target.c.lease_owner.distinct())).select_from(_target)
        )
    assert row is not None
    return Counts(*row)

"""Webhook to event through all processes: a burst of webhooks, each about a page of a hundred unknown listings.

`singles`: each about one.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import aio_pika

from benchmarks.broker import Bench
from benchmarks.databases import database
from benchmarks.ingress import CONNECTION, CONNECTIONS, Target, bodies, flask
from benchmarks.load import Order
from benchmarks.measure import Goal, Sample, Variant
from benchmarks.processes import PEERS, Failed, load, program, usage
from benchmarks.scale import authorise
from common.access_tokens import AccessTokens
from common.broker.topology import EVENTS
from common.store.engine import Store
from ops.children import free_port
from ops.stack import Stack, environment
from schemas.tables import ConnectionRow, table_of

END_SECONDS = 120.0
PROCESSES = ("ingress", "fetch", "reconcile", "relay")
CELERYS = 2
"""Processes of the Celery worker."""
GOALS = (
    Goal("gateway", "floor", "rate", must=1.8, aim=2.4),
    Goal("gateway", f"flask + celery prefork-{CELERYS}", "rate", must=7, aim=10),
)


@dataclass(frozen=True)
class Burst:
    """So many webhooks are counted, after some to warm up, each about so many listings."""

    listings: int
    warm: int
    counted: int


PAGES, SINGLES = Burst(listings=100, warm=5, counted=60), Burst(listings=1, warm=20, counted=600)


@dataclass(frozen=True)
class Running:
    """All processes of a variant, and the queue in which their events arrive."""

    target: Target
    pids: Sequence[int]
    events: str


Start = Callable[[Bench, Path, str], AbstractAsyncContextManager[Running]]
"""Its third argument is the API's host."""


async def prepare(bench: Bench, directory: Path) -> tuple[Mapping[str, Variant], Sequence[Goal]]:
    """Each variant starts its processes and a database of its own."""
    starts = {"gateway": gateway, "floor": other(_floor), f"flask + celery prefork-{CELERYS}": other(_celery)}
    return {name: _variant(bench, directory, start, PAGES) for name, start in starts.items()}, GOALS


async def prepare_singles(bench: Bench, directory: Path) -> tuple[Mapping[str, Variant], Sequence[Goal]]:
    """As above, one listing each."""
    starts = {"gateway": gateway, "floor": other(_floor)}
    return {name: _variant(bench, directory, start, SINGLES) for name, start in starts.items()}, ()


def _variant(bench: Bench, directory: Path, start: Start, burst: Burst) -> Variant:
    async def run() -> Sample:
        async with AsyncExitStack() as stack:
            api = f"127.0.0.1:{(port := free_port())}"
            serving = [sys.executable, "-m", "benchmarks.variants.pages", str(port), str(burst.listings), "0"]
            await stack.enter_async_context(program(serving, {}, port, directory / "api.log"))
            running = await stack.enter_async_context(start(bench, directory, api))
            await _send(running, api, 0, burst.warm)
            await _arrived(bench, running.events, burst.warm * burst.listings)
            return await _measure(bench, running, api, burst)

    return run


async def _measure(bench: Bench, running: Running, api: str, burst: Burst) -> Sample:
    before, began = [usage(pid) for pid in running.pids], time.perf_counter()
    sending = asyncio.create_task(_send(running, api, burst.warm, burst.counted))
    events = (burst.warm + burst.counted) * burst.listings
    await asyncio.gather(sending, _arrived(bench, running.events, events))
    seconds, after = time.perf_counter() - began, [usage(pid) for pid in running.pids]
    cpu = sum(now.cpu_seconds - then.cpu_seconds for now, then in zip(after, before, strict=True))
    return Sample(burst.counted, seconds, cpu, sum(now.rss for now in after))


async def _send(running: Running, api: str, first: int, count: int) -> None:
    order = Order(
        url=running.target.url,
        headers={"Authorization": f"Bearer {running.target.token}", "Content-Type": "application/json"},
        bodies=bodies(running.target.key, api, first, count),
        connections=CONNECTIONS,
        seconds=END_SECONDS,
        once=True,
    )
    done = await load(order)
    if done.statuses != {"200": count}:
        raise Failed(f"{running.target.url}: answers {done.statuses}")


async def _arrived(bench: Bench, queue: str, count: int) -> None:
    """Each listing is new, so that each is one event: no more, no less.

    Raises:
        Failed: there are not so many in two minutes, or there are more.
    """
    until = time.monotonic() + END_SECONDS
    while (stored := await bench.stored(queue)) < count and time.monotonic() < until:  # noqa: ASYNC110  # nobody tells
        await asyncio.sleep(0.02)
    if stored != count:
        raise Failed(f"{stored} events for {count} listings")


@asynccontextmanager
async def gateway(bench: Bench, directory: Path, api: str) -> AsyncIterator[Running]:
    """One process of each stage; the grant is good for longer than this takes."""
    async with database() as url:
        settings = {"SYNCAROO_API_HOSTS": api, "API_RATE_PER_SECOND": "100000"}  # nobody's patience is measured
        made = environment(amqp_url=bench.url, database_url=url, settings=settings)
        async with Stack(made, directory / "gateway") as stack:
            done = await stack.run("-m", "ops", "setup")
            if done.code:
                raise Failed(done.output)
            await connect(made["SECRET_KEYS"], url)
            events = await _subscribed(bench, EVENTS)
            names = [name for role in PROCESSES for name in await stack.start(role)]
            await stack.wait_ready()
            token = AccessTokens([made["SECRET_KEYS"]], 3600).issue(CONNECTION, "benchmark", int(time.time()))
            target = Target(f"{stack.url}/api/update/", token, made["PLATFORM_CLIENT_SECRET"], "syncaroo.fetch")
            yield Running(target, [stack.pid(name) for name in names], events)


async def connect(key: str, url: str) -> None:
    """A confirmed connection, and Syncaroo's token as the token worker leaves it."""
    person = {"connection_id": CONNECTION, "user_id": "1", "state": "confirmed", "created_at": datetime.now(UTC)}
    store = Store(url)
    await authorise(store, key)
    async with store.transaction() as transaction:
        await transaction.execute(table_of(ConnectionRow).insert().values(person))
    await store.close()


Commands = Callable[[int], tuple[list[str], list[str]]]
"""How to run the ingress that listens on this port, and the worker that does all the rest."""


def other(commands: Commands) -> Start:
    """Another way to do it: two programs that are told their broker, database, port, key and token."""

    @asynccontextmanager
    async def running(bench: Bench, directory: Path, _: str) -> AsyncIterator[Running]:
        async with database() as url, AsyncExitStack() as stack:
            await bench.channel.declare_exchange("events", aio_pika.ExchangeType.TOPIC, durable=True)
            events = await _subscribed(bench, "events")
            await bench.purge()
            port, key, token = free_port(), secrets.token_hex(16), secrets.token_hex(16)
            own = {"BENCH_KEY": key, "BENCH_TOKEN": token, "BENCH_PORT": str(port), "AMQP_URL": bench.url}
            ingress, worker = commands(port)
            working = {**own, "DATABASE_URL": url}
            pids = [
                await stack.enter_async_context(program(ingress, own, port, directory / "other_ingress.log")),
                await stack.enter_async_context(program(worker, working, None, directory / "other_worker.log")),
            ]
            yield Running(Target(f"http://127.0.0.1:{port}/update", token, key, "bench"), pids, events)

    return running


def _floor(_: int) -> tuple[list[str], list[str]]:
    ingress, worker = ([sys.executable, "-m", f"benchmarks.variants.floor_{one}"] for one in ("ingress", "worker"))
    return ingress, worker


def _celery(port: int) -> tuple[list[str], list[str]]:
    """The worker takes four tasks ahead for each process, as by default."""
    worker = ["worker", "--loglevel", "warning", "--pool", "prefork", "--concurrency", str(CELERYS)]
    alone = ["--prefetch-multiplier", "4", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    return flask(port), [str(PEERS / "celery"), "--app", "benchmarks.variants.celery_worker", *worker, *alone]


async def _subscribed(bench: Bench, exchange: str) -> str:
    """A durable queue of this turn's own that gets all of its messages."""
    name = f"events-{secrets.token_hex(4)}"
    queue = await bench.channel.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum"})
    await queue.bind(exchange, "#")
    return name

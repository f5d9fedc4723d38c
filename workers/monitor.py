"""What a worker process tells of itself on `WORKER_PORT`: alive, ready, and in numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import msgspec
from aiohttp import hdrs, web

from common.broker.metrics import BrokerMetrics
from common.clock import monotonic_seconds
from common.codec import dumps
from common.errors import BrokerUnavailable, StoreUnavailable
from common.listen import Listener
from common.metrics import exposition, process_registry
from common.process import Run, until_stopped
from common.store.engine import Store
from common.store.schema import current_revision, head_revision

STORE_SECONDS = 2.0
REMEMBERED_SECONDS = 1.0
SETTING = "WORKER_PORT"


class Broker(Protocol):
    """What is asked of a publisher."""

    async def check(self, queues: Sequence[str], *, seconds: float = 2.0) -> None:
        """Return when the broker answers and has the queues; raise BrokerUnavailable otherwise."""


class Reads(Protocol):
    """What is asked of a consumer."""

    @property
    def queue(self) -> str:
        """Which queue it reads."""

    @property
    def is_consuming(self) -> bool:
        """Whether the broker gives it messages now."""


@dataclass(frozen=True)
class Standing:
    """What a stage stands on once it has begun."""

    store: Store
    broker: Broker
    consumers: Sequence[Reads] = ()


class Stage:
    """One stage of a process: not ready before it has begun."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._standing: Standing | None = None

    def begins(self, store: Store, broker: Broker, consumers: Sequence[Reads] = ()) -> None:
        """The store has our schema, and the consumers are about to run."""
        self._standing = Standing(store, broker, consumers)

    async def trouble(self) -> str | None:
        """Why it cannot work; None: it can."""
        standing = self._standing
        if standing is None:
            return "waits for the store"
        return await _store_trouble(standing.store) or await _broker_trouble(standing)


class Monitor:
    """A process's registry and its stages. Asks store and broker at most once a second, however often it is asked."""

    def __init__(self) -> None:
        self.registry = process_registry()
        self.broker = BrokerMetrics(self.registry)
        self._stages: list[Stage] = []
        self._asking = asyncio.Lock()
        self._asked_at: float | None = None
        self._trouble: str | None = None

    def stage(self, name: str) -> Stage:
        """One more stage that has to be ready."""
        stage = Stage(name)
        self._stages.append(stage)
        return stage

    async def trouble(self) -> str | None:
        """Why the process cannot do its work, beginning with the stage; None: it can."""
        async with self._asking:
            if self._asked_at is None or monotonic_seconds() - self._asked_at > REMEMBERED_SECONDS:
                self._trouble = await self._ask()
                self._asked_at = monotonic_seconds()
            return self._trouble

    async def _ask(self) -> str | None:
        for stage in self._stages:
            if trouble := await stage.trouble():
                return f"{stage.name}: {trouble}"
        return None


class Alive(msgspec.Struct, frozen=True):
    """The process runs."""

    status: str = "alive"


class Ready(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether it can do its work, and why not."""

    status: str
    reason: str | None = None


class WorkerHandler:
    """`/healthz`, `/readyz` and `/metrics` of a worker process."""

    def __init__(self, monitor: Monitor, stop: asyncio.Event) -> None:
        self._monitor = monitor
        self._stop = stop

    def routes(self) -> list[web.RouteDef]:
        """All three."""
        return [
            web.get("/healthz", self.healthz),
            web.get("/readyz", self.readyz),
            web.get("/metrics", self.metrics),
        ]

    async def healthz(self, _request: web.Request) -> web.Response:
        """200 as long as the event loop runs."""
        return _answer(200, Alive())

    async def readyz(self, _request: web.Request) -> web.Response:
        """200 when every stage can work, else 503 with the reason."""
        trouble = "stopping" if self._stop.is_set() else await self._monitor.trouble()
        return _answer(200, Ready("ready")) if trouble is None else _answer(503, Ready("unready", trouble))

    async def metrics(self, _request: web.Request) -> web.Response:
        """Prometheus' text format."""
        return exposition(self._monitor.registry)


def watched(run: Run, monitor: Monitor, host: str, port: int) -> Run:
    """The work, and beside it, until it has ended, what tells of it."""

    async def work(stop: asyncio.Event) -> None:
        app = web.Application()
        app.add_routes(WorkerHandler(monitor, stop).routes())
        listener, done = Listener(app, host, port, SETTING), asyncio.Event()
        await listener.start()
        try:
            await until_stopped(done, _until_done(run, stop, done), listener.close_silent(done))
        finally:
            await listener.close()

    return work


async def _until_done(run: Run, stop: asyncio.Event, done: asyncio.Event) -> None:
    try:
        await run(stop)
    finally:
        done.set()


async def _store_trouble(store: Store) -> str | None:
    try:
        async with asyncio.timeout(STORE_SECONDS):
            found = await current_revision(store)
    except (StoreUnavailable, TimeoutError):
        return "the store does not answer"
    return None if found == _our_schema() else "the store has another schema; run `gateway setup`"


@cache
def _our_schema() -> str:
    return head_revision()


async def _broker_trouble(standing: Standing) -> str | None:
    try:
        await standing.broker.check([one.queue for one in standing.consumers])
    except BrokerUnavailable as error:
        return str(error)
    idle = [one.queue for one in standing.consumers if not one.is_consuming]
    return f"{', '.join(idle)}: not consumed yet" if idle else None


def _answer(status: int, body: Alive | Ready) -> web.Response:
    headers = {hdrs.CACHE_CONTROL: "no-store"}
    return web.Response(status=status, body=dumps(body), content_type="application/json", headers=headers)

"""The stages behind the queues, running in this process against a real broker and a real database.

Syncaroo's API is a hand-written fake that checks its caller: it refuses a wrong token and counts every call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import aio_pika
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.fernet import Fernet
from pydantic import SecretStr

from common.broker.outgoing import outgoing
from common.broker.publisher import Publisher
from common.broker.topology import EVENTS, declare, event_queues, work_queues
from common.codec import canonical, loads
from common.crypto import TokenCipher
from common.ids import new_id
from common.settings import (
    BrokerSettings,
    EgressSettings,
    EventBrokerSettings,
    FetchSettings,
    HistorySettings,
    KeySettings,
    ReconcileSettings,
    ResyncSettings,
    RetrySettings,
    Section,
    SiteSettings,
    StoreSettings,
    SyncarooSettings,
)
from common.store.engine import Store
from schemas.messages import Message, PlatformIds, WebhookReceived
from schemas.tables import ConnectionRow, GrantRow, ListingRow, ParkedRow, TargetRow, table_of
from workers.fetch import worker as fetch_worker
from workers.reconcile import worker as reconcile_worker
from workers.relay import worker as relay_worker

S = TypeVar("S", bound=Section)

SHORT_DELAYS = (timedelta(milliseconds=100), timedelta(milliseconds=300))


@dataclass
class FakeApi:
    """`pages[path]` is the `data` of an answer, a whole answer, or what makes one; `failures[path]` are statuses that
    come first.
    """

    pages: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, list[int]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    token: str = "access-1"

    async def answer(self, request: web.Request) -> web.Response:
        self.calls.append(request.path_qs)
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"error": "invalid_token"}, status=401)
        if waiting := self.failures.get(request.path):
            return web.Response(status=waiting.pop(0))
        found = self.pages.get(request.path_qs)
        if found is None:
            return web.json_response({"error": "not found"}, status=404)
        if callable(found):
            given: web.Response = await found(request)
            return given
        if isinstance(found, dict) and "data" in found:
            return web.json_response(found)
        pages = {"count": 1, "current": 1, "next": None}
        return web.json_response({"data": found if isinstance(found, list) else [found], "pages": pages})


@dataclass
class Pipeline:
    """What a test drives and looks at."""

    api: FakeApi
    base_url: str
    publisher: Publisher
    store: Store
    cipher: TokenCipher
    events: list[dict[str, Any]] = field(default_factory=list)
    messages: list[aio_pika.abc.AbstractIncomingMessage] = field(default_factory=list)
    held: list[dict[str, Any]] = field(default_factory=list)
    held_messages: list[aio_pika.abc.AbstractIncomingMessage] = field(default_factory=list)

    async def send(self, message: Message, connection_id: int = 99) -> None:
        await self.publisher.publish(outgoing(message, "fetch", connection_id), seconds=30)

    async def webhook(self, path: str, *, action: str | None = None, connection_id: int = 99, **mapping: str) -> str:
        delivery_id = new_id()
        await self.send(
            WebhookReceived(
                delivery_id=delivery_id,
                connection_id=connection_id,
                url=self.base_url + path,
                mapping=PlatformIds(**{"location_id": "1198", **mapping}),
                action=action,
                received_at=datetime.now(UTC),
            ),
            connection_id,
        )
        return delivery_id

    async def connect(self) -> None:
        """Connection 99, confirmed."""
        values = {"connection_id": 99, "user_id": "1", "state": "confirmed", "created_at": datetime.now(UTC)}
        async with self.store.transaction() as transaction:
            await transaction.execute(table_of(ConnectionRow).insert().values(values))

    async def rows(self, table: type[Any]) -> list[Any]:
        async with self.store.reading() as transaction:
            return list(await transaction.rows(table_of(table).select()))

    async def bodies(self) -> dict[str, Any]:
        """Live listings by their own path."""
        return {row.own_path: loads(row.body.encode()) for row in await self.rows(ListingRow) if row.body is not None}

    async def at_rest(self) -> bool:
        """Nothing is wanted, and no second look is due."""
        return not any(row.wanted > row.answered or row.recheck_at for row in await self.rows(TargetRow))

    async def parked(self) -> list[str]:
        return sorted(row.reason for row in await self.rows(ParkedRow))

    def replayed(self) -> dict[str, Any]:
        """The state that a consumer arrives at from the events alone, refusing gaps."""
        state: dict[str, Any] = {}
        versions: dict[str, int] = {}
        for event in self.events:
            data = event["data"]
            assert data["version"] == versions.get(data["listingId"], 0) + 1, "a gap or a duplicate"
            versions[data["listingId"]] = data["version"]
            state[data["listingId"]] = data["current"]
        return state


@asynccontextmanager
async def pipeline(
    amqp_url: str,
    database_url: str,
    *,
    fetch_amqp_url: str | None = None,
    before: Callable[[Pipeline], Awaitable[None]] | None = None,
    **settings: Any,
) -> AsyncIterator[Pipeline]:
    """Fetch, reconcile and relay, until the end of the block; `before` they start, this is done.

    Fetch may reach the broker by a way of its own.
    """
    stop = asyncio.Event()
    key = Fernet.generate_key().decode()
    connection = await aio_pika.connect(amqp_url)
    async with connection:
        channel = await connection.channel()
        await declare(channel, [*work_queues(SHORT_DELAYS), *event_queues()])
        api = FakeApi()
        server = TestServer(_app(api))
        await server.start_server()
        publisher = Publisher(amqp_url, "test")
        publisher.start()
        store = Store(database_url)
        cipher = TokenCipher([key])
        base_url = str(server.make_url("")).rstrip("/")
        found = Pipeline(api, base_url, publisher, store, cipher)
        await authorise(found)
        await _record(channel, found)
        urls = (fetch_amqp_url or amqp_url, amqp_url)
        runs = _build(urls, database_url, key, f"{server.host}:{server.port}", settings)
        await publisher.wait_ready()
        if before is not None:
            await before(found)
        tasks = [asyncio.create_task(run(stop)) for run in runs]
        try:
            yield found
        finally:
            stop.set()
            await asyncio.gather(*tasks)
            await publisher.close()
            await store.close()
            await server.close()


async def authorise(target: Pipeline, token: str = "access-1", version: int = 1) -> None:
    """Put a token pair into the store, as the token worker does."""
    values = {
        "account": "syncaroo",
        "state": "active",
        "sealed_pair": target.cipher.seal(canonical({"accessToken": token, "refreshToken": "r"}).encode()),
        "rt_version": version,
        "expires_at": datetime.now(UTC) + timedelta(minutes=10),
        "attempts": 0,
    }
    grant = table_of(GrantRow)
    async with target.store.transaction() as transaction:
        await transaction.execute(grant.delete())
        await transaction.execute(grant.insert().values(values))


def _app(api: FakeApi) -> web.Application:
    app = web.Application()
    app.router.add_get("/{path:.*}", api.answer)
    return app


async def _record(channel: aio_pika.abc.AbstractChannel, target: Pipeline) -> None:
    queue = await channel.declare_queue(exclusive=True)
    for kind in ("listing.changed", "sync.held"):
        await queue.bind(EVENTS, kind)

    async def on_event(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        if message.routing_key == "sync.held":
            target.held_messages.append(message)
            target.held.append(loads(message.body))
            return
        target.messages.append(message)
        target.events.append(loads(message.body))

    await queue.consume(on_event, no_ack=True)


def _build(
    amqp_urls: tuple[str, str], database_url: str, key: str, api_host: str, settings: dict[str, Any]
) -> list[Any]:
    by_proxy, broker = (BrokerSettings(amqp_url=SecretStr(url)) for url in amqp_urls)
    store = StoreSettings(database_url=SecretStr(database_url))
    site = SiteSettings()
    syncaroo = SyncarooSettings(syncaroo_api_hosts=(api_host,), syncaroo_allow_http=True)
    quick = {
        "target_interval": timedelta(milliseconds=200),
        "recheck_after": timedelta(0),
        "burst_quiet": timedelta(0),
        "api_rate_per_second": 500.0,
    }
    given = {**quick, **settings}
    fetch = _section(FetchSettings, given)
    resync, reconcile = _section(ResyncSettings, given), _section(ReconcileSettings, given)
    retry = RetrySettings(retry_delays=SHORT_DELAYS)
    keys = KeySettings(secret_keys=(SecretStr(key),))
    return [
        fetch_worker.build(by_proxy, store, keys, site, syncaroo, fetch, resync, reconcile, retry, EgressSettings()),
        reconcile_worker.build(broker, store, site, syncaroo, reconcile, retry),
        relay_worker.build(broker, EventBrokerSettings(), store, site, syncaroo, HistorySettings()),
    ]


def _section(section: type[S], given: dict[str, Any]) -> S:
    return section(**{name: value for name, value in given.items() if name in section.model_fields})

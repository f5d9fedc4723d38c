"""T-IDEMP, T-REORDER, T-DUP: the storm of `tests/storm.py` over the real fetcher, handlers and stores.

Only the broker and Syncaroo's API are stood in for: both let the storm decide when anything arrives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test
from sqlalchemy import func, select

from common.broker.consumer import Delivery
from common.broker.outgoing import Outgoing, outgoing
from common.broker.retry import RetryPolicy
from common.codec import dumps, loads
from common.crypto import TokenCipher
from common.store.engine import Store
from common.store.targets import Wanted, want
from common.urls import AllowedHosts
from ingress.admin.store.held import HeldStore
from schemas.messages import Json, PlatformIds, WebhookReceived
from schemas.tables import EventRow, GrantRow, ListingRow, SQLModel, TargetRow, table_of
from tests.keys import NEW
from tests.storm import CONNECTION, ROOMS, TAGS, Call, Stored, Storm
from workers.fetch.answers import Response
from workers.fetch.fetching import Fetcher
from workers.fetch.handler import MarkHandler
from workers.fetch.store.claims import ClaimStore
from workers.fetch.store.grants import GrantStore
from workers.fetch.store.marks import MarkStore
from workers.fetch.store.outcomes import OutcomeStore
from workers.fetch.store.suspects import SuspectStore
from workers.reconcile.handler import ReconcileHandler
from workers.reconcile.store.listings import ListingStore

T = TypeVar("T")

CIPHER = TokenCipher([NEW])
HOST = urlsplit(ROOMS).netloc
RATE = 100_000.0
BRAKE = 0.3
_target, _listing, _event = table_of(TargetRow), table_of(ListingRow), table_of(EventRow)


@dataclass(eq=False)
class WaitingCall(Call):
    """A GET that waits for the storm."""

    answered: asyncio.Future[Response] = field(kw_only=True)
    task: asyncio.Task[None] = field(kw_only=True)


class WaitingApi:
    """Syncaroo's API: every GET waits until the storm ends it."""

    def __init__(self) -> None:
        self.calls: list[WaitingCall] = []
        self.called = asyncio.Event()

    async def get(self, url: str, _access_token: str) -> Response:
        task = asyncio.current_task()
        assert task is not None
        call = WaitingCall(url, answered=asyncio.get_running_loop().create_future(), task=task)
        self.calls.append(call)
        self.called.set()
        return await call.answered


class Messages:
    """The broker: keeps all that is published to reconcile, for the storm to deliver."""

    def __init__(self) -> None:
        self.published: list[Delivery] = []

    async def publish(self, message: Outgoing, *, seconds: float = 0) -> None:
        self.published.append(Delivery(message.body, message.headers, message.routing_key))


class StoreGateway:
    """Fetch and reconcile as they are, on one database, one step at a time."""

    def __init__(self, runner: asyncio.Runner, store: Store) -> None:
        self._runner = runner
        self._store = store
        self._api = WaitingApi()
        self._messages = Messages()
        publisher: Any = self._messages
        api: Any = self._api
        outcomes, grants = OutcomeStore(store, "storm", rate=RATE), GrantStore(store)
        self._claims = ClaimStore(store, "storm", rate=RATE, interval=timedelta(0))
        # What is not there yet is asked again at once, and as often as a storm may last.
        retry = RetryPolicy([timedelta(0)] * 1000, timedelta(days=3))
        suspects = SuspectStore(store, "storm", brake=BRAKE)
        self._fetcher = Fetcher(outcomes, suspects, grants, api, publisher, CIPHER, retry)
        self._mark = MarkHandler(MarkStore(store), publisher, AllowedHosts([HOST], allow_http=False), lambda: None)
        self._reconcile = ReconcileHandler(ListingStore(store, delete_brake=BRAKE), _nobody, timedelta(0))
        self._run(self._start_anew())

    @property
    def calls(self) -> list[Any]:
        return self._api.calls

    @property
    def queue(self) -> list[Any]:
        return self._messages.published

    def hear(self, url: str) -> None:
        self._run(self._mark([_webhook(url)]))

    def unmap(self, url: str) -> None:
        self._run(self._mark([_webhook(url, "unmapped")]))

    def resync(self, url: str) -> None:
        async def wish() -> None:
            async with self._store.transaction() as transaction:
                await want(transaction, [Wanted(CONNECTION, url, PlatformIds(), "resync")])

        self._run(wish())

    def due(self) -> int:
        query = select(func.count()).where(_target.c.wanted > _target.c.answered, _target.c.lease_owner.is_(None))
        return int(self._rows(query)[0][0])

    def progress(self) -> object:
        return len(self.queue), tuple(self._rows(select(func.max(_target.c.wanted), func.sum(_target.c.answered)))[0])

    def begin(self, _which: int) -> None:
        self._run(self._begin())

    def end(self, call: WaitingCall) -> None:
        assert call.response is not None
        self._api.calls.remove(call)
        call.answered.set_result(call.response)
        self._run(self._until_it_waits(call.task))

    def deliver(self, *messages: Delivery) -> None:
        waiting = list(messages)
        while waiting:
            del waiting[: self._run(self._reconcile(waiting))]

    def approve(self) -> bool:
        held, _done = self._run(HeldStore(self._store).decide(CONNECTION, "approve", None))
        return held > 0

    def listings(self) -> dict[str, Stored]:
        return {
            f"{row.scope}/{row.item_id}": Stored(
                None if row.body is None else loads(row.body.encode()), row.version, row.deleted
            )
            for row in self._rows(_listing.select())
        }

    def events(self) -> dict[str, list[dict[str, Json]]]:
        paths = {row.listing_id: f"{row.scope}/{row.item_id}" for row in self._rows(_listing.select())}
        told: dict[str, list[dict[str, Json]]] = {}
        for row in self._rows(_event.select().where(_event.c.listing_id.is_not(None)).order_by(_event.c.position)):
            told.setdefault(paths[row.listing_id], []).append(loads(row.data.encode()))
        return told

    def close(self) -> None:
        """End what the storm left under way."""
        for call in self._api.calls:
            call.task.cancel()
        self._run(asyncio.sleep(0))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def _rows(self, query: Any) -> Any:
        async def ask() -> Any:
            async with self._store.reading() as transaction:
                return await transaction.rows(query)

        return self._run(ask())

    async def _start_anew(self) -> None:
        pair = CIPHER.seal(dumps({"accessToken": "access", "refreshToken": "refresh"}))
        grant = {"account": "syncaroo", "state": "active", "sealed_pair": pair, "rt_version": 1, "attempts": 0}
        async with self._store.transaction() as transaction:
            for name, table in SQLModel.metadata.tables.items():
                if name != "sequence":
                    await transaction.execute(table.delete())
            expires_at = datetime.now(UTC) + timedelta(hours=1)
            await transaction.execute(table_of(GrantRow).insert().values(**grant, expires_at=expires_at))

    async def _begin(self) -> None:
        claims, grant = await self._claims.claim(1)
        for claim in claims:
            assert grant is not None
            await self._until_it_waits(asyncio.create_task(self._fetcher.fetch(claim, grant)))

    async def _until_it_waits(self, task: asyncio.Task[None]) -> None:
        """Until the fetch has ended or waits for its next answer."""
        while not (task.done() or any(call.task is task for call in self._api.calls)):
            self._api.called.clear()
            called = asyncio.create_task(self._api.called.wait())
            await asyncio.wait({task, called}, return_when=asyncio.FIRST_COMPLETED)
            called.cancel()
        if task.done():
            task.result()


def _webhook(url: str, action: str | None = None) -> Delivery:
    message = WebhookReceived(
        delivery_id="d",
        connection_id=CONNECTION,
        url=url,
        mapping=PlatformIds(),
        action=action,
        received_at=datetime.now(UTC),
    )
    sent = outgoing(message, "fetch", CONNECTION)
    return Delivery(sent.body, sent.headers, sent.routing_key)


async def _nobody() -> None:
    """No relay is there to be woken."""


class StoreStorm(Storm):
    """The storm over the stages as they are, also over items that have no URL of their own: their list alone tells."""

    def __init__(self, runner: asyncio.Runner, store: Store) -> None:
        super().__init__()
        self.gateway = self.stores = StoreGateway(runner, store)
        self.walks_left = 0

    @rule(tag=st.integers(1, 3), n=st.integers(1, 2))
    def put_tag(self, tag: int, n: int) -> None:
        """A tag is made or changed."""
        self.world.tags[tag] = {"id": tag, "n": n}
        self.webhooks.append(TAGS)

    @rule(tag=st.integers(1, 3))
    def drop_tag(self, tag: int) -> None:
        """A tag ends: two complete walks must miss it, or three when somebody must agree in between."""
        if self.world.tags.pop(tag, None):
            self.walks_left = 3

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self.stores.close()

    def settle(self) -> None:
        super().settle()
        while self.walks_left:
            self.walks_left -= 1
            self.gateway.resync(TAGS)
            super().settle()


def test_whatever_arrives_in_whatever_order_the_store_ends_at_the_truth(database_url: str) -> None:
    """T-IDEMP, T-REORDER, T-DUP: over the real stores, with fewer examples."""
    with asyncio.Runner() as runner:
        store = Store(database_url)

        class Here(StoreStorm):
            def __init__(self) -> None:
                super().__init__(runner, store)

        try:
            run_state_machine_as_test(
                Here,
                settings=settings(
                    max_examples=12,
                    stateful_step_count=15,
                    deadline=None,
                    derandomize=True,
                    # A transaction takes its time: what would be slow for a function is not for a database.
                    suppress_health_check=[HealthCheck.too_slow],
                ),
            )
        finally:
            runner.run(store.close())

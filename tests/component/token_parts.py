"""Token workers without a broker: the real store and the stand-in Syncaroo, each worker as if in its own process."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from aiohttp.test_utils import TestServer
from cryptography.fernet import Fernet

from common.broker.consumer import Delivery
from common.broker.outgoing import Outgoing, outgoing
from common.broker.retry import RetryPolicy
from common.clock import monotonic_seconds
from common.codec import loads
from common.crypto import TokenCipher
from common.errors import BrokerUnavailable, StoreUnavailable
from common.ids import new_id
from common.store.engine import Store
from common.token_pair import Pair, pack, unpack
from sandbox import SandboxConfig, create_app
from sandbox.faults import Fault
from sandbox.state import SANDBOX, Granted, Sandbox
from schemas.messages import CodeReceived
from schemas.tables import ConnectAttemptRow, EventRow, GrantRow, table_of
from workers.token.client import TokenClient
from workers.token.handler import TokenHandler
from workers.token.keeping import PairKeeper
from workers.token.refresh import Pace, Refresher
from workers.token.rules import NoReply, Reply
from workers.token.store import Claim, GrantStore

DELAYS = (timedelta(milliseconds=10), timedelta(milliseconds=30))
QUICK = Pace(poll=0.01, settle=0.0, last=5.0)
REDIRECT_URI = "http://gateway.test/confirm"

_grant = table_of(GrantRow)
_attempt = table_of(ConnectAttemptRow)
_event = table_of(EventRow)


@dataclass
class Spool:
    """A broker that keeps what it is given, and checks that nothing secret is in clear; `refusals` come first."""

    refusals: int = 0
    refusal: Exception = field(default_factory=lambda: BrokerUnavailable("broker: as ordered"))
    secrets: set[str] = field(default_factory=set)
    messages: list[Outgoing] = field(default_factory=list)

    async def publish(self, message: Outgoing) -> None:
        if self.refusals > 0:
            self.refusals -= 1
            raise self.refusal
        clear = message.body.decode() + repr(message.headers)
        assert not [secret for secret in self.secrets if secret in clear], "a secret in clear on the broker"
        assert message.routing_key.startswith("token.")
        self.messages.append(message)

    def deliveries(self) -> list[Delivery]:
        return [Delivery(one.body, one.headers, one.routing_key) for one in self.messages]


class FlakyGrants(GrantStore):
    """The real store, which fails to keep a pair, or to lose one, so many times."""

    hangs = 0
    """How often keeping one does not end."""
    failures = 0
    failure: Exception = StoreUnavailable("store: as ordered")
    """How it fails to keep one."""
    verdict_failures = 0

    async def keep(self, *args: Any, **kwargs: Any) -> bool:
        if self.hangs > 0:
            self.hangs -= 1
            await asyncio.Event().wait()
        if self.failures > 0:
            self.failures -= 1
            raise self.failure
        return await super().keep(*args, **kwargs)

    async def lose(self, claim: Claim, detail: str) -> bool:
        self._fail_verdict()
        return await super().lose(claim, detail)

    async def conclude(self, attempt_id: str, outcome: Literal["refused", "failed"], detail: str) -> None:
        self._fail_verdict()
        await super().conclude(attempt_id, outcome, detail)

    def _fail_verdict(self) -> None:
        if self.verdict_failures > 0:
            self.verdict_failures -= 1
            raise StoreUnavailable("store: as ordered")


class HeldClient(TokenClient):
    """The real client, whose answers arrive only when `let_go` is set; `asked` is set when Syncaroo has answered."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.asked, self.let_go = asyncio.Event(), asyncio.Event()
        self.let_go.set()

    async def refresh(self, refresh_token: str) -> Reply | NoReply:
        return await self._held(await super().refresh(refresh_token))

    async def exchange(self, code: str) -> Reply | NoReply:
        return await self._held(await super().exchange(code))

    async def _held(self, reply: Reply | NoReply) -> Reply | NoReply:
        self.asked.set()
        await self.let_go.wait()
        return reply


@dataclass
class Worker:
    """The parts of one token worker."""

    grants: FlakyGrants
    client: HeldClient
    keeper: PairKeeper
    refresher: Refresher
    handler: TokenHandler
    stop: asyncio.Event
    """Of the handler."""


@dataclass
class Bench:
    """What a test drives and looks at."""

    sandbox: Sandbox
    base_url: str
    database_url: str
    key: str
    spool: Spool
    store: Store
    stores: list[Store] = field(default_factory=list)

    def worker(self, *, delays: tuple[timedelta, ...] = DELAYS, key: str = "", **more: Any) -> Worker:
        store = Store(self.database_url)
        self.stores.append(store)
        cipher = TokenCipher([key or self.key])
        grants = FlakyGrants(store)
        client = HeldClient(
            base_url=more.pop("base_url", self.base_url),
            client_id="sandbox-client",
            client_secret="sandbox-secret",
            redirect_uri=REDIRECT_URI,
        )
        keeper = PairKeeper(grants, self.spool, cipher, clock=more.get("clock", monotonic_seconds))
        retry = RetryPolicy(delays, timedelta(hours=72))
        pace = more.pop("pace", QUICK)
        refresher = Refresher(grants, client, keeper, cipher, retry, pace=pace, **more)
        stop = asyncio.Event()
        handler = TokenHandler(grants, client, keeper, cipher, retry, stop=stop, lease_wait=0.3)
        return Worker(grants, client, keeper, refresher, handler, stop)

    @asynccontextmanager
    async def running(self, *workers: Worker) -> AsyncIterator[None]:
        """Their refresh loops, stopped and awaited at the end."""
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for worker in workers:
                group.create_task(worker.refresher.run(stop))
            try:
                yield
            finally:
                stop.set()

    # --- Syncaroo's side

    def order(self, kind: str, **more: Any) -> None:
        self.sandbox.faults.order(Fault(kind=kind, **more))

    def issue_refresh_token(self) -> str:
        token = f"refresh-{new_id()}"
        self.sandbox.grants.refresh[token] = Granted(expires_at=float("inf"))
        self.spool.secrets.add(token)
        return token

    def issue_code(self) -> str:
        code = f"code-{new_id()}"
        self.sandbox.grants.codes[code] = Granted(expires_at=float("inf"), redirect_uri=REDIRECT_URI)
        self.spool.secrets.add(code)
        return code

    @property
    def requests(self) -> list[str]:
        """What became of each request of ours, in order."""
        return [record.outcome for record in self.sandbox.records.tokens]

    def violations(self) -> list[str]:
        return [one.kind for one in self.sandbox.records.violations]

    def assert_one_at_a_time(self) -> None:
        tokens = sorted(self.sandbox.records.tokens, key=lambda record: record.order_began)
        for earlier, later in itertools.pairwise(tokens):
            assert earlier.order_ended is not None
            assert earlier.order_ended < later.order_began, "two requests at once"

    # --- the store's side

    async def authorise(self, *, state: str = "active", due: bool = True, **more: Any) -> str:
        """A pair in the store whose refresh token Syncaroo knows; the token."""
        refresh_token = self.issue_refresh_token()
        sealed = TokenCipher([self.key]).seal(pack(Pair(access_token="access-0", refresh_token=refresh_token)))
        async with self.store.transaction() as transaction:
            now = await transaction.now()
            row = {
                "account": "syncaroo",
                "state": state,
                "sealed_pair": sealed,
                "rt_version": 1,
                "expires_at": now + timedelta(seconds=300),
                "refresh_at": now if due else now + timedelta(seconds=200),
                "attempts": 0,
            }
            await transaction.execute(_grant.insert().values(row | more))
        return refresh_token

    async def change(self, **values: Any) -> None:
        """Change the row; a timedelta is taken from the store's now."""
        async with self.store.transaction() as transaction:
            now = await transaction.now()
            real = {name: now + value if isinstance(value, timedelta) else value for name, value in values.items()}
            await transaction.execute(_grant.update().values(real))

    async def grant(self) -> Any:
        async with self.store.reading() as transaction:
            return await transaction.row(_grant.select())

    async def pair(self) -> Pair:
        return unpack(TokenCipher([self.key]).open((await self.grant()).sealed_pair))

    async def holds_live_pair(self) -> bool:
        """Whether the stored refresh token is one that Syncaroo would take now."""
        granted = self.sandbox.grants.refresh.get((await self.pair()).refresh_token)
        return granted is not None and not granted.used

    async def events(self) -> list[str]:
        """The states told by grant.changed, in order."""
        async with self.store.reading() as transaction:
            rows = await transaction.rows(_event.select().order_by(_event.c.position))
        return [loads(row.data.encode())["state"] for row in rows if row.type == "grant.changed"]

    async def begin(self, *, age: timedelta = timedelta(0)) -> str:
        """An attempt whose code came `age` ago; its id."""
        attempt_id = new_id()
        async with self.store.transaction() as transaction:
            came = await transaction.now() - age
            row = {"attempt_id": attempt_id, "created_at": came, "used_at": came, "outcome": "pending"}
            await transaction.execute(_attempt.insert().values(row))
        return attempt_id

    async def attempt(self, attempt_id: str) -> tuple[str, str | None]:
        async with self.store.reading() as transaction:
            row = await transaction.row(_attempt.select().where(_attempt.c.attempt_id == attempt_id))
        assert row is not None
        return row.outcome, row.detail

    def code_received(self, attempt_id: str, code: str, *, tries: int = 0, key: str = "") -> Delivery:
        sealed = TokenCipher([key or self.key]).seal(code.encode())
        message = outgoing(CodeReceived(attempt_id=attempt_id, sealed_code=sealed), "token", 0, attempt=tries)
        return Delivery(message.body, message.headers, message.routing_key)


@asynccontextmanager
async def bench(database_url: str) -> AsyncIterator[Bench]:
    """A stand-in and an empty store, until the end of the block."""
    app = create_app(SandboxConfig(locations=1, resources=1, rates=0))
    server = TestServer(app)
    await server.start_server()
    base_url = str(server.make_url("")).rstrip("/")
    made = Bench(app[SANDBOX], base_url, database_url, Fernet.generate_key().decode(), Spool(), Store(database_url))
    try:
        yield made
    finally:
        await server.close()
        for store in (made.store, *made.stores):
            await store.close()

"""A whole gateway as real processes, onboarded through its real pages, watched from outside, added up by the checker.

`async with world(...)` starts everything; `World.onboard()` plays user and admin; `World.ledger()` waits until the sum
is right and gives it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aio_pika.abc import AbstractIncomingMessage

from common.codec import dumps
from ops.admin import AdminApi
from ops.demo.browser import Browser, Page
from ops.demo.story import platform_locations
from ops.demo.subscriber import Subscriber
from ops.ledger import Evidence, Ledger, audit
from ops.stack import WORKERS, Stack, environment, sandbox_arguments
from sandbox.driver import DriverError, SandboxDriver
from tests.waiting import until

QUICK: Mapping[str, str] = {
    "API_RATE_PER_SECOND": "200",
    "RECHECK_AFTER": "0",
    "RESYNC_INTERVAL": "0",
    "BURST_QUIET": "0",
    "RETRY_DELAYS": "500ms,1s",
}
"""No second looks, no resyncs by themselves, so that calls can be counted; trouble is over soon."""

PASSWORD = "correct horse battery staple"
ALLOW = ("decision", "allow")
LONG = 2
RECORDER = "test.recorder"
FOLLOW_SECONDS = 90.0
"""How long a person reloads a page, on a busy machine."""


@dataclass
class World:
    """Everything that runs, and what was heard: `messages` as they came on `syncaroo.events`, `events` their bodies."""

    stack: Stack
    sandbox: SandboxDriver
    admin: AdminApi
    messages: list[AbstractIncomingMessage] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)

    async def onboard(self, connection_id: int = 99) -> None:
        """The admin connects us to Syncaroo, a user connects themselves, and the first burst is through."""
        await self.authorise()
        await self.connect(connection_id)
        await self.ledger()

    async def authorise(self, timeout: float = 20.0) -> None:
        """The admin's way through /connect; returns when the grant is active."""
        async with Browser() as browser:
            page = await browser.open(f"{self.stack.url}/connect")
            page = await browser.submit(page, password=self.stack.environment["ADMIN_TOKEN"])
            page = await browser.submit(page, button=ALLOW)
            assert page.status == 200, page
        await until(self.has_grant, timeout, what="the grant")

    async def has_grant(self) -> bool:
        """Whether our access to Syncaroo is active."""
        return bool((await self.admin.status())["grant"]["state"] == "active")

    async def connect(self, connection_id: int, *, has_listings: bool = True) -> None:
        """A user's way from Syncaroo to the consent page and back; returns when Syncaroo calls it confirmed.

        Every connection has a user of its own; one without listings hears of nothing.
        """
        user = f"user-{connection_id}"
        await self.admin.put_user(user, user, PASSWORD)
        if has_listings:
            await self.admin.put_locations(user, platform_locations(await self.sandbox.world()))
        async with Browser() as browser:
            page = await browser.open(await self.sandbox.connect(connection_id))
            page = await browser.submit(page, text=user, password=PASSWORD)
            page = await browser.submit(page, button=ALLOW)
        connection = (await self.sandbox.connections())[connection_id]
        assert connection.state == "confirmed", page

    async def ledger(self, timeout: float = 30.0, *, allow: Sequence[str] = ()) -> Ledger:
        """Quiet first, then nothing left to do, then the sum is right, but for faults that begin as one of the
        patterns in `allow` says."""
        await self.sandbox.quiet()

        async def adds_up() -> Ledger:
            status = await self.admin.status()
            assert (status["targets"]["due"], status["events"]["unpublished"]) == (0, 0), status
            found = await self.sum()
            faults = [fault for fault in found.faults() if not any(re.match(pattern, fault) for pattern in allow)]
            assert not faults, "\n".join([*found.lines(), *faults])
            return found

        return await until(adds_up, timeout, what="the ledger adds up", pace=0.5)

    async def sum(self) -> Ledger:
        """As it is now."""
        return audit(
            Evidence(
                records=await self.sandbox.records(),
                world=await self.sandbox.world(),
                events=list(self.events),
                listings=await self.admin.listings(),
                dead_letters=await self.admin.dead_letters(),
            )
        )


class Admin(Browser):
    """The admin, who can be stopped between Syncaroo's page and ours."""

    @property
    def http(self) -> aiohttp.ClientSession:
        """With their cookies."""
        assert self._http is not None
        return self._http

    async def allowed(self, made: World) -> str:
        """The link that brings the code back to us; nobody has opened it."""
        page = await self.open(f"{made.stack.url}/connect")
        if page.form is not None and page.form.password:
            page = await self.submit(page, password=made.stack.environment["ADMIN_TOKEN"])
        assert page.form is not None
        fields = {**page.form.fields, ALLOW[0]: ALLOW[1]}
        address = page.url.partition("?")[0]
        async with self.http.post(address, data=fields, allow_redirects=False) as answer:
            return answer.headers["Location"]

    async def follow(self, link: str, until_it_says: str) -> None:
        """Reload the page, as it does by itself, until its heading begins so."""

        async def says_it() -> Page | None:
            try:
                page = await self.open(link)
            except aiohttp.ClientError:
                return None
            return page if page.heading.startswith(until_it_says) else None

        await until(says_it, FOLLOW_SECONDS, what=until_it_says, pace=0.5)


@asynccontextmanager
async def again_and_again(work: Callable[[int], Awaitable[object]], pause: float = 0.05) -> AsyncIterator[None]:
    """`work(0)`, `work(1)`, … until the end of the block, `pause` seconds between them."""
    stop = asyncio.Event()

    async def run() -> None:
        for number in count():
            await work(number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)
            if stop.is_set():
                return

    running = asyncio.create_task(run())
    try:
        yield
    finally:
        stop.set()
        await running


@dataclass(frozen=True)
class Changes:
    """Prices and names change, there is a new room now and then, lists of several pages are asked for, and some
    webhooks tell no target."""

    world: World
    connection_id: int

    async def __call__(self, number: int) -> None:
        """The so-manieth of them."""
        sandbox = self.world.sandbox
        match number % 20:
            case 9:
                url = await self._long_list(number // 20)
                await sandbox.webhook(self.connection_id, webhook_body(self.connection_id, url, "rates"), url=url)
            case 14:
                await sandbox.webhook(self.connection_id, webhook_body(self.connection_id, None, "rates"))
            case 4:
                await sandbox.change("rename", wait=False)
            case 19:
                await sandbox.change("room", wait=False)
            case _:
                await sandbox.change("price", wait=False)

    async def _long_list(self, number: int) -> str:
        """One list of rates after another, of those with several pages."""
        lists = (await self.world.sandbox.world()).collections
        long = sorted(url for url in lists if url.endswith("/rates") and len(lists[url]) > LONG)
        return long[number % len(long)]


def webhook_body(connection_id: int, url: str | None, attribute_type: str, location_id: str | None = None) -> str:
    """A webhook as the guide prints it, without a hash."""
    meta = {"resourceId": None, "attributeType": attribute_type, "resourceType": None, "apiUrl": url}
    body = {"connectionId": connection_id, "webhookType": "data", "locationId": location_id, "metaData": meta}
    return dumps(body).decode()


@dataclass(frozen=True)
class Place:
    """Where one gateway lives."""

    directory: Path
    amqp_url: str
    postgresql_url: str | None = None

    @property
    def database(self) -> Path:
        return self.directory / "gateway.db"

    @property
    def database_url(self) -> str:
        return self.postgresql_url or f"sqlite+aiosqlite:///{self.database}"


def selected(request: pytest.FixtureRequest, *names: str) -> set[str]:
    """The values of these parameters in the tests of the module that are to run, on databases that can be had."""
    items = [item for item in request.session.items if item.path == request.path]
    params = [parameters(item) for item in items if item.get_closest_marker("skip") is None]
    values = {str(one[name]) for one in params for name in names if name in one}
    without = set(filter(needs_postgresql, values))
    return values - without if without and not has_postgresql(request) else values


def parameters(item: pytest.Item) -> Mapping[str, Any]:
    """What a test is parametrised with, by name."""
    return getattr(getattr(item, "callspec", None), "params", {})


def needs_postgresql(value: Any) -> bool:
    """Whether a test with this parameter, which begins with the database, is played there."""
    return str(value).partition(" ")[0] == "postgresql"


def has_postgresql(request: pytest.FixtureRequest) -> bool:
    """Whether it can be had; asks for it."""
    try:
        request.getfixturevalue("postgresql")
    except pytest.skip.Exception:
        return False
    return True


@asynccontextmanager
async def world(
    directory: Path,
    *,
    amqp_url: str,
    database_url: str,
    settings: Mapping[str, str] | None = None,
    sandbox: Sequence[str] = (),
    roles: Sequence[str] = ("ingress", *WORKERS),
    set_up: bool = True,
) -> AsyncIterator[World]:
    """The stand-in and a gateway of these roles; `sandbox` are more flags of the stand-in.

    Begins when the ingress is ready, if there is one. Without `set_up` nobody declares or migrates anything, and the
    caller starts a `recorder` when there is something to record from.
    """
    settings = {**QUICK, **(settings or {})}
    stack = Stack(environment(amqp_url=amqp_url, database_url=database_url, settings=settings), directory)
    async with (
        stack,
        SandboxDriver(stack.sandbox_url) as driver,
        AdminApi(stack.url, stack.environment["ADMIN_TOKEN"]) as admin,
        contextlib.AsyncExitStack() as ending,
    ):
        made = World(stack, driver, admin)
        await stack.start("sandbox", arguments=sandbox_arguments(stack.environment, *sandbox))
        if set_up:
            await gateway_setup(stack)  # while the stand-in starts
            await ending.enter_async_context(recorder(amqp_url, made))
        for role in roles:
            await stack.start(role)
        await until(lambda: _answers(driver), what="the stand-in")
        await stack.wait_ready()
        yield made


async def gateway_setup(stack: Stack) -> None:
    """`gateway setup`."""
    done = await stack.run("-m", "ops", "setup")
    assert done.code == 0, done.output


@asynccontextmanager
async def recorder(amqp_url: str, listener: World) -> AsyncIterator[None]:
    """A subscriber to everything on `syncaroo.events`, with a queue that outlives the broker."""
    async with Subscriber(amqp_url, queue=RECORDER, keys=["#"]) as subscriber:
        listener.messages, listener.events = subscriber.messages, subscriber.events
        yield


async def answers(url: str, path: str = "/readyz") -> bool:
    """Whether the ingress there is ready, or at least alive (`/healthz`)."""
    async with aiohttp.ClientSession() as session:
        try:
            async with session.get(f"{url}{path}") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False


def same_port(made: World) -> dict[str, str]:
    """A second ingress would else listen elsewhere."""
    return {"HTTP_PORT": made.stack.environment["HTTP_PORT"]}


async def _answers(driver: SandboxDriver) -> bool:
    try:
        await driver.config()
    except (aiohttp.ClientError, DriverError, OSError):
        return False
    return True

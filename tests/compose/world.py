"""The gateway as Compose runs it, seen from outside: onboarded through the proxy, loaded, added up by the checker."""

from __future__ import annotations

import contextlib
import secrets
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aio_pika
import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from common.broker.topology import EVENTS
from common.codec import loads
from common.errors import GatewayError
from ops.admin import AdminApi
from ops.broker_users import VHOST
from ops.demo.browser import Browser
from ops.demo.story import platform_locations
from ops.demo.teller import Teller
from ops.ledger import Evidence, Ledger, audit
from sandbox.driver import DriverError, SandboxDriver
from tests.acceptance.world import again_and_again
from tests.compose.project import Container, Project
from tests.waiting import until

CONNECTION = 99
USER = "ada"
PASSWORD = "correct horse battery staple"
ALLOW = ("decision", "allow")
OURS = ("ingress", "token", "fetch", "reconcile", "relay")
QUEUE = "test.recorder"
SETTLES = 240.0
"""On a busy machine; otherwise it takes some five."""
LOAD_PAUSE = 0.2

_NOT_YET = (GatewayError, DriverError, aiohttp.ClientError, OSError, TimeoutError)
"""What a call ends with while something is on its way up."""


@dataclass
class World:
    """Everything that runs, and what a subscriber has heard: `events` are CloudEvents in the order of their arrival.

    `site` is the address of the gateway as the world knows it, whose certificate `authorities` vouch for.
    """

    project: Project
    tell: Teller
    site: str
    admin_token: str = field(repr=False)
    authorities: ssl.SSLContext = field(repr=False)
    sandbox: SandboxDriver
    admin: AdminApi
    events: list[Any] = field(default_factory=list)

    async def up(self, *arguments: str) -> None:
        """`docker compose up -d --wait …`, and everything of ours is healthy."""
        await self.project.compose("up", "-d", "--wait", "--wait-timeout", "480", *arguments)
        await self.healthy()

    async def healthy(self, timeout: float = 180.0) -> list[Container]:
        """Every container but the one that sets up runs and is healthy."""

        async def well() -> list[Container]:
            found = await self.project.containers()
            assert {one.service for one in found} >= {*OURS, "rabbitmq", "postgres", "proxy", "sandbox"}, found
            ill = [one for one in found if one.service != "setup" and not one.well]
            assert not ill, ill
            return found

        return await until(well, timeout, "everything is healthy", pace=0.5)

    async def onboard(self) -> None:
        """The operator lets us into Syncaroo, a user connects themselves, and the first burst has become events."""
        with self.tell.step("the operator authorises the gateway at Syncaroo, through the proxy"):
            async with Browser(self._here()) as browser:
                page = await browser.open(f"{self.site}/connect")
                page = await browser.submit(page, password=self.admin_token)
                page = await browser.submit(page, button=ALLOW)
                assert page.status == 200, page
            await until(self._has_grant, 30, "the token worker gets the grant", pace=0.5)
        with self.tell.step("a user is created, signs in and consents; Syncaroo checks the connection") as step:
            await self.admin.put_user(USER, USER, PASSWORD)
            await self.admin.put_locations(USER, platform_locations(await self.sandbox.world()))
            async with Browser(self._here()) as browser:
                page = await browser.open(await self.sandbox.connect(CONNECTION))
                page = await browser.submit(page, text=USER, password=PASSWORD)
                page = await browser.submit(page, button=ALLOW)
            found = (await self.sandbox.connections())[CONNECTION]
            assert found.state == "confirmed", page
            checked = await self.sandbox.check(CONNECTION)
            step.note(f"{checked['locations']} locations and {checked['resources']} rooms")
        await self.settled("the first webhooks are events")

    @asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        """Syncaroo's world changes some five times a second, each change told by a webhook through the proxy."""
        changes = 0

        async def change(number: int) -> None:
            nonlocal changes
            kind = {9: "rename", 39: "room"}.get(number % 40, "price")
            with contextlib.suppress(DriverError):
                await self.sandbox.change(kind, wait=False)
                changes += 1

        async with again_and_again(change, LOAD_PAUSE):
            yield
        assert changes, "no load"

    async def settled(self, what: str, *, resync: bool = False) -> Ledger:
        """Quiet first, then the ledger adds up. `resync`: as an operator asks for one after webhooks found nobody."""
        with self.tell.step(what) as step:
            await self.sandbox.quiet()
            if resync:
                await until(self._resynced, 30, "a resync is taken", pace=0.5)
            found = await until(self._adds_up, SETTLES, "the ledger adds up", pace=0.5)
            step.note(
                f"{found.webhooks_accepted} webhooks accepted, {found.webhooks_refused} refused, {found.events} events"
            )
            return found

    async def told(self, since: int) -> None:
        """An event has come after number `since` of those that were heard."""
        await until(lambda: len(self.events) > since, 60, "a new event at the subscriber")

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

    def _here(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(ssl=self.authorities, resolver=Localhost())

    async def _adds_up(self) -> Ledger:
        try:
            status, found = await self.admin.status(), await self.sum()
        except _NOT_YET as error:
            raise AssertionError(f"{type(error).__name__}: {error}") from error
        assert (status["targets"]["due"], status["events"]["unpublished"]) == (0, 0), status
        assert found.adds_up, "\n".join([*found.lines(), *found.faults()])
        return found

    async def _resynced(self) -> bool:
        try:
            return bool(await self.admin.resync(CONNECTION))
        except _NOT_YET:
            return False

    async def _has_grant(self) -> bool:
        try:
            return bool((await self.admin.status())["grant"]["state"] == "active")
        except _NOT_YET:
            return False


class Localhost(AbstractResolver):
    """As browsers do it: every name that ends in `.localhost` is this machine, whatever its own resolver says."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        assert host.rpartition(".")[2] == "localhost", host
        return [
            ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0),
        ]

    async def close(self) -> None:
        """It holds nothing."""


async def add_subscriber(project: Project) -> str:
    """A user of the broker who may have a queue of their own and read events → their address of the broker."""
    password = secrets.token_hex(16)
    control = ("exec", "-T", "-u", "rabbitmq", "rabbitmq", "rabbitmqctl", "-q")
    await project.compose(*control, "add_user", "subscriber", password)
    rights = (f"^{QUEUE}$", f"^{QUEUE}$", f"^({QUEUE}|{EVENTS})$")
    await project.compose(*control, "set_permissions", "-p", VHOST, "subscriber", *rights)
    return f"amqp://subscriber:{password}@127.0.0.1:{project.ports.subscriber}/{VHOST}"


@asynccontextmanager
async def subscriber(amqp_url: str, events: list[Any]) -> AsyncIterator[None]:
    """A downstream service: a durable queue on `syncaroo.events` that outlives the broker's restarts."""
    connection = await aio_pika.connect_robust(f"{amqp_url}?heartbeat=5", reconnect_interval=1)
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        await queue.bind(EVENTS, "#")

        async def came(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            events.append(loads(message.body))
            await message.ack()

        await queue.consume(came)
        yield

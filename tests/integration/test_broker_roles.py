"""T-AMQP-PERM: with the users of `gateway init` every process does its own work, and can do nobody else's (B13)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from aio_pika import Message
from aiormq.exceptions import ChannelAccessRefused

from common.broker.topology import EVENT_LOG, EVENTS, LOG, WORK, event_queues, work_queues
from common.codec import dumps, loads
from ops.admin import AdminApi
from ops.broker import PrivateNode
from ops.broker.broker import VhostRefused
from ops.broker.vhosts import ByManagement
from ops.broker_users import VHOST, User, definitions, hashed, is_hash_of, users
from ops.stack import Stack, environment, sandbox_arguments
from sandbox.driver import SandboxDriver
from tests.acceptance.world import QUICK, World, recorder
from tests.waiting import until

TEAM = "team"
"""A subscriber, with the rights that docs/operations.md gives one."""
TEAM_RIGHTS = {
    "configure": "^test[.].+$",
    "write": "^(test[.].+|syncaroo[.]work)$",
    "read": "^(test[.].+|syncaroo[.]events|syncaroo[.]events[.]log)$",
}
TEAM_TOPICS = {"exchange": WORK, "write": "^snapshot[.][0-9]+$", "read": "^$"}
QUEUES = sorted(queue.name for queue in [*work_queues(()), *event_queues()])
DELAYS = ("syncaroo.token.delay.2s", "syncaroo.reconcile.delay.2s", "syncaroo.snapshot.delay.5s")
READS = {
    "token": {"syncaroo.token", "syncaroo.token.dead"},
    "fetch": {"syncaroo.fetch", "syncaroo.fetch.dead"},
    "reconcile": {"syncaroo.reconcile", "syncaroo.reconcile.dead"},
    "relay": {"syncaroo.snapshot", "syncaroo.snapshot.dead", EVENT_LOG},
    TEAM: {EVENT_LOG},
}
PUBLISHES = {
    "ingress": {"token.7", "fetch.7", "reconcile.7", "snapshot.7", "dead.fetch"},
    "token": {"token.7", "token.retry", "delay.token.2s", "dead.token"},
    "fetch": {"fetch.7", "fetch.retry", "delay.fetch.2s", "dead.fetch", "reconcile.7"},
    "reconcile": {"reconcile.7", "reconcile.retry", "delay.reconcile.2s", "dead.reconcile", "relay.poke"},
    "relay": {"snapshot.7", "snapshot.retry", "delay.snapshot.5s", "dead.snapshot"},
    TEAM: {"snapshot.7"},
}
"""On `syncaroo.work`."""
KEYS = sorted(set().union(*PUBLISHES.values(), {"nobody.7", "delay.token", "fetch", "dead.anything"}))
EVERYBODY = [*(user.name for user in users()), TEAM]
OURS = [user.name for user in users()]


@dataclass(frozen=True)
class Roles:
    """A broker that knows the users alone, each by a password of its own."""

    node: PrivateNode
    passwords: dict[str, str]

    def url(self, user: str) -> str:
        return f"amqp://{user}:{self.passwords[user]}@127.0.0.1:{self.node.port}/{VHOST}"

    def management(self, user: str) -> ByManagement:
        assert self.node.management is not None
        return ByManagement(self.node.management, user, self.passwords[user])

    @asynccontextmanager
    async def connection(self, user: str) -> AsyncIterator[aio_pika.abc.AbstractConnection]:
        connection = await aio_pika.connect(self.url(user))
        async with connection:
            yield connection


@pytest.fixture(scope="module")
def roles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Roles]:
    """A node that loads what `gateway init` writes, set up by `gateway setup`, and a subscriber's user."""
    directory = tmp_path_factory.mktemp("roles")
    passwords = {name: f"password-of-{name}" for name in EVERYBODY}
    (directory / "definitions.json").write_bytes(dumps(definitions(passwords)))
    conf = f"load_definitions = {directory / 'definitions.json'}\n"
    with PrivateNode(plugins=("rabbitmq_management",), conf=conf) as node:
        made = Roles(node, passwords)
        asyncio.run(_set_up(made, directory))
        yield made


async def _set_up(roles: Roles, directory: Path) -> None:
    settings = _environment(roles, directory, "setup")
    done = await Stack(settings, directory).run("-m", "ops", "setup")
    assert done.code == 0, done.output
    assert done.output.count("set by the management API") == 2, done.output
    admin = roles.management("setup")
    admin.call("PUT", f"/api/users/{TEAM}", {"password": roles.passwords[TEAM], "tags": ""})
    admin.call("PUT", f"/api/permissions/{VHOST}/{TEAM}", TEAM_RIGHTS)
    admin.call("PUT", f"/api/topic-permissions/{VHOST}/{TEAM}", TEAM_TOPICS)


def _environment(roles: Roles, directory: Path, user: str) -> dict[str, str]:
    assert roles.node.management is not None
    settings = {**QUICK, "RETRY_DELAYS": "2s"}
    database = f"sqlite+aiosqlite:///{directory / 'gateway.db'}"
    management = roles.node.management
    return environment(amqp_url=roles.url(user), database_url=database, management=management, settings=settings)


async def test_every_process_does_its_own_work(roles: Roles, tmp_path: Path) -> None:
    """From the first webhook to the event, a snapshot, a message that is parked and replayed: each as its own user."""
    settings = _environment(roles, tmp_path, "setup")
    team = roles.url(TEAM)
    async with (
        Stack(settings, tmp_path) as stack,
        SandboxDriver(stack.sandbox_url) as driver,
        AdminApi(stack.url, stack.environment["ADMIN_TOKEN"]) as admin,
    ):
        world = World(stack, driver, admin)
        done = await stack.run("-m", "ops", "setup")
        assert done.code == 0, done.output
        await stack.start("sandbox", arguments=sandbox_arguments(stack.environment))
        async with recorder(team, world):
            for role in ("ingress", "token", "fetch", "reconcile", "relay"):
                await stack.start(role, settings={"AMQP_URL": roles.url(role)})
            await stack.wait_ready()
            await world.onboard()
            assert world.events

            await _parked_and_replayed(world)
            assert await _snapshot(team) == len(await admin.listings())
            said = "".join(stack.logs(name) for name in stack.names())
            assert "ACCESS_REFUSED" not in said
            assert "copy_failed" not in said


async def _parked_and_replayed(world: World) -> None:
    """A webhook without a target is parked by way of the dead queue, and goes into the work queue again."""
    await world.sandbox.webhook(99, dumps({"connectionId": 99, "webhookType": "data", "metaData": {}}).decode())
    letters = await until(world.admin.dead_letters, what="it is parked")
    await world.admin.replay(letters[0]["id"])

    async def is_parked_again() -> bool:
        return [one["id"] for one in await world.admin.dead_letters()] not in ([], [letters[0]["id"]])

    await until(is_parked_again, what="it came back")


async def _snapshot(url: str) -> int:
    """How many listings a subscriber is sent that asks for it by `syncaroo.work`."""
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel(on_return_raises=True)
        queue = await channel.declare_queue("test.snapshot", durable=True)
        exchange = await channel.get_exchange(WORK, ensure=False)
        await exchange.publish(Message(dumps({"to": "test.snapshot"})), "snapshot.0")
        types: list[str] = []

        async def completed() -> bool:
            while (message := await queue.get(no_ack=True, fail=False)) is not None:
                types.append(loads(message.body)["type"])
            return "snapshot.completed" in types

        await until(completed, 30, "the snapshot is complete")
        await queue.delete()
        return types.count("listing.snapshot")


@pytest.mark.parametrize("user", EVERYBODY)
async def test_reads_its_own_queues_and_no_others(roles: Roles, user: str) -> None:
    async with roles.connection(user) as connection:
        allowed = {queue for queue in (*QUEUES, *DELAYS) if await _may(connection, _consume, queue)}
    assert allowed == ({*QUEUES, *DELAYS} if user == "setup" else READS.get(user, set()))


@pytest.mark.parametrize("user", EVERYBODY)
async def test_publishes_what_its_stage_does_and_nothing_else(roles: Roles, user: str) -> None:
    async with roles.connection(user) as connection:
        assert {key for key in KEYS if await _may(connection, _publish, WORK, key)} == PUBLISHES.get(user, set())
        for exchange, key in ((EVENTS, "listing.changed"), (LOG, "listing.changed"), ("", "syncaroo.events.log")):
            assert await _may(connection, _publish, exchange, key) == (user == "relay"), exchange


@pytest.mark.parametrize("user", [user for user in EVERYBODY if user != "setup"])
async def test_changes_nothing_of_ours(roles: Roles, user: str) -> None:
    async with roles.connection(user) as connection:
        for queue in (*QUEUES, *DELAYS):
            assert not await _may(connection, _delete, queue), queue
            if queue != EVENT_LOG:  # nobody can empty a stream
                assert await _may(connection, _purge, queue) == (queue in READS.get(user, ())), queue
        for step in (_declare_queue, _declare_exchange):
            assert not await _may(connection, step, "syncaroo.another"), step
        assert not await _may(connection, _bind, EVENT_LOG, EVENTS, "#")


@pytest.mark.parametrize("user", [*OURS, TEAM])
def test_the_management_api_shows_the_operator_and_obeys_setup_alone(roles: Roles, user: str) -> None:
    api = roles.management(user)
    policy = f"/api/policies/{VHOST}/trial"
    for path, may in (("/api/overview", ("setup", "operator")), ("/api/definitions", ("setup",))):
        assert _answers(api, "GET", path) == (user in may), path
    assert _answers(api, "PUT", policy, {"pattern": "^trial$", "definition": {"max-length": 1}}) == (user == "setup")
    read = {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}
    for queue in ("syncaroo.fetch", "syncaroo.fetch.dead"):
        assert _answers(api, "POST", f"/api/queues/{VHOST}/{queue}/get", read) == (user == "setup"), queue
    if user == "setup":
        api.call("DELETE", policy)


def test_nobody_else_is_known(roles: Roles) -> None:
    """No guest, and no user of the image."""
    found: Any = roles.management("setup").call("GET", "/api/users")
    assert sorted(one["name"] for one in found) == sorted(EVERYBODY)


async def test_a_subscriber_has_its_own_queues_alone(roles: Roles) -> None:
    async with roles.connection(TEAM) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("test.own", durable=True)
        await queue.bind(EVENTS, "listing.changed")
        with pytest.raises(ChannelAccessRefused):
            await queue.bind(WORK, "token.*")
        assert not await _may(connection, _declare_queue, "another-team.own")
    async with roles.connection("relay") as connection:
        assert not await _may(connection, _consume, "test.own")


def test_hashes_are_rabbitmqs() -> None:
    salt = bytes.fromhex("908dc60a")  # the example of RabbitMQ's own documentation: password "test12"
    assert hashed("test12", salt) == base64.b64encode(salt + hashlib.sha256(salt + b"test12").digest()).decode()
    assert hashed("test12", salt) == "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"
    assert is_hash_of(hashed("a", salt), "a")
    assert not is_hash_of(hashed("a", salt), "b")
    assert not is_hash_of("no base64", "a")


def test_each_user_has_a_right_or_a_tag() -> None:
    nothing = User("nobody")
    assert all((one.write, one.read, one.tags) != (nothing.write, nothing.read, ()) for one in users())


async def _may(connection: aio_pika.abc.AbstractConnection, step: Any, *words: str) -> bool:
    """Whether the broker lets this user do it; a refusal closes the channel."""
    async with contextlib.AsyncExitStack() as ending:
        channel = await connection.channel(on_return_raises=True)
        ending.push_async_callback(channel.close)
        try:
            await step(channel, *words)
        except ChannelAccessRefused:
            return False
    return True


async def _consume(channel: Any, queue: str) -> None:
    found = await channel.get_queue(queue)
    await channel.set_qos(prefetch_count=1)
    await found.cancel(await found.consume(_ignore))


async def _ignore(_: aio_pika.abc.AbstractIncomingMessage) -> None:
    """Never settled: it goes back when the channel closes."""


async def _publish(channel: Any, exchange: str, key: str) -> None:
    to = await channel.get_exchange(exchange, ensure=False) if exchange else channel.default_exchange
    # Not mandatory: whether a queue wants it is not the question.
    await to.publish(Message(b"{}", expiration=1), key, mandatory=False)


async def _purge(channel: Any, queue: str) -> None:
    await (await channel.get_queue(queue)).purge()


async def _delete(channel: Any, queue: str) -> None:
    await channel.queue_delete(queue)


async def _declare_queue(channel: Any, queue: str) -> None:
    await channel.declare_queue(queue, durable=True)


async def _declare_exchange(channel: Any, exchange: str) -> None:
    await channel.declare_exchange(exchange, durable=True)


async def _bind(channel: Any, queue: str, exchange: str, key: str) -> None:
    await (await channel.get_queue(queue)).bind(exchange, key)


def _answers(api: ByManagement, method: str, path: str, body: object = None) -> bool:
    """Whether this user may; another answer than a refusal of that is raised."""
    try:
        api.call(method, path, body)
    except VhostRefused as error:
        if not str(error).endswith(" 401"):
            raise
        return False
    return True

"""Events on their way out, by relays as processes: subscribers that refuse, sleep or have no leader, an outage with
50,000 events behind it, two relays at once, one of them frozen for a minute."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aio_pika
import aiohttp
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from sqlalchemy import func, select

from common.access_tokens import AccessTokens
from common.broker.topology import EVENT_LOG, EVENTS
from common.clock import utc_now, wall_seconds
from common.codec import loads
from common.store.engine import Store
from common.store.events import append_events
from ops.broker import PrivateNode, Vhost
from ops.stack import Stack, environment
from schemas.events import ListingChanged, PatchOperation
from schemas.tables import EventRow, table_of
from tests.acceptance.world import again_and_again, gateway_setup, webhook_body
from tests.fixtures.broker import Vhosts
from tests.kill.entry import command, marker, orders
from tests.waiting import until

pytestmark = pytest.mark.timeout(900)

CONNECTION = 99
LITTLE = 100_000
PREFETCH_OF_ALL = 10_000
"""Nothing stays in the queue of a subscriber that takes so many: it is within every limit, however busy the machine."""
SMALLEST_EVENT = 700
"""Bytes."""
QUORUM = {"x-queue-type": "quorum"}
_event = table_of(EventRow)

Version = tuple[str, int]


@dataclass
class Heard:
    """What one queue was given: ids by listing and version, and versions by listing in the order of arrival."""

    ids: dict[Version, set[str]] = field(default_factory=lambda: defaultdict(set))
    order: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    messages: int = 0

    async def take(self, message: AbstractIncomingMessage) -> None:
        data = loads(message.body)["data"]
        assert message.message_id is not None
        self.ids[data["listingId"], data["version"]].add(message.message_id)
        self.order[data["listingId"]].append(data["version"])
        self.messages += 1
        await message.ack()

    def check(self, versions: dict[str, int]) -> None:
        """Every version of every listing came, each under one id, in order; a later one never before an earlier."""
        assert set(self.ids) == {(listing, one) for listing, last in versions.items() for one in range(1, last + 1)}
        assert all(len(ids) == 1 for ids in self.ids.values()), "a duplicate has the same id"
        for listing, last in versions.items():
            assert list(dict.fromkeys(self.order[listing])) == list(range(1, last + 1)), listing


@dataclass
class Relays:
    """Processes of the relay, the store that they publish from, and the broker that they publish to."""

    stack: Stack
    store: Store
    amqp_url: str
    versions: dict[str, int] = field(default_factory=dict)

    async def add(self, listings: int, versions: int) -> None:
        """So many more changes of so many listings, as reconcile would write them: 500 in a transaction."""
        for _ in range(versions):
            names = [f"listing-{number}" for number in range(listings)]
            for start in range(0, listings, 500):
                async with self.store.transaction() as transaction:
                    await append_events(transaction, [self._next(name) for name in names[start : start + 500]])

    def _next(self, name: str) -> ListingChanged:
        version = self.versions[name] = self.versions.get(name, 0) + 1
        created = version == 1
        return ListingChanged(
            listing_id=name,
            connection_id=CONNECTION,
            attribute_type="rates",
            item_id=name,
            location_id="1198",
            resource_id=None,
            resource_type=None,
            change="created" if created else "updated",
            reason="webhook",
            version=version,
            changed_fields=[] if created else ["price"],
            patch=[] if created else [PatchOperation(op="replace", path="/price", value=version)],
            previous=None if created else {"ID": name, "price": version - 1},
            current={"ID": name, "price": version},
            delivery_id=None,
            fetched_at=utc_now(),
        )

    async def unpublished(self) -> int:
        query = select(func.count()).where(_event.c.published_at.is_(None))
        async with self.store.reading() as transaction:
            return int((await transaction.execute(query)).scalar_one())

    async def all_out(self, seconds: float = 60) -> None:
        """Returns when the store says that everything has left."""

        async def none_left() -> bool:
            return await self.unpublished() == 0

        await until(none_left, seconds, what="all events to be published", pace=0.5)


def _elections(stack: Stack, name: str) -> list[str]:
    """When a process was elected to publish: it also is for forgetting old history, which is another role."""
    lines = [loads(line.encode()) for line in stack.logs(name).splitlines() if "leader.elected" in line]
    return [str(line["timestamp"]) for line in lines if line["role"] == "relay"]


@asynccontextmanager
async def relays(
    directory: Path, amqp_url: str, database_url: str, *, n: int = 1, **settings: str
) -> AsyncIterator[Relays]:
    """Set up, with `n` relays running."""
    made = environment(amqp_url=amqp_url, database_url=database_url, settings={"LOG_FORMAT": "json", **settings})
    async with Stack(made, directory) as stack:
        await gateway_setup(stack)
        await stack.start("relay", n)
        store = Store(database_url)
        try:
            yield Relays(stack, store, settings.get("EVENTS_AMQP_URL", amqp_url))
        finally:
            await store.close()


@asynccontextmanager
async def subscriber(amqp_url: str, name: str = "healthy", *, prefetch: int = 500) -> AsyncIterator[Heard]:
    """A consumer with a queue of its own that comes back after an outage of the broker."""
    heard = Heard()
    connection = await aio_pika.connect_robust(f"{amqp_url}?heartbeat=5")
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=prefetch)
        queue = await channel.declare_queue(name, durable=True, arguments=QUORUM)
        await queue.bind(EVENTS, "#")
        await queue.consume(heard.take)
        yield heard


async def bound(channel: AbstractChannel, name: str, **arguments: Any) -> None:
    """A queue that nobody reads."""
    named = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    queue = await channel.declare_queue(name, durable=True, arguments=named)
    await queue.bind(EVENTS, "#")


async def ready(channel: AbstractChannel, name: str) -> int:
    """How many messages wait in a queue."""
    queue = await channel.declare_queue(name, passive=True)
    return queue.declaration_result.message_count or 0


async def in_the_log(channel: AbstractChannel, versions: dict[str, int]) -> Heard:
    """Everything that the stream holds, from its beginning, once the last of it is there."""
    heard = Heard()
    await channel.set_qos(prefetch_count=500)
    queue = await channel.get_queue(EVENT_LOG)
    await queue.consume(heard.take, arguments={"x-stream-offset": "first"})
    await until(lambda: len(heard.ids) == sum(versions.values()), 30, what="the whole log")
    return heard


async def test_a_subscriber_that_refuses_sleeps_or_has_no_leader_holds_up_nobody(
    tmp_path: Path, private_node: PrivateNode, private_vhost: Vhost, database_url: str
) -> None:
    """T-OUT-SLOWSUB: the healthy one and the log get everything, in order; the node raises no alarm."""
    limit = 200
    async with AsyncExitStack() as ending:
        made = await ending.enter_async_context(
            relays(
                tmp_path,
                private_vhost.url,
                database_url,
                AMQP_MANAGEMENT_URL=private_node.management or "",
                SUBSCRIBER_MAX_MESSAGES=str(limit),
                SUBSCRIBER_MAX_BYTES=str(LITTLE),
            )
        )
        heard = await ending.enter_async_context(subscriber(private_vhost.url, prefetch=PREFETCH_OF_ALL))
        connection = await ending.enter_async_context(await aio_pika.connect(private_vhost.url))
        channel = await connection.channel()
        await bound(channel, "full", queue_type="quorum", max_length=5, overflow="reject-publish")
        await bound(channel, "asleep")
        await made.add(200, 5)
        await made.all_out()
        await bound(channel, "leaderless", queue_type="quorum")
        _stop_the_leader_of(private_node, private_vhost, "leaderless")

        await made.add(500, 6)

        await made.all_out()
        await until(lambda: len(heard.ids) == sum(made.versions.values()), 60, "the healthy one to have everything")
        heard.check(made.versions)
        (await in_the_log(await connection.channel(), made.versions)).check(made.versions)
        assert 0 < await ready(channel, "asleep") <= LITTLE // SMALLEST_EVENT < limit, (
            "neither more messages nor more bytes, and not nothing"
        )
        assert "relay.past_a_subscriber" in made.stack.logs("relay-1")
        assert private_node.ctl("eval", "rabbit_alarm:get_alarms().").strip() == "[]"


def _stop_the_leader_of(node: PrivateNode, vhost: Vhost, queue: str) -> None:
    """As when the queue's node is away: nothing of it confirms any more, and its other members are not there."""
    name = f"'{vhost.name}_{queue}'"
    assert "ok" in node.ctl("eval", f"ra:stop_server(quorum_queues, {{{name}, node()}}).")
    assert "undefined" in node.ctl("eval", f"whereis({name}).")


async def test_after_an_outage_fifty_thousand_events_leave_in_order_and_the_ingress_takes_webhooks(
    tmp_path: Path, private_node: PrivateNode, private_vhost: Vhost, vhosts: Vhosts, database_url: str
) -> None:
    """T-OUT-BACKLOG: the events' broker was killed; two relays, of which one publishes."""
    work = vhosts.take()
    events_url = private_vhost.url
    async with AsyncExitStack() as ending:
        made = await ending.enter_async_context(
            relays(tmp_path, work.url, database_url, n=2, EVENTS_AMQP_URL=events_url)
        )
        heard = await ending.enter_async_context(subscriber(events_url))
        await made.stack.start("ingress")
        await made.stack.wait_ready()
        await made.add(10, 1)
        await made.all_out()
        private_node.settle()
        private_node.kill()
        async with webhooks(made.stack) as taken:
            await made.add(5000, 10)
            during = len(taken)
            private_node.start()
            began = time.monotonic()
            await made.all_out(150)
        assert 0 < during < len(taken), "webhooks came during the outage and while events left"
        print(f"50,000 events left within {time.monotonic() - began:.1f} s, {len(taken)} webhooks were taken meanwhile")
        await until(lambda: len(heard.ids) == sum(made.versions.values()), 60, what="the subscriber to have everything")
        heard.check(made.versions)
        assert set(taken) == {200}
    vhosts.give_back(work)


@asynccontextmanager
async def webhooks(stack: Stack) -> AsyncIterator[list[int]]:
    """Some twenty a second, until the end of the block → their statuses."""
    issuing = AccessTokens([stack.environment["SECRET_KEYS"]], seconds=600)
    headers = {"Authorization": f"Bearer {issuing.issue(CONNECTION, 'of-the-test', wall_seconds())}"}
    url = f"http://{stack.environment['SYNCAROO_API_HOSTS']}/v1/locations/1"
    body = webhook_body(CONNECTION, url, "locations")
    statuses: list[int] = []
    async with aiohttp.ClientSession() as session:

        async def one(_: int) -> None:
            async with session.post(f"{stack.url}/api/update/", data=body, headers=headers) as answer:
                statuses.append(answer.status)

        async with again_and_again(one):
            yield statuses


async def test_a_relay_that_is_frozen_for_a_minute_is_replaced_and_loses_nothing(
    tmp_path: Path, vhosts: Vhosts, urls: Mapping[str, str]
) -> None:
    """T-OUT-TWO: it holds events that are published and not marked, and wakes up beside another that leads; on both
    databases, side by side. One that is frozen while it writes to SQLite is not replaced: nobody else can write."""
    pool = {database: vhosts.take() for database in urls}
    await asyncio.gather(
        *(_freeze_for_a_minute(tmp_path / database, pool[database].url, url) for database, url in urls.items())
    )
    for vhost in pool.values():
        vhosts.give_back(vhost)


async def _freeze_for_a_minute(directory: Path, amqp_url: str, database_url: str) -> None:
    async with relays(directory, amqp_url, database_url, n=0) as made, subscriber(amqp_url) as heard:
        frozen = await _relay_that_freezes(made.stack, "relay.published", nth=3)
        [other] = await made.stack.start("relay")
        reached = marker(directory, "stop", "relay.published")
        adding = asyncio.create_task(made.add(100, 20))
        await until(reached.exists, 20, what="the relay to be frozen")
        since = time.monotonic()
        await adding
        await until(lambda: _elections(made.stack, other), 30, what="the other to take over", patience=1)
        await made.all_out()
        await until(lambda: time.monotonic() > since + 60, 70, what="a minute to have passed")
        made.stack.resume(frozen)
        await made.add(100, 5)
        await made.all_out()
        await until(lambda: len(heard.ids) == sum(made.versions.values()), what="the subscriber to have everything")
        heard.check(made.versions)
        assert heard.messages > len(heard.ids), "what it had published and not marked was published again"
        await made.stack.kill(other)
        await until(lambda: _elections(made.stack, frozen)[1:], 10, what="the next to take over at once", patience=1)
        await made.add(10, 1)
        await made.all_out()


async def _relay_that_freezes(stack: Stack, point: str, nth: int) -> str:
    """It leads, and stops at the point when it gets there for the `nth` time."""
    [name] = await stack.start("relay", command=command("relay"), settings=orders("stop", [point], nth))
    await until(lambda: _elections(stack, name), 20, what="it to lead")
    return name

"""Requests for snapshots on a real broker: who may ask, what comes, and what happens when it cannot be sent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import aio_pika
import pika
import pytest
from aio_pika.abc import AbstractIncomingMessage

from common.broker import topology
from common.broker.consumer import Delivery
from common.broker.direct import direct
from common.broker.outgoing import Outgoing
from common.broker.publisher import Publisher
from common.broker.retry import RetryPolicy
from common.broker.setup import declare_topology
from common.broker.topology import declare, event_queues, work_queues
from common.codec import canonical, dumps, loads
from common.store.engine import Store
from common.store.parked import Parked, list_parked
from ops.broker import Vhost
from ops.stack import Stack, environment
from schemas.events import ListingSnapshot, dataschema_of
from schemas.tables import ListingRow, table_of
from tests.consumer import ReferenceConsumer, State
from tests.fixtures.broker import Vhosts
from tests.waiting import until
from workers.relay import requests, snapshots
from workers.relay.snapshots import SnapshotHandler, Snapshots
from workers.relay.store.snapshots import SnapshotStore

SOURCE = "https://yourapp.com"
TEAM = "my-team.listings"
REQUESTS = "syncaroo.snapshot"
QUICKLY = timedelta(milliseconds=200)

_listing = table_of(ListingRow)


def listing(number: int, **more: Any) -> dict[str, Any]:
    return {
        "connection_id": 98 + number % 2, "listing_id": f"listing-{number:03}", "scope": "/v1/locations/12/resources",
        "item_id": str(number), "own_path": f"/v1/locations/12/resources/{number}", "attribute_type": "resources",
        "location_id": "1198" if number % 3 else "1199", "resource_id": str(number), "resource_type": "meeting-room",
        "body": canonical({"ID": str(number), "name": f"Räum {number}"}), "version": number + 1, "deleted": False,
        **more,
    }  # fmt: skip


def gone(number: int) -> dict[str, Any]:
    return listing(number, body=None, deleted=True)


def expected(rows: Sequence[dict[str, Any]]) -> State:
    """What a consumer should know of them."""
    return {
        row["listing_id"]: (row["version"], row["body"] is None, row["body"] or "null")
        for row in rows
        if row["version"]
    }


@dataclass
class Desk:
    """The part of a relay that serves requests, and a team with a queue of its own."""

    url: str
    store: Store
    channel: aio_pika.abc.AbstractChannel
    messages: list[AbstractIncomingMessage] = field(default_factory=list)
    consumer: ReferenceConsumer = field(default_factory=ReferenceConsumer)

    async def known(self, rows: Sequence[dict[str, Any]]) -> None:
        async with self.store.transaction() as transaction:
            await transaction.execute(_listing.insert(), list(rows))

    async def read(self, queue: str = TEAM, **arguments: Any) -> None:
        """The team begins to read its queue."""
        declared = await self.channel.declare_queue(queue, durable=True, **arguments)

        async def came(message: AbstractIncomingMessage) -> None:
            self.messages.append(message)
            self.consumer.take(loads(message.body))
            await message.ack()

        await declared.consume(came)

    async def ask(self, body: bytes) -> None:
        """As anybody would, without anything of ours."""
        await self.channel.default_exchange.publish(aio_pika.Message(body), REQUESTS)

    async def parked(self) -> list[Parked]:
        async with self.store.reading() as transaction:
            return await list_parked(transaction)

    async def reasons(self) -> list[str]:
        return [one.reason for one in await self.parked()]

    @asynccontextmanager
    async def relay(self) -> AsyncIterator[None]:
        """Serve until the end of the block."""
        stop = asyncio.Event()
        serving = asyncio.create_task(requests.serve_requests(self.url, self.store, SOURCE, stop))
        try:
            yield
        finally:
            stop.set()
            await serving


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology, "SNAPSHOT_DELAY", QUICKLY)
    monkeypatch.setattr(requests, "RETRY", RetryPolicy([QUICKLY], timedelta(hours=1)))


@pytest.fixture
async def desk(vhost: Vhost, database_url: str) -> AsyncIterator[Desk]:
    store = Store(database_url)
    connection = await aio_pika.connect(vhost.url)
    async with connection:
        channel = await connection.channel()
        await declare(channel, event_queues())
        yield Desk(vhost.url, store, channel)
    await store.close()


async def completed(desk: Desk, times: int = 1, timeout: float = 20.0) -> None:
    await until(lambda: len(desk.consumer.completed) >= times, timeout, what="snapshot.completed")


async def test_a_plain_message_of_another_client_brings_every_listing(desk: Desk) -> None:
    """T-JOIN-ASK: deleted ones are told, placeholders are not; the end says how many there were."""
    rows = [*map(listing, range(5)), gone(5), listing(6, version=0, body=None)]
    await desk.known(rows)
    await desk.read()

    def ask_with_pika() -> None:
        connection = pika.BlockingConnection(pika.URLParameters(desk.url))
        body = b'{"to": "my-team.listings", "snapshotId": "monday"}'
        connection.channel().basic_publish("", REQUESTS, body)
        connection.close()

    async with desk.relay():
        await asyncio.to_thread(ask_with_pika)
        await completed(desk)
    assert desk.consumer.state == expected(rows)
    assert desk.consumer.completed == [{"snapshotId": "monday", "listings": 6}]
    assert not await desk.parked()
    *listings, end = desk.messages
    assert len(listings) == 6, "each once"
    assert {message.correlation_id for message in desk.messages} == {"monday"}
    message = next(one for one in listings if b"listing-002" in one.body)
    event = loads(message.body)
    assert event == {
        "specversion": "1.0", "id": event["id"], "source": SOURCE, "type": "listing.snapshot",
        "subject": "98/resources/2", "time": event["time"], "datacontenttype": "application/json",
        "dataschema": dataschema_of(SOURCE, ListingSnapshot),
        "data": {
            "listingId": "listing-002", "connectionId": 98, "attributeType": "resources", "itemId": "2",
            "locationId": "1198", "resourceId": "2", "resourceType": "meeting-room", "version": 3,
            "current": {"ID": "2", "name": "Räum 2"}, "deleted": False,
        },
    }  # fmt: skip
    assert message.headers == {
        "connectionId": "98", "locationId": "1198", "resourceId": "2", "attributeType": "resources"
    }  # fmt: skip
    assert (message.content_type, message.delivery_mode) == ("application/cloudevents+json", 2)
    assert (message.message_id, message.type) == (event["id"], "listing.snapshot")
    assert (end.type, loads(end.body)["subject"]) == ("snapshot.completed", "monday")


@pytest.mark.parametrize(
    ("members", "numbers"),
    [
        ({"connectionId": 98}, {0, 2, 4}),
        ({"locationId": "1199"}, {0, 3}),
        ({"attributeType": "rates"}, {5}),
        ({"connectionId": 99, "locationId": "1198"}, {1, 5}),
        ({"connectionId": 1}, set()),
    ],
)
async def test_a_request_may_want_a_part(desk: Desk, members: dict[str, Any], numbers: set[int]) -> None:
    await desk.known([*map(listing, range(5)), listing(5, attribute_type="rates")])
    await desk.read()
    async with desk.relay():
        await desk.ask(dumps({"to": TEAM, **members}))
        await completed(desk)
    assert set(desk.consumer.state) == {f"listing-{number:03}" for number in numbers}
    assert desk.consumer.completed[0]["listings"] == len(numbers)


BAD = {
    b"not JSON": "unreadable_message",
    b"[]": "unreadable_message",
    b"{}": "unreadable_message",
    b'{"to": 7}': "unreadable_message",
    b'{"to": "q", "to": "p"}': "unreadable_message",
    b'{"to": "q", "location": "1198"}': "unreadable_message",
    b'{"to": "q", "connectionId": "99"}': "unreadable_message",
    b'{"to": "q", "connectionId": true}': "unreadable_message",
    b'{"to": "q", "after": {"connectionId": 1}}': "unreadable_message",
    b'{"to": "q", "v": 2}': "unreadable_message",
    b'{"to": ""}': "bad_queue_name",
    b'{"to": "%s"}' % (b"q" * 256): "bad_queue_name",
    b'{"to": "a\\u0000b"}': "bad_queue_name",
    b'{"to": "syncaroo.fetch"}': "own_queue",
    b'{"to": "syncaroo.snapshot.dead"}': "own_queue",
    b'{"to": "q", "locationId": "a\\u0000b"}': "bad_filter",
    b'{"to": "q", "attributeType": ""}': "bad_filter",
    b'{"to": "q", "snapshotId": ""}': "bad_snapshot_id",
    b'{"to": "my-team.listings", "connectionId": 99999999999999999999}': "bad_filter",
    b'{"to": "nobody.has.it"}': "no_such_queue",
}


async def test_what_cannot_be_served_is_parked_with_its_reason_and_holds_nobody_up(desk: Desk) -> None:
    """T-JOIN-ASK."""
    await desk.known([listing(1)])
    await desk.read()
    async with desk.relay():
        for body in BAD:
            await desk.ask(body)
        await desk.ask(dumps({"to": TEAM}))
        await completed(desk)
        await until(lambda: _are_parked(desk, len(BAD)), what="the bad ones to be parked")
    found = {one.body: (one.queue, one.reason) for one in await desk.parked()}
    assert found == {body: (REQUESTS, reason) for body, reason in BAD.items()}
    assert len(desk.messages) == 2, "nothing came of them"


async def _are_parked(desk: Desk, number: int) -> bool:
    return len(await desk.parked()) == number


async def test_a_request_for_a_queue_that_was_missing_is_served_when_it_is_replayed(desk: Desk) -> None:
    """T-JOIN-ASK."""
    await desk.known([listing(1)])
    publisher = Publisher(desk.url, "test")
    publisher.start()
    await publisher.wait_ready()
    async with desk.relay():
        await desk.ask(dumps({"to": TEAM}))
        await until(lambda: _are_parked(desk, 1), what="the request to be parked")
        [dead] = await desk.parked()
        assert dead.reason == "no_such_queue"
        await desk.read()
        headers = {"schema": dead.schema_name, "attempt": 0}  # as the admin API does
        await publisher.publish(Outgoing(dead.routing_key, dead.body, headers=headers))
        await completed(desk)
    await publisher.close()
    assert set(desk.consumer.state) == {"listing-001"}


async def test_a_full_queue_is_waited_for_and_what_was_sent_is_not_sent_again_and_again(desk: Desk) -> None:
    """T-JOIN-FULL, B7: refused is what is over the length; others are served meanwhile."""
    rows = [listing(number) for number in range(20)]
    await desk.known(rows)
    short: dict[str, Any] = {"x-max-length": 5, "x-overflow": "reject-publish"}
    await desk.channel.declare_queue(TEAM, durable=True, arguments=short)
    other = Desk(desk.url, desk.store, desk.channel)
    await other.read("other-team")
    async with desk.relay():
        await desk.ask(dumps({"to": TEAM}))
        await until(lambda: _waits(desk), what="the request to wait for room")
        await desk.ask(dumps({"to": "other-team"}))
        await completed(other)
        assert not desk.consumer.state, "nobody has read yet"
        await desk.read(arguments=short)
        await completed(desk, timeout=30)
    assert desk.consumer.state == other.consumer.state == expected(rows)
    assert not await desk.parked()
    again = len(desk.messages) - len(rows) - 1
    assert again < len(rows), "a few may come twice: those behind the first that was refused"


async def _waits(desk: Desk) -> bool:
    name = f"syncaroo.snapshot.delay.{topology.duration_name(QUICKLY)}"
    declared = await desk.channel.declare_queue(name, passive=True)
    return bool(declared.declaration_result.message_count)


async def test_where_the_default_exchange_is_forbidden_the_request_is_parked(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T-JOIN-ASK, B13: the broker closes the channel; nobody else uses it."""
    await desk.known([listing(1)])
    await desk.read()
    forbidden = _NoDefaultExchange()
    monkeypatch.setattr(requests, "direct", forbidden.open)
    async with desk.relay():
        await desk.ask(dumps({"to": TEAM}))
        await until(lambda: _are_parked(desk, 1), what="the request to be parked")
        assert await desk.reasons() == ["may_not_send"]


class _NoDefaultExchange:
    """Stands for a broker that refuses: publishing to an exchange that is internal gets the very same 403."""

    @asynccontextmanager
    async def open(self, url: str, queue: str) -> AsyncIterator[Any]:
        async with direct(url, queue) as way:
            channel = await way._connection.channel()
            await channel.declare_exchange("internal", internal=True)
            way._exchange = "internal"
            yield way


async def test_a_parked_request_is_replayed_by_the_ingress_where_events_have_a_broker_of_their_own(
    desk: Desk, vhosts: Vhosts, database_url: str, tmp_path: Path
) -> None:
    await desk.known([listing(1)])
    work = vhosts.take()
    await declare_topology(work.url, work_queues([QUICKLY]), wait=20)
    settings = environment(amqp_url=work.url, database_url=database_url, settings={"EVENTS_AMQP_URL": desk.url})
    async with Stack(settings, tmp_path / "stack") as stack, desk.relay():
        await stack.start("ingress")
        await stack.wait_ready()
        await desk.ask(dumps({"to": TEAM}))
        await until(lambda: _are_parked(desk, 1), what="the request to be parked")
        [dead] = await desk.parked()
        assert dead.reason == "no_such_queue"
        await desk.read()
        done = await stack.run("-m", "ops", "dlq", "replay", dead.parked_id, "--yes")
        assert done.code == 0, done.output
        await completed(desk)
    assert desk.consumer.state == expected([listing(1)])
    assert not await desk.parked()
    vhosts.give_back(work)


@pytest.mark.parametrize("published", [False, True], ids=["before the rest is asked for", "before the ack"])
async def test_a_process_that_dies_between_two_parts_loses_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, published: bool
) -> None:
    """T-JOIN-KILL: the part is sent again; nothing worse than that comes of it."""
    monkeypatch.setattr(snapshots, "PART", 4)
    rows = [*map(listing, range(15)), gone(15)]
    await desk.known(rows)
    await desk.channel.declare_queue(TEAM, durable=True)
    await desk.ask(dumps({"to": TEAM, "snapshotId": "s"}))
    await _half_served(desk, published)
    await desk.read()
    async with desk.relay():
        await completed(desk, 2 if published else 1)
    assert desk.consumer.state == expected(rows)
    assert {(one["snapshotId"], one["listings"]) for one in desk.consumer.completed} == {("s", 16)}
    ids = [loads(one.body)["id"] for one in desk.messages]
    assert len(set(ids)) == len(ids), "what is sent again is a message of its own"
    first_end = [one.type for one in desk.messages].index("snapshot.completed")
    told = {loads(one.body)["data"]["listingId"] for one in desk.messages[:first_end]}
    assert told == set(expected(rows)), "the end comes when everything has come"


async def _half_served(desk: Desk, published: bool) -> None:
    """A relay has sent the first part and dies: the broker takes the request back."""
    publisher = Publisher(desk.url, "dies")
    publisher.start()
    await publisher.wait_ready()
    store = SnapshotStore(desk.store, rows=2)
    sending = Snapshots(store, partial(direct, desk.url), SOURCE, part=4)
    connection = await aio_pika.connect(desk.url)
    queue = await (await connection.channel()).get_queue(REQUESTS)
    message = await queue.get(timeout=5)
    assert message is not None
    delivery = Delivery(message.body, message.headers, message.routing_key or "")
    with contextlib.nullcontext() if published else pytest.raises(_Died):
        await SnapshotHandler(sending, publisher if published else _DeadPublisher(desk.url, "dies"))([delivery])
    await connection.close()
    await publisher.close()
    sent = await desk.channel.declare_queue(TEAM, passive=True)
    assert sent.declaration_result.message_count == 4


class _Died(Exception):
    """The process is no more."""


class _DeadPublisher(Publisher):
    async def publish(self, message: Outgoing, *, seconds: float = 0) -> None:
        raise _Died

"""Joining late, in the middle of a storm, in every way there is: each consumer ends in exactly the stored state.

Four consumers begin while listings change and vanish and a relay is killed: by a snapshot that a plain message asks
for, by `gateway snapshot`, by the stream from its beginning, and by `gateway replay` from the table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from common.broker.topology import EVENT_LOG, EVENTS
from common.codec import dumps, loads
from tests.acceptance.world import World, again_and_again, world
from tests.consumer import ReferenceConsumer, State, states
from tests.fixtures.broker import Vhosts
from tests.waiting import until
from tests.wire import misread, served_schemas

pytestmark = pytest.mark.timeout(900)

CONNECTION = 99
FEW = 50
SANDBOX = ("--seed=5", "--locations=6", "--resources=6", "--rates=4", "--concurrency=8")
ROLES = ("ingress", "token", "fetch", "fetch", "reconcile", "reconcile", "relay", "relay")
SETTINGS = {"API_RATE_PER_SECOND": "1000", "TARGET_INTERVAL": "200ms", "DELETE_BRAKE": "1"}


@dataclass
class Joiner:
    """A consumer with a queue of its own, and all that came into it."""

    channel: AbstractChannel
    consumer: ReferenceConsumer = field(default_factory=ReferenceConsumer)
    came: dict[str, int] = field(default_factory=dict)
    """How many events, by type."""
    first: dict[str, list[AbstractIncomingMessage]] = field(default_factory=dict)
    """A few of them as they were delivered, by type."""

    async def listen(self, queue: str) -> None:
        """Bind it to the live events, then read."""
        declared = await self.channel.declare_queue(queue, durable=True)
        await declared.bind(EVENTS, "listing.changed")
        await declared.consume(self._on_message)

    async def follow_the_log(self) -> None:
        """The stream, from its first event on, and on and on."""
        log = await self.channel.get_queue(EVENT_LOG)
        await log.consume(self._on_message, arguments={"x-stream-offset": "first"})

    async def _on_message(self, message: AbstractIncomingMessage) -> None:
        event = loads(message.body)
        self.came[event["type"]] = self.came.get(event["type"], 0) + 1
        if self.came[event["type"]] <= FEW:
            self.first.setdefault(event["type"], []).append(message)
        self.consumer.take(event)
        await message.ack()

    @property
    def state(self) -> State:
        return self.consumer.state


async def test_whoever_joins_in_a_storm_ends_in_the_stored_state(
    tmp_path: Path, vhosts: Vhosts, empty_database_url: str
) -> None:
    """T-JOIN."""
    vhost = vhosts.take()
    connection = await aio_pika.connect(vhost.url)
    async with (
        connection,
        world(
            tmp_path,
            amqp_url=vhost.url,
            database_url=empty_database_url,
            settings=SETTINGS,
            sandbox=SANDBOX,
            roles=ROLES,
        ) as made,
    ):
        joiners = {name: Joiner(await _channel(connection)) for name in ("asked", "command", "log", "table")}
        await made.onboard(CONNECTION)
        async with again_and_again(Storm(made, await _rooms(made)), pause=0.01):
            await _more_is_told(made)
            await _join(made, joiners)
            await _more_is_told(made)
        await made.sandbox.quiet()
        await until(lambda: _nothing_is_left(made), 120, what="the storm to be worked off", pace=0.5)
        stored = states(await made.admin.listings())
        assert any(deleted for _, deleted, _ in stored.values())
        for name, joiner in joiners.items():
            await until(_arrives(joiner, stored), 30, what=f"{name} to know what is stored")
        _came_as_they_should(joiners, len(stored))
        await _others_can_read(made, joiners)
        await _can_be_had_again(made, joiners, stored)
        assert not await made.admin.dead_letters()
    vhosts.give_back(vhost)


@dataclass(frozen=True)
class Storm:
    """Prices and names change, rooms come, and these rooms go one after another, with their rates."""

    world: World
    doomed: list[str]

    async def __call__(self, number: int) -> None:
        """The so-manieth change."""
        if number % 25 == 12 and self.doomed:
            await self.world.sandbox.change("remove", self.doomed.pop(), wait=False)
            return
        kind = {3: "rename", 7: "room", 16: "rename"}.get(number % 25, "price")
        await self.world.sandbox.change(kind, wait=False)


async def _rooms(made: World) -> list[str]:
    """Some that we know: of one that comes and goes unseen there is nothing to tell."""
    return [url for url in (await made.sandbox.world()).items if url.rsplit("/", 2)[1] == "resources"][:12]


async def _more_is_told(made: World) -> None:
    told = len(made.events)
    await until(lambda: len(made.events) > told + 150, 60, what="more events")


async def _channel(connection: aio_pika.abc.AbstractConnection) -> AbstractChannel:
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=100)
    return channel


async def _join(made: World, joiners: dict[str, Joiner]) -> None:
    """All at once, while one of the two relays is killed."""
    for name in ("asked", "command", "table"):
        await joiners[name].listen(f"team.{name}")
    await joiners["log"].follow_the_log()
    ask = aio_pika.Message(dumps({"to": "team.asked", "snapshotId": "in the storm"}))
    await joiners["asked"].channel.default_exchange.publish(ask, "syncaroo.snapshot")
    await made.stack.kill("relay-1")
    snapshot, replay, _ = await asyncio.gather(
        _gateway(made, "snapshot", "--to", "team.command"),
        _gateway(made, "replay", "--since", "1d", "--to", "team.table", "--yes"),
        until(lambda: joiners["asked"].consumer.completed, 30, what="the snapshot that was asked for"),
    )
    await made.stack.restart("relay-1")
    assert joiners["asked"].consumer.completed[0]["snapshotId"] == "in the storm"
    assert snapshot["listings"] > 100
    assert replay["sent"] >= replay["events"] > 200


async def _gateway(made: World, *words: str) -> Any:
    """A command's JSON: nothing else may be in its output."""
    done = await made.stack.run("-m", "ops", *words, "--json")
    assert done.code == 0, done.output
    return loads(done.output.encode())


async def _nothing_is_left(made: World) -> bool:
    status = await made.admin.status()
    return (status["targets"]["due"], status["events"]["unpublished"]) == (0, 0)


def _arrives(joiner: Joiner, stored: State) -> Callable[[], bool]:
    def check() -> bool:
        differing = [one for one in stored.keys() | joiner.state.keys() if stored.get(one) != joiner.state.get(one)]
        assert not differing, f"{len(differing)} of {len(stored)} differ"
        return True

    return check


def _came_as_they_should(joiners: dict[str, Joiner], listings: int) -> None:
    """Each by its own way, and by live events."""
    for name in ("asked", "command"):
        assert joiners[name].came["listing.snapshot"] > 100
        assert joiners[name].came["listing.changed"] > 100
        assert joiners[name].consumer.completed
    for name in ("log", "table"):
        assert "listing.snapshot" not in joiners[name].came
        assert joiners[name].came["listing.changed"] > listings


async def _others_can_read(made: World, joiners: dict[str, Joiner]) -> None:
    """The CloudEvents SDK, and the schema of the whole, whichever way a message came; a snapshot's name its id."""
    messages = [one for joiner in joiners.values() for some in joiner.first.values() for one in some]
    kinds = {"listing.changed", "listing.snapshot", "snapshot.completed", "connection.changed", "grant.changed"}
    assert {message.type for message in messages} == kinds
    schemas = await served_schemas(made.stack.url, messages)
    assert [wrong for message in messages if (wrong := misread(message, schemas))] == []
    asked = joiners["asked"].first
    ids = {one.correlation_id for kind in ("listing.snapshot", "snapshot.completed") for one in asked[kind]}
    assert ids == {"in the storm"}


async def _can_be_had_again(made: World, joiners: dict[str, Joiner], stored: State) -> None:
    """Now that it is calm: a second snapshot and the whole table, into queues that get nothing else."""
    ways: dict[str, Callable[[str], Awaitable[Any]]] = {
        "late.snapshot": lambda queue: _gateway(made, "snapshot", "--to", queue),
        "late.table": lambda queue: _gateway(made, "replay", "--since", "1d", "--to", queue, "--yes"),
    }
    for queue, way in ways.items():
        late = Joiner(joiners["log"].channel)
        declared = await late.channel.declare_queue(queue, durable=True)
        await way(queue)
        await declared.consume(late._on_message)
        await until(_arrives(late, stored), 30, what=f"{queue} to know what is stored")

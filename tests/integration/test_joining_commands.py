"""`gateway snapshot` and `gateway replay` as a person or a script runs them: what they send, say, and end with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from common.codec import loads
from common.store.engine import Store
from common.store.schema import remember
from ops.broker import Vhost
from ops.children import free_port
from ops.stack import Finished, Stack, environment
from schemas.tables import EventRow, ListingRow, table_of
from tests.fixtures.database import ON_SQLITE
from tests.integration.test_snapshots import expected, gone, listing
from tests.pipeline import Pipeline, pipeline
from tests.waiting import until

TEAM = "my-team.listings"
SHORT: dict[str, Any] = {"x-max-length": 3, "x-overflow": "reject-publish"}


@dataclass
class Terminal:
    """Where commands are run, and a channel to look at what they sent."""

    stack: Stack
    channel: AbstractChannel
    store: Store

    async def gateway(self, *words: str, **settings: str) -> Finished:
        return await self.stack.run("-m", "ops", *words, settings=settings)

    async def result(self, *words: str, **settings: str) -> Any:
        """The JSON of one that succeeds; nothing else may be in its output."""
        done = await self.gateway(*words, "--json", **settings)
        assert done.code == 0, done.output
        return loads(done.output.encode())

    async def refusal(self, *words: str, **settings: str) -> str:
        """What one says that fails: one line."""
        done = await self.gateway(*words, **settings)
        assert (done.code, done.output.count("\n")) == (1, 1), done.output
        return done.output

    async def messages(self, queue: str = TEAM) -> list[AbstractIncomingMessage]:
        """All that is in the queue."""
        declared = await self.channel.get_queue(queue)
        found = []
        while (message := await declared.get(no_ack=True, fail=False)) is not None:
            found.append(message)
        return found


@pytest.fixture
async def terminal(vhost: Vhost, database_url: str, tmp_path: Path) -> AsyncIterator[Terminal]:
    store = Store(database_url)
    connection = await aio_pika.connect(vhost.url)
    async with connection:
        channel = await connection.channel()
        stack = Stack(environment(amqp_url=vhost.url, database_url=database_url), tmp_path / "runs")
        yield Terminal(stack, channel, store)
    await store.close()


async def know(terminal: Terminal, *rows: dict[str, Any]) -> None:
    async with terminal.store.transaction() as transaction:
        await transaction.execute(table_of(ListingRow).insert(), list(rows))


async def test_a_snapshot_by_the_command(terminal: Terminal) -> None:
    rows = [listing(1), listing(2), gone(3)]
    await know(terminal, *rows)
    await terminal.channel.declare_queue(TEAM, durable=True)
    done = await terminal.result("snapshot", "--to", TEAM)
    assert (done["queue"], done["listings"]) == (TEAM, 3)
    *listings, end = await terminal.messages()
    told = [loads(message.body)["data"] for message in listings]
    assert {one["listingId"]: one["version"] for one in told} == {
        name: version for name, (version, _, _) in expected(rows).items()
    }
    assert loads(end.body)["data"] == {"snapshotId": done["snapshotId"], "listings": 3}
    words = ("snapshot", "--to", TEAM, "--connection", "98", "--location", "1198", "--kind", "Resource")
    done = await terminal.gateway(*words)
    assert (done.code, done.output.count("\n")) == (0, 1), done.output
    assert done.output.startswith(f"1 listing was sent to {TEAM}")


@ON_SQLITE
async def test_what_a_limit_has_dropped_of_a_snapshot_is_said(terminal: Terminal) -> None:
    """The broker confirms what it drops."""
    await know(terminal, *(listing(number) for number in range(9)))
    await terminal.channel.declare_queue(TEAM, durable=True, arguments={"x-max-length": 3})
    done = await terminal.gateway("snapshot", "--to", TEAM)
    assert done.code == 0
    assert f"9 listings were sent to {TEAM}" in done.output
    assert f"The queue {TEAM} holds 3 messages though 10 were sent, and nobody reads it" in done.output


@ON_SQLITE
async def test_what_stands_in_the_way_of_a_snapshot_is_said_in_one_sentence(terminal: Terminal) -> None:
    await know(terminal, *(listing(number) for number in range(20)))
    words = ("snapshot", "--to", TEAM)
    assert f"There is no queue {TEAM} at amqp://" in await terminal.refusal(*words)
    nobody = f"amqp://guest:geheim@127.0.0.1:{free_port()}/"
    said = await terminal.refusal(*words, EVENTS_AMQP_URL=nobody)
    assert "no broker at amqp://127.0.0.1" in said
    assert "geheim" not in said
    store = f"postgresql+asyncpg://postgres@127.0.0.1:{free_port()}/x"
    assert "DATABASE_URL: the database cannot be read" in await terminal.refusal(*words, DATABASE_URL=store)
    assert "there is no file empty.db; run `gateway setup`" in await terminal.refusal(
        *words, DATABASE_URL="sqlite+aiosqlite:///empty.db"
    )
    await terminal.channel.declare_queue(TEAM, arguments=SHORT)
    assert "is full, or has no leader. Have it read" in await terminal.refusal(*words)


@ON_SQLITE
async def test_the_store_of_another_environment_is_left_alone(terminal: Terminal) -> None:
    """Its consumers would see the same listings from another source."""
    await remember(terminal.store, {"EVENT_SOURCE": "https://another.example"})
    await terminal.channel.declare_queue(TEAM)
    for words in (("snapshot", "--to", TEAM), ("replay", "--since", "1d", "--to", TEAM, "--yes")):
        done = await terminal.gateway(*words)
        assert (done.code, done.output.partition(":")[0]) == (78, "EVENT_SOURCE")
    assert not await terminal.messages()


ROOMS = [f"/v1/locations/12/resources/{number}" for number in (1, 2, 3)]


async def _tell(run: Pipeline) -> None:
    """Three rooms with three versions each, and the end of one of them."""
    for version in range(1, 4):
        for path in ROOMS:
            run.api.pages[path] = {"ID": path[-1], "capacity": version, "Name": "Räum <b>🏢</b>"}
            await run.webhook(path, location_id="1198" if path[-1] == "1" else "1199")
        await _told(run, 3 * version)
    del run.api.pages[ROOMS[0]]
    await run.webhook(ROOMS[0])
    await _told(run, 10)


async def _told(run: Pipeline, number: int) -> None:
    await until(lambda: len(run.events) == number, 20, what=f"{number} events")


async def test_a_replay_is_what_was_published_and_can_be_looked_at_before(terminal: Terminal, vhost: Vhost) -> None:
    """T-REPLAY-TABLE: same ids, bodies, headers, properties, byte for byte; filters; a preview that sends nothing."""
    async with pipeline(vhost.url, str(terminal.stack.environment["DATABASE_URL"])) as run:
        await _tell(run)
        live = list(run.messages)
    source = {"SITE_URI": "http://localhost:8080"}
    await terminal.channel.declare_queue(TEAM, durable=True)
    words = ("replay", "--since", "1h", "--to", TEAM)
    preview = await terminal.gateway(*words, "--dry-run", **source)
    assert preview.code == 0, preview.output
    lines = [line.split() for line in preview.output.splitlines()]
    assert lines[0][:3] == ["10", "events", "from"]
    for counted in (["listing.changed", "resources", name, number] for name, number in _COUNTS):
        assert counted in lines
    assert "gone" not in preview.output, "the store is young: nothing was before"
    assert (await terminal.gateway(*words, **source)).code == 1, "nobody said yes"
    assert not await terminal.messages()

    done = await terminal.result(*words, "--yes", **source)
    assert (done["events"], done["sent"], done["unpublished"]) == (10, 10, 0)
    again = await terminal.messages()
    assert sorted(map(_wire, again)) == sorted(map(_wire, live))
    for room in ("1", "2", "3"):
        versions = [data["version"] for data in map(_data, again) if data["itemId"] == room]
        assert versions == sorted(versions), "of one listing none overtakes another"

    chosen = ("--location", "1198", "--change", "updated", "--kind", "RESOURCE", "--until", "0")
    assert (await terminal.result(*words, *chosen, "--yes", **source))["sent"] == 2
    assert {_data(message)["itemId"] for message in await terminal.messages()} == {"1"}
    chosen = (
        "--listing",
        "99/resources/2",
        "--listing",
        "99/resources/3",
        "--change",
        "created",
        "--change",
        "deleted",
    )
    assert (await terminal.result(*words, *chosen, "--yes", **source))["sent"] == 2
    assert {_data(message)["itemId"] for message in await terminal.messages()} == {"2", "3"}


_COUNTS = (("created", "3"), ("updated", "6"), ("deleted", "1"))


def _data(message: AbstractIncomingMessage) -> dict[str, Any]:
    data: dict[str, Any] = loads(message.body)["data"]
    return data


def _wire(message: AbstractIncomingMessage) -> tuple[Any, ...]:
    return (
        message.message_id,
        message.body,
        sorted(message.headers.items()),
        message.content_type,
        message.type,
        message.delivery_mode,
    )


@ON_SQLITE
async def test_a_replay_that_breaks_off_says_how_to_go_on(terminal: Terminal, vhost: Vhost) -> None:
    """T-JOIN-FULL."""
    async with pipeline(vhost.url, str(terminal.stack.environment["DATABASE_URL"])) as run:
        await _tell(run)
    source = {"SITE_URI": "http://localhost:8080"}
    words = ("replay", "--to", TEAM, "--yes")
    missing = await terminal.gateway(*words, "--since", "1d", **source)
    assert missing.code == 1
    assert missing.output.splitlines()[-1].endswith("Nothing was sent.")
    unasked = await terminal.gateway("replay", "--to", TEAM, "--since", "1d", **source)
    assert f"There is no queue {TEAM} at amqp://" in unasked.output
    assert "send 10 events" not in unasked.output, "nobody is asked about a queue that is not there"
    backwards = await terminal.gateway(*words, "--since", "1h", "--until", "2h", **source)
    assert (backwards.code, "--until must be later than --since" in backwards.output) == (2, True)
    await terminal.channel.declare_queue(TEAM, arguments=SHORT)
    broken = await terminal.gateway(*words, "--since", "1d", **source)
    assert broken.code == 1
    last = broken.output.splitlines()[-1]
    assert f"The queue {TEAM} is full, or has no leader." in last
    first = await terminal.messages()
    assert f" {len(first)} events were sent; --since " in last
    go_on = last.rpartition("--since ")[2].split()[0]
    await terminal.channel.queue_delete(TEAM)
    await terminal.channel.declare_queue(TEAM)
    done = await terminal.result(*words, "--since", go_on, **source)
    ids = {message.message_id for message in (*first, *await terminal.messages())}
    assert len(ids) == 10, "nothing is left out"
    assert done["sent"] < 10, "and not all is sent again"


@ON_SQLITE
async def test_what_is_not_published_yet_is_said(terminal: Terminal) -> None:
    async with terminal.store.transaction() as transaction:
        now = await transaction.now()
        row = {
            "connection_id": 99, "event_id": "e", "position": 1, "type": "grant.changed", "subject": "grant",
            "data": '{"state":"active"}', "headers": "{}", "created_at": now,
        }  # fmt: skip
        await transaction.execute(table_of(EventRow).insert(), [row])
    done = await terminal.gateway("replay", "--since", "100d", "--to", TEAM, "--dry-run")
    assert "1 of them not published yet" in done.output
    assert "only the latest event of each listing is kept" in done.output
    await terminal.channel.declare_queue(TEAM)
    assert (await terminal.result("replay", "--since", "100d", "--to", TEAM, "--yes"))["unpublished"] == 1
    [message] = await terminal.messages()
    assert message.type == "grant.changed"

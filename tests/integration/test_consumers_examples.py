"""The programs of docs/consumers.md, run as they are printed: they end up knowing every listing, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import pytest
from aio_pika.abc import AbstractIncomingMessage
from aiormq.exceptions import ChannelNotFoundEntity
from msgspec import structs
from pamqp.commands import Queue

from common.broker.outgoing import Outgoing
from common.broker.publisher import Publisher
from common.broker.topology import DIRECT, declare, event_queues
from common.clock import utc_now
from common.codec import canonical, loads
from common.store.engine import Store
from ops.broker import PrivateNode, Vhost
from ops.prove.proxy import Mode, Proxy
from schemas.events import ConnectionChanged
from schemas.tables import ListingRow, table_of
from tests.events import SOURCE, Known, Told, published, wire
from tests.fixtures.node import Node
from tests.programs import Program, program
from tests.waiting import until
from workers.relay.requests import serve_requests

DOCUMENT = Path(__file__).parents[2] / "docs" / "consumers.md"
PROGRAMS = dict(re.findall(r"<!-- program: (\S+) -->\n```\w+\n(.*?)```", DOCUMENT.read_text(), re.DOTALL))
CONSUMERS = ("aio_pika_consumer.py", "pika_consumer.py", "amqplib_consumer.js")

TEAM = "my-team.listings"
REQUESTS = "syncaroo.snapshot"
NOBODY = re.compile("PublishError|UnroutableError|nobody takes requests yet")
"""What a consumer says, once for each time that it has asked and its request came back."""

State = dict[str, tuple[int, str | None, Any]]
"""Version, location and content by listingId."""


def of_sqlite(file: Path) -> State:
    """Opened for writing, as whatever a kill -9 left half done is rolled back by whoever comes next."""
    try:
        with contextlib.closing(sqlite3.connect(file)) as connection:
            rows = connection.execute("SELECT id, version, location, current FROM listing").fetchall()
    except sqlite3.OperationalError as error:
        raise AssertionError("not yet readable") from error
    return {name: (version, location, loads(current.encode())) for name, version, location, current in rows}


def of_json(file: Path) -> State:
    listings = loads(file.read_bytes())["listings"]
    return {name: (known["version"], known["location"], known["current"]) for name, known in listings.items()}


def of_told(told: Told) -> State:
    """As every consumer should have it in the end."""
    return {
        known.names["listing_id"]: (known.version, known.names["location_id"], known.current)
        for known in told.known.values()
    }


@dataclass(frozen=True)
class Example:
    """One program and the file that it keeps."""

    name: str
    file: Path
    node: Node | None

    def start(self, url: str) -> AbstractAsyncContextManager[Program]:
        script = self.file.with_name(self.name)
        script.write_text(PROGRAMS[self.name])
        environment = {"AMQP_URL": url, "STATE": str(self.file), "PAUSE": "0.1", "PYTHONWARNINGS": "error"}
        if self.node is None:
            return program([sys.executable, str(script)], environment)
        return self.node.start(script, environment=environment)

    def state(self) -> State:
        """What it knows; nothing while it has no file."""
        if not self.file.exists():
            return {}
        return of_sqlite(self.file) if self.node is None else of_json(self.file)

    def is_complete(self) -> bool:
        """Whether it has had the snapshot that it wanted."""
        if self.node is not None:
            snapshot = loads(self.file.read_bytes())["snapshot"]
            return bool(snapshot and snapshot["complete"])
        with contextlib.closing(sqlite3.connect(self.file)) as connection:
            return connection.execute("SELECT complete FROM snapshot").fetchall() == [(1,)]


@pytest.fixture
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Example:
    name = str(request.param)
    node = request.getfixturevalue("node") if name.endswith(".js") else None
    return Example(name, tmp_path / "state", node)


@dataclass(frozen=True)
class Reader:
    """Starts the programs that print what they read."""

    folder: Path

    @property
    def offset(self) -> Path:
        return self.folder / "offset.txt"

    def start(self, name: str, url: str, *words: str) -> AbstractAsyncContextManager[Program]:
        script = self.folder / name
        script.write_text(PROGRAMS[name])
        return program([sys.executable, str(script), *words], {"AMQP_URL": url, "OFFSET": str(self.offset)})


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return Reader(tmp_path)


@dataclass
class Gateway:
    """What a consumer sees of a gateway: events of listings that are `told`, and answers to requests for snapshots."""

    url: str
    publisher: Publisher
    told: Told = field(default_factory=Told)
    asked: list[Any] = field(default_factory=list)
    """The ids of the snapshots that were asked for."""
    during: Callable[[], Sequence[Outgoing]] = tuple
    """What happens in the middle of a snapshot."""
    completes: bool = True

    async def publish(self, *messages: Outgoing) -> None:
        await published(self.publisher, *messages)

    async def answer(self, request: AbstractIncomingMessage) -> None:
        """Stands in for the relay: states, live events between them, the end."""
        wanted = loads(request.body)
        assert wanted.keys() == {"to", "snapshotId"}
        self.asked.append(wanted["snapshotId"])
        *states, end = self.told.snapshot(wanted["to"], wanted["snapshotId"])
        half = len(states) // 2
        await self.publish(*states[:half], *self.during(), *states[half:], *([end] if self.completes else []))
        await request.ack()

    async def ready(self, queue: str) -> int:
        """How many messages wait in a queue."""
        return (await self.declared(queue)).message_count or 0

    async def delete(self, queue: str) -> None:
        async with await aio_pika.connect(self.url) as connection:
            await (await connection.channel()).queue_delete(queue)

    async def declared(self, queue: str) -> Queue.DeclareOk:
        """What the broker says of a queue."""
        connection = await aio_pika.connect(self.url)
        async with connection:
            return (await (await connection.channel()).get_queue(queue)).declaration_result


@asynccontextmanager
async def gateway(url: str, *, answers: bool = True) -> AsyncIterator[Gateway]:
    publisher = Publisher(url, "test")
    connection = await aio_pika.connect_robust(url, reconnect_interval=0.2)
    async with connection:
        channel = await connection.channel()
        await declare(channel, event_queues())
        publisher.start()
        await publisher.wait_ready()
        stands_in = Gateway(url, publisher)
        if answers:
            await (await channel.get_queue(REQUESTS)).consume(stands_in.answer)
        try:
            yield stands_in
        finally:
            await publisher.close()


async def knows(example: Example, told: Told, running: Program) -> None:
    def check() -> bool:
        assert not running.ended, running.lines
        assert example.state() == of_told(told)
        return True

    await until(check, 60, f"{example.name} knows everything: {running.lines[-5:]}")


@pytest.mark.parametrize("example", CONSUMERS, indirect=True)
async def test_a_consumer_of_the_document_knows_every_listing_in_the_end(vhost: Vhost, example: Example) -> None:
    """T-OUT-CONTRACT: snapshot, live events, duplicates, older after newer ones, lost connections, kill -9, poison."""
    async with gateway(vhost.url) as upstream, Proxy.before(vhost.url) as proxy:
        told = upstream.told
        for number in range(6):
            told.put(f"old{number}", Name=f"Räum {number}", price=0.1)
        told.put("old1", price=0.2)
        told.gone("old2")
        upstream.during = lambda: [told.put("old0", price=1), told.put("old5", price=5), told.gone("old4")]

        async with example.start(proxy.url(vhost.url)) as running:
            await knows(example, told, running)
            assert len(upstream.asked) == 1

            first = told.put("new", n=1)
            events = [first, told.put("new", n=2), told.gone("new"), told.put("new", n=3), told.put("old1", price=0.3)]
            other = wire(ConnectionChanged(connection_id=99, user_id="17", state="confirmed"))
            await upstream.publish(
                *events, *events, first, events[1], structs.replace(other, routing_key="listing.changed")
            )
            await upstream.publish(structs.replace(first, body=b"not JSON"))
            await knows(example, told, running)

            for number in range(60):
                await upstream.publish(told.put(f"n{number % 7}", n=number))
                if number % 20 == 10:
                    proxy.mode = Mode.RESET
                    proxy.mode = Mode.PASS
            await knows(example, told, running)
            assert proxy.accepted >= 2, "it has connected again"

            await upstream.publish(*(told.put(f"n{number % 7}", again=number) for number in range(30)))
            await running.kill()
        await upstream.publish(told.gone("old5"), told.gone("old3"), *events, told.put("n1", while_away=True))

        async with example.start(proxy.url(vhost.url)) as running:
            await knows(example, told, running)
            await until(lambda: waits(upstream, f"{TEAM}.dead", 1), 60, "the poison, and nothing else")
        await until(lambda: is_left(upstream, TEAM), 60, "the broker knows that it is gone")
        assert await upstream.ready(TEAM) == 0, "everything was acknowledged, or it would be back"
        assert len(upstream.asked) == 1, "its state has outlived it: no second snapshot"


async def is_read(upstream: Gateway, queue: str) -> bool:
    return await is_there(upstream, queue) and bool((await upstream.declared(queue)).consumer_count)


async def is_left(upstream: Gateway, queue: str) -> bool:
    return not await is_read(upstream, queue)


async def waits(upstream: Gateway, queue: str, number: int) -> bool:
    return await upstream.ready(queue) == number


@pytest.mark.parametrize("example", CONSUMERS, indirect=True)
async def test_a_consumer_joins_by_the_relays_own_snapshot(vhost: Vhost, example: Example, database_url: str) -> None:
    """T-OUT-CONTRACT: while events go on: some of what is in the snapshot is older than what came live."""
    store, stop = Store(database_url), asyncio.Event()
    async with gateway(vhost.url, answers=False) as upstream:
        told = upstream.told
        for number in range(300):
            told.put(f"old{number}", Name=f"Räum {number}", price=0.1)
        told.gone("old7")
        async with store.transaction() as transaction:
            await transaction.execute(table_of(ListingRow).insert(), [row_of(known) for known in told.known.values()])
        relay = asyncio.create_task(serve_requests(vhost.url, store, SOURCE, stop))
        async with example.start(vhost.url) as running:
            await until(lambda: is_read(upstream, TEAM), 20, "bound, and read")
            await upstream.publish(*(told.put(f"old{number}", n=number) for number in range(0, 300, 10)))
            await knows(example, told, running)
        stop.set()
        await relay
    await store.close()


def row_of(known: Known) -> dict[str, Any]:
    """The listing as the store has it."""
    names = {name: value for name, value in known.names.items() if name != "resource_type"}
    body = None if known.current is None else canonical(known.current)
    place = {"scope": "/v1/resources", "own_path": f"/v1/resources/{names['item_id']}"}
    return {**names, **place, "body": body, "version": known.version, "deleted": body is None}


@pytest.mark.parametrize("example", CONSUMERS, indirect=True)
async def test_a_consumer_that_dies_before_its_snapshot_is_complete_asks_again(vhost: Vhost, example: Example) -> None:
    """T-OUT-CONTRACT: whatever others say of theirs."""
    async with gateway(vhost.url) as upstream:
        for number in range(4):
            upstream.told.put(f"old{number}", n=number)
        upstream.completes = False
        async with example.start(vhost.url) as running:
            await knows(example, upstream.told, running)
            *_, others = upstream.told.snapshot(TEAM, "another's")
            await upstream.publish(others, upstream.told.put("behind it"))
            await knows(example, upstream.told, running)
            await running.kill()
        upstream.told.put("old1", n="missed by nobody")
        upstream.completes = True

        async with example.start(vhost.url) as running:
            await knows(example, upstream.told, running)

        first, second = upstream.asked
        assert first == second, "complete is complete, whichever of the two requests was answered"


@pytest.mark.parametrize("example", CONSUMERS, indirect=True)
async def test_a_consumer_whose_queue_is_gone_asks_for_another_snapshot(vhost: Vhost, example: Example) -> None:
    """It has missed what was told meanwhile: deleted while it was away, and under its hands."""
    async with gateway(vhost.url) as upstream:
        upstream.told.put("old", n=1)
        async with example.start(vhost.url) as running:
            await knows(example, upstream.told, running)
            await until(example.is_complete, 60)
        await upstream.delete(TEAM)
        upstream.told.put("old", n=2)
        async with example.start(vhost.url) as running:
            await knows(example, upstream.told, running)
            await until(example.is_complete, 60)
            upstream.told.put("old", n=3)
            await upstream.delete(TEAM)
            await knows(example, upstream.told, running)
            await until(example.is_complete, 60)
        async with example.start(vhost.url) as running:
            await upstream.publish(upstream.told.put("new"))
            await knows(example, upstream.told, running)
        assert len(set(upstream.asked)) == len(upstream.asked) == 3, "each under an id of its own"


@pytest.mark.parametrize("example", CONSUMERS, indirect=True)
async def test_a_consumer_asks_until_there_is_somebody_to_ask(vhost: Vhost, example: Example) -> None:
    async with gateway(vhost.url, answers=False) as upstream:
        upstream.told.put("old", n=1)
        await upstream.delete(REQUESTS)
        async with example.start(vhost.url) as running:
            await until(lambda: len(list(filter(NOBODY.search, running.lines))) >= 2, 60, "it has asked, and again")
            await upstream.publish(upstream.told.put("new"))
            async with gateway(vhost.url) as answering:
                answering.told = upstream.told
                await knows(example, upstream.told, running)


@pytest.mark.parametrize("example", CONSUMERS, indirect=True)
async def test_a_name_that_a_snapshot_tells_later_is_taken_under_the_same_version(
    vhost: Vhost, example: Example
) -> None:
    async with gateway(vhost.url) as upstream:
        told = upstream.told
        known = told.known["old"] = nameless(told, "old")
        async with example.start(vhost.url) as running:
            await knows(example, told, running)
            told.known["old"] = replace(known, names={**known.names, "location_id": "1198"})
            again, _ = told.snapshot(TEAM, "another's")
            await upstream.publish(again)
            await knows(example, told, running)


def nameless(told: Told, item_id: str) -> Known:
    """A new listing whose location is not known yet."""
    told.put(item_id)
    known = told.known[item_id]
    return replace(known, names={**known.names, "location_id": None})


async def test_consumers_of_the_document_go_on_after_a_restart_of_the_broker(
    private_node: PrivateNode, node: Node, tmp_path: Path
) -> None:
    """T-OUT-CONTRACT: whatever was published before the kill and after it; each has a virtual host of its own."""
    vhosts = private_node.broker().vhosts(len(CONSUMERS), "gateway-test")
    async with contextlib.AsyncExitStack() as stack:
        running = []
        for name, vhost in zip(CONSUMERS, vhosts, strict=True):
            (tmp_path / name).mkdir()
            example = Example(name, tmp_path / name / "state", node if name.endswith(".js") else None)
            upstream = await stack.enter_async_context(gateway(vhost.url))
            await upstream.publish(*(upstream.told.put(f"n{number}", n=1) for number in range(3)))
            running.append((example, upstream, await stack.enter_async_context(example.start(vhost.url))))
        for example, upstream, started in running:
            await knows(example, upstream.told, started)

        await asyncio.to_thread(private_node.settle)
        for _, upstream, _ in running:
            await upstream.publish(*(upstream.told.put(f"n{number}", n=2) for number in range(3)))
        await asyncio.to_thread(private_node.kill)
        await asyncio.to_thread(private_node.start)

        for example, upstream, started in running:
            await upstream.publish(*(upstream.told.put(f"n{number}", n=3) for number in range(1, 5)))
            await knows(example, upstream.told, started)


FILTERED = "my-team.deleted-of-99"


async def test_a_queue_of_its_own_headers_gets_only_what_fits(vhost: Vhost, reader: Reader) -> None:
    """Over lost connections, and poison does not hold it up."""
    ours, others = Told(99), Told(98)
    async with (
        gateway(vhost.url) as upstream,
        Proxy.before(vhost.url) as proxy,
        reader.start("filtered.py", proxy.url(vhost.url)) as shown,
    ):
        await until(lambda: is_read(upstream, FILTERED), 20, "bound, and read")
        await upstream.publish(ours.put("1"), others.put("1"), ours.put("1", n=1), others.gone("1"), ours.gone("1"))
        await until(lambda: "99/resources/1" in shown.lines, 20, "the first")
        proxy.mode = Mode.RESET
        proxy.mode = Mode.PASS
        await upstream.publish(others.put("2"), others.gone("2"), ours.put("3"))
        await upstream.publish(structs.replace(ours.gone("3"), body=b"not JSON"))
        ours.put("3")
        await upstream.publish(ours.gone("3"))
        await until(lambda: "99/resources/3" in shown.lines, 20, "the last")
        await until(lambda: waits(upstream, f"{FILTERED}.dead", 1), 20, "the poison, and nothing else")

        assert proxy.accepted >= 2, "it has connected again"
        assert {line for line in shown.lines if line.startswith("9")} == {"99/resources/1", "99/resources/3"}


async def test_the_log_is_read_from_its_beginning_or_a_time_and_on_from_where_one_was(
    vhost: Vhost, reader: Reader
) -> None:
    async with gateway(vhost.url) as upstream, Proxy.before(vhost.url) as proxy:
        url = proxy.url(vhost.url)
        await upstream.publish(*(upstream.told.put(f"n{number}") for number in range(5)))
        subjects = [f"99/resources/n{number}" for number in range(11)]
        async with reader.start("read_log.py", url) as shown:
            await until(lambda: printed(shown) == subjects[:5], 20, "from its beginning")
        await upstream.publish(*(upstream.told.put(f"n{number}") for number in range(5, 8)))
        async with reader.start("read_log.py", url) as shown:
            await until(lambda: printed(shown) == subjects[5:8], 20, "behind the last one")
            proxy.mode = Mode.RESET
            proxy.mode = Mode.PASS
            await upstream.publish(*(upstream.told.put(f"n{number}") for number in range(8, 11)))
            await until(lambda: printed(shown) == subjects[5:], 20, "over a lost connection, each once")
        reader.offset.unlink()
        async with reader.start("read_log.py", url, (utc_now() - timedelta(hours=1)).isoformat()) as shown:
            await until(lambda: printed(shown) == subjects, 20, "from a time")


async def test_the_programs_need_no_more_rights_than_the_document_says(
    private_node: PrivateNode, private_vhost: Vhost, reader: Reader, tmp_path: Path
) -> None:
    [line] = re.findall(r"^rabbitmqctl (set_permissions .*)$", DOCUMENT.read_text(), re.MULTILINE)
    words = [private_vhost.name if word == "<vhost>" else word for word in shlex.split(line)]
    user = words[words.index("-p") + 2]
    await asyncio.to_thread(private_node.ctl, "add_user", user, "geheim")
    await asyncio.to_thread(private_node.ctl, *words)
    url = urlsplit(private_vhost.url)._replace(netloc=f"{user}:geheim@127.0.0.1:{private_node.port}").geturl()
    example = Example(CONSUMERS[0], tmp_path / "state", None)
    async with gateway(private_vhost.url) as upstream:
        upstream.told.put("old", n=1)
        async with example.start(url) as running, reader.start("filtered.py", url) as filtered:
            await knows(example, upstream.told, running)
            await until(lambda: is_read(upstream, FILTERED), 20, "bound, and read")
            poison = Outgoing(TEAM, b"not JSON", exchange=DIRECT)
            await upstream.publish(poison, upstream.told.put("new", n=3), upstream.told.gone("new"))
            await knows(example, upstream.told, running)
            await until(lambda: "99/resources/new" in filtered.lines, 20, "what was deleted")
            await until(lambda: waits(upstream, f"{TEAM}.dead", 1), 20, "the poison goes where it belongs")

        async with reader.start("read_log.py", url) as log:
            await until(lambda: any("ACCESS_REFUSED" in line for line in log.lines), 20, "more is needed for the log")
        words[-1] = words[-1].replace(r"syncaroo\.events)", r"syncaroo\.events|syncaroo\.events\.log)")
        assert words[-1].count("log") == 1
        await asyncio.to_thread(private_node.ctl, *words)
        await upstream.publish(upstream.told.put("last"))
        async with reader.start("read_log.py", url) as log:
            await until(lambda: any("99/resources/new" in line for line in log.lines), 20, "the log")


async def test_the_other_programs_go_on_after_a_restart_of_the_broker(
    private_node: PrivateNode, private_vhost: Vhost, reader: Reader
) -> None:
    url = private_vhost.url
    async with (
        gateway(url) as upstream,
        reader.start("filtered.py", url) as filtered,
        reader.start("read_log.py", url) as log,
    ):
        await until(lambda: is_read(upstream, FILTERED), 20, "bound, and read")
        await upstream.publish(upstream.told.put("1"), upstream.told.gone("1"))
        await until(lambda: printed(log) == ["99/resources/1"] * 2, 20, "before")

        await asyncio.to_thread(private_node.settle)
        await asyncio.to_thread(private_node.kill)
        await asyncio.to_thread(private_node.start)

        await upstream.publish(upstream.told.put("2"), upstream.told.gone("2"))
        await until(partial(goes_on, upstream, filtered), 60, "the filtered one goes on")
        await until(lambda: printed(log)[2:4] == ["99/resources/2"] * 2, 60, "and so does the log, where it was")


async def goes_on(upstream: Gateway, filtered: Program) -> bool:
    waiting = await upstream.ready(FILTERED)
    assert "99/resources/2" in filtered.lines, f"it said {filtered.lines}, {waiting} messages wait"
    return True


def printed(shown: Program) -> list[str]:
    """The subjects in its lines."""
    return [line.split()[1] for line in shown.lines if line[:2] == "20"]


async def is_there(upstream: Gateway, queue: str) -> bool:
    try:
        await upstream.ready(queue)
    except ChannelNotFoundEntity:
        return False
    return True


def test_every_program_of_the_document_is_run_here() -> None:
    blocks = re.findall(r"^```(?:python|js)$", DOCUMENT.read_text(), re.MULTILINE)
    assert len(blocks) == len(PROGRAMS)
    assert set(PROGRAMS) == {*CONSUMERS, "filtered.py", "read_log.py"}

"""The hops from a webhook to its event, each done bare and alone, again and again; prints their times.

These are the hops that the gateway has, because four processes share the work and any of them may die at any moment;
each is done with the least that keeps what the gateway's promises:

    request   the webhook, until a handler of a bare aiohttp server has read it
    webhook   a message, persistent, mandatory and confirmed, from publishing it until a quorum queue has delivered it
    mark      the target is wanted: one statement, committed, before the message may be acked
    claim     whoever asks leases the target, so that nobody else does: one statement, committed, before the GET
    page      the GET, until the page is read
    number    what the answer is ordered by is taken behind the GET, from the store
    answer    a message as above, with the page in it
    write     the listing is locked and compared, listing and event are written: one transaction
    poke      whoever publishes events is woken: a transient message to its own queue
    read      the oldest event that is not published
    event     a message as above, with the event in it

Left out is what nobody waits for: the answer to the webhook, confirms (a message is delivered meanwhile), acks, and
what is written when all is done (target answered, event published).
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
import aiohttp
import asyncpg  # type: ignore[import-untyped, unused-ignore]  # it ships no types
import uvloop
from aio_pika.abc import AbstractExchange, AbstractIncomingMessage
from aiohttp import web
from sqlalchemy import make_url

from benchmarks.variants.timed import BODY, URL, cpu_seconds

API = os.environ.get("BENCH_URL", "")
TIMES = int(os.environ.get("BENCH_TIMES", "60"))
WARM = 10
TABLES = """
CREATE SEQUENCE number;
CREATE TABLE target (
    url text PRIMARY KEY, wanted bigint NOT NULL, started bigint, answered bigint NOT NULL DEFAULT 0, leased timestamptz
);
CREATE INDEX ON target (wanted) WHERE wanted > answered;
CREATE TABLE listing (url text PRIMARY KEY, body text, version bigint NOT NULL);
CREATE TABLE event (
    position bigint PRIMARY KEY DEFAULT nextval('number'), url text, version bigint, body text, published timestamptz
);
CREATE INDEX ON event (position) WHERE published IS NULL;
"""
MARK = """
INSERT INTO target (url, wanted) VALUES ($1, nextval('number'))
ON CONFLICT (url) DO UPDATE SET wanted = excluded.wanted
"""
CLAIM = """
UPDATE target SET started = nextval('number'), leased = clock_timestamp() + interval '15 s' WHERE url = (
    SELECT url FROM target WHERE wanted > answered AND (leased IS NULL OR leased < clock_timestamp())
    ORDER BY wanted LIMIT 1 FOR UPDATE SKIP LOCKED
) RETURNING url, started
"""
KNOWN = "SELECT body, version FROM listing WHERE url = $1 FOR UPDATE"
CHANGED = "UPDATE listing SET body = $2, version = $3 WHERE url = $1"
TOLD = "INSERT INTO event (url, version, body) VALUES ($1, $2, $3)"
OLDEST = "SELECT position, url, version, body FROM event WHERE published IS NULL ORDER BY position LIMIT 1"

Hop = Callable[[], Awaitable[float | None]]
"""Does it, and gives the moment when it was done where that is not the moment when it returns."""


class Queue:
    """A queue that is read; who publishes to it has a connection of its own."""

    def __init__(self, exchange: AbstractExchange, key: str) -> None:
        self._exchange = exchange
        self._key = key
        self._delivered: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def taken(self, message: AbstractIncomingMessage) -> None:
        """One was delivered."""
        self._delivered.set_result(time.perf_counter())

    async def acked(self, message: AbstractIncomingMessage) -> None:
        """As above, where an ack is asked for."""
        await self.taken(message)
        await message.ack()

    def carries(self, body: bytes, mode: aio_pika.DeliveryMode = aio_pika.DeliveryMode.PERSISTENT) -> Hop:
        """The hop of a message."""

        async def hop() -> float:
            self._delivered = asyncio.get_running_loop().create_future()
            await self._exchange.publish(aio_pika.Message(body, delivery_mode=mode), self._key, mandatory=True)
            return await self._delivered

        return hop


async def times(hop: Hop) -> list[float]:
    """How long it takes, in ms, so many times."""
    taken = []
    for _ in range(WARM + TIMES):
        began = time.perf_counter()
        done = await hop()
        taken.append(((done or time.perf_counter()) - began) * 1000)
    return taken[WARM:]


@asynccontextmanager
async def queues() -> AsyncIterator[tuple[Queue, Queue]]:
    """One that is durable, and one that goes with its reader."""
    async with await aio_pika.connect(URL) as publishing, await aio_pika.connect(URL) as consuming:
        out, into = await publishing.channel(on_return_raises=True), await consuming.channel()
        durable = Queue(await out.get_exchange("bench", ensure=False), "bench")
        await (await into.get_queue("bench")).consume(durable.acked)
        own = await into.declare_queue(exclusive=True, auto_delete=True)
        passing = Queue(out.default_exchange, own.name)
        await own.consume(passing.taken, no_ack=True)
        yield durable, passing


@asynccontextmanager
async def request(session: aiohttp.ClientSession) -> AsyncIterator[Hop]:
    """To a server that does nothing with it."""
    read: list[float] = []

    async def handle(asked: web.Request) -> web.Response:
        await asked.read()
        read.append(time.perf_counter())
        return web.Response()

    app = web.Application()
    app.router.add_post("/update", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]

    async def hop() -> float:
        async with session.post(f"http://{host}:{port}/update", data=BODY) as answer:
            await answer.read()
        return read.pop()

    yield hop
    await runner.cleanup()


class Rows:
    """What the database does; each time it is about another target and listing."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._marked = self._written = 0

    async def prepare(self) -> None:
        """The tables, and listings that are known."""
        await self._connection.execute(TABLES)
        known = [(f"{API}/{number}", "{}", 1) for number in range(WARM + TIMES)]
        await self._connection.executemany("INSERT INTO listing VALUES ($1, $2, $3)", known)

    async def mark(self) -> None:
        """A target is wanted."""
        await self._connection.execute(MARK, f"{API}/{self._marked}")
        self._marked += 1

    async def claim(self) -> None:
        """A wanted target is leased."""
        assert await self._connection.fetchrow(CLAIM)

    async def number(self) -> None:
        """Of the sequence."""
        await self._connection.fetchval("SELECT nextval('number')")

    def write(self, body: str) -> Hop:
        """A listing becomes this, with an event."""

        async def hop() -> None:
            url = f"{API}/{self._written}"
            async with self._connection.transaction():
                known = await self._connection.fetchrow(KNOWN, url)
                assert known["body"] != body
                await self._connection.execute(CHANGED, url, body, known["version"] + 1)
                await self._connection.execute(TOLD, url, known["version"] + 1, body)
            self._written += 1

        return hop

    async def read(self) -> None:
        """The event that is published next."""
        assert await self._connection.fetchrow(OLDEST)


async def main() -> None:
    """Every hop in its turn."""
    database = make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql")
    connection = await asyncpg.connect(database.render_as_string(hide_password=False))
    rows = Rows(connection)
    await rows.prepare()
    async with aiohttp.ClientSession() as session, queues() as (durable, passing), request(session) as posted:

        async def get() -> bytes:
            async with session.get(API) as answer:
                answer.raise_for_status()
                return await answer.read()

        async def page() -> None:
            await get()

        body = await get()
        used = cpu_seconds()
        hops: dict[str, Hop] = {
            "request": posted,
            "webhook": durable.carries(BODY),
            "mark": rows.mark,
            "claim": rows.claim,
            "page": page,
            "number": rows.number,
            "answer": durable.carries(body),
            "write": rows.write(body.decode()),
            "poke": passing.carries(b"", aio_pika.DeliveryMode.NOT_PERSISTENT),
            "read": rows.read,
            "event": durable.carries(body),
        }
        taken = {name: await times(hop) for name, hop in hops.items()}
        used = cpu_seconds() - used
    await connection.close()
    json.dump({"times": taken, "cpuSeconds": used}, sys.stdout)


if __name__ == "__main__":
    uvloop.run(main())

"""The reconcile handler on both databases: races, no needless writes, troubles, values that they cannot hold."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import string
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import select, text

from common.brake import NO_BRAKE
from common.broker.consumer import Delivery
from common.broker.outgoing import outgoing
from common.codec import canonical, loads
from common.errors import Permanent, StoreUnavailable
from common.store.engine import Store
from common.store.targets import Wanted, want
from schemas.messages import ItemGone, Json, Message, PlatformIds
from schemas.tables import EventRow, ListingRow, ParkedRow, TargetRow, table_of
from tests.answers import ROOM, ROOMS, page, source
from tests.component.conftest import Fill
from tests.fixtures.database import ON_SQLITE
from tests.rfc6902 import applied
from tests.waiting import within
from workers.reconcile.handler import ReconcileHandler
from workers.reconcile.store.listings import ListingStore

_event, _listing = table_of(EventRow), table_of(ListingRow)


async def deliver(store: Store, *messages: Message) -> None:
    """As the reconcile worker would take them."""

    async def nobody() -> None:
        """No relay is there to be woken."""

    handler = ReconcileHandler(ListingStore(store, delete_brake=NO_BRAKE), nobody, timedelta(0))
    for message in messages:
        sent = outgoing(message, "reconcile", 99)
        await handler([Delivery(sent.body, sent.headers, sent.routing_key)])


async def rows(store: Store, table: type[Any]) -> list[Any]:
    async with store.reading() as transaction:
        return list(await transaction.rows(table_of(table).select()))


async def told(store: Store) -> dict[str, list[dict[str, Json]]]:
    """The events' data by listing; refuses gaps in versions, and patches that do not lead from one to the next."""
    async with store.reading() as transaction:
        found = await transaction.rows(select(_event).order_by(_event.c.listing_id, _event.c.version))
    events: dict[str, list[dict[str, Json]]] = {}
    for row in found:
        data = loads(row.data.encode())
        before = events.setdefault(row.listing_id, [])
        assert data["version"] == len(before) + 1
        last = before[-1]["current"] if before else None
        assert canonical(data["previous"]) == canonical(last), "told against what another process had overwritten"
        if data["change"] == "updated":
            assert canonical(applied(data["patch"], last)) == canonical(data["current"])
        before.append(data)
    return events


# --- races ------------------------------------------------------------------------------------------------------------


async def test_of_four_hundred_answers_at_once_none_is_lost(store: Store, other: Store) -> None:
    """T-DB-RACE: two processes, one listing that nobody has seen. Unlocked, 381 of 400 patches are wrong."""

    async def fifty(process: int) -> None:
        for turn in range(50):
            mine = (store, other)[process % 2]
            began = await mine.number()
            await deliver(mine, page(began, {"ID": "7", f"process {process}": turn, "n": began}))

    await asyncio.gather(*map(fifty, range(8)))
    (row,) = await rows(store, ListingRow)
    (events,) = (await told(store)).values()
    assert (row.version, canonical(events[-1]["current"])) == (len(events), row.body)
    assert loads(row.body.encode())["n"] == row.began, "the latest has won"
    assert len(events) > 100, "they came in about the order in which they began"


async def test_pages_that_share_listings_never_wait_for_each_other_in_a_circle(store: Store, other: Store) -> None:
    """T-DB-RACE: each page names the same rooms in another order, and all of them new."""

    async def ten(process: int) -> None:
        for _ in range(10):
            mine = (store, other)[process % 2]
            began = await mine.number()
            items = [{"ID": str(room), "n": began} for room in range(6)]
            turned = items[process:] + items[:process]
            await deliver(mine, page(began, *turned[:: 1 - 2 * (process % 2)], url=ROOMS, shape="list"))

    async with within(30):
        await asyncio.gather(*map(ten, range(6)))
    events = await told(store)
    assert len(events) == 6
    latest = max(one[-1]["current"]["n"] for one in events.values())
    assert {one[-1]["current"]["n"] for one in events.values()} == {latest}


# --- nothing new ------------------------------------------------------------------------------------------------------

ALIKE = [
    b'{"ID":"7","price":35.0,"tags":{"a":1,"b":[2]}}',
    b'{"tags":{"b":[2],"a":1},"price":35.0,"ID":"7"}',
    b' { "ID" : "7", "price":35.00 , "tags":{"a":1,"b":[ 2 ]}} ',
    b'{"ID":"7","price":3.5e1,"tags":{"\\u0061":1,"b":[2]}}',
]


async def test_an_answer_with_nothing_new_is_no_change(store: Store) -> None:
    """T-NOCHANGE: no version, no event, nothing to tell when it changed; only the numbers move on. Neither the order of
    members nor the spelling of numbers, strings and blanks is news."""
    await deliver(store, page(10, loads(ALIKE[0])))
    (before,) = await rows(store, ListingRow)
    for number, raw in enumerate(ALIKE, 20):
        await deliver(store, page(number, loads(raw)))
        (after,) = await rows(store, ListingRow)
        assert (after.version, after.body, after.changed_at) == (1, before.body, before.changed_at)
        assert after.began == number
    assert len(await rows(store, EventRow)) == 1


async def test_what_is_delivered_again_writes_nothing(store: Store, other: Store) -> None:
    """T-NOCHANGE, T-DUP: neither the same message nor an older one rewrites a row."""
    messages = [
        page(10, {"ID": "7", "n": 1}, {"ID": "8", "n": 1}, url=ROOMS, shape="list"),
        page(20, {"ID": "7", "n": 2, "text": "long"}),
        ItemGone(connection_id=99, source=source(30, f"{ROOMS}/8")),
    ]
    await deliver(store, *messages)
    listings, events = await rows(store, ListingRow), await rows(store, EventRow)
    writes = _writes(other)
    await deliver(other, *messages, *reversed(messages), *messages)
    assert writes == []
    assert (await rows(store, ListingRow), await rows(store, EventRow)) == (listings, events)


def _writes(store: Store) -> list[str]:
    """The statements from now on that change a row."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith(("INSERT", "UPDATE", "DELETE")):
            seen.append(statement)

    sqlalchemy_event.listen(store._engine.sync_engine, "before_cursor_execute", note)
    return seen


async def test_three_copies_of_everything_in_any_order_are_one_effect(store: Store, other: Store) -> None:
    """T-DUP: every message three times, shuffled, by two processes."""
    messages = [page(number, {"ID": "7", "n": number}) for number in range(1, 9)]
    shuffled = [messages[(5 * index) % 8] for index in range(24)]
    await asyncio.gather(deliver(store, *shuffled[::2]), deliver(other, *shuffled[1::2]))
    (row,) = await rows(store, ListingRow)
    (events,) = (await told(store)).values()
    assert (loads(row.body.encode())["n"], row.began, row.version) == (8, 8, len(events))
    ns = [event["current"]["n"] for event in events]
    assert ns == sorted(set(ns)), "each at most once, and never back to an older one"


async def test_what_overlapped_and_differs_makes_its_own_url_wanted(store: Store) -> None:
    """T-REORDER: in the transaction that noticed it; what is alike is not asked again."""
    await deliver(store, page(10, {"ID": "7", "n": 1}, ended=20), page(15, {"ID": "7", "n": 1}, ended=25))
    assert await rows(store, TargetRow) == []
    await deliver(store, page(22, {"ID": "7", "n": 2}, url=ROOMS, shape="list"))
    (target,) = await rows(store, TargetRow)
    assert (target.url, target.reason, target.wanted > target.answered) == (ROOM, "resync", True)


async def test_what_is_gone_before_it_was_seen_is_not_brought_in_by_an_older_answer(store: Store) -> None:
    """T-REORDER: the 404 has overtaken the page; a newer answer does bring it in."""
    gone = ItemGone(connection_id=99, source=source(20))
    await deliver(store, gone, page(10, {"ID": "7"}), page(11, {"ID": "7"}, url=ROOMS, shape="list"))
    assert await rows(store, EventRow) == []
    await deliver(store, page(30, {"ID": "7"}))
    ((created,),) = (await told(store)).values()
    assert (created["change"], created["version"]) == ("created", 1)


# --- the store is in trouble ------------------------------------------------------------------------------------------


async def _half_done(store: Store) -> bool:
    """Whether anything was written."""
    return bool(await rows(store, ListingRow) or await rows(store, EventRow))


async def test_a_listing_that_somebody_holds_is_given_up_and_comes_through_later(
    store: Store, hasty: Store, database_url: str
) -> None:
    """T-DB-BUSY: another program's lock; nothing is half done, and the same message goes through when it is gone."""
    await deliver(store, page(10, {"ID": "7"}))
    async with _held(store, database_url):
        with pytest.raises(StoreUnavailable):
            await deliver(hasty, page(20, {"ID": "7", "n": 2}))
    ((created,),) = (await told(store)).values()
    assert created["change"] == "created"
    await deliver(hasty, page(20, {"ID": "7", "n": 2}))
    (events,) = (await told(store)).values()
    assert [event["change"] for event in events] == ["created", "updated"]


@asynccontextmanager
async def _held(store: Store, database_url: str) -> AsyncIterator[None]:
    """Somebody holds the rows; on SQLite a program that knows nothing of our lock."""
    if store.postgres:
        async with store.transaction() as transaction:
            await transaction.rows(_listing.select().with_for_update())
            yield
        return
    with closing(sqlite3.connect(database_url.partition("///")[2], isolation_level=None)) as foreign:
        foreign.execute("BEGIN IMMEDIATE")
        yield
        foreign.execute("ROLLBACK")


async def test_a_full_disk_leaves_no_half_of_a_page(disk: tuple[Store, Fill]) -> None:
    """T-DB-FULL: the listing without its event would never be told."""
    store, fill = disk
    many = page(10, *({"ID": str(one), "text": "x" * 1000} for one in range(200)), url=ROOMS, shape="list")
    await deliver(store, page(5, {"ID": "before"}, url=ROOMS, shape="list"))  # each table has a page that is not full
    with fill(store), pytest.raises(StoreUnavailable):
        await deliver(store, many)
    assert (len(await rows(store, ListingRow)), len(await told(store))) == (1, 1)
    await deliver(store, many)
    assert len(await told(store)) == 201


async def test_a_store_that_may_only_be_read_is_unavailable(store: Store, other: Store) -> None:
    """T-DB-RO: a file system that went read-only, a standby: waited for, not parked; reading goes on."""
    await deliver(store, page(10, {"ID": "7"}))
    only_read = "SET TRANSACTION READ ONLY" if store.postgres else "PRAGMA query_only = ON"
    sqlalchemy_event.listen(other._engine.sync_engine, "begin", lambda one: one.exec_driver_sql(only_read))
    with pytest.raises(StoreUnavailable):
        await deliver(other, page(20, {"ID": "7", "n": 2}))
    (row,) = await rows(other, ListingRow)
    assert row.began == 10


@ON_SQLITE
async def test_a_file_that_may_only_be_read_is_unavailable(store: Store, database_url: str) -> None:
    """T-DB-RO: opened read-only by the driver itself, as on a read-only mount."""
    await deliver(store, page(10, {"ID": "7"}))
    mounted = Store(f"sqlite+aiosqlite:///file:{database_url.partition('///')[2]}?mode=ro&uri=true")
    mounted._lock = store._lock  # on a read-only mount even the lock's file cannot be made
    with pytest.raises(StoreUnavailable):
        await deliver(mounted, page(20, {"ID": "7", "n": 2}))
    await mounted.close()
    await deliver(store, page(20, {"ID": "7", "n": 2}))


# --- what it cannot hold ----------------------------------------------------------------------------------------------

LONG = "".join(random.Random(7).choices(string.ascii_letters, k=9000))  # alike in every run
"""No database packs it into less."""


STRANGE: list[dict[str, Json]] = [
    {"ID": "1", "text": "a\0b"},
    {"ID": "2", "n": 10**400, "m": -(2**63) - 1},
    {"ID": "3", "text": LONG * 100},
    {"ID": "4", LONG: 1, "~/\0": {"": []}},
]


async def test_an_item_may_hold_whatever_json_can(store: Store) -> None:
    """T-DB-BADDATA: a body is kept as text in which nothing is left that a database could refuse."""
    later = [{**item, "more": 1} for item in STRANGE]
    await deliver(store, page(10, *STRANGE, url=ROOMS, shape="list"), page(20, *later, url=ROOMS, shape="list"))
    assert {row.item_id: loads(row.body.encode()) for row in await rows(store, ListingRow)} == {
        item["ID"]: item for item in later
    }
    assert [len(events) for events in (await told(store)).values()] == [2, 2, 2, 2]


async def test_an_item_whose_id_no_url_can_hold_parks_itself_alone(store: Store) -> None:
    """T-DB-BADDATA: with a reason, each by itself; its neighbours pass."""
    bad: list[Json] = [{"ID": "a\0b"}, {"ID": 10**400}, {"ID": LONG}, {"ID": ""}, {"ID": True}, {}, 7, None]
    await deliver(store, page(10, {"ID": "7"}, *bad, {"ID": "8"}, url=ROOMS, shape="list"))
    assert sorted(row.item_id for row in await rows(store, ListingRow)) == ["7", "8"]
    assert [row.reason for row in await rows(store, ParkedRow)] == ["bad_item"] * len(bad)


@pytest.mark.parametrize("which", ["NUL", "surrogate", "number", "length"])
async def test_a_message_that_no_database_can_hold_is_final(store: Store, which: str) -> None:
    """T-DB-BADDATA: parked at once with a reason, not tried again for days. SQLite holds some of it."""
    message = page(10, {"ID": "7"}, url=f"{ROOMS}/{LONG}" if which == "length" else ROOM)
    mapping = {"NUL": "a\0b", "surrogate": "a\ud800b"}.get(which)
    answers: dict[str, Callable[[], Any]] = {
        "NUL": lambda: _wanted(store, mapping),
        "surrogate": lambda: _wanted(store, mapping),
        "number": lambda: deliver(store, page(2**63, {"ID": "7"})),
        "length": lambda: deliver(store, message),
    }
    if which in ("NUL", "length") and not store.postgres:
        await answers[which]()
        assert [row.location_id for row in await rows(store, TargetRow)] == ([mapping] if which == "NUL" else [])
        assert [row.own_url for row in await rows(store, ListingRow)] == (
            [] if which == "NUL" else [message.source.url]
        )
        return
    with pytest.raises(Permanent, match="unstorable"):
        await answers[which]()
    assert not await _half_done(store)
    await deliver(store, page(10, {"ID": "7"}))


async def _wanted(store: Store, location_id: str | None) -> None:
    async with store.transaction() as transaction:
        mapping = PlatformIds(location_id=location_id)
        await want(transaction, [Wanted(99, ROOM, mapping, "webhook", "d")])


async def test_more_listings_than_a_statement_takes_values(store: Store) -> None:
    """T-DB-BADDATA: a parent with more below it than either database takes values in one statement is no trouble."""
    many = 33_000
    async with store.transaction() as transaction:
        wanted = [Wanted(99, f"{ROOMS}/{one}", PlatformIds(), "resync") for one in range(many)]
        await want(transaction, wanted)
    async with store.reading() as transaction:
        row = await transaction.row(text("SELECT count(*) FROM target"))
    assert row is not None
    assert row[0] == many

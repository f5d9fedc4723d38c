"""Several answers in one transaction: the same as one after another, and one by itself where that could differ."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import select
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from common import tracing
from common.brake import NO_BRAKE
from common.broker.consumer import Delivery
from common.broker.following import in_hand
from common.broker.outgoing import outgoing
from common.errors import StoreUnavailable
from common.settings import TraceSettings
from common.store.engine import Store
from common.store.targets import Wanted, want
from schemas.messages import ItemGone, ListingUnmapped, Message, PageFetched, PlatformIds
from schemas.tables import (
    NOBODY,
    ConnectionRow,
    EventRow,
    ListingRow,
    ParkedRow,
    SuspectRow,
    TargetRow,
    table_of,
)
from tests.answers import ROOM, ROOMS, page, source
from tests.waiting import within
from workers.reconcile.finding import Finding, Outcomes
from workers.reconcile.handler import TOGETHER, ReconcileHandler, Taken, first_group
from workers.reconcile.store.listings import ListingStore

_event, _listing = table_of(EventRow), table_of(ListingRow)
_suspect, _target = table_of(SuspectRow), table_of(TargetRow)
_connection, _parked = table_of(ConnectionRow), table_of(ParkedRow)


def delivery(message: Message) -> Delivery:
    sent = outgoing(message, "reconcile", 99)
    return Delivery(sent.body, sent.headers, sent.routing_key)


def handler(
    store: Store, recheck_after: timedelta = timedelta(0), listings: ListingStore | None = None
) -> ReconcileHandler:
    async def nobody() -> None:
        """No relay is there to be woken."""

    return ReconcileHandler(listings or ListingStore(store, delete_brake=NO_BRAKE), nobody, recheck_after)


async def deliver(store: Store, *messages: Message, recheck_after: timedelta = timedelta(0)) -> None:
    """At once, as the worker takes what waits."""
    waiting = [delivery(one) for one in messages]
    while waiting:
        del waiting[: await handler(store, recheck_after)(waiting)]


def room(number: int, began: int, **members: Any) -> PageFetched:
    return page(began, {"ID": str(number), "n": began, **members}, url=f"{ROOMS}/{number}")


async def told(store: Store) -> list[tuple[str, int, str]]:
    """Item, version and change of each event, in order."""
    async with store.reading() as transaction:
        rows = await transaction.rows(select(_event).order_by(_event.c.position))
    return [(row.subject.rsplit("/", 1)[1], row.version, _change(row.headers)) for row in rows]


def _change(headers: str) -> str:
    return next(one for one in ("created", "updated", "deleted") if f'"{one}"' in headers)


async def transactions(store: Store) -> int:
    """In how many the events were written: each has its own time."""
    async with store.reading() as transaction:
        return len(await transaction.rows(select(_event.c.created_at).distinct()))


# --- which ------------------------------------------------------------------------------------------------------------


def groups(*messages: Message) -> list[list[int]]:
    """Places of the messages, by group."""
    handled = handler(Store("sqlite+aiosqlite:///unused"))
    taken = [handled._taken(delivery(one)) for one in messages]
    place = {id(one): number for number, one in enumerate(taken)}
    found: list[list[int]] = []
    while taken:
        group = first_group(taken)
        found.append([place[id(one)] for one in group])
        del taken[: len(group)]
    return found


def gone(number: int, began: int) -> ItemGone:
    url = f"{ROOMS}/{number}"
    return ItemGone(connection_id=99, source=source(began, url), listing_id=None)


def test_answers_about_different_listings_are_taken_together() -> None:
    assert groups(room(1, 1), room(2, 2), room(3, 3)) == [[0, 1, 2]]


def test_a_listing_is_once_in_a_group() -> None:
    assert groups(room(1, 1), room(2, 2), room(1, 3), room(2, 4), room(3, 5)) == [[0, 1], [2, 3, 4]]


def test_a_deletion_an_unmapped_and_an_empty_page_are_groups_of_their_own() -> None:
    empty = page(3, url=ROOMS, shape="list")
    assert groups(room(1, 1), gone(2, 2), room(3, 3), empty, room(4, 4), room(5, 5)) == [[0], [1], [2], [3], [4, 5]]


def test_a_group_has_its_limit() -> None:
    items = [{"ID": str(number)} for number in range(TOGETHER - 1)]
    large = page(1, *items, url=ROOMS, shape="list")
    assert groups(large, room(-1, 2), room(-2, 3)) == [[0, 1], [2]]
    assert groups(page(1, *items, *({"ID": f"x{one}"} for one in range(9)), url=ROOMS, shape="list"), room(-1, 2)) == [
        [0],
        [1],
    ]


def test_of_a_message_without_listings_nothing_is_asked() -> None:
    assert first_group([]) == []
    assert first_group([Taken(delivery(gone(1, 1)), gone(1, 1))])[0].listings == ()


def test_what_is_behind_a_group_is_not_looked_at() -> None:
    """The first that does not fit is."""
    behind = iter([Taken(delivery(gone(one, one)), gone(one, one)) for one in (1, 2, 3)])
    assert len(first_group(behind)) == 1
    assert len(list(behind)) == 1


# --- what comes of it -------------------------------------------------------------------------------------------------


async def test_what_is_plain_is_one_transaction(store: Store) -> None:
    """New ones, changed ones, and one that says what is known."""
    await deliver(store, room(1, 1, name="a"), room(2, 2))
    assert await transactions(store) == 1
    await deliver(store, room(1, 11, name="b"), room(3, 12), room(4, 13))
    assert await transactions(store) == 2
    assert await told(store) == [
        ("1", 1, "created"),
        ("2", 1, "created"),
        ("1", 2, "updated"),
        ("3", 1, "created"),
        ("4", 1, "created"),
    ]


async def test_connections_do_not_mix(store: Store) -> None:
    """The same ids of two connections are two listings."""
    one, other = room(1, 1), room(1, 2)
    other = PageFetched(
        connection_id=98, source=other.source, mapping=other.mapping, shape="item", items=other.items, page=1
    )
    await deliver(store, one, other)
    assert await transactions(store) == 1
    async with store.reading() as transaction:
        rows = await transaction.rows(
            select(_listing.c.connection_id, _listing.c.body).order_by(_listing.c.connection_id)
        )
    assert [tuple(row) for row in rows] == [(98, '{"ID":"1","n":2}'), (99, '{"ID":"1","n":1}')]


async def test_each_event_has_the_cause_of_its_own_answer(store: Store) -> None:
    await deliver(store, room(1, 5), room(2, 6))
    async with store.reading() as transaction:
        rows = await transaction.rows(select(_event.c.subject, _event.c.cause).order_by(_event.c.position))
    assert [f'"url":"{ROOMS}/{number}"' in row.cause for number, row in zip((1, 2), rows, strict=True)] == [True, True]
    assert [f'"began":{began}' in row.cause for began, row in zip((5, 6), rows, strict=True)] == [True, True]


async def test_an_item_that_says_it_is_deleted_goes_the_long_way_and_its_neighbours_stay(store: Store) -> None:
    await deliver(store, room(1, 1), room(2, 2), room(3, 3))
    await deliver(store, room(1, 11), room(2, 12, deleted=True), room(3, 13))
    assert (await told(store))[3:] == [("1", 2, "updated"), ("2", 2, "deleted"), ("3", 2, "updated")]
    assert await transactions(store) == 4


async def test_a_doubt_is_asked_again_and_its_neighbours_are_written(store: Store) -> None:
    """Two answers that overlapped and differ."""
    await deliver(store, page(10, {"ID": "1", "n": 1}, url=f"{ROOMS}/1", ended=20))
    await deliver(store, page(15, {"ID": "1", "n": 2}, url=f"{ROOMS}/1", ended=25), room(2, 16))
    async with store.reading() as transaction:
        wanted = await transaction.rows(select(_target.c.url).where(_target.c.wanted > _target.c.answered))
    assert [row.url for row in wanted] == [f"{ROOMS}/1"]
    assert [item for item, _, _ in await told(store)] == ["1", "1", "2"]


async def test_who_answers_in_a_group_is_no_suspect_any_more(store: Store) -> None:
    await deliver(store, room(1, 1), room(2, 2))
    async with store.transaction() as transaction:
        (row, *_) = await transaction.rows(select(_listing.c.listing_id).where(_listing.c.item_id == "1"))
        suspect = {"listing_id": row.listing_id, "url": f"{ROOMS}/1", "state": "pending", "walk": 5}
        await transaction.execute(_suspect.insert().values(connection_id=99, since=await transaction.now(), **suspect))
    await deliver(store, room(1, 11), room(2, 12))
    async with store.reading() as transaction:
        assert await transaction.rows(select(_suspect)) == []
    assert len(await told(store)) == 4


async def test_answers_without_a_change_are_asked_once_more_all_of_them(store: Store) -> None:
    urls = [f"{ROOMS}/{number}" for number in (1, 2, 3)]
    async with store.transaction() as transaction:
        await want(transaction, [Wanted(99, url, PlatformIds(), "webhook", "d") for url in urls])
        await transaction.execute(_target.update().values(started=1_000, answered=1_000))
    await deliver(store, *(page(number, {"ID": str(number)}, url=url) for number, url in enumerate(urls, 1)))
    again = [page(10 + number, {"ID": str(number)}, url=url) for number, url in enumerate(urls[:2], 1)]
    await deliver(store, *again, room(3, 13), recheck_after=timedelta(minutes=1))
    async with store.reading() as transaction:
        rows = await transaction.rows(select(_target.c.url).where(_target.c.recheck_at.is_not(None)))
    assert {row.url for row in rows} == set(urls[:2]), "the third has changed"


async def test_what_is_unmapped_in_between_keeps_its_place(store: Store) -> None:
    """T-UNMAP: between two answers, the later of which was asked before anybody mapped it again."""
    await deliver(store, room(7, 1))
    unmapped = ListingUnmapped(connection_id=99, url=ROOM, number=50, delivery_id="d", received_at=source(1).fetched_at)
    await deliver(store, room(7, 10, more=1), unmapped, room(7, 60), room(8, 61))
    assert await told(store) == [
        ("7", 1, "created"),
        ("7", 2, "updated"),
        ("7", 3, "deleted"),
        ("8", 1, "created"),
    ]


class FailsFor(ListingStore):
    """Of what is applied by itself, one message fails: the store says that it is locked."""

    def __init__(self, store: Store, began: int) -> None:
        super().__init__(store, delete_brake=NO_BRAKE)
        self.began = began

    async def apply(self, finding: Finding) -> Outcomes:
        if finding.source and finding.source.began == self.began:
            raise StoreUnavailable("locked")
        return await super().apply(finding)


async def test_what_was_applied_before_one_that_fails_is_not_applied_again(store: Store) -> None:
    """What parks itself is parked once, whatever becomes of those behind it."""
    await deliver(store, room(8, 1), room(9, 1))
    messages = [page(2, {"ID": "7"}, {}, url=ROOMS, shape="list"), room(8, 3, deleted=True), room(9, 4, name="x")]
    made = handler(store, listings=FailsFor(store, began=3))
    assert await made([delivery(one) for one in messages]) == 1
    with pytest.raises(StoreUnavailable):
        await made([delivery(one) for one in messages[1:]])
    await deliver(store, *messages[1:])
    async with store.reading() as transaction:
        assert [row.reason for row in await transaction.rows(select(_parked))] == ["bad_item"]
    assert (await told(store))[2:] == [("7", 1, "created"), ("8", 2, "deleted"), ("9", 2, "updated")]


async def test_of_an_erased_user_s_connection_nothing_is_written_and_of_its_neighbours_all(store: Store) -> None:
    theirs = msgspec.structs.replace(room(2, 2), connection_id=98)
    async with store.transaction() as transaction:
        of_nobody = {"connection_id": 98, "user_id": NOBODY, "state": "revoked", "created_at": await transaction.now()}
        await transaction.execute(_connection.insert().values(of_nobody))
    await deliver(store, room(1, 1), theirs, room(3, 3))
    assert [item for item, _, _ in await told(store)] == ["1", "3"]
    async with store.reading() as transaction:
        assert {row.connection_id for row in await transaction.rows(select(_listing.c.connection_id))} == {99}


@pytest.fixture
def traced() -> Iterator[None]:
    settings = TraceSettings(otel_exporter_otlp_endpoint="http://127.0.0.1:1")
    tracing.start_with(SimpleSpanProcessor(InMemorySpanExporter()), settings, "test")
    yield
    tracing.stop()


@pytest.mark.usefixtures("traced")
async def test_each_answer_of_a_group_has_its_own_trace_and_its_own_names_in_the_log(store: Store) -> None:
    traces = [f"00-{letter * 32}-{letter * 16}-01" for letter in "ab"]
    messages = [room(number, number, name="new") for number in (1, 2)]
    sent = [
        replace(one, headers={**one.headers, tracing.HEADER: trace})
        for one, trace in zip(map(delivery, messages), traces, strict=True)
    ]
    with capture_logs([merge_contextvars]) as logs, in_hand("syncaroo.reconcile", sent) as hand:
        assert await handler(store)(hand.deliveries) == 2
    async with store.reading() as transaction:
        rows = await transaction.rows(select(_event.c.traceparent).order_by(_event.c.position))
    ids = [tracing.trace_id_of(one) for one in traces]
    assert [tracing.trace_id_of(row.traceparent) for row in rows] == ids
    told = [(one["listing"], one["trace_id"]) for one in logs if one["event"] == "listing.changed"]
    assert told == [("99/resources/1", ids[0]), ("99/resources/2", ids[1])]


async def test_groups_that_share_listings_never_wait_for_each_other_in_a_circle(store: Store, other: Store) -> None:
    """T-DB-RACE: of two processes, in opposite orders, new listings among them; each ends with the latest answer."""

    async def ten(process: int) -> None:
        mine = (store, other)[process % 2]
        for _ in range(10):
            numbers: Sequence[int] = range(8)
            began = await mine.number()
            await deliver(mine, *(room(one, began) for one in numbers[:: 1 - 2 * (process % 2)]))

    async with within(60):
        await asyncio.gather(*map(ten, range(6)))
    async with store.reading() as transaction:
        rows = await transaction.rows(select(_listing.c.body, _listing.c.began))
        events = await transaction.rows(select(_event.c.listing_id, _event.c.version))
    assert len(rows) == 8
    assert {f'"n":{row.began}' in row.body for row in rows} == {True}
    by_listing: dict[str, list[int]] = {}
    for event in sorted(events, key=lambda one: one.version):
        by_listing.setdefault(event.listing_id, []).append(event.version)
    assert all(versions == list(range(1, len(versions) + 1)) for versions in by_listing.values())

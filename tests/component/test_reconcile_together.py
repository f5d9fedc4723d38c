"""Several answers in one transaction: the same as one after another, and one by itself where that could differ."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import select

from common.brake import NO_BRAKE
from common.broker.consumer import Delivery
from common.broker.outgoing import outgoing
from common.store.engine import Store
from common.store.targets import Wanted, want
from schemas.messages import ItemGone, ListingUnmapped, Message, PageFetched, PlatformIds
from schemas.tables import EventRow, ListingRow, SuspectRow, TargetRow, table_of
from tests.answers import ROOM, ROOMS, page, source
from tests.waiting import within
from workers.reconcile.handler import TOGETHER, ReconcileHandler, Taken, grouped
from workers.reconcile.store.listings import ListingStore

_event, _listing = table_of(EventRow), table_of(ListingRow)
_suspect, _target = table_of(SuspectRow), table_of(TargetRow)


def delivery(message: Message) -> Delivery:
    sent = outgoing(message, "reconcile", 99)
    return Delivery(sent.body, sent.headers, sent.routing_key)


def handler(store: Store, recheck_after: timedelta = timedelta(0)) -> ReconcileHandler:
    async def nobody() -> None:
        """No relay is there to be woken."""

    return ReconcileHandler(ListingStore(store, delete_brake=NO_BRAKE), nobody, recheck_after)


async def deliver(store: Store, *messages: Message, recheck_after: timedelta = timedelta(0)) -> None:
    """At once, as the worker takes what waits."""
    await handler(store, recheck_after)([delivery(one) for one in messages])


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
    return [[place[id(one)] for one in group] for group in grouped(taken)]


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
    assert grouped([]) == []
    assert grouped([Taken(delivery(gone(1, 1)), gone(1, 1))])[0][0].listings == ()


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

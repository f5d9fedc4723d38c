"""Whose turn it is, on both databases: connections alternate, resyncs have their part, nobody has all the room."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from common.store import targets as target_store
from common.store.engine import Store
from common.store.targets import Wanted, want, want_known
from common.store.turns import PUT_OFF
from schemas.messages import PlatformIds
from schemas.tables import FeedRow, TargetRow, table_of
from tests.component.conftest import lock_waiters
from tests.component.target_parts import NOW, Process, authorise, process, wish_all
from tests.fixtures.database import ON_POSTGRESQL
from tests.waiting import until
from workers.fetch.store.claims import LATE

A, B, C = 1, 2, 3

_target = table_of(TargetRow)
_feed = table_of(FeedRow)


@pytest.fixture
async def store(store: Store) -> Store:
    """One that has a grant."""
    await authorise(store)
    return store


def items(connection_id: int, count: int, first: int = 0) -> list[str]:
    return [f"{collection(connection_id)}/{number:04}" for number in range(first, first + count)]


def collection(connection_id: int) -> str:
    return f"https://api.syncaroo.com/v1/locations/{connection_id}/resources"


async def serve(targets: Process, count: int, **room: Any) -> list[int]:
    """Claim so many and answer them: whose they were, in the order of their claims."""
    claims, _ = await targets.claim(count, **room)
    for claim in claims:
        await targets.answered(claim, 200)
    return [claim.connection_id for claim in claims]


async def rows(store: Store) -> Sequence[Any]:
    async with store.reading() as transaction:
        return await transaction.rows(_target.select().order_by(_target.c.connection_id, _target.c.url))


async def change(store: Store, connection_id: int, **values: Any) -> None:
    async with store.transaction() as transaction:
        await transaction.execute(update(_target).where(_target.c.connection_id == connection_id).values(values))


# --- turns ------------------------------------------------------------------------------------------------------------


async def test_one_target_comes_next_after_five_thousand_of_another_connection(store: Store) -> None:
    """T-FAIR: connections take turns, whatever they have waiting."""
    await wish_all(store, A, items(A, 5000))
    targets = process(store)
    assert await serve(targets, 16) == [A] * 16
    await wish_all(store, B, items(B, 1))
    assert B in await serve(targets, 2)
    assert await serve(targets, 16) == [A] * 16


async def test_connections_alternate(store: Store) -> None:
    for connection_id in (A, B, C):
        await wish_all(store, connection_id, items(connection_id, 6))
    order = await serve(process(store), 18)
    assert [set(order[begin : begin + 3]) for begin in range(0, 18, 3)] == [{A, B, C}] * 6


async def test_turns_are_not_saved_up_while_idle(store: Store) -> None:
    await wish_all(store, A, items(A, 100))
    targets = process(store)
    await serve(targets, 50)
    await wish_all(store, B, items(B, 50))
    order = Counter(await serve(targets, 40))
    assert set(order.values()) == {20}


async def test_who_is_put_off_passes_nobody_when_it_comes_back(store: Store) -> None:
    """Fifty targets that failed an hour ago and come back together are fifty targets, not fifty that go first."""
    await wish_all(store, A, items(A, 50))
    targets = process(store)
    for claim in (await targets.claim(50))[0]:
        await targets.put_off(claim, timedelta(hours=1), "boom")
    await wish_all(store, B, items(B, 30))
    assert {row.turn for row in await rows(store) if row.connection_id == A} == {PUT_OFF}, "they stand in no line"
    assert await serve(targets, 20) == [B] * 20
    await change(store, A, not_before=datetime.now(UTC) - timedelta(seconds=1))
    assert Counter(await serve(targets, 10)) == {A: 5, B: 5}
    await wish_all(store, C, items(C, 1))
    assert C in await serve(targets, 3)


async def test_a_target_that_is_wanted_again_and_again_keeps_its_place_and_no_more(store: Store) -> None:
    hot = items(A, 1)
    await wish_all(store, A, hot)
    await wish_all(store, B, items(B, 3))
    for _ in range(50):
        await wish_all(store, A, hot)
    await wish_all(store, A, items(A, 2, first=1))
    order = await serve(process(store), 6)
    assert [set(order[begin : begin + 2]) for begin in range(0, 6, 2)] == [{A, B}] * 3, "50 wishes took one turn"


async def test_hot_targets_wanted_again_while_they_are_fetched_starve_nobody(store: Store) -> None:
    hot = items(A, 4)
    await wish_all(store, A, hot)
    targets = process(store)
    await wish_all(store, B, items(B, 1))
    served = []
    for _ in range(4):
        claims, _ = await targets.claim(1)
        await wish_all(store, A, hot)
        for claim in claims:
            await targets.answered(claim, 200)
        served += [claim.connection_id for claim in claims]
    assert B in served[:2]


async def test_who_had_no_room_for_long_shares_with_the_others(store: Store) -> None:
    """T-FAIR: a connection whose calls hung does not take everything when they go on."""
    await wish_all(store, A, items(A, 300))
    targets = process(store)
    await wish_all(store, B, items(B, LATE + 50))
    while await serve(targets, 50, cap=12, running={A: 12}):
        pass
    await wish_all(store, C, items(C, 5))
    order = Counter(await serve(targets, 4) + await serve(targets, 4) + await serve(targets, 1))
    assert order in ({A: 4, C: 5}, {A: 5, C: 4})


# --- room -------------------------------------------------------------------------------------------------------------


async def test_a_connection_leaves_room_for_the_others(store: Store) -> None:
    """T-FAIR: the cap holds within one claim and over what runs already; the others are found behind it."""
    await wish_all(store, A, items(A, 50))
    await wish_all(store, B, items(B, 50))
    targets = process(store)
    assert Counter(await serve(targets, 16, cap=12, running={A: 10})) == {A: 2, B: 12}
    assert Counter(await serve(targets, 4, cap=12, running={A: 12})) == {B: 4}
    assert await serve(targets, 4, cap=12, running={A: 12, B: 12}) == []


async def test_a_blocked_host_and_a_full_connection_hide_nobody(store: Store) -> None:
    await wish_all(store, A, items(A, 20))
    await wish_all(store, B, [url.replace("api.", "eu.api.") for url in items(B, 20)])
    await wish_all(store, C, items(C, 3, first=900))
    targets = process(store)
    await targets.block_host("eu.api.syncaroo.com", timedelta(hours=1))
    assert await serve(targets, 8, cap=12, running={A: 12}) == [C] * 3


# --- resyncs ----------------------------------------------------------------------------------------------------------


async def test_resyncs_have_three_tenths_of_the_budget_of_all_processes(store: Store, other: Store) -> None:
    """CONTRACT §5: and webhooks find the rest."""
    await wish_all(store, A, items(A, 60), "resync")
    await wish_all(store, B, items(B, 60))
    await change(store, B, turn=0, not_before=datetime.now(UTC) + timedelta(hours=1))
    began = time.monotonic()
    answers = await asyncio.gather(*(process(one, rate=20).claim(30) for one in (store, other, store)))
    resyncs = sum(len(claims) for claims, _ in answers)
    assert 6 <= resyncs <= 6 + 6 * (time.monotonic() - began)
    await change(store, B, not_before=datetime.now(UTC) - timedelta(seconds=1))
    webhooks, _ = await process(other, rate=20).claim(30)
    assert Counter(claim.reason for claim in webhooks)["webhook"] >= 20 - resyncs
    assert len(webhooks) + resyncs <= 20 + 20 * (time.monotonic() - began)


async def test_webhooks_leave_resyncs_what_they_do_not_need(store: Store) -> None:
    await wish_all(store, A, items(A, 60), "resync")
    await wish_all(store, B, items(B, 17))
    assert Counter(await serve(process(store, rate=20), 30)) == {B: 17, A: 3}, "the budget is full at first"


async def test_resyncs_of_two_connections_alternate(store: Store) -> None:
    await wish_all(store, A, items(A, 600), "resync")
    targets = process(store)
    await serve(targets, 10)
    await wish_all(store, B, items(B, 10), "resync")
    assert Counter(await serve(targets, 10)) == {A: 5, B: 5}


async def test_items_of_a_resync_wait_for_the_collections_of_their_connection(store: Store) -> None:
    """A walk judges what is missing as one batch, before the single 404s come."""
    await wish_all(store, A, [*items(A, 3), collection(A)], "resync")
    await wish_all(store, B, items(B, 1), "resync")
    targets = process(store)
    claims, _ = await targets.claim(10)
    assert [claim.url for claim in claims] == [collection(A), *items(B, 1)]
    walking = claims[0]
    assert (await targets.claim(10))[0] == [], "nor while it is walked"
    await wish_all(store, A, items(A, 1))
    assert await serve(targets, 10) == [A], "a webhook waits for nothing"
    await targets.put_off(walking, NOW, "boom", counts=False)
    (again,), _ = await targets.claim(10)
    assert again.url == collection(A)
    await targets.put_off(again, timedelta(hours=1), "boom")
    assert await serve(targets, 10) == [A] * 2, "one that failed is not waited for"


async def test_a_resync_that_was_cut_off_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Marked in short transactions, the collections first; again after a crash, only what is left."""
    await wish_all(store, A, items(A, 20))
    targets = process(store)
    await serve(targets, 20)
    transactions = []

    async def dies(transaction: Any, wanted: Sequence[Wanted]) -> list[int]:
        transactions.append([one.url for one in wanted])
        if len(transactions) == 4:
            raise asyncio.CancelledError
        return await want(transaction, wanted)

    monkeypatch.setattr(target_store, "MARK_CHUNK", 10)
    with monkeypatch.context() as patched:
        patched.setattr(target_store, "want", dies)
        with pytest.raises(asyncio.CancelledError):
            await want_known(store, A, "resync")
    assert [len(urls) for urls in transactions] == [10, 10, 10, 10]
    assert collection(A) in transactions[0]
    before = {row.url: row for row in await rows(store) if row.wanted > row.answered}
    assert len(before) == 30
    (walked,), _ = await targets.claim(1)
    await targets.answered(walked, 404)

    assert await want_known(store, A, "resync") == 41, "items, their collection, and one below each of them"

    after = {row.url: row for row in await rows(store) if row.wanted > row.answered}
    assert len(after) == 41
    left_alone = before.keys() - {walked.url}
    assert {url: after[url] for url in left_alone} == {url: before[url] for url in left_alone}


# --- locks ------------------------------------------------------------------------------------------------------------


@ON_POSTGRESQL
async def test_a_batch_and_renewed_leases_never_wait_in_a_circle(store: Store, other: Store) -> None:
    """Whoever locks several targets does so in one order."""
    urls = items(A, 10)
    await wish_all(store, A, urls)
    mine = process(other)
    claims, _ = await mine.claim(10)
    async with asyncio.TaskGroup() as tasks, store.transaction() as holder:
        await holder.execute(_target.select().where(_target.c.url == urls[5]).with_for_update())
        tasks.create_task(wish_all(store, A, urls))
        await until(lambda: _waiters(store, 1), what="the batch waits in the middle of its targets")
        tasks.create_task(mine.renew(claims[::-1]))
        await until(lambda: _waiters(store, 2), what="the renewal waits")
    assert all(row.wanted > row.started for row in await rows(store))


async def _waiters(store: Store, count: int) -> bool:
    return await lock_waiters(store) == count


async def test_marks_of_several_processes_give_every_turn_once(store: Store, other: Store) -> None:
    """The feed is locked before a turn is taken from it."""
    parts = [items(A, 5, first=5 * number) for number in range(8)]
    await asyncio.gather(*(wish_all((store, other)[n % 2], A, part) for n, part in enumerate(parts)))
    assert sorted(row.turn for row in await rows(store)) == list(range(1, 41))


async def test_a_batch_takes_away_nothing_that_it_told_before(store: Store) -> None:
    url = items(A, 1)[0]
    told = PlatformIds(location_id="L1", resource_id="R1")
    batch = [Wanted(A, url, told, "webhook"), Wanted(A, url, PlatformIds(resource_id="R2"), "webhook")]
    async with store.transaction() as transaction:
        numbers = await want(transaction, batch)
    (row,) = await rows(store)
    assert (row.location_id, row.resource_id, row.wanted, row.asked) == ("L1", "R2", numbers[1], numbers[1])
    assert datetime.now(UTC) - row.asked_at < timedelta(minutes=1)

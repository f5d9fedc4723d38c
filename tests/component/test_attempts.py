"""Attempts on both databases: one row for each outcome of a claim, in the outcome's transaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from common.ids import new_id
from common.store.engine import Store
from common.store.targets import Wanted, want
from schemas.messages import PlatformIds, Reason
from schemas.tables import AttemptRow, TargetRow, table_of
from tests.component.target_parts import authorise
from tests.fixtures.database import ON_POSTGRESQL
from tests.waiting import within
from workers.fetch.claim import Claim
from workers.fetch.store.claims import ClaimStore
from workers.fetch.store.outcomes import OutcomeStore

ROOM = "https://api.syncaroo.com/v1/locations/5//resources/7/?full=1"
ROOMS = "https://api.syncaroo.com/v1/locations/5/resources"


class Fetching:
    """A fetch process on the store."""

    def __init__(self, store: Store) -> None:
        owner = new_id()
        self.store = store
        self.claims = ClaimStore(store, owner, rate=1000.0, interval=timedelta(0))
        self.outcomes = OutcomeStore(store, owner, rate=1000.0)

    async def claim(self, url: str = ROOM, reason: Reason = "webhook", delivery: str | None = "d1") -> Claim:
        """The URL, wanted and claimed."""
        async with self.store.transaction() as transaction:
            await want(transaction, [Wanted(99, url, PlatformIds(), reason, delivery)])
        return await self.again()

    async def again(self) -> Claim:
        """What is due, claimed, whatever it should have waited for."""
        async with self.store.transaction() as transaction:
            await transaction.execute(table_of(TargetRow).update().values(not_before=datetime.now(UTC)))
        (claim,), _ = await self.claims.claim(10)
        return claim

    async def attempts(self) -> list[Any]:
        async with self.store.reading() as transaction:
            return list(await transaction.rows(table_of(AttemptRow).select().order_by(table_of(AttemptRow).c.started)))

    async def told(self) -> list[tuple[Any, ...]]:
        """Why, outcome, status, pages and detail of each attempt."""
        rows = await self.attempts()
        return [(row.reason, row.outcome, row.status, row.pages, row.detail) for row in rows]


@pytest.fixture
async def fetching(database_url: str) -> AsyncIterator[Fetching]:
    store = Store(database_url)
    await authorise(store)
    yield Fetching(store)
    await store.close()


async def test_an_attempt_says_what_was_asked_why_and_what_came_of_it(fetching: Fetching) -> None:
    claim = await fetching.claim()
    await fetching.outcomes.put_off(claim, timedelta(0), "answered 503", status=503)
    (first,) = await fetching.attempts()
    assert (first.connection_id, first.url, first.path) == (99, ROOM, "/v1/locations/5/resources/7")
    assert (first.started, first.asked, first.attempt, first.delivery_id) == (claim.started, claim.asked, 0, "d1")
    assert first.asked < first.started < first.ended
    assert abs(datetime.now(UTC) - first.at) < timedelta(minutes=1)
    claim = await fetching.again()
    await fetching.outcomes.answered(claim, 200, pages=1)
    second = (await fetching.attempts())[1]
    assert (second.started, second.attempt) == (claim.started, 1)
    assert first.ended < second.started


async def test_every_outcome_has_its_name(fetching: Fetching) -> None:
    outcomes = fetching.outcomes
    await outcomes.answered(await fetching.claim(ROOMS), 200, pages=2, odd=["too many pages", "no count"])
    await outcomes.answered(await fetching.claim(ROOMS, "resync"), 200, pages=3)
    await outcomes.answered(await fetching.claim(ROOMS, "hand"), 404)
    await outcomes.answered(await fetching.claim(), 410)
    await outcomes.put_off(await fetching.claim(), timedelta(0), "x" * 300, status=429)
    await outcomes.park(await fetching.again(), "refused", status=403)
    await outcomes.gave_up(await fetching.claim(reason="resync", delivery=None), "not_found", 404)
    assert await fetching.told() == [
        ("webhook", "answered", 200, 2, "too many pages; no count"),
        ("resync", "answered", 200, 3, None),
        ("hand", "gone", 404, 0, None),
        ("webhook", "gone", 410, 0, None),
        ("webhook", "put_off", 429, 0, "x" * 200),
        ("webhook", "parked", 403, 0, "refused"),
        ("resync", "gave_up", 404, 0, "not_found"),
    ]


async def test_a_second_look_is_called_one(fetching: Fetching) -> None:
    await fetching.outcomes.answered(await fetching.claim(), 200)
    async with fetching.store.transaction() as transaction:
        past = datetime.now(UTC) - timedelta(seconds=1)
        await transaction.execute(table_of(TargetRow).update().values(recheck_at=past))
    await fetching.outcomes.answered(await fetching.again(), 200)
    assert [one[0] for one in await fetching.told()] == ["webhook", "second_look"]


async def test_of_many_that_wait_for_the_same_the_latest_stays(fetching: Fetching) -> None:
    """A broker that is away for an hour must not push the history out with thousands of rows."""
    claim = await fetching.claim()
    for _ in range(3):
        await fetching.outcomes.put_off(claim, timedelta(0), "the broker is away", counts=False)
        last, claim = claim, await fetching.again()
    await fetching.outcomes.put_off(claim, timedelta(0), "no token", counts=False)
    waits = await fetching.attempts()
    assert [row.detail for row in waits] == ["the broker is away", "no token"]
    assert waits[0].started == last.started


async def test_who_lost_the_lease_tells_nothing(fetching: Fetching) -> None:
    late = await fetching.claim()
    async with fetching.store.transaction() as transaction:
        await transaction.execute(table_of(TargetRow).update().values(lease_owner="somebody else"))
    await fetching.outcomes.answered(late, 200)
    await fetching.outcomes.gave_up(late, "refused", 403)
    await fetching.outcomes.park(late, "refused", status=403)
    assert await fetching.attempts() == []


# --- many at once -----------------------------------------------------------------------------------------------------


async def _claimed(fetching: Fetching, count: int) -> list[Claim]:
    async with fetching.store.transaction() as transaction:
        wanted = [Wanted(99, f"{ROOMS}/{number}", PlatformIds(), "webhook", f"d{number}") for number in range(count)]
        await want(transaction, wanted)
    claims, _ = await fetching.claims.claim(count)
    return claims


async def test_answers_that_end_at_once_are_settled_each_as_it_ended(fetching: Fetching) -> None:
    """Among them one whose lease was lost to another process, and one that was a second look."""
    claims = await _claimed(fetching, 8)
    target = table_of(TargetRow)
    async with fetching.store.transaction() as transaction:
        looking = {"recheck_at": await transaction.now()}
        looked = target.c.url.in_([claims[1].url, claims[2].url])
        await transaction.execute(target.update().where(target.c.url == claims[0].url).values(lease_owner="another"))
        await transaction.execute(target.update().where(looked).values(looking))
    ended = [claims[0], replace(claims[1], second_look=True), *claims[2:]]
    await asyncio.gather(*(fetching.outcomes.answered(one, 200 + at, pages=at) for at, one in enumerate(ended)))
    async with fetching.store.reading() as transaction:
        rows = {row.url: row for row in await transaction.rows(target.select())}
    assert (rows[claims[0].url].lease_owner, rows[claims[0].url].answered) == ("another", 0)
    settled = [rows[one.url] for one in claims[1:]]
    assert [(row.answered, row.last_status, row.lease_owner, row.lease_until) for row in settled] == [
        (one.started, 200 + at, None, None) for at, one in enumerate(claims[1:], 1)
    ]
    assert [row.recheck_at is None for row in settled] == [True, False, *[True] * 5], "only a second look ends one"
    attempts = await fetching.attempts()
    assert [(row.url, row.status, row.pages) for row in attempts] == [
        (one.url, 200 + at, at) for at, one in enumerate(claims[1:], 1)
    ]
    assert len({row.ended for row in attempts}) == 7


async def test_who_settles_marks_and_renews_at_once_never_waits_in_a_circle(fetching: Fetching, other: Store) -> None:
    claims = await _claimed(fetching, 16)
    wanted = [Wanted(99, claim.url, PlatformIds(), "webhook", "later") for claim in reversed(claims)]

    async def mark() -> None:
        for _ in range(5):
            async with other.transaction() as transaction:
                await want(transaction, wanted)

    async def renew() -> None:
        for _ in range(5):
            await fetching.claims.renew(claims[::-1])

    async with within(30):
        await asyncio.gather(mark(), renew(), *(fetching.outcomes.answered(one, 200) for one in claims[::-1]))
    assert len(await fetching.attempts()) == 16


@ON_POSTGRESQL
async def test_a_row_that_somebody_holds_holds_up_its_own_answer_alone(fetching: Fetching, other: Store) -> None:
    """Nor does who settles hold others meanwhile: reconcile may hold that one and want one of these."""
    held, wanted, third = await _claimed(fetching, 3)
    target = table_of(TargetRow)
    async with other.transaction() as transaction:
        query = select(target.c.url).where(target.c.url == held.url)
        assert await transaction.row(query.with_for_update())
        waiting = asyncio.create_task(fetching.outcomes.answered(held, 200))
        async with within(5):
            await asyncio.gather(*(fetching.outcomes.answered(one, 200) for one in (wanted, third)))
        assert {row.url for row in await fetching.attempts()} == {wanted.url, third.url}
        assert not waiting.done()
        await transaction.execute(target.update().where(target.c.url == wanted.url).values(recheck_at=None))
    await waiting
    assert len(await fetching.attempts()) == 3

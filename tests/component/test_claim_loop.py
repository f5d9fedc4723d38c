"""The fetch worker's claim loop on a real store, with a fetcher that hangs: what a stop and a crash leave behind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from common.store.engine import Store
from common.store.targets import Wanted, want
from schemas.messages import PlatformIds
from schemas.tables import TargetRow, table_of
from tests.component.target_parts import authorise, wish_all
from tests.waiting import until
from workers.fetch import claim_loop
from workers.fetch.claim import Claim, Grant
from workers.fetch.claim_loop import ClaimLoop
from workers.fetch.store.claims import ClaimStore

URLS = [f"https://api.syncaroo.com/v1/locations/{number}" for number in range(3)]


class HangingFetcher:
    """Begins everything and finishes nothing."""

    def __init__(self) -> None:
        self.claims: list[Claim] = []

    async def fetch(self, claim: Claim, grant: Grant) -> None:
        assert grant.sealed_pair == "pair 1"
        self.claims.append(claim)
        await asyncio.Event().wait()


@pytest.fixture
async def store(store: Store) -> Store:
    """With a grant, and something that is due."""
    await authorise(store)
    await wish_all(store, 99, URLS)
    return store


def targets(store: Store) -> ClaimStore:
    return ClaimStore(store, "me", rate=100.0, interval=timedelta(0))


async def leases(store: Store) -> list[Any]:
    async with store.reading() as transaction:
        return [row.lease_until for row in await transaction.rows(table_of(TargetRow).select())]


async def test_a_stop_gives_back_what_does_not_finish(store: Store) -> None:
    stop, fetcher = asyncio.Event(), HangingFetcher()
    loop = ClaimLoop(targets(store), fetcher, 16, wind_up_seconds=0.1)
    running = asyncio.create_task(loop.run(stop))
    await until(lambda: len(fetcher.claims) == 3)
    assert all(await leases(store))
    stop.set()
    await running
    assert await leases(store) == [None, None, None]
    claims, _ = await targets(store).claim(16)
    assert len(claims) == 3, "another process takes them at once"


async def test_a_bug_in_claiming_that_passes_is_survived(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim_loop, "BUG_SECONDS", 0.01)
    stop, fetcher, times = asyncio.Event(), HangingFetcher(), count()

    async def held() -> bool:
        if next(times) == 0:
            raise ValueError("a bug")
        return False

    running = asyncio.create_task(ClaimLoop(targets(store), fetcher, 16, held=held, wind_up_seconds=0.1).run(stop))
    await until(lambda: len(fetcher.claims) == 3)
    stop.set()
    await running
    assert next(times) > 1, "the bug was met, and it was asked again"


async def test_a_bug_in_renewing_leases_ends_no_later_renewal(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim_loop, "RENEW_SECONDS", 0.01)
    stop, fetcher, renewed = asyncio.Event(), HangingFetcher(), list[int]()

    class Renews(ClaimStore):
        async def renew(self, claims: Sequence[Claim]) -> None:
            renewed.append(len(claims))
            raise ValueError("a bug")

    mine = Renews(store, "me", rate=100.0, interval=timedelta(0))
    running = asyncio.create_task(ClaimLoop(mine, fetcher, 16, wind_up_seconds=0.1).run(stop))
    await until(lambda: renewed[1:])
    stop.set()
    await running


async def test_nothing_is_claimed_while_reconcile_is_deep(store: Store) -> None:
    stop, fetcher, asked, deep = asyncio.Event(), HangingFetcher(), [0], [True]

    async def held() -> bool:
        asked[0] += 1
        return deep[0]

    loop = ClaimLoop(targets(store), fetcher, 16, held=held, wind_up_seconds=0.1)
    running = asyncio.create_task(loop.run(stop))
    await until(lambda: asked[0] >= 2)
    assert fetcher.claims == []
    deep[0] = False
    await until(lambda: len(fetcher.claims) == 3)
    stop.set()
    await running


async def test_part_of_the_calls_is_kept_for_other_connections(store: Store) -> None:
    """T-FAIR: of four calls that hang, three are one connection's; the fourth is another's."""
    stop, fetcher = asyncio.Event(), HangingFetcher()
    async with store.transaction() as transaction:
        await want(transaction, [Wanted(99, f"{url}/resources", PlatformIds(), "webhook") for url in URLS])
    loop = ClaimLoop(targets(store), fetcher, 4, wind_up_seconds=0.1)
    running = asyncio.create_task(loop.run(stop))
    await until(lambda: len(fetcher.claims) == 3)
    async with store.transaction() as transaction:
        await want(transaction, [Wanted(98, URLS[0], PlatformIds(), "webhook")])
    await until(lambda: len(fetcher.claims) == 4)
    assert [claim.connection_id for claim in fetcher.claims] == [99, 99, 99, 98]
    stop.set()
    await running


async def test_only_what_is_still_in_hand_keeps_its_lease(store: Store) -> None:
    """A claim that was abandoned, its store being away, must come back although its process lives on."""
    mine = targets(store)
    claims, _ = await mine.claim(2)
    before = await leases(store)
    await mine.renew(claims[:1])
    after = await leases(store)
    assert sum(one != other for one, other in zip(before, after, strict=True)) == 1

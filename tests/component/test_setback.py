"""The store's clock is put back by an hour, on both databases: nothing waits for an hour."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from common.store.engine import Store, Transaction
from tests.component.target_parts import HOUR, Process, authorise, process, wish_all
from workers.fetch.rereading import NEVER, Terms
from workers.fetch.store import setback
from workers.fetch.store.feeds import miss
from workers.fetch.store.resyncs import ResyncStore
from workers.fetch.store.setback import set_right

CONNECTION = 1
URLS = [f"https://api.syncaroo.com/v1/locations/1/resources/{number}" for number in range(3)]
DELAY = timedelta(seconds=30)


@pytest.fixture
async def targets(store: Store) -> Process:
    await authorise(store, valid=3 * HOUR)
    await wish_all(store, CONNECTION, URLS)
    return process(store)


@contextmanager
def ahead(by: timedelta) -> Iterator[None]:
    """The store's clock shows a later time."""
    with pytest.MonkeyPatch.context() as patch:

        async def now(_: Transaction) -> datetime:
            return datetime.now(UTC) + by

        patch.setattr(Transaction, "now", now)
        yield


async def test_what_was_put_off_or_leased_before_the_clock_went_back_is_claimed_at_once(
    store: Store, targets: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T-CLOCK: one put off, one claimed by a process that died, one answered by an API that wants a pause."""
    monkeypatch.setattr(setback, "CHUNK", 2)
    with ahead(HOUR):
        assert not await set_right(store)
        claims, _ = await targets.claim(3)
        await targets.put_off(claims[0], DELAY, "503")
        await targets.put_off(claims[1], DELAY, "429")
        await targets.block_host(claims[1].host, DELAY)
    assert not await targets.anything_due(), "a moment ago the clock was right"

    assert await process(store).anything_due()
    assert not await set_right(store), "once is enough"

    again, _ = await process(store).claim(3)
    assert sorted(claim.url for claim in again) == URLS


async def test_a_clock_that_goes_forward_or_runs_ends_no_wait(store: Store, targets: Process) -> None:
    claims, _ = await targets.claim(3)
    await targets.put_off(claims[0], 2 * HOUR, "503")
    for by in (timedelta(0), HOUR, HOUR + setback.LOOK, HOUR + setback.LOOK - setback.SLACK / 2):
        with ahead(by):
            assert not await set_right(store)
            again, _ = await process(store).claim(3)
            assert claims[0].url not in {claim.url for claim in again}


async def test_what_was_missed_before_the_clock_went_back_is_read_again_once(store: Store, targets: Process) -> None:
    """T-CLOCK: else it had been missed since each reading, for an hour."""
    terms, resyncs = Terms(NEVER, NEVER, NEVER), ResyncStore(store)
    with ahead(HOUR):
        assert not await set_right(store)
        async with store.transaction() as transaction:
            await miss(transaction, [CONNECTION])
    assert await set_right(store)
    assert await resyncs.due(terms) == [CONNECTION]
    assert await resyncs.read_again(CONNECTION, terms) is not None
    assert await resyncs.due(terms) == []

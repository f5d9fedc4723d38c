"""The fetcher on a real store, with an API that breaks in a way that nobody thought of."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from common.broker.publisher import Publisher
from common.broker.retry import RetryPolicy
from common.codec import dumps
from common.crypto import TokenCipher
from common.store.engine import Store
from common.store.parked import list_parked
from common.store.targets import Wanted, want
from schemas.messages import PlatformIds
from schemas.tables import GrantRow, TargetRow, table_of
from tests.keys import NEW
from tests.waiting import within
from workers.fetch import walking
from workers.fetch.fetching import Fetcher
from workers.fetch.store.claims import ClaimStore
from workers.fetch.store.grants import GrantStore
from workers.fetch.store.outcomes import OutcomeStore
from workers.fetch.store.suspects import SuspectStore

CIPHER = TokenCipher([NEW])


class BrokenApi:
    """Raises what no edge has wrapped."""

    async def get(self, url: str, access_token: str) -> Any:
        assert access_token == "access"
        raise KeyError("s3cret")


class HangingApi:
    """Does not come back, whatever its own limits were."""

    async def get(self, url: str, access_token: str) -> Any:
        await asyncio.Event().wait()


@pytest.mark.parametrize("api", [BrokenApi(), HangingApi()], ids=["breaks", "hangs"])
async def test_a_bug_is_put_off_counted_and_parked_in_the_end(
    database_url: str, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CONTRACT §5.7, T-HANG: else the lease would run out and the target be claimed again every 15 s, for ever, unseen,
    or be renewed for ever."""
    monkeypatch.setattr(walking, "PAGE_SECONDS", 2.0)
    store = Store(database_url)
    claims = ClaimStore(store, "me", rate=1000.0, interval=timedelta(0))
    outcomes, grants = OutcomeStore(store, "me", rate=1000.0), GrantStore(store)
    pair = CIPHER.seal(dumps({"accessToken": "access", "refreshToken": "refresh"}))
    grant = {"account": "syncaroo", "state": "active", "sealed_pair": pair, "rt_version": 1, "attempts": 0}
    async with store.transaction() as transaction:
        expires_at = datetime.now(UTC) + timedelta(minutes=10)
        await transaction.execute(table_of(GrantRow).insert().values(**grant, expires_at=expires_at))
        await want(transaction, [Wanted(99, "https://api.syncaroo.com/v1/locations/5", PlatformIds(), "webhook", "d")])
    retry = RetryPolicy([timedelta(milliseconds=1)], timedelta(milliseconds=1))
    nobody = Publisher("amqp://nobody", "test")
    suspects = SuspectStore(store, "me", brake=1.0)
    fetcher = Fetcher(outcomes, suspects, grants, api, nobody, CIPHER, retry)
    for attempt in range(2):
        async with store.transaction() as transaction:
            await transaction.execute(table_of(TargetRow).update().values(not_before=datetime.now(UTC)))
        (claim,), valid = await claims.claim(1)
        assert claim.attempts == attempt
        assert valid is not None
        async with within(10):
            await fetcher.fetch(claim, valid)
    async with store.reading() as transaction:
        (parked,) = await list_parked(transaction)
        row = await transaction.row(table_of(TargetRow).select())
    assert row is not None
    assert (parked.reason, parked.attempts, row.lease_owner) == ("retries_exhausted", 2, None)
    assert await claims.claim(1) == ([], valid), "and is asked no more"
    assert "s3cret" not in str(row.last_error)
    await store.close()

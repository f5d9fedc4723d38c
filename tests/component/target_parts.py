"""What tests of targets share: a process's stores under one owner, a grant, wishes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from common.ids import new_id
from common.store.engine import Store
from common.store.targets import MARK_CHUNK, Wanted, want
from schemas.messages import PlatformIds, Reason
from schemas.tables import GrantRow, table_of
from workers.fetch.store.claims import ClaimStore
from workers.fetch.store.grants import GrantStore
from workers.fetch.store.marks import MarkStore
from workers.fetch.store.outcomes import OutcomeStore

NOW, HOUR = timedelta(0), timedelta(hours=1)


class Process(MarkStore, ClaimStore, OutcomeStore, GrantStore):
    """All that one fetch process does with the store, under one owner."""

    def __init__(self, store: Store, *, rate: float, interval: timedelta) -> None:
        ClaimStore.__init__(self, store, new_id(), rate=rate, interval=interval)
        OutcomeStore.__init__(self, store, self._owner, rate=rate)


def process(store: Store, *, rate: float = 1000.0, interval: timedelta = NOW) -> Process:
    return Process(store, rate=rate, interval=interval)


async def authorise(store: Store, version: int = 1, state: str = "active", valid: timedelta = HOUR) -> None:
    """Replace the grant by one of this version."""
    values = {"account": "syncaroo", "state": state, "sealed_pair": f"pair {version}", "rt_version": version}
    values |= {"attempts": 0, "expires_at": datetime.now(UTC) + valid}
    async with store.transaction() as transaction:
        await transaction.execute(table_of(GrantRow).delete())
        await transaction.execute(table_of(GrantRow).insert().values(values))


async def wish_all(store: Store, connection_id: int, urls: Sequence[str], reason: Reason = "webhook") -> None:
    """Make them wanted, in this order as far as a batch reaches."""
    wanted = [Wanted(connection_id, url, PlatformIds(), reason) for url in urls]
    for begin in range(0, len(wanted), MARK_CHUNK):
        async with store.transaction() as transaction:
            await want(transaction, wanted[begin : begin + MARK_CHUNK])

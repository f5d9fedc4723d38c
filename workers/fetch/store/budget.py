"""The API budget of a host: a row that whoever calls debits first, so that N processes share one budget."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

from sqlalchemy import select, update

from common.store.engine import Transaction
from common.store.insert import insert
from schemas.tables import BudgetRow, table_of
from workers.fetch.pacing import Bucket, debit, full_bucket

_budget = table_of(BudgetRow)


async def debit_host(
    transaction: Transaction, host: str, wish: int, rate: float, now: datetime, *, resync: bool = False
) -> int:
    """Take up to `wish` calls of one class from the host's budget; how many were had."""
    fresh = insert(transaction, _budget).values(host=host, **asdict(full_bucket(rate, now)))
    await transaction.execute(fresh.on_conflict_do_nothing())
    row = await transaction.row(select(_budget).where(_budget.c.host == host).with_for_update())
    assert row is not None
    bucket = Bucket(row.tokens, row.resync_tokens, row.refilled_at, row.blocked_until)
    bucket, granted = debit(bucket, now, rate, wish, resync=resync)
    await transaction.execute(update(_budget).where(_budget.c.host == host).values(asdict(bucket)))
    return granted


async def block(transaction: Transaction, host: str, until: datetime) -> None:
    """Nobody calls the host until then."""
    await transaction.execute(update(_budget).where(_budget.c.host == host).values(blocked_until=until))

"""The API budget of a host: a row that whoever calls debits first, so that N processes share one budget."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select, update

from common.store.engine import Transaction
from common.store.insert import insert
from schemas.tables import BudgetRow, table_of
from workers.fetch.rules import Bucket, debit

_budget = table_of(BudgetRow)


async def debit_host(transaction: Transaction, host: str, wish: int, rate: float, now: datetime) -> int:
    """Take up to `wish` calls from the host's budget; how many were had."""
    fresh = {"host": host, "tokens": max(1.0, rate), "refilled_at": now}
    await transaction.execute(insert(transaction, _budget).values(fresh).on_conflict_do_nothing())
    row = await transaction.row(select(_budget).where(_budget.c.host == host).with_for_update())
    assert row is not None
    bucket, granted = debit(Bucket(row.tokens, row.refilled_at, row.blocked_until), now, rate, wish)
    await transaction.execute(
        update(_budget).where(_budget.c.host == host).values(tokens=bucket.tokens, refilled_at=bucket.refilled_at)
    )
    return granted


async def block(transaction: Transaction, host: str, until: datetime) -> None:
    """Nobody calls the host until then."""
    await transaction.execute(update(_budget).where(_budget.c.host == host).values(blocked_until=until))

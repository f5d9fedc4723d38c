"""The API budget of a host: a row that whoever calls debits first, so that N processes share one budget."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import or_, select, update

from common.store.engine import Transaction
from common.store.insert import insert
from common.store.turns import Latest, claimed_of
from schemas.tables import BudgetRow, table_of
from workers.fetch.pacing import Bucket, Purse, debit, full_bucket

_budget = table_of(BudgetRow)


async def debit_host(
    transaction: Transaction, host: str, wish: int, rate: float, now: datetime, *, resync: bool = False
) -> int:
    """Take up to `wish` calls of one class from the host's budget; how many were had."""
    fresh = insert(transaction, _budget).values(host=host, **asdict(full_bucket(rate, now)))
    await transaction.execute(fresh.on_conflict_do_nothing())
    row = await transaction.row(select(_budget).where(_budget.c.host == host).with_for_update())
    assert row is not None
    bucket, granted = debit(_bucket(row), now, rate, wish, resync=resync)
    await transaction.execute(update(_budget).where(_budget.c.host == host).values(asdict(bucket)))
    return granted


async def open_purse(transaction: Transaction, rate: float, now: datetime) -> tuple[Purse, Latest]:
    """The budgets of all hosts, locked until the end of the transaction: claims are made one after the other. With
    them, the latest turns that were claimed.
    """
    rows = await transaction.rows(select(_budget).order_by(_budget.c.host).with_for_update())
    return _purse(rows, rate, now), claimed_of(rows)


async def shut_purse(transaction: Transaction, purse: Purse, hosts: Collection[str], claimed: Latest) -> None:
    """Write down what was paid to these hosts, and the latest turns that were claimed."""
    for host in sorted(hosts):
        values = {**asdict(purse.buckets[host]), "turn": claimed.webhook, "resync_turn": claimed.resync}
        statement = insert(transaction, _budget).values(host=host, **values)
        await transaction.execute(statement.on_conflict_do_update(index_elements=["host"], set_=values))


async def read_purse(transaction: Transaction, rate: float, now: datetime) -> Purse:
    """The budgets of all hosts, to look at."""
    return _purse(await transaction.rows(select(_budget)), rate, now)


async def block(transaction: Transaction, host: str, until: datetime) -> None:
    """Nobody calls the host until then, or until somebody else's later time."""
    sooner = or_(_budget.c.blocked_until.is_(None), _budget.c.blocked_until < until)
    await transaction.execute(update(_budget).where(_budget.c.host == host, sooner).values(blocked_until=until))


def _purse(rows: Sequence[Any], rate: float, now: datetime) -> Purse:
    return Purse({row.host: _bucket(row) for row in rows}, rate, now)


def _bucket(row: Any) -> Bucket:
    return Bucket(row.tokens, row.resync_tokens, row.refilled_at, row.blocked_until)

"""Claiming: what is due is leased by the store's clock, with a share of the API budget."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, or_, select, update

from common.store.engine import Store, Transaction
from schemas.messages import PlatformIds
from schemas.tables import ConnectionRow, TargetRow, table_of
from workers.fetch.claim import Claim, Grant
from workers.fetch.store.budget import debit_host
from workers.fetch.store.grants import valid_grant
from workers.fetch.walk import Walk, resumed

LEASE = timedelta(seconds=15)
WALK_AGE = timedelta(minutes=10)

_target = table_of(TargetRow)
_connection = table_of(ConnectionRow)


class ClaimStore:
    """Targets that this process (`owner`) may ask for; `rate` is calls per second of all processes together."""

    def __init__(self, store: Store, owner: str, *, rate: float, interval: timedelta) -> None:
        self._store = store
        self._owner = owner
        self._rate = rate
        self._interval = interval

    async def anything_due(self) -> bool:
        """Whether a claim may find something; cheap, and waits for no writer."""
        async with self._store.reading() as transaction:
            now = await transaction.now()
            if await valid_grant(transaction, now) is None:
                return False
            conditions = (_wanted(), _second_look(now))
            return any([await transaction.row(_due(now, which).limit(1)) for which in conditions])

    async def claim(self, limit: int) -> tuple[list[Claim], Grant | None]:
        """Lease up to `limit` due targets, as many as their hosts' budgets allow; none without a valid token."""
        async with self._store.transaction() as transaction:
            now = await transaction.now()
            grant = await valid_grant(transaction, now)
            if grant is None:
                return [], None
            rows = await self._due_rows(transaction, now, limit)
            rows = await self._within_budget(transaction, rows, now)
            return [await self._lease(transaction, row, now) for row in rows], grant

    async def renew(self, claims: Sequence[Claim]) -> None:
        """Keep the leases of these claims, as far as they have not run out."""
        async with self._store.transaction() as transaction:
            now = await transaction.now()
            await transaction.execute(
                update(_target).where(self._held(claims), _target.c.lease_until > now).values(lease_until=now + LEASE)
            )

    async def release(self, claims: Sequence[Claim]) -> None:
        """Give claims back unanswered: another process may take them at once."""
        async with self._store.transaction() as transaction:
            await transaction.execute(
                update(_target).where(self._held(claims)).values(lease_owner=None, lease_until=None)
            )

    def _held(self, claims: Sequence[Claim]) -> ColumnElement[bool]:
        return and_(_target.c.lease_owner == self._owner, _target.c.started.in_([claim.started for claim in claims]))

    async def _due_rows(self, transaction: Transaction, now: datetime, limit: int) -> list[Any]:
        rows: list[Any] = []
        for which in (_wanted(), _second_look(now)):
            if len(rows) < limit:
                query = _due(now, which).limit(limit - len(rows)).with_for_update(skip_locked=True, of=_target)
                rows += await transaction.rows(query)
        return rows

    async def _within_budget(self, transaction: Transaction, rows: Sequence[Any], now: datetime) -> list[Any]:
        granted = {}
        for host in sorted({row.host for row in rows}):
            wish = sum(row.host == host for row in rows)
            granted[host] = await debit_host(transaction, host, wish, self._rate, now)
        kept = []
        for row in rows:
            if granted[row.host] > 0:
                granted[row.host] -= 1
                kept.append(row)
        return kept

    async def _lease(self, transaction: Transaction, row: Any, now: datetime) -> Claim:
        started = await transaction.number()
        second_look = row.wanted <= row.answered
        await transaction.execute(
            update(_target)
            .where(_target.c.connection_id == row.connection_id, _target.c.url == row.url)
            .values(
                started=started,
                lease_owner=self._owner,
                lease_until=now + LEASE,
                not_before=now + self._interval,
                recheck_at=now + LEASE if second_look else None,  # a dead worker's second look is taken up again
            )
        )
        return Claim(
            connection_id=row.connection_id,
            url=row.url,
            host=row.host,
            mapping=PlatformIds(
                attribute_type=row.attribute_type,
                resource_type=row.resource_type,
                location_id=row.location_id,
                resource_id=row.resource_id,
            ),
            reason="webhook" if second_look else row.reason,
            delivery_id=row.delivery_id if second_look or row.reason == "webhook" else None,
            started=started,
            asked=row.asked,
            attempts=row.attempts,
            second_look=second_look,
            last_status=row.last_status,
            walk=_walk_of(row, now),
        )


def _walk_of(row: Any, now: datetime) -> Walk | None:
    """The walk to go on with: an older one has missed too much."""
    return resumed(row.walk, row.wanted) if row.walk_at is not None and row.walk_at > now - WALK_AGE else None


def _due(now: datetime, which: ColumnElement[bool]) -> Any:
    revoked = exists().where(_connection.c.connection_id == _target.c.connection_id, _connection.c.state == "revoked")
    return (
        select(_target)
        .where(which, ~revoked)
        .where(or_(_target.c.not_before.is_(None), _target.c.not_before <= now))
        .where(or_(_target.c.lease_until.is_(None), _target.c.lease_until <= now))
        .order_by(_target.c.priority, _target.c.turn)
    )


def _wanted() -> ColumnElement[bool]:
    return _target.c.wanted > _target.c.answered


def _second_look(now: datetime) -> ColumnElement[bool]:
    return and_(_target.c.recheck_at <= now, _target.c.wanted <= _target.c.answered)

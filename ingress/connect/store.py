"""The attempts to connect: begun at /connect, used once at /confirm, concluded by the token worker."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import delete, or_, select, update

from common.ids import new_id
from common.store.engine import Store, Transaction
from ingress.connect.rules import HANDING_ON, STATE_LIFETIME, Attempt
from schemas.tables import ConnectAttemptRow, table_of

KEPT_FOR = timedelta(days=7)

_attempt = table_of(ConnectAttemptRow)


class ConnectStore:
    """The pages' view of the store. Every method may raise `StoreUnavailable`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def begin(self) -> str:
        """A new attempt's id; attempts of last week are forgotten."""
        attempt_id = new_id()
        async with self._store.transaction() as transaction:
            now = await transaction.now()
            await transaction.execute(delete(_attempt).where(_attempt.c.created_at < now - KEPT_FOR))
            fresh = {"attempt_id": attempt_id, "created_at": now, "outcome": "pending"}
            await transaction.execute(_attempt.insert().values(fresh))
        return attempt_id

    async def use(self, attempt_id: str) -> bool:
        """The right to hand the attempt's code on; it lasts until that is done, or for 10 s.

        False when that is done or somebody is at it, and for an attempt that is over, older than 10 minutes, or not
        there.
        """
        async with self._store.transaction() as transaction:
            return await _use(transaction, attempt_id)

    async def handed_on(self, attempt_id: str) -> None:
        """The broker has the code: now the attempt is used up."""
        async with self._store.transaction() as transaction:
            now = await transaction.now()
            await transaction.execute(
                update(_attempt).where(_attempt.c.attempt_id == attempt_id).values(handed_on_at=now)
            )

    async def decline(self, attempt_id: str, error: str) -> None:
        """Use the attempt up without a code."""
        async with self._store.transaction() as transaction:
            await _use(transaction, attempt_id, outcome="refused", detail=error)

    async def unuse(self, attempt_id: str) -> None:
        """Undo the use of an attempt whose code went nowhere, so that the same link works again."""
        async with self._store.transaction() as transaction:
            await transaction.execute(
                update(_attempt)
                .where(_attempt.c.attempt_id == attempt_id, _attempt.c.outcome == "pending")
                .values(used_at=None)
            )

    async def used(self, attempt_id: str) -> Attempt | None:
        """How a used attempt stands; None when it was never used."""
        async with self._store.reading() as transaction:
            row = await transaction.row(select(_attempt).where(_attempt.c.attempt_id == attempt_id))
            if row is None or row.used_at is None:
                return None
            age = await transaction.now() - row.used_at
            return Attempt(row.outcome, row.detail, age, handed_on=row.handed_on_at is not None)


async def _use(transaction: Transaction, attempt_id: str, **values: Any) -> bool:
    now = await transaction.now()
    done = await transaction.execute(
        update(_attempt)
        .where(
            _attempt.c.attempt_id == attempt_id,
            _attempt.c.outcome == "pending",
            _attempt.c.handed_on_at.is_(None),
            or_(_attempt.c.used_at.is_(None), _attempt.c.used_at < now - HANDING_ON),
            _attempt.c.created_at > now - STATE_LIFETIME,
        )
        .values(used_at=now, **values)
    )
    return done.rowcount == 1

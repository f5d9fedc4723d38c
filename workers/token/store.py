"""The grant row and the attempts to connect: looked at, leased, and changed by compare-and-set."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import select, update

from common.clock import monotonic_seconds
from common.ids import new_id
from common.store.engine import Store, Transaction
from common.store.events import append_events
from common.store.grant import lose_grant
from common.store.insert import insert
from schemas.events import GrantChanged
from schemas.tables import SYNCAROO_ACCOUNT, ConnectAttemptRow, GrantRow, table_of
from workers.token.rules import LEASE, Look

Intent = Literal["refresh", "code"]

_grant = table_of(GrantRow)
_attempt = table_of(ConnectAttemptRow)


@dataclass(frozen=True)
class Claim:
    """The right to present one secret once. `look` is the row as it was before."""

    owner: str
    look: Look

    @property
    def rt_version(self) -> int:
        """The version that the pair to be obtained succeeds."""
        return self.look.rt_version


@dataclass(frozen=True)
class Attempt:
    """An admin's attempt to connect; `age` since Syncaroo sent the code."""

    outcome: str
    age: timedelta


class GrantStore:
    """The token worker's view of the store. Every method may raise `StoreUnavailable`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def look(self) -> Look:
        """The row as it is now; waits for no writer."""
        async with self._store.reading() as transaction:
            row = await transaction.row(select(_grant).where(_grant.c.account == SYNCAROO_ACCOUNT))
            return await _look(transaction, row)

    async def claim_refresh(self, look: Look) -> Claim | None:
        """Take the lease, unless the row has changed since the look: then somebody else has."""
        return await self._claim(look, "refresh", None)

    async def claim_code(self, look: Look, attempt_id: str) -> Claim | None:
        """Take the lease for an attempt that is still pending."""
        return await self._claim(look, "code", attempt_id)

    async def _claim(self, look: Look, intent: Intent, attempt_id: str | None) -> Claim | None:
        async with self._store.transaction() as transaction:
            now_is = await _locked(transaction)
            if _fence(now_is) != _fence(look):
                return None
            if attempt_id is not None and not await _is_pending(transaction, attempt_id):
                return None
            owner = new_id()
            await _change(transaction, lease_owner=owner, lease_until=now_is.now + LEASE, intent=intent)
        return Claim(owner, now_is)

    async def release(self, claim: Claim) -> None:
        """Give the lease back; what an earlier holder left behind (lease, intent, back-off) is there again."""
        async with self._store.transaction() as transaction:
            if await _holds(transaction, claim):
                before = claim.look
                await _change(
                    transaction,
                    lease_owner=before.lease_owner,
                    lease_until=before.lease_until,
                    intent=before.intent,
                )

    async def put_off(self, claim: Claim, delay: timedelta, detail: str, *, sent: bool) -> None:
        """The outcome of a refresh is not known: nobody tries again before `delay` is over.

        The back-off is the lease, without an owner: it outlives this process, and a code need not wait for it.
        """
        async with self._store.transaction() as transaction:
            if await _holds(transaction, claim):
                await _change(
                    transaction,
                    lease_owner=None,
                    lease_until=await transaction.now() + delay,
                    intent="refresh" if sent else claim.look.intent,
                    attempts=claim.look.attempts + 1,
                    last_error=detail,
                )

    async def lose(self, claim: Claim, detail: str) -> bool:
        """Syncaroo refused the refresh token: an admin has to authorise again. Told by one event, once.

        False when it is not for this holder to say: the lease is another's by now, or a newer pair is there.
        """
        async with self._store.transaction() as transaction:
            if not await _holds(transaction, claim):
                return False
            await lose_grant(transaction, detail)
        return True

    async def keep(
        self,
        rt_version: int,
        sealed_pair: str,
        *,
        valid_for: timedelta,
        refresh_in: timedelta,
        attempt_id: str | None,
    ) -> bool:
        """Store the pair that succeeds `rt_version`, whoever holds the lease and whatever the state.

        `valid_for` and `refresh_in` count from the call, however long the row is waited for. False when that version
        has another successor already: the pair is obsolete.
        """
        called = monotonic_seconds()
        async with self._store.transaction() as transaction:
            before = await _locked(transaction)
            if before.rt_version != rt_version:
                await _conclude(transaction, attempt_id, "failed", "another authorisation came first")
                return False
            now = before.now - timedelta(seconds=monotonic_seconds() - called)
            await _change(
                transaction,
                state="active",
                sealed_pair=sealed_pair,
                rt_version=rt_version + 1,
                expires_at=now + valid_for,
                refresh_at=now + refresh_in,
                lease_owner=None,
                lease_until=None,
                intent=None,
                attempts=0,
                last_error=None,
            )
            if before.state != "active":
                await append_events(transaction, [GrantChanged(state="active")])
            await _conclude(transaction, attempt_id, "active", None, even_if_concluded=True)
        return True

    async def attempt(self, attempt_id: str) -> Attempt | None:
        """The attempt, if there is one."""
        async with self._store.reading() as transaction:
            row = await transaction.row(select(_attempt).where(_attempt.c.attempt_id == attempt_id))
            if row is None:
                return None
            return Attempt(row.outcome, await transaction.now() - (row.used_at or row.created_at))

    async def conclude(self, attempt_id: str, outcome: Literal["refused", "failed"], detail: str) -> None:
        """The attempt's end, if it has none yet; the grant is not touched."""
        async with self._store.transaction() as transaction:
            await _conclude(transaction, attempt_id, outcome, detail)

    async def note(self, attempt_id: str, detail: str) -> None:
        """Why a pending attempt takes longer, for the page that follows it."""
        async with self._store.transaction() as transaction:
            await _conclude(transaction, attempt_id, "pending", detail)


async def _locked(transaction: Transaction) -> Look:
    """The row, made if there is none, locked until the transaction ends."""
    fresh = {"account": SYNCAROO_ACCOUNT, "state": "none", "rt_version": 0, "attempts": 0}
    await transaction.execute(insert(transaction, _grant).values(fresh).on_conflict_do_nothing())
    row = await transaction.row(select(_grant).where(_grant.c.account == SYNCAROO_ACCOUNT).with_for_update())
    return await _look(transaction, row)


async def _look(transaction: Transaction, row: Any | None) -> Look:
    now = await transaction.now()
    if row is None:
        return Look(now=now)
    return Look(
        now=now,
        state=row.state,
        sealed_pair=row.sealed_pair,
        rt_version=row.rt_version,
        expires_at=row.expires_at,
        refresh_at=row.refresh_at,
        lease_owner=row.lease_owner,
        lease_until=row.lease_until,
        intent=row.intent,
        attempts=row.attempts,
    )


def _fence(look: Look) -> tuple[object, ...]:
    """What changes whenever somebody else has acted."""
    return (look.state, look.rt_version, look.lease_owner, look.lease_until)


async def _holds(transaction: Transaction, claim: Claim) -> bool:
    """Whether nobody has taken the lease over, even if it has run out, and the pair is still the same."""
    row = await _locked(transaction)
    return row.lease_owner == claim.owner and row.rt_version == claim.rt_version


async def _change(transaction: Transaction, **values: Any) -> None:
    await transaction.execute(update(_grant).where(_grant.c.account == SYNCAROO_ACCOUNT).values(values))


async def _is_pending(transaction: Transaction, attempt_id: str) -> bool:
    row = await transaction.row(select(_attempt.c.outcome).where(_attempt.c.attempt_id == attempt_id))
    return row is not None and row.outcome == "pending"


async def _conclude(
    transaction: Transaction,
    attempt_id: str | None,
    outcome: str,
    detail: str | None,
    *,
    even_if_concluded: bool = False,
) -> None:
    statement = update(_attempt).where(_attempt.c.attempt_id == attempt_id).values(outcome=outcome, detail=detail)
    if not even_if_concluded:
        statement = statement.where(_attempt.c.outcome == "pending")
    if attempt_id is not None:
        await transaction.execute(statement)

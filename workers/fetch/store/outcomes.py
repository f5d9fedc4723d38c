"""Outcomes: what became of a claim; written only by whoever still holds its lease."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Update, select, tuple_, update

from common.broker.topology import queue_name, shard_key
from common.codec import dumps
from common.identity import place_of
from common.ids import new_id
from common.store.bulk import update_rows
from common.store.engine import Store, Transaction
from common.store.parked import Parked, park
from common.store.turns import PUT_OFF
from schemas.messages import WebhookReceived
from schemas.tables import ListingRow, TargetRow, table_of
from workers.fetch.claim import Claim
from workers.fetch.store.attempts import MAX_DETAIL, Ending, write_attempts
from workers.fetch.store.budget import block, debit_host
from workers.fetch.store.together import Together

_target = table_of(TargetRow)
_listing = table_of(ListingRow)
_FREE: dict[str, Any] = {"lease_owner": None, "lease_until": None}
_ANSWERED: dict[str, Any] = {**_FREE, "walk": None, "walk_at": None, "attempts": 0, "last_error": None}
"""What every target that was answered becomes."""


class OutcomeStore:
    """What an attempt of this process (`owner`) reads and writes on its way to its end."""

    def __init__(self, store: Store, owner: str, *, rate: float) -> None:
        self._store = store
        self._owner = owner
        self._rate = rate
        self._numbers = Together(self._take_numbers)
        self._answers = Together(self._settle_answers)

    async def number(self) -> int:
        """A number of the store's sequence."""
        return await self._numbers.ask(None)

    async def next_call(self, claim: Claim, walk: str | None = None) -> int | None:
        """A number for one more GET to the claim's host; None when its budget is used up for now.

        `walk` is how far the pages have come, kept for whoever goes on with them.
        """
        async with self._store.transaction() as transaction:
            now = await transaction.now()
            granted = await debit_host(transaction, claim.host, 1, self._rate, now, resync=claim.is_resync)
            if walk is not None:
                await transaction.execute(self._own_lease(claim).values(walk=walk, walk_at=now))
            return await transaction.number() if granted else None

    async def answered(self, claim: Claim, status: int, *, pages: int = 0, odd: Sequence[str] = ()) -> None:
        """The claim's target was answered by everything up to its first number.

        `pages` and `odd`, what was wrong with them, are for its history.
        """
        await self._answer(claim, Ending(_good(status), status, pages, "; ".join(odd)))

    async def gave_up(self, claim: Claim, reason: str, status: int = 0) -> None:
        """As `answered`, when nobody waits for the answer that did not come."""
        await self._answer(claim, Ending("gave_up", status, detail=reason))

    async def put_off(
        self,
        claim: Claim,
        delay: timedelta,
        error: str,
        *,
        status: int = 0,
        counts: bool = True,
        walk: str | None = None,
    ) -> None:
        """Try again after the delay; `counts` when it was the target's own failure.

        `walk` is how far its pages have come: empty to begin again, None when it is no further than before.
        """
        async with self._store.transaction() as transaction:
            now = await transaction.now()
            kept: dict[str, Any] = {} if walk is None else {"walk": walk or None, "walk_at": now}
            if not claim.is_resync:
                kept["recheck_at"] = now + delay if claim.second_look else None
            await self._settle(
                transaction,
                claim,
                {
                    **kept,
                    "not_before": now + delay,
                    "turn": PUT_OFF,
                    "attempts": claim.attempts + (1 if counts else 0),
                    "last_status": status or None,
                    "last_error": error[:MAX_DETAIL],
                },
                Ending("put_off", status, detail=error, passing=not counts),
            )

    async def block_host(self, host: str, delay: timedelta) -> None:
        """Nobody calls the host for so long."""
        async with self._store.transaction() as transaction:
            now = await transaction.now()
            await block(transaction, host, now + delay)

    async def park(self, claim: Claim, reason: str, *, status: int = 0) -> None:
        """Give up on the target until somebody wants it again: its webhooks are answered by the parked row."""
        message = WebhookReceived(
            delivery_id=claim.delivery_id or new_id(),
            connection_id=claim.connection_id,
            url=claim.url,
            mapping=claim.mapping,
            received_at=await self._now(),
        )
        parked = Parked(
            queue=queue_name("fetch"),
            reason=reason,
            connection_id=claim.connection_id,
            routing_key=shard_key("fetch", claim.connection_id),
            schema_name=type(message).__name__,
            body=dumps(message),
            attempts=claim.attempts + 1,
        )
        async with self._store.transaction() as transaction:
            answered = {"answered": claim.first, "last_status": status, "recheck_at": None}
            values = _ANSWERED | answered | {"last_error": reason}
            if await self._settle(transaction, claim, values, Ending("parked", status, detail=reason)):
                await park(transaction, [parked])

    async def knows(self, claim: Claim) -> bool:
        """Whether a listing was ever seen at the claim's URL, or in it when it is a collection."""
        place = place_of(claim.url)
        where = _listing.c.own_path == place.path if place.segment else _listing.c.scope == place.scope
        query = select(_listing.c.listing_id).where(_listing.c.connection_id == claim.connection_id, where)
        async with self._store.reading() as transaction:
            return await transaction.row(query.where(_listing.c.version > 0).limit(1)) is not None

    async def is_one_listing(self, claim: Claim) -> bool:
        """Whether the list at the claim's URL is itself the listing, as its items carried no ids."""
        query = select(_listing.c.listing_id).where(
            _listing.c.connection_id == claim.connection_id,
            _listing.c.own_path == place_of(claim.url).path,
            _listing.c.written_by == "whole",
        )
        async with self._store.reading() as transaction:
            return await transaction.row(query.limit(1)) is not None

    async def _now(self) -> datetime:
        async with self._store.reading() as transaction:
            return await transaction.now()

    async def _settle(self, transaction: Transaction, claim: Claim, values: dict[str, Any], ending: Ending) -> bool:
        """Write the claim's outcome and give the lease back; False when the lease was lost to somebody else."""
        result = await transaction.execute(self._own_lease(claim).values({**_FREE, **values}))
        if not result.rowcount:
            return False
        await write_attempts(transaction, [(claim, ending)])
        return True

    async def _take_numbers(self, asked: Sequence[None]) -> Sequence[int]:
        return await self._store.numbers(len(asked))

    async def _answer(self, claim: Claim, ending: Ending) -> None:
        """Settle it with those that end at the same time; one whose row somebody holds waits for it by itself."""
        if not await self._answers.ask((claim, ending)):
            async with self._store.transaction() as transaction:
                answered = {"answered": claim.first, "last_status": ending.status}
                looked = {"recheck_at": None} if claim.second_look else {}
                await self._settle(transaction, claim, _ANSWERED | answered | looked, ending)

    async def _settle_answers(self, ended: Sequence[tuple[Claim, Ending]]) -> list[bool]:
        """Whether each was settled; nobody is waited for while others are held."""
        async with self._store.transaction() as transaction:
            held = await self._lock(transaction, [claim for claim, _ in ended])
            settled = [(*_key_of(claim), claim.started) in held for claim, _ in ended]
            kept = [one for one, is_held in zip(ended, settled, strict=True) if is_held]
            for looked, alike in ((False, _ANSWERED), (True, _ANSWERED | {"recheck_at": None})):
                rows = [_row(*one) for one in kept if one[0].second_look == looked]
                if rows:
                    await update_rows(transaction, _target, rows, alike, by=("connection_id", "url"))
            await write_attempts(transaction, kept)
        return settled

    async def _lock(self, transaction: Transaction, claims: Sequence[Claim]) -> set[tuple[int, str, int]]:
        """Those whose leases are this process's still, and whose rows nobody holds."""
        query = select(_target.c.connection_id, _target.c.url, _target.c.started).where(
            tuple_(_target.c.connection_id, _target.c.url).in_([_key_of(claim) for claim in claims]),
            _target.c.lease_owner == self._owner,
        )
        rows = await transaction.rows(query.with_for_update(skip_locked=True))
        return {tuple(row) for row in rows}

    def _own_lease(self, claim: Claim) -> Update:
        """A change of the claim's row that counts only as long as the lease is this process's."""
        return (
            update(_target)
            .where(_target.c.connection_id == claim.connection_id, _target.c.url == claim.url)
            .where(_target.c.started == claim.started, _target.c.lease_owner == self._owner)
        )


def _good(status: int) -> Literal["answered", "gone"]:
    return "gone" if status in (404, 410) else "answered"


def _key_of(claim: Claim) -> tuple[int, str]:
    return claim.connection_id, claim.url


def _row(claim: Claim, ending: Ending) -> dict[str, Any]:
    return {
        "connection_id": claim.connection_id,
        "url": claim.url,
        "answered": claim.first,
        "last_status": ending.status,
    }

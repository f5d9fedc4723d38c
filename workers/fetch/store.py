"""Targets in the store: marked wanted, claimed with a lease and a share of the API budget, answered or put off."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, false, or_, select, update

from common.broker.topology import queue_name, shard_key
from common.codec import dumps
from common.identity import place_of
from common.ids import new_id
from common.store.engine import Store, Transaction
from common.store.insert import insert
from common.store.parked import Parked, park
from common.store.targets import Wanted, want, want_known
from schemas.messages import PlatformIds, Reason, ResyncWanted, WebhookReceived
from schemas.tables import (
    SYNCAROO_ACCOUNT,
    BudgetRow,
    ConnectionRow,
    GrantRow,
    ListingRow,
    TargetRow,
    table_of,
)
from workers.fetch.rules import Bucket, debit, item_urls, next_resync

LEASE = timedelta(seconds=15)
EXPIRY_MARGIN = timedelta(seconds=5)
RESYNC_BATCH = 20

_target = table_of(TargetRow)
_budget = table_of(BudgetRow)
_grant = table_of(GrantRow)
_connection = table_of(ConnectionRow)
_listing = table_of(ListingRow)


@dataclass(frozen=True)
class Grant:
    """A token pair that is valid now, encrypted."""

    rt_version: int
    sealed_pair: str


@dataclass(frozen=True)
class Claim:
    """A target that this process may ask for; `started` is the number taken right before the first GET."""

    connection_id: int
    url: str
    host: str
    mapping: PlatformIds
    reason: Reason
    delivery_id: str | None
    started: int
    asked: int
    attempts: int
    second_look: bool
    last_status: int | None

    @property
    def answers_webhook(self) -> bool:
        """Whether a webhook waits for it that nothing has answered yet."""
        return self.reason == "webhook" and not self.second_look


class TargetStore:
    """The fetch worker's view of the store."""

    def __init__(self, store: Store, *, rate: float, interval: timedelta) -> None:
        self._store = store
        self._rate = rate
        self._interval = interval
        self._owner = new_id()

    async def mark(self, webhooks: Sequence[WebhookReceived]) -> None:
        """Make the targets of a batch of webhooks wanted, in one transaction."""
        wanted = [Wanted(one.connection_id, one.url, one.mapping, "webhook", one.delivery_id) for one in webhooks]
        async with self._store.transaction() as transaction:
            await want(transaction, wanted)

    async def mark_known(self, resync: ResyncWanted) -> int:
        """Make every known target of a connection wanted; how many there are."""
        async with self._store.transaction() as transaction:
            return await want_known(transaction, resync.connection_id, resync.reason, resync.location_id)

    async def resync_due(self, interval: timedelta) -> list[int]:
        """Plan the next resync of every connection whose time has come, and make its targets wanted.

        A connection that has no plan yet gets one at a random moment of the interval, so that not all come at once.
        Gives the connections that are read again.
        """
        async with self._store.transaction() as transaction:
            now = await transaction.now()
            rows = await transaction.rows(
                select(_connection.c.connection_id, _connection.c.resync_at)
                .where(_connection.c.state == "confirmed")
                .where(or_(_connection.c.resync_at.is_(None), _connection.c.resync_at <= now))
                .order_by(_connection.c.connection_id)
                .limit(RESYNC_BATCH)
                .with_for_update(skip_locked=True)
            )
            for row in rows:
                spread = random.random()  # noqa: S311  # spreads load, guards nothing
                wait = next_resync(interval, spread, first=row.resync_at is None)
                await self._plan(transaction, row.connection_id, now + wait)
            due = [row.connection_id for row in rows if row.resync_at is not None]
            for connection_id in due:
                await want_known(transaction, connection_id, "resync")
            return due

    async def _plan(self, transaction: Transaction, connection_id: int, at: datetime) -> None:
        await transaction.execute(
            update(_connection).where(_connection.c.connection_id == connection_id).values(resync_at=at)
        )

    async def number(self) -> int:
        """A number of the store's sequence."""
        async with self._store.transaction() as transaction:
            return await transaction.number()

    async def anything_due(self) -> bool:
        """Whether a claim may find something; cheap, and waits for no writer."""
        async with self._store.reading() as transaction:
            now = await transaction.now()
            if await _valid_grant(transaction, now) is None:
                return False
            conditions = (_wanted(), _second_look(now))
            return any([await transaction.row(_due(now, which).limit(1)) for which in conditions])

    async def claim(self, limit: int) -> tuple[list[Claim], Grant | None]:
        """Lease up to `limit` due targets, as many as their hosts' budgets allow; none without a valid token."""
        async with self._store.transaction() as transaction:
            now = await transaction.now()
            grant = await _valid_grant(transaction, now)
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

    async def next_call(self, host: str) -> int | None:
        """A number for one more GET to the host; None when its budget is used up for now."""
        async with self._store.transaction() as transaction:
            now = await transaction.now()
            if await self._debit(transaction, host, 1, now) == 0:
                return None
            return await transaction.number()

    async def newer_grant(self, rt_version: int) -> Grant | None:
        """A valid pair that came after the given version."""
        async with self._store.reading() as transaction:
            grant = await _valid_grant(transaction, await transaction.now())
        return grant if grant is not None and grant.rt_version > rt_version else None

    async def reject_token(self, rt_version: int) -> None:
        """Syncaroo refused the token of this version: nobody uses it any more, and it is to be renewed at once."""
        async with self._store.transaction() as transaction:
            now = await transaction.now()
            await transaction.execute(
                update(_grant)
                .where(_grant.c.account == SYNCAROO_ACCOUNT, _grant.c.state == "active")
                .where(_grant.c.rt_version == rt_version)
                .values(expires_at=now, refresh_at=now)
            )

    async def answered(self, claim: Claim, status: int) -> None:
        """The claim's target was answered by everything up to `started`."""
        async with self._store.transaction() as transaction:
            await self._settle(transaction, claim, _answered(claim, status))

    async def answered_walk(self, claim: Claim, seen_ids: frozenset[str]) -> int:
        """As `answered`, after a complete walk: listings of the collection that were absent are asked themselves.

        Gives their number.
        """
        async with self._store.transaction() as transaction:
            if not await self._settle(transaction, claim, _answered(claim, 200)):
                return 0
            return await self._suspect(transaction, claim, seen_ids)

    async def answered_missing(self, claim: Claim, status: int) -> int:
        """As `answered`, after a 404 on a collection: each of its listings is asked itself. Gives their number."""
        async with self._store.transaction() as transaction:
            if not await self._settle(transaction, claim, _answered(claim, status)):
                return 0
            return await self._suspect(transaction, claim, frozenset())

    async def put_off(
        self, claim: Claim, delay: timedelta, error: str, *, status: int = 0, counts: bool = True
    ) -> None:
        """Try again after the delay; `counts` when it was the target's own failure."""
        async with self._store.transaction() as transaction:
            now = await transaction.now()
            await self._settle(
                transaction,
                claim,
                {
                    "not_before": now + delay,
                    "recheck_at": now + delay if claim.second_look else None,
                    "attempts": claim.attempts + (1 if counts else 0),
                    "last_status": status or None,
                    "last_error": error[:200],
                },
            )

    async def block_host(self, host: str, delay: timedelta) -> None:
        """Nobody calls the host for so long."""
        async with self._store.transaction() as transaction:
            now = await transaction.now()
            await transaction.execute(update(_budget).where(_budget.c.host == host).values(blocked_until=now + delay))

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
            values = _answered(claim, status) | {"recheck_at": None, "last_error": reason}
            if await self._settle(transaction, claim, values):
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
            granted[host] = await self._debit(transaction, host, wish, now)
        kept = []
        for row in rows:
            if granted[row.host] > 0:
                granted[row.host] -= 1
                kept.append(row)
        return kept

    async def _debit(self, transaction: Transaction, host: str, wish: int, now: datetime) -> int:
        fresh = {"host": host, "tokens": max(1.0, self._rate), "refilled_at": now}
        await transaction.execute(insert(transaction, _budget).values(fresh).on_conflict_do_nothing())
        row = await transaction.row(select(_budget).where(_budget.c.host == host).with_for_update())
        assert row is not None
        bucket, granted = debit(Bucket(row.tokens, row.refilled_at, row.blocked_until), now, self._rate, wish)
        await transaction.execute(
            update(_budget).where(_budget.c.host == host).values(tokens=bucket.tokens, refilled_at=bucket.refilled_at)
        )
        return granted

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
        )

    async def _settle(self, transaction: Transaction, claim: Claim, values: dict[str, Any]) -> bool:
        """Write the claim's outcome and give the lease back; False when the lease was lost to somebody else."""
        result = await transaction.execute(
            update(_target)
            .where(_target.c.connection_id == claim.connection_id, _target.c.url == claim.url)
            .where(_target.c.started == claim.started, _target.c.lease_owner == self._owner)
            .values(lease_owner=None, lease_until=None, **values)
        )
        return bool(result.rowcount)

    async def _suspect(self, transaction: Transaction, claim: Claim, seen_ids: frozenset[str]) -> int:
        place = place_of(claim.url)
        rows = await transaction.rows(
            select(_listing.c.item_id, _listing.c.own_url)
            .where(_listing.c.connection_id == claim.connection_id, _listing.c.scope == place.scope)
            .where(_listing.c.deleted == false(), _listing.c.version > 0, _listing.c.began < claim.started)
        )
        absent = [row for row in rows if row.item_id not in seen_ids]
        urls = [row.own_url or item_urls(claim.url, [row.item_id])[0] for row in absent]
        await want(transaction, [Wanted(claim.connection_id, url, PlatformIds(), "resync") for url in urls])
        return len(urls)


def _answered(claim: Claim, status: int) -> dict[str, Any]:
    looked = {"recheck_at": None} if claim.second_look else {}
    return {
        **looked,
        "answered": claim.started,
        "attempts": 0,
        "last_status": status,
        "last_error": None,
    }


def _due(now: datetime, which: ColumnElement[bool]) -> Any:
    revoked = exists().where(_connection.c.connection_id == _target.c.connection_id, _connection.c.state == "revoked")
    return (
        select(_target)
        .where(which, ~revoked)
        .where(or_(_target.c.not_before.is_(None), _target.c.not_before <= now))
        .where(or_(_target.c.lease_until.is_(None), _target.c.lease_until <= now))
        .order_by(_target.c.priority, _target.c.wanted)
    )


def _wanted() -> ColumnElement[bool]:
    return _target.c.wanted > _target.c.answered


def _second_look(now: datetime) -> ColumnElement[bool]:
    return and_(_target.c.recheck_at <= now, _target.c.wanted <= _target.c.answered)


async def _valid_grant(transaction: Transaction, now: datetime) -> Grant | None:
    row = await transaction.row(
        select(_grant.c.rt_version, _grant.c.sealed_pair)
        .where(_grant.c.account == SYNCAROO_ACCOUNT, _grant.c.state == "active")
        .where(_grant.c.expires_at > now + EXPIRY_MARGIN)
    )
    return None if row is None or row.sealed_pair is None else Grant(row.rt_version, row.sealed_pair)
